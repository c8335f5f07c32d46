import static org.apache.kafka.streams.StreamsConfig.APPLICATION_ID_CONFIG;
import static org.apache.kafka.streams.StreamsConfig.BOOTSTRAP_SERVERS_CONFIG;
import static org.apache.kafka.streams.StreamsConfig.EXACTLY_ONCE_V2;
import static org.apache.kafka.streams.StreamsConfig.PROCESSING_GUARANTEE_CONFIG;

import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import northbridge.DeviceSoftware;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import tools.jackson.databind.json.JsonMapper;

@Command(
    name = "EnrichedNotifications",
    mixinStandardHelpOptions = true,
    showDefaultValues = true,
    description = "Prints each notification once, with the software of its device.")
public final class EnrichedNotifications implements Callable<Integer> {
  @Option(names = "--bootstrap", defaultValue = "localhost:9092", description = "Addresses of Kafka.")
  private String bootstrap;

  @Option(names = "--prefix", defaultValue = "iot.", description = "Prefix of the topics.")
  private String prefix;

  @Option(names = "--count", description = "Ends after as many records instead of following.")
  private Long count;

  public static void main(String[] arguments) {
    System.exit(new CommandLine(new EnrichedNotifications()).execute(arguments));
  }

  @Override
  public Integer call() throws InterruptedException {
    var ended = new CountDownLatch(1);
    var streams = new KafkaStreams(topology(ended), settings());
    streams.setStateListener(
        (state, before) -> {
          if (state == State.ERROR) ended.countDown();
        });
    // The JVM runs this hook on SIGINT and SIGTERM, as well as on exit.
    Runtime.getRuntime().addShutdownHook(new Thread(() -> close(streams)));
    streams.start();
    ended.await();
    return streams.state() == State.ERROR ? 1 : 0;
  }

  /** By default a client stays in its group, and its successor waits until its session is over. */
  private static void close(KafkaStreams streams) {
    streams.close(
        CloseOptions.timeout(Duration.ofSeconds(10))
            .withGroupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP));
  }

  private Properties settings() {
    var settings = new Properties();
    settings.putAll(
        Map.of(
            APPLICATION_ID_CONFIG, "northbridge-example-enriched-notifications",
            BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            // Also lets all its consumers read committed records only: those of aborted
            // transactions look like states. And an id is remembered exactly if its
            // notification was processed, so no crash makes one count as its own repeat.
            PROCESSING_GUARANTEE_CONFIG, EXACTLY_ONCE_V2,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest"));
    return settings;
  }

  private Topology topology(CountDownLatch ended) {
    var builder = new StreamsBuilder();
    GlobalKTable<String, DeviceSoftware> devices =
        builder.globalTable(
            prefix + "device-software", Consumed.with(Serdes.String(), json(DeviceSoftware.class)));
    var remaining = new AtomicLong(count == null ? Long.MAX_VALUE : count);
    builder.stream(prefix + "notifications", Consumed.with(Serdes.String(), Serdes.String()))
        .peek(
            (key, push) -> {
              if (remaining.decrementAndGet() == 0) ended.countDown();
            })
        .processValues(new DropRepeats.Supplier())
        // The key is the device's id wherever the notification has one.
        .leftJoin(devices, (key, push) -> key, EnrichedNotifications::enrich)
        .foreach((key, line) -> System.out.println(key + " " + line));
    return builder.build();
  }

  private static String enrich(String push, DeviceSoftware device) {
    var version = Optional.ofNullable(device).map(DeviceSoftware::getCurVersion);
    return "with software " + version.orElse("unknown") + ": " + push;
  }

  private static <T> Serde<T> json(Class<T> type) {
    var mapper = new JsonMapper();
    return Serdes.serdeFrom(
        (topic, value) -> mapper.writeValueAsBytes(value),
        (topic, bytes) -> bytes == null ? null : mapper.readValue(bytes, type));
  }
}
