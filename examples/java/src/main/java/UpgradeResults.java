import static org.apache.kafka.clients.consumer.ConsumerConfig.AUTO_OFFSET_RESET_CONFIG;
import static org.apache.kafka.clients.consumer.ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG;
import static org.apache.kafka.clients.consumer.ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG;
import static org.apache.kafka.clients.consumer.ConsumerConfig.GROUP_ID_CONFIG;
import static org.apache.kafka.clients.consumer.ConsumerConfig.ISOLATION_LEVEL_CONFIG;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import northbridge.SwUpgradeResultNotify;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.cfg.EnumFeature;
import tools.jackson.databind.json.JsonMapper;

@Command(
    name = "UpgradeResults",
    mixinStandardHelpOptions = true,
    showDefaultValues = true,
    description = "Prints each result of a software upgrade once.")
public final class UpgradeResults implements Runnable {
  /** A repeat that arrives after as many other pushes is printed again. */
  private static final int REMEMBERED_IDS = 100_000;

  /** The platform also sends results that it does not document, which are read as null. */
  private static final JsonMapper JSON =
      JsonMapper.builder().enable(EnumFeature.READ_UNKNOWN_ENUM_VALUES_AS_NULL).build();

  @Option(names = "--bootstrap", defaultValue = "localhost:9092", description = "Addresses of Kafka.")
  private String bootstrap;

  @Option(names = "--topic", defaultValue = "iot.upgrade-result", description = "Topic of the results.")
  private String topic;

  @Option(names = "--group", defaultValue = "northbridge-example-upgrade-results", description = "Consumer group.")
  private String group;

  @Option(names = "--count", description = "Ends after as many records instead of following.")
  private Long count;

  private final Set<String> seen =
      Collections.newSetFromMap(
          new LinkedHashMap<>() {
            @Override
            protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
              return size() > REMEMBERED_IDS;
            }
          });

  public static void main(String[] arguments) {
    System.exit(new CommandLine(new UpgradeResults()).execute(arguments));
  }

  @Override
  public void run() {
    var closed = new CountDownLatch(1);
    try (var consumer =
        new KafkaConsumer<>(
            Map.of(
                BOOTSTRAP_SERVERS_CONFIG, bootstrap,
                GROUP_ID_CONFIG, group,
                AUTO_OFFSET_RESET_CONFIG, "earliest",
                // Offsets are committed after their records are handled.
                ENABLE_AUTO_COMMIT_CONFIG, false,
                // `northbridge replay` writes in transactions; the default also reads aborted ones.
                ISOLATION_LEVEL_CONFIG, "read_committed"),
            new StringDeserializer(),
            new ByteArrayDeserializer())) {
      // On SIGINT or SIGTERM the JVM runs this hook, and ends when it returns.
      Runtime.getRuntime().addShutdownHook(new Thread(() -> wakeUp(consumer, closed)));
      consumer.subscribe(List.of(topic));
      consume(consumer);
    } catch (WakeupException stopped) {
      // The hook waits for the end.
    } finally {
      closed.countDown();
    }
  }

  private static void wakeUp(KafkaConsumer<?, ?> consumer, CountDownLatch closed) {
    consumer.wakeup();
    try {
      closed.await();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void consume(KafkaConsumer<String, byte[]> consumer) {
    for (long read = 0; count == null || read < count; ) {
      for (var record : consumer.poll(Duration.ofSeconds(1))) {
        read++;
        // Records that other producers wrote may have no id.
        var id = header(record, "ce_id");
        if (id == null || !seen.contains(id)) {
          handle(record);
          seen.add(id);
        }
      }
      consumer.commitSync();
    }
  }

  /** What does not fit the type is skipped: the platform sends more than it documents. */
  private static void handle(ConsumerRecord<String, byte[]> record) {
    try {
      var push = JSON.readValue(record.value(), SwUpgradeResultNotify.class);
      var result = push.getSwUpgradeResult() == null ? "unknown" : push.getSwUpgradeResult().value();
      System.out.printf(
          "%s: %s, has %s, should have %s%n",
          record.key(), result, push.getCurVersion(), push.getTargetVersion());
    } catch (JacksonException invalid) {
      System.err.printf(
          "%s-%d@%d: %s%n",
          record.topic(), record.partition(), record.offset(), invalid.getOriginalMessage());
    }
  }

  private static String header(ConsumerRecord<?, ?> record, String key) {
    var header = record.headers().lastHeader(key);
    return header == null ? null : new String(header.value(), StandardCharsets.UTF_8);
  }
}
