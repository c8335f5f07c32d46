"""Tests of what the Helm chart renders. HELM names Helm; the working directory is the
repository.
"""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from objects import hook_of, pod_of, read

CHART = Path("deploy/helm/northbridge")
DASHBOARDS = Path("deploy/grafana/dashboards")
# The kinds whose names are shared by all namespaces.
CLUSTER_SCOPED = ("Cluster", "Namespace", "CustomResourceDefinition", "PriorityClass", "PersistentVolume/")
INGRESS, TOPICS, TEST = "Deployment/northbridge-ingress", "Job/northbridge-topics", "Pod/northbridge-test"
STREAMS = ["StatefulSet/northbridge-command-status", "StatefulSet/northbridge-upgrade-result"]


class Rejected(Exception):
    """Helm's reason for not rendering."""


class Release:
    """What Helm renders for some values."""

    def __init__(self, values=None, chart=CHART, only=None):
        command = [os.environ["HELM"], "template", "northbridge", chart, "--namespace", "iot"]
        command += ["--values", "-", *(["--show-only", only] if only else [])]
        ran = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True)
        if ran.returncode != 0:
            raise Rejected(ran.stderr)
        self.text = ran.stdout
        self.objects = {f"{it['kind']}/{it['metadata']['name']}": it for it in read(ran.stdout) if "kind" in it}
        self.pods = {name: pod_of(it) for name, it in self.objects.items() if pod_of(it)}

    def __getitem__(self, name):
        return self.objects[name]

    def spec(self, name):
        """The specification of the pods of an object."""
        return self.pods[name]["spec"]

    def names(self, kind):
        return [name.removeprefix(f"{kind}/") for name in self.objects if name.startswith(f"{kind}/")]


class Accounts(unittest.TestCase):
    def accounts(self, release):
        return {name: spec["spec"].get("serviceAccountName") for name, spec in release.pods.items()}

    def test_the_pods_have_one_and_the_topics_job_one_that_exists_before_it(self):
        release = Release({"serviceAccount": {"annotations": {"role": "push"}}})
        accounts = self.accounts(release)
        self.assertEqual(accounts.pop(TOPICS), "northbridge-topics")
        self.assertEqual(set(accounts.values()), {"northbridge"})
        hook = release["ServiceAccount/northbridge-topics"]["metadata"]["annotations"]
        self.assertEqual((hook["helm.sh/hook"], hook["role"]), ("pre-install,pre-upgrade", "push"))
        self.assertLess(int(hook["helm.sh/hook-weight"]), 0)
        self.assertEqual(release["ServiceAccount/northbridge"]["metadata"]["annotations"], {"role": "push"})

    def test_no_token_is_mounted_unless_the_values_say_so(self):
        for automount in False, True:
            release = Release({"serviceAccount": {"automount": automount}})
            mounted = {pod["spec"]["automountServiceAccountToken"] for pod in release.pods.values()}
            accounts = release.names("ServiceAccount")
            mounted |= {release[f"ServiceAccount/{name}"]["automountServiceAccountToken"] for name in accounts}
            self.assertEqual(mounted, {automount})

    def test_an_existing_one_serves_all_pods(self):
        release = Release({"serviceAccount": {"create": False, "name": "iot"}})
        self.assertEqual(set(self.accounts(release).values()), {"iot"})
        self.assertEqual(release.names("ServiceAccount"), [])
        self.assertEqual(set(self.accounts(Release({"serviceAccount": {"create": False}})).values()), {None})

    def test_without_a_hook_the_job_has_that_of_the_release(self):
        release = Release({"topics": {"hook": False}})
        self.assertEqual(set(self.accounts(release).values()), {"northbridge"})
        self.assertEqual(release.names("ServiceAccount"), ["northbridge"])


