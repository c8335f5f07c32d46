"""Checks that every pod works in a namespace in which everything is denied that no
network policy allows: with the policies that exist when it runs, it reaches name
servers and Kafka, is scraped, and receives pushes if it is an ingress; the test pod
reaches an ingress.

    default_deny.py <manifest.yaml
"""

import re
import sys

import yaml

from objects import hook_of, pod_of, read


def broker_ports(document):
    """The ports in the settings of a ConfigMap of the chart."""
    settings = yaml.safe_load((document.get("data") or {}).get("northbridge.yaml", "{}"))
    return re.findall(r":(\d+)\b(?!\])", str(settings.get("kafka", {}).get("bootstrap_servers", "")))


documents = read(sys.stdin)
policies = [document for document in documents if document["kind"] == "NetworkPolicy"]
kafka_ports = {int(port) for document in documents for port in broker_ports(document)}
wrong = []


def exists_when(policy, runs):
    """Whether a policy exists when an object of the release or a hook runs."""
    made = hook_of(policy)
    if made is None:
        return runs is None or "install" not in runs[0]
    return runs is not None and made[0] == runs[0] and made[1] < runs[1]


def selects(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()


def ports_of(pod):
    return {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }


def allows(document, runs, direction, protocol, port, peer):
    """Whether some policy that exists when `runs` does lets the pod of `document` talk on
    a port; `peer` are the labels of the other pod, or None if it may be anybody whom the
    values name."""
    labels, names = pod_of(document)["metadata"]["labels"], ports_of(pod_of(document))
    for policy in policies:
        spec = policy["spec"]
        if not exists_when(policy, runs) or not selects(spec["podSelector"], labels):
            continue
        for rule in spec.get(direction.lower(), []):
            peers = rule.get("to" if direction == "Egress" else "from")
            matches = not peers or peer is None or any(
                selects(it["podSelector"], peer) for it in peers if "podSelector" in it
            )
            if matches and any(
                it["protocol"] == protocol and names.get(it["port"], it["port"]) == port
                for it in rule["ports"]
            ):
                return True
    return False


def require(document, runs, direction, protocol, port, peer=None):
    if not allows(document, runs, direction, protocol, port, peer):
        name = f"{document['kind']} {document['metadata']['name']}"
        wrong.append(f"{name}: {direction} {protocol} {port} is denied")


for document in documents:
    pod, runs = pod_of(document), hook_of(document)
    if pod is None:
        continue
    require(document, runs, "Egress", "UDP", 53)
    for port in kafka_ports:
        require(document, runs, "Egress", "TCP", port)
    for port in ports_of(pod).values():
        require(document, runs, "Ingress", "TCP", port)

# The push of the test, from both sides.
for test in [it for it in documents if it["kind"] == "Pod" and "simulate" in it["spec"]["containers"][0]["args"]]:
    ingress = next(it for it in documents if it["metadata"]["name"].endswith("-ingress") and pod_of(it))
    port, runs = ports_of(pod_of(ingress))["push"], hook_of(test)
    require(test, runs, "Egress", "TCP", port, pod_of(ingress)["metadata"]["labels"])
    require(ingress, runs, "Ingress", "TCP", port, test["metadata"]["labels"])

for finding in wrong:
    print(finding, file=sys.stderr)
sys.exit(1 if wrong or not policies or not kafka_ports else 0)
