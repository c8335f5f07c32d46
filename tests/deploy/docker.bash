# Sourced by the deployment tests: Docker, the base images and the product's image.
#
# It needs Docker with BuildKit. If no image registry is reachable, STAND_INS names
# a directory with a script images/build, which builds local base images with the
# names that occur in the files it is given. Without STAND_INS, images are pulled.

export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
# The tests themselves override what they need from .env.
unset COMPOSE_PROFILES KAFKA_BROKERS

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=${NORTHBRIDGE_REVISION:-$(git rev-parse HEAD)}
# Of the commit, so that the same commit makes the same image.
created=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
image=northbridge:$version
megabyte=1000000
limit_mb=40

step() { printf '\n== %s\n' "$1"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }

# await SECONDS WHAT COMMAND…: retries the command until it succeeds.
await() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "timed out waiting until $what"
    sleep 1
  done
  echo "$what"
}

# base_images FILE…: builds stand-ins for the images in Dockerfiles and compose files.
base_images() {
  [ -n "${STAND_INS:-}" ] || return 0
  # The distribution's Docker client includes BuildKit.
  export PATH=/usr/bin:$PATH
  local names
  names=$(mktemp)
  base_names "$@" >"$names"
  "$STAND_INS/images/build" "$names"
  rm "$names"
}

# base_names FILE…: the lines of Dockerfiles and compose files that name an image, with
# the defaults of the arguments of a Dockerfile.
base_names() {
  awk '/^ARG [A-Z_]+=/ { split($2, argument, "="); fallback[argument[1]] = argument[2] }
       /^FROM / && match($2, /^\$\{.*\}$/) { $2 = fallback[substr($2, 3, length($2) - 3)] }
       /^FROM |^ *image:/' "$@"
}

# build_image [OPTION…]: builds the image, or what the options say.
build_image() {
  [ "$#" -gt 0 ] || set -- --tag "$image"
  # On machines with stand-ins, only the host's network reaches the package registries.
  docker build ${STAND_INS:+--network host} "$@" \
    --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" \
    --build-arg "CREATED=$created" .
  tidy_engine
}

# Frees space on a Docker engine that serves only these tests: deletes build
# contexts, untagged images and the least recently used build layers. The layers
# that the next run needs, above all that of the dependencies, stay.
#
# BuildKit deletes layers by itself after a build, and a command that meets one just
# then fails with "snapshot not found": space that was not freed fails no test.
tidy_engine() {
  [ -n "${STAND_INS:-}" ] || return 0
  local objects
  for objects in 'builder prune --filter type=source.local' \
    'builder prune --keep-storage 4GB' 'image prune'; do
    # shellcheck disable=SC2086
    docker $objects --force >/dev/null || echo "docker $objects failed: its space was not freed" >&2
  done
}

size_of() { docker image inspect --format '{{.Size}}' "$1"; }

health_of() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
is_healthy() { [ "$(health_of "$1")" = healthy ]; }

show_size() {
  local base bytes own
  base=$(base_names Dockerfile | sed -n 's/^FROM //p' | tail -1)
  bytes=$(size_of "$image")
  own=$((bytes - $(size_of "$base")))
  printf 'size: %s MB, of which northbridge %s MB and %s %s MB\n' \
    "$(megabytes "$bytes")" "$(megabytes "$own")" "$base" "$(megabytes $((bytes - own)))"
  [ "$bytes" -lt $((limit_mb * megabyte)) ] || fail "the image is larger than $limit_mb MB"
  # A stand-in is smaller than the real base image, which has 15 MB.
  [ "$own" -lt $(((limit_mb - 16) * megabyte)) ] || fail "northbridge takes more than its share of $limit_mb MB"
}

megabytes() { awk -v bytes="$1" -v unit="$megabyte" 'BEGIN { printf "%.1f", bytes / unit }'; }
