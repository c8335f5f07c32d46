# Sourced by tests that need a real Apache Kafka: one broker, from the jars that the
# Rust tests use as well (target/kafka-VERSION), which are downloaded if they are missing.
#
# The caller sets `scratch`, an empty directory, and `started`, the processes to stop.

kafka_version=$(sed -n 's/^KAFKA_VERSION=//p' .env)
jars=$(realpath -m "${CARGO_TARGET_DIR:-target}")/kafka-$kafka_version
# One that starts quickly and leaves the processors to others.
java_kafka=(java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*")

# start_kafka: starts the broker, and sets `bootstrap` to its address.
start_kafka() {
  local controller properties=$scratch/server.properties
  kafka_jars
  { read -r bootstrap && read -r controller; } < <(free_addresses)
  cat >"$properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://$bootstrap,CONTROLLER://$controller
log.dirs=$scratch/kafka
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=6
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
  "${java_kafka[@]}" kafka.tools.StorageTool format --cluster-id 4L6g3nShT-eMCtK--X86sw --config "$properties" \
    >"$scratch/format.log" 2>&1 || fail "formatting Kafka's storage: $(cat "$scratch/format.log")"
  : >"$scratch/kafka.log"
  "${java_kafka[@]}" kafka.Kafka "$properties" >"$scratch/kafka.log" 2>&1 &
  started+=($!)
  await 120 'Kafka has started' grep -q 'Kafka Server started' "$scratch/kafka.log"
}

# Under the lock of the Rust tests, and moved into place when complete.
kafka_jars() {
  mkdir -p "$(dirname "$jars")"
  (
    flock 9
    [ ! -d "$jars" ] || exit 0
    kafka_project >"$scratch/pom.xml"
    mvn --quiet --batch-mode --file "$scratch/pom.xml" \
      org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DincludeScope=runtime -DexcludeArtifactIds=slf4j-reload4j,slf4j-log4j12 -DoutputDirectory="$jars.new"
    mv "$jars.new" "$jars"
  ) 9>"$jars.lock"
}

kafka_project() {
  printf '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
  printf '<groupId>northbridge.test</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
  printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>' \
    org.apache.kafka kafka_2.13 "$kafka_version" org.apache.kafka kafka-tools "$kafka_version" org.slf4j slf4j-simple 1.7.36
  printf '</dependencies></project>'
}

# Two addresses that are free at the moment.
free_addresses() {
  python3 - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(f"127.0.0.1:{one.getsockname()[1]}" for one in held), sep="\n")
PY
}
