# Sourced by the tests that install northbridge on a real cluster: opens the cluster with
# the image, pushes to an installation and verifies, and explains a failure before the
# cluster is gone.
#
# The caller sets `out`, the directory for results, and `log`, the file that receives
# the output of commands; and traps EXIT with `finish $?`. It needs docker.bash and
# cluster.bash.

kafka_image=$(sed -nE 's/^ +image: (.*)/\1/p' deploy/kubernetes/kafka.yaml)
cluster_is_up='' namespaces=()
export KUBERNETES_RUN=${KUBERNETES_RUN:-${TMPDIR:-/tmp}/northbridge-kubernetes}

say() { printf -- '-- %s (%ss)\n' "$1" "$SECONDS"; }

# Builds the image and Helm, starts the cluster of STAND_INS if there is one, and hands
# the images to it.
open_cluster() {
  local cluster
  rm -rf "$out" && mkdir -p "$out/bin"
  say 'the image and the cluster'
  ln -s "$(tests/deploy/helm)" "$out/bin/helm"
  export PATH=$out/bin:$PATH
  helm version --short
  base_images Dockerfile deploy/kubernetes/kafka.yaml
  build_image
  if [ -n "${STAND_INS:-}" ]; then
    cluster=$(start_cluster "$out/go")
    eval "$cluster"
  fi
  # A copy, because the tests set a namespace in the configuration.
  kubectl config view --raw >"$out/kubeconfig" && chmod 600 "$out/kubeconfig"
  export KUBECONFIG=$out/kubeconfig
  kubectl version | tail -n 1
  cluster_is_up=yes
  check_nodes
  if [ -n "${STAND_INS:-}" ]; then
    "$STAND_INS/kubernetes/load" "$image" "$kafka_image" >>"$log"
    # The images may have filled the disk.
    check_nodes
  fi
}

# own_namespaces NAME…: these must not exist yet, and are deleted at the end.
own_namespaces() {
  local name
  for name in "$@"; do
    ! kubectl get namespace "$name" >/dev/null 2>&1 || fail "the namespace $name exists already"
  done
  namespaces=("$@")
}

# finish CODE: explains a failure, and takes everything down.
finish() {
  local code=$1
  trap - EXIT
  if [ "$code" != 0 ]; then
    tail -n 30 "$log" >&2 || true
    [ -z "$cluster_is_up" ] || state_of_the_cluster || true
    [ -z "${STAND_INS:-}" ] || ends_of_logs >&2 || true
  fi
  [ "${#namespaces[@]}" = 0 ] || kubectl delete namespace "${namespaces[@]}" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  [ -z "${STAND_INS:-}" ] || "$STAND_INS/kubernetes/down" || true
  rm -rf "$out/go"
  exit "$code"
}

# Prints a summary, for CI logs that outlive the machine; writes details to files.
state_of_the_cluster() {
  local namespace pod
  for namespace in "${namespaces[@]:-default}"; do
    diagnosis "$namespace" 2>&1 | tee -a "$out/diagnosis" >&2
    { kubectl --namespace "$namespace" get all,events -o wide
      kubectl --namespace "$namespace" describe nodes,pods; } >>"$out/state" 2>&1
    mkdir -p "$out/$namespace"
    for pod in $(kubectl --namespace "$namespace" get pods -o name 2>/dev/null); do
      kubectl --namespace "$namespace" logs "$pod" --all-containers --tail 200 >"$out/$namespace/${pod##*/}.log" 2>&1
    done
  done
  echo "the full state of the cluster is in $out" >&2
}
# The cluster's own processes and the disk may be the cause of a failure.
ends_of_logs() {
  local part
  printf '\n== the disk\n'
  df -h "$out"
  for part in kubelet containerd; do
    printf '\n== the end of the log of %s\n' "$part"
    tail -n 10 "$KUBERNETES_RUN/$part.log" | cut -c -400
  done
}

# simulation NAME ARGUMENTS: prints the Job of simulate.yaml with another name and
# other arguments, the items of a YAML list.
simulation() { sed -e "s|name: simulate\$|name: $1|" -e "s|args: .*|args: [simulate, $2]|" deploy/kubernetes/simulate.yaml; }
simulate() { simulation "$@" | kubectl apply -f - >>"$log"; }

# started NAME…: waits until the pods of such Jobs run.
started() { await 300 "   $* started" all_are_active "$@"; }
all_are_active() {
  [ "$(kubectl get jobs -o json | python3 -c '
import json, sys
print(sum(job["status"].get("ready", 0) for job in json.load(sys.stdin)["items"] if job["metadata"]["name"] in sys.argv[1:]))' "$@")" = $# ]
}

# verified NAME: waits for such a Job; every answer must be 200 and the
# verification must hold.
verified() {
  local state outcome
  while state=$(kubectl get job "$1" -o jsonpath='{.status.succeeded}/{.status.failed}') && [ "$state" = / ]; do sleep 1; done
  # Its log lines are JSON too, each on one line.
  outcome=$(kubectl logs "job/$1" 2>>"$log" | sed -n '/^{$/,$p')
  printf '%s\n' "$outcome" >"$out/$1.json"
  python3 - "$out/$1.json" <<'PY'
import json, sys
outcome = json.load(open(sys.argv[1]))
latency, answers = outcome["latencyMs"], outcome["answers"]
print(f"   answers {answers}, p50 {latency['p50']} ms, p99 {latency['p99']} ms, longest {latency['max']} ms")
if list(answers) != ["200"]:
    sys.exit("FAILED: answers other than 200")
for part in "verification", "states":
    if part in outcome:
        print("  ", part, {name: value for name, value in outcome[part].items() if name != "faults"})
        if not outcome[part]["holds"]:
            sys.exit(f"FAILED: the verification found faults: {outcome[part]['faults']}")
PY
  [ "$state" = 1/ ] || fail 'simulate did not exit with 0'
}

# rolled WORKLOAD [OPTION…]
rolled() { kubectl rollout status "$@" --timeout 4m >>"$log"; }
# all_rolled [OPTION…]
all_rolled() {
  rolled deployment/northbridge-ingress "$@"
  rolled statefulset/northbridge-command-status "$@"
  rolled statefulset/northbridge-upgrade-result "$@"
}
