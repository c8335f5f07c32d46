import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;
import tools.jackson.databind.node.ObjectNode;

/**
 * What `command-status` does, with Kafka Streams and its defaults: the state of every command
 * from its confirmations, exactly once.
 *
 * <p>Arguments: bootstrap servers, prefix of the topics, directory of the states.
 */
public final class CommandStates {
  private static final JsonMapper JSON = new JsonMapper();
  private static final List<String> STATUSES = List.of("sent", "delivered", "executed");

  public static void main(String[] arguments) {
    var prefix = arguments[1];
    var streams = new KafkaStreams(topology(prefix).build(), settings(arguments));
    streams.setStateListener(
        (state, before) -> {
          if (state == State.RUNNING) System.out.println("running");
        });
    Runtime.getRuntime()
        .addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.start();
  }

  private static Properties settings(String[] arguments) {
    var settings = new Properties();
    settings.putAll(
        Map.of(
            StreamsConfig.APPLICATION_ID_CONFIG, arguments[1] + "kafka-streams",
            StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            StreamsConfig.STATE_DIR_CONFIG, Path.of(arguments[2]).toString(),
            StreamsConfig.REPLICATION_FACTOR_CONFIG, 3,
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest"));
    return settings;
  }

  private static StreamsBuilder topology(String prefix) {
    var builder = new StreamsBuilder();
    builder.stream(
            prefix + "command-status", Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .groupByKey(Grouped.with(Serdes.String(), Serdes.ByteArray()))
        .aggregate(
            () -> null,
            CommandStates::merge,
            Materialized.<String, byte[], KeyValueStore<Bytes, byte[]>>as("commands")
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.ByteArray()))
        .toStream()
        .to(prefix + "command-state", Produced.with(Serdes.String(), Serdes.ByteArray()));
    return builder;
  }

  /** The furthest status, and the earliest time of each. */
  private static byte[] merge(String requestId, byte[] push, byte[] before) {
    var confirmation = JSON.readTree(push);
    var header = confirmation.path("header");
    var status = header.path("status").asString("").toLowerCase();
    var state =
        before == null ? JSON.createObjectNode() : (ObjectNode) JSON.readTree(before);
    var known = state.path("status").asString("");
    state.put("requestId", requestId);
    state.put("to", header.path("to").asString(""));
    var from = header.path("from").asString("").split("/");
    if (from.length > 4) state.put("deviceId", from[2]).put("serviceId", from[4]);
    if (STATUSES.indexOf(status) > STATUSES.indexOf(known)) {
      state.put("status", status);
      state.set("body", confirmation.path("body"));
    }
    keepEarliest(state, status + "At", header.path("timestamp"));
    return JSON.writeValueAsBytes(state);
  }

  private static void keepEarliest(ObjectNode state, String name, JsonNode time) {
    var known = state.path(name).asString("");
    if (known.isEmpty() || time.asString("").compareTo(known) < 0) state.set(name, time);
  }
}
