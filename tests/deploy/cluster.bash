# Sourced by the Kubernetes test: starts a cluster, checks that it can schedule pods,
# and collects diagnostics that explain a failure after the cluster is gone. It must
# not know northbridge.
#
# It needs kubectl, configured for the cluster, and Python 3; start_cluster needs Go
# and STAND_INS.

# start_cluster DIRECTORY: compiles the cluster unless it has been compiled before,
# starts it, and prints the command that exports KUBECONFIG and PATH. Go's caches
# take several gigabytes; they are in the directory meanwhile.
start_cluster() {
  GOCACHE=$1/build GOMODCACHE=$1/modules GOFLAGS="${GOFLAGS:-} -modcacherw" \
    "$STAND_INS/kubernetes/up" | tail -n 1
  rm -rf "$1"
}

# check_nodes: fails at once under memory or disk pressure, and after 30 s if a node
# cannot schedule pods for another reason; a new node is tainted for a moment.
check_nodes() {
  local troubles end=$((SECONDS + 30))
  while troubles=$(node_troubles) && [ -n "$troubles" ]; do
    [[ $troubles != *[Pp]ressure* ]] && [ "$SECONDS" -lt "$end" ] || fail "the cluster cannot schedule pods: $troubles"
    sleep 1
  done
}

# diagnosis NAMESPACE: prints the state of the nodes and of the namespace's pods.
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

# Prints a line for each condition or taint that prevents scheduling or causes
# eviction.
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
        # Other taints, such as that of a control plane, are intentional.
        if taint["key"].startswith("node.kubernetes.io/"):
            print("%s: tainted %s:%s" % (name, taint["key"], taint["effect"]))'
}

# pod_troubles NAMESPACE: prints a line for everything that keeps a pod from being
# ready, except pods that have succeeded.
pod_troubles() {
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