class Additions(unittest.TestCase):
    OWN = {
        "labels": {"own": "label"},
        "annotations": {"own": "annotation"},
        "env": [{"name": "OWN", "value": "1"}],
        "volumes": [{"name": "own", "emptyDir": {}}],
        "volumeMounts": [{"name": "own", "mountPath": "/own"}],
        "initContainers": [{"name": "first", "image": "first"}],
        "containers": [{"name": "beside", "image": "beside"}],
    }

    def test_a_component_has_them_and_no_other_does(self):
        for key, name in zip(("ingress", "commandStatus", "upgradeResult"), (INGRESS, *STREAMS)):
            everywhere = {"env": [{"name": "ALL", "value": "1"}], "labels": {"own": "of all"}}
            release = Release({"pod": everywhere, key: {"pod": self.OWN}})
            pod = release.pods[name]
            self.assertEqual(pod["metadata"]["labels"]["own"], "label")
            self.assertEqual(pod["metadata"]["annotations"]["own"], "annotation")
            self.assertEqual(pod["spec"]["initContainers"], self.OWN["initContainers"])
            northbridge, beside = pod["spec"]["containers"]
            self.assertEqual((northbridge["name"], beside["name"]), ("northbridge", "beside"))
            self.assertEqual([it["name"] for it in northbridge["env"]][-2:], ["ALL", "OWN"])
            self.assertIn(self.OWN["volumeMounts"][0], northbridge["volumeMounts"])
            self.assertIn(self.OWN["volumes"][0], pod["spec"]["volumes"])
            own = [other for other, it in release.pods.items() if it["metadata"]["labels"]["own"] == "label"]
            self.assertEqual(own, [name])

    def test_the_topics_job_has_all_but_containers_that_would_not_end(self):
        own = {key: value for key, value in self.OWN.items() if key != "containers"}
        spec = Release({"topics": {"pod": own}}).spec(TOPICS)
        self.assertEqual(spec["initContainers"], self.OWN["initContainers"])
        self.assertIn(self.OWN["volumes"][0], spec["volumes"])
        with self.assertRaisesRegex(Rejected, "containers"):
            Release({"topics": {"pod": self.OWN}})

    def test_what_would_replace_a_part_of_northbridge_is_rejected(self):
        for addition in (
            {"containers": [{"name": "northbridge", "image": "other"}]},
            {"env": [{"name": "NORTHBRIDGE__STREAMS__INSTANCE", "value": "one"}]},
        ):
            with self.assertRaises(Rejected):
                Release({"commandStatus": {"pod": addition}})

    def test_objects_are_templates(self):
        named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}}
        text = json.dumps(named | {"metadata": {"name": "text"}})
        text = "{{ if .Values.tls.secretName }}\n" + text + "\n{{ end }}"
        release = Release({"extraObjects": [named, text], "tls": {"secretName": "push"}})
        self.assertLessEqual({"northbridge-map", "text"}, set(release.names("ConfigMap")))
        self.assertNotIn("text", Release({"extraObjects": [named, text]}).names("ConfigMap"))


