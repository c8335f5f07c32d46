# Sourced by the tests of the deployment: Docker, its base images, and ours.
#
# Needs Docker with BuildKit. Where no image registry answers, STAND_INS names a
# directory with a script images/build, which makes local base images under the
# names in the files that it is given; without it, images are pulled as usual.

export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
# Tests say themselves what differs from .env.
unset COMPOSE_PROFILES KAFKA_BROKERS

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=${NORTHBRIDGE_REVISION:-$(git rev-parse HEAD)}
image=northbridge:$version
megabyte=1000000
limit_mb=40

step() { printf '\n== %s\n' "$1"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }

# await SECONDS WHAT COMMAND…: until the command succeeds.
await() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "$what: not in time"
    sleep 1
  done
  echo "$what"
}

# base_images FILE…: what the Dockerfile and the compose files name.
base_images() {
  [ -n "${STAND_INS:-}" ] || return 0
  # The engine's own client has BuildKit built in.
  export PATH=/usr/bin:$PATH
  "$STAND_INS/images/build" "$@"
}

build_image() {
  # Stand-ins are for machines whose registries may be reached by the host alone.
  docker build ${STAND_INS:+--network host} --tag "$image" \
    --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" .
  tidy_engine
}

# Where the engine was made for these tests: the sources of stand-ins, images
# that lost their name, and layers of the build that were used longest ago. What
# the next run uses, the dependencies' layer above all, stays.
tidy_engine() {
  [ -n "${STAND_INS:-}" ] || return 0
  docker builder prune --force --filter type=source.local >/dev/null
  docker builder prune --force --keep-storage 4GB >/dev/null
  docker image prune --force >/dev/null
}

size_of() { docker image inspect --format '{{.Size}}' "$1"; }

health_of() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
is_healthy() { [ "$(health_of "$1")" = healthy ]; }

show_size() {
  local base bytes own
  base=$(sed -n 's/^FROM \(.*\)/\1/p' Dockerfile | tail -1)
  bytes=$(size_of "$image")
  own=$((bytes - $(size_of "$base")))
  printf 'size: %s MB, of which northbridge %s MB and %s %s MB\n' \
    "$(megabytes "$bytes")" "$(megabytes "$own")" "$base" "$(megabytes $((bytes - own)))"
  [ "$bytes" -lt $((limit_mb * megabyte)) ] || fail "the image has more than $limit_mb MB"
  # A stand-in is not as large as the base it stands for, which has 15 MB.
  [ "$own" -lt $(((limit_mb - 16) * megabyte)) ] || fail "northbridge has more than its share of $limit_mb MB"
}

megabytes() { awk -v bytes="$1" -v unit="$megabyte" 'BEGIN { printf "%.1f", bytes / unit }'; }
