# Sourced by the test on Kubernetes: whether a cluster takes pods, and what tells
# the cause of a failure once the cluster is gone. Knows nothing of northbridge.
#
# Needs kubectl as configured for the cluster, and Python 3.

# fit_nodes: fails at once where a disk or a memory is full, and soon where a node
# takes no pods for another reason: a new one is tainted for a moment.
fit_nodes() {
  local troubles end=$((SECONDS + 30))
  while troubles=$(node_troubles) && [ -n "$troubles" ]; do
    [[ $troubles != *[Pp]ressure* ]] && [ "$SECONDS" -lt "$end" ] || fail "the cluster takes no pods: $troubles"
    sleep 1
  done
}

# diagnosis NAMESPACE: what can be said of the nodes and of the namespace's pods.
diagnosis() {
  printf '\n== nodes\n'
  node_troubles
  kubectl describe nodes | sed -nE '/^Name:/p; /^Taints:/,/^Unschedulable:/p; /^Conditions:/,/^Addresses:/{/^Addresses:/d; p}'
  kubectl get events --all-namespaces --field-selector involvedObject.kind=Node | tail -n 8
  printf '\n== pods\n'
  kubectl --namespace "$1" get pods -o wide
  pod_troubles "$1"
  printf '\n== the last events\n'
  kubectl --namespace "$1" events | tail -n 20
  local pod
  for pod in $(pod_troubles "$1" | cut -d: -f1 | sort -u); do
    printf '\n== the end of the log of %s\n' "$pod"
    kubectl --namespace "$1" logs "$pod" --all-containers --tail 15
    kubectl --namespace "$1" logs "$pod" --all-containers --tail 15 --previous 2>/dev/null |
      sed 's/^/before its restart: /'
  done
}

# A line for everything that keeps a node from taking pods, or is about to drive
# them out.
node_troubles() {
  kubectl get nodes -o json | python3 -c '
import json, sys
for node in json.load(sys.stdin)["items"]:
    name = node["metadata"]["name"]
    for condition in node["status"]["conditions"]:
        kind, state = condition["type"], condition["status"]
        if (state == "True") != (kind == "Ready"):
            print("%s: %s is %s, %s" % (name, kind, state, condition.get("message")))
    for taint in node["spec"].get("taints", []):
        # Others, such as that of a control plane, are meant.
        if taint["key"].startswith("node.kubernetes.io/"):
            print("%s: tainted %s:%s" % (name, taint["key"], taint["effect"]))'
}

# A line for everything that keeps a pod from being ready; a pod that ended well
# is none.
pod_troubles() { # namespace
  kubectl --namespace "$1" get pods -o json | python3 -c '
import json, sys
for pod in json.load(sys.stdin)["items"]:
    name, status = pod["metadata"]["name"], pod["status"]
    conditions = {it["type"]: it for it in status.get("conditions", [])}
    if status["phase"] == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        continue
    print("%s: %s %s" % (name, status["phase"], status.get("reason", "")))
    for kind, it in conditions.items():
        if it["status"] != "True":
            print("%s: not %s: %s %s" % (name, kind, it.get("reason", ""), it.get("message", "")))
    for container in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        for when in "state", "lastState":
            for state, it in container.get(when, {}).items():
                if state != "running":
                    shown = " ".join(str(it[key]) for key in ("reason", "exitCode", "message") if key in it)
                    print("%s: %s of %s: %s %s" % (name, when, container["name"], state, shown))'
}