class Spool(unittest.TestCase):
    LABELS = {
        "app.kubernetes.io/name": "northbridge",
        "app.kubernetes.io/instance": "northbridge",
        "app.kubernetes.io/component": "ingress",
    }

    def test_it_changes_the_kind_of_the_ingress_and_nothing_that_others_select(self):
        for enabled, kind in (True, "StatefulSet"), (False, "Deployment"):
            release = Release({"ingress": {"spool": {"enabled": enabled}, "autoscaling": {"enabled": True}}})
            name = f"{kind}/northbridge-ingress"
            self.assertEqual(set(release.pods), {name, *STREAMS, TOPICS, TEST})
            selectors = [
                release["Service/northbridge"]["spec"]["selector"],
                release["PodDisruptionBudget/northbridge-ingress"]["spec"]["selector"]["matchLabels"],
                release[name]["spec"]["selector"]["matchLabels"],
            ]
            self.assertEqual(selectors, [self.LABELS] * 3)
            self.assertLessEqual(self.LABELS.items(), release.pods[name]["metadata"]["labels"].items())
            target = release["HorizontalPodAutoscaler/northbridge-ingress"]["spec"]["scaleTargetRef"]
            self.assertEqual(target, {"apiVersion": "apps/v1", "kind": kind, "name": "northbridge-ingress"})
            self.assertNotIn("replicas", release[name]["spec"])

    def test_volumes_are_never_deleted(self):
        release = Release({"ingress": {"spool": {"enabled": True}}})
        policy = release["StatefulSet/northbridge-ingress"]["spec"]["persistentVolumeClaimRetentionPolicy"]
        self.assertEqual(policy, {"whenDeleted": "Retain", "whenScaled": "Retain"})

    def drained(self, numbers, **values):
        values.setdefault("ingress", {}).setdefault("spool", {})["drain"] = numbers
        return Release(values, only="templates/spool-drain.yaml")

    def test_a_job_delivers_what_a_volume_still_holds_and_then_shows_it(self):
        release = self.drained([2, 7], ingress={"pod": Additions.OWN})
        claims = []
        for pod in release.pods.values():
            drain, status = pod["spec"]["initContainers"] + pod["spec"]["containers"]
            self.assertEqual((drain["args"][:2], status["args"][:2]), (["spool", "drain"], ["spool", "status"]))
            for container in drain, status:
                self.assertIn("spool.directory=/var/lib/northbridge/spool", container["args"])
                self.assertIn({"name": "spool", "mountPath": "/var/lib/northbridge"}, container["volumeMounts"])
                self.assertIn(Additions.OWN["volumeMounts"][0], container["volumeMounts"])
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            claims.append(volumes["spool"]["persistentVolumeClaim"]["claimName"])
            # The Service must not send pushes to it.
            self.assertEqual(pod["metadata"]["labels"]["app.kubernetes.io/component"], "spool-drain")
            self.assertNotIn("own", pod["metadata"]["labels"])
        self.assertEqual(claims, ["spool-northbridge-ingress-2", "spool-northbridge-ingress-7"])

    def test_the_mount_is_that_of_the_ingress(self):
        spec = Release({"ingress": {"spool": {"enabled": True}}}).spec("StatefulSet/northbridge-ingress")
        container = spec["containers"][0]
        self.assertIn("spool.directory=/var/lib/northbridge/spool", container["args"])
        self.assertIn({"name": "spool", "mountPath": "/var/lib/northbridge"}, container["volumeMounts"])

    def test_a_changed_pod_is_another_job(self):
        jobs = [self.drained([2], image={"tag": tag}).names("Job") for tag in ("1", "1", "2")]
        self.assertEqual(jobs[0], jobs[1])
        self.assertNotEqual(jobs[1], jobs[2])
        self.assertLessEqual(len(self.drained([99], fullnameOverride="n" * 60).names("Job")[0]), 63)

    def test_the_volume_of_a_pod_that_exists_is_rejected(self):
        autoscaled = {"enabled": True, "minReplicas": 4}
        for number, ingress in (1, {}), (3, {"autoscaling": autoscaled}):
            ingress |= {"spool": {"enabled": True, "drain": [number]}}
            with self.assertRaisesRegex(Rejected, f"northbridge-ingress-{number} uses that volume"):
                Release({"ingress": ingress})
        # Switched off, no pod of the ingress has a volume.
        self.drained([0])


