# Sourced by the test of networks: enforces network policies on a node that is this
# machine, as that of STAND_INS is. It must not know northbridge.
#
# It needs kubectl, configured for the cluster, and root; Go, which builds kube-router;
# iptables, and ipset, which is installed if it is missing.

enforcement_pid='' tables='' sets=''

# start_enforcement DIRECTORY: its log is in DIRECTORY/kube-router.log.
start_enforcement() {
  local node address program family
  command -v ipset >/dev/null || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends ipset >/dev/null
  }
  node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
  address=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  case $address in
    *:*) tables=ip6tables sets=inet6: family=(--enable-ipv4=false --enable-ipv6=true --service-cluster-ip-range ::/128) ;;
    *) tables=iptables sets='' family=(--enable-ipv4=true --enable-ipv6=false --service-cluster-ip-range 0.0.0.0/32) ;;
  esac
  # Packets between pods of one node cross a bridge, which iptables does not filter
  # otherwise.
  sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
  program=$(tests/deploy/kube-router)
  wrap_restore "$1/kube-router"
  PATH=$1/kube-router:$PATH "$program" --kubeconfig "$KUBECONFIG" --hostname-override "$node" --health-port 0 \
    --run-firewall=true --run-router=false --run-service-proxy=false --enable-cni=false "${family[@]}" \
    >"$1/kube-router.log" 2>&1 </dev/null &
  enforcement_pid=$!
  # It writes back whole tables, so wait until it has done so for the first time.
  await 60 'the node enforces policies' has_rules
  deny_unknown_pods "$(ip -oneline address | awk -v address="$address" '{ split($4, parts, "/") } parts[1] == address { print $2 }')"
  [ "$tables" = iptables ] || allow_neighbor_discovery
}

has_rules() { "$tables" --wait --list-rules KUBE-ROUTER-OUTPUT 2>/dev/null | grep -q 'comply to network policies'; }

# wrap_restore DIRECTORY: writes a command there that kube-router runs to apply its rules,
# and that adds two things:
# - kube-router 2.1 names its IPv6 sets inet6:KUBE-…, but not in its rules.
# - The pods that the rules know are in a set, for deny_unknown_pods.
wrap_restore() {
  local family=inet
  [ "$tables" = iptables ] || family=inet6
  mkdir -p "$1"
  cat >"$1/$tables-restore" <<SCRIPT
#!/bin/sh
set -e
rules=\$(sed 's/--match-set KUBE-/--match-set ${sets}KUBE-/g')
printf '%s\n' "\$rules" | $(command -v "$tables-restore") "\$@"
{
  echo 'create -exist ${sets}NODE-PODS hash:ip family $family'
  echo 'create -exist ${sets}NODE-PODS-NEW hash:ip family $family'
  echo 'flush ${sets}NODE-PODS-NEW'
  printf '%s\n' "\$rules" | sed -nE 's/^-A KUBE-ROUTER-FORWARD (.* )?-s ([^ /]+).*/add -exist ${sets}NODE-PODS-NEW \2/p'
  echo 'swap ${sets}NODE-PODS-NEW ${sets}NODE-PODS'
  echo 'destroy ${sets}NODE-PODS-NEW'
} | ipset restore
SCRIPT
  chmod +x "$1/$tables-restore"
}

# deny_unknown_pods BRIDGE: kube-router lets a new pod do everything until it knows its
# address; what a pod does first, as that of a Job, would be tested by chance.
deny_unknown_pods() {
  "$tables" --wait --insert KUBE-ROUTER-FORWARD --in-interface "$1" --match physdev --physdev-is-bridged \
    --match set ! --match-set "${sets}NODE-PODS" src --jump REJECT
}

# Without it no pod finds the link address of another, or of the node; kube-router 2.1
# does not exempt it from the policies.
allow_neighbor_discovery() {
  local chain type
  for chain in INPUT FORWARD OUTPUT; do
    for type in neighbour-solicitation neighbour-advertisement; do
      ip6tables --wait --insert "KUBE-ROUTER-$chain" --protocol icmpv6 --icmpv6-type "$type" --jump ACCEPT
    done
  done
}

# check_enforcement DIRECTORY: fails if some policies never took effect.
check_enforcement() {
  kill -0 "$enforcement_pid" || fail 'kube-router ended'
  ! grep -E '^E.*Aborting sync' "$1/kube-router.log" || fail 'kube-router could not apply the policies'
}

# Ends it, and deletes its rules and sets.
stop_enforcement() {
  local set
  [ -n "$enforcement_pid" ] || return 0
  kill "$enforcement_pid" 2>/dev/null || true
  wait "$enforcement_pid" 2>/dev/null || true
  "$tables-save" --table filter | grep -vE 'KUBE-(ROUTER|NWPLCY|POD-FW)' | "$tables-restore" --wait --table filter || true
  for set in $(ipset list --name | grep -E '^(inet6:)?(KUBE-(SRC|DST)-|NODE-PODS)'); do ipset destroy "$set" || true; done
}