class Edges(unittest.TestCase):
    CERTIFICATE = {"enabled": True, "issuerRef": {"name": "ca"}, "dnsNames": ["push.example.com"]}
    ROUTE = {"enabled": True, "parentRefs": [{"name": "public"}]}

    def test_the_ingress_mounts_the_secret_that_cert_manager_writes(self):
        for name, secret in ("", "northbridge-tls"), ("push", "push"):
            release = Release({"tls": {"secretName": name, "certificate": self.CERTIFICATE}})
            self.assertEqual(release["Certificate/northbridge"]["spec"]["secretName"], secret)
            volumes = {volume["name"]: volume for volume in release.spec(INGRESS)["volumes"]}
            self.assertEqual(volumes["tls"]["secret"]["secretName"], secret)
            settings = release["ConfigMap/northbridge"]["data"]["northbridge.yaml"]
            self.assertIn("certificate_file: /etc/northbridge/tls/tls.crt", settings)
            self.assertEqual(release["Service/northbridge"]["spec"]["ports"][0]["appProtocol"], "https")
        self.assertEqual(Release({"tls": {"secretName": "push"}}).names("Certificate"), [])

    def test_a_certificate_needs_an_issuer_and_a_name(self):
        for lacking in "issuerRef", "dnsNames":
            certificate = {key: value for key, value in self.CERTIFICATE.items() if key != lacking}
            with self.assertRaisesRegex(Rejected, "certificate"):
                Release({"tls": {"certificate": certificate}})

    def test_a_route_waits_for_longer_than_the_platform(self):
        def timeouts(**route):
            release = Release({"ingress": {"httpRoute": self.ROUTE | route}})
            return release["HTTPRoute/northbridge"]["spec"]["rules"][0].get("timeouts")

        self.assertEqual(timeouts(), {"request": "20s"})
        self.assertEqual(timeouts(timeoutSeconds=None), None)
        with self.assertRaisesRegex(Rejected, "timeoutSeconds"):
            timeouts(timeoutSeconds=15)

    def test_ipv6(self):
        values = {
            "config": {
                "kafka": {"bootstrap_servers": ["[2001:db8::1]:9092", "broker:9094"]},
                "http": {"listen": "[::]:8443"},
                "admin": {"listen": "[::]:8444"},
            },
            "ingress": {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}},
            "commandStatus": {"keda": {"enabled": True}},
        }
        release = Release(values)
        ports = [port["containerPort"] for port in release.spec(INGRESS)["containers"][0]["ports"]]
        self.assertEqual(ports, [8443, 8444])
        egress = release["NetworkPolicy/northbridge"]["spec"]["egress"][1]["ports"]
        self.assertEqual([it["port"] for it in egress], [9092, 9094])
        trigger = release["ScaledObject/northbridge-command-status"]["spec"]["triggers"][0]["metadata"]
        self.assertEqual(trigger["bootstrapServers"], "[2001:db8::1]:9092,broker:9094")
        self.assertEqual(release["Service/northbridge"]["spec"]["ipFamilies"], ["IPv6"])
        with self.assertRaisesRegex(Rejected, "ipFamilies"):
            Release({"ingress": {"service": {"ipFamilies": ["IPv5"]}}})

    def test_pods_may_reach_the_collector_of_traces(self):
        ports = {
            "http://collector:4318": 4318,
            "http://[2001:db8::1]:4319/otlp": 4319,
            "http://collector/a:1": 80,
            "https://otlp.example": 443,
        }
        for endpoint, port in ports.items():
            release = Release({"config": {"telemetry": {"otlp_endpoint": endpoint}}})
            egress = release["NetworkPolicy/northbridge"]["spec"]["egress"]
            self.assertEqual([it["port"] for it in egress[2]["ports"]], [port], endpoint)
        self.assertEqual(len(Release()["NetworkPolicy/northbridge"]["spec"]["egress"]), 2)

    def test_dashboards_are_the_files_of_deploy_grafana(self):
        values = {"enabled": True, "label": "boards", "labelValue": "yes"}
        release = Release({"monitoring": {"dashboards": values}})
        boards = sorted(DASHBOARDS.glob("*.json"))
        names = [f"northbridge-dashboard-{board.stem}" for board in boards]
        self.assertEqual([name for name in release.names("ConfigMap") if "dashboard" in name], names)
        for board in boards:
            found = release[f"ConfigMap/northbridge-dashboard-{board.stem}"]
            self.assertEqual(found["data"], {f"northbridge-{board.name}": board.read_text()})
            self.assertEqual(found["metadata"]["labels"]["boards"], "yes")
        self.assertNotIn("dashboard", Release().text)


class HelmTest(unittest.TestCase):
    def arguments(self, **values):
        return Release(values).spec(TEST)["containers"][0]["args"]

    def test_it_pushes_through_the_service_with_the_credentials_of_the_listener(self):
        secret = {"secretName": "push", "key": "token"}
        token = {"auth.token": secret}
        for values, url in (
            ({}, "http://northbridge:8080/notifications"),
            ({"ingress": {"service": {"port": 80}}}, "http://northbridge:80/notifications"),
            ({"config": {"http": {"paths": ["/a", "/b"]}}}, "http://northbridge:8080/a"),
            ({"secrets": token}, "http://northbridge:8080/notifications?token=$(TOKEN)"),
            ({"secrets": token, "config": {"http": {"paths": ["/{token}"]}}}, "http://northbridge:8080/$(TOKEN)"),
            ({"tls": {"secretName": "push"}}, "https://northbridge:8080/notifications"),
        ):
            arguments = self.arguments(**values)
            self.assertEqual(arguments[:3], ["simulate", url, "--require-200"])
            self.assertEqual("--insecure" in arguments, url.startswith("https"))
        basic = {"auth.basic.username": secret, "auth.basic.password": secret}
        self.assertIn("$(USERNAME)", self.arguments(secrets=basic))

    def test_the_variables_come_from_the_secrets(self):
        def variables(**secrets):
            env = Release({"secrets": secrets}).spec(TEST)["containers"][0]["env"]
            return {it["name"]: it["valueFrom"]["secretKeyRef"] for it in env if "valueFrom" in it}

        existing = variables(**{"auth.token": {"secretName": "push", "key": "token"}})
        self.assertEqual(existing, {"TOKEN": {"name": "push", "key": "token"}})
        own = variables(**{"auth.token": {"value": "secret"}})
        self.assertEqual(own, {"TOKEN": {"name": "northbridge", "key": "auth.token"}})

    def test_it_verifies_the_topics_if_pods_may_not_push(self):
        for values in (
            {"tls": {"secretName": "push", "clientCertificates": True}},
            {"config": {"auth": {"allowed_addresses": ["192.0.2.0/24"]}}},
            {"config": {"auth": {"client_address": "proxy-protocol", "trusted_proxies": ["192.0.2.1"]}}},
        ):
            self.assertEqual(self.arguments(**values)[:2], ["topics", "verify"])

    def test_it_tries_again_for_a_while_with_the_same_address(self):
        spec = Release({}).spec(TEST)
        self.assertEqual((spec["restartPolicy"], spec["activeDeadlineSeconds"]), ("OnFailure", 120))

    def test_it_leaves_nothing_and_can_be_switched_off(self):
        release = Release()
        hooks = [it for it in release.objects.values() if (hook_of(it) or [""])[0] == "test"]
        self.assertEqual(len(hooks), 3)
        for hook in hooks:
            policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
            self.assertEqual(policy, "before-hook-creation,hook-succeeded")
        self.assertNotIn("hook: test", Release({"test": {"enabled": False}}).text)


class Releases(unittest.TestCase):
    def test_without_a_hook_other_settings_are_another_topics_job(self):
        def job(**values):
            return Release({"topics": {"hook": False}} | values).names("Job")

        changes = {"config": {"topics": {"partitions": 9}}}, {"image": {"tag": "2"}}, {"pod": {"labels": {"a": "b"}}}
        for change in changes:
            self.assertNotEqual(job(), job(**change))
        self.assertEqual(job(), job(ingress={"replicas": 3}))

    def notes(self, **values):
        """The notes, which Helm shows only with a cluster, as a template."""
        with tempfile.TemporaryDirectory() as directory:
            copy = shutil.copytree(CHART, Path(directory, "northbridge"))
            notes = (copy / "templates/NOTES.txt").read_text()
            define = '{{- define "notes" -}}' + notes + '{{- end -}}\nnotes: {{ include "notes" . | toJson }}\n'
            (copy / "templates/notes.yaml").write_text(define)
            return Release(values, copy, "templates/notes.yaml").text

    def test_no_object_is_shared_by_all_namespaces(self):
        [values] = read(Path("tests/deploy/manifests/values/everything.yaml").read_text())
        shared = [name for name in Release(values).objects if name.startswith(CLUSTER_SCOPED)]
        self.assertEqual(shared, [])

    def test_the_notes_name_what_must_differ_on_one_kafka(self):
        self.assertIn(r'contain \"iot.\"', self.notes())
        self.assertIn(r'contain \"plant.\"', self.notes(config={"topics": {"prefix": "plant."}}))

    def test_the_notes_name_the_kind_of_the_ingress(self):
        self.assertIn("status deployment/northbridge-ingress", self.notes())
        self.assertIn("status statefulset/northbridge-ingress", self.notes(ingress={"spool": {"enabled": True}}))

    def test_the_notes_warn_about_a_listener_without_protection(self):
        kafka = {"kafka.options.sasl.password": {"value": "secret"}}
        for values in {}, {"tls": {"secretName": "push"}}, {"secrets": kafka}:
            self.assertIn("is not protected", self.notes(**values))
        self.assertNotIn("is not protected", self.notes(secrets={"auth.token": {"value": "secret"}}))

    def test_another_chart_may_contain_it(self):
        with tempfile.TemporaryDirectory() as directory:
            shutil.copytree(CHART, Path(directory, "charts/northbridge"))
            dependency = {"name": "northbridge", "version": "*", "condition": "northbridge.enabled"}
            parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
            Path(directory, "Chart.yaml").write_text(json.dumps(parent))

            def part(**values):
                return Release({"global": {"region": "eu"}, "northbridge": values}, directory)

            self.assertIn(INGRESS, part(enabled=True).objects)
            self.assertEqual(part(enabled=False).objects, {})
            with self.assertRaisesRegex(Rejected, "enabled"):
                part(enabled="maybe")


if __name__ == "__main__":
    unittest.main()
