import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Set;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorSupplier;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Drops a push whose {@code ce_id} another one had within an hour.
 *
 * <p>A state store remembers the ids, so restarts and rebalances forget none of them. Repeats of a
 * push are in one partition, and so in one store.
 */
final class DropRepeats extends ContextualFixedKeyProcessor<String, String, String> {
  private static final Duration WINDOW = Duration.ofHours(1);
  private static final String STORE = "seen";

  private WindowStore<String, Boolean> seen;

  @Override
  public void init(FixedKeyProcessorContext<String, String> context) {
    super.init(context);
    seen = context.getStateStore(STORE);
  }

  @Override
  public void process(FixedKeyRecord<String, String> push) {
    var id = push.headers().lastHeader("ce_id");
    // Records that other producers wrote may have no id.
    if (id == null || isNew(new String(id.value(), StandardCharsets.UTF_8), push.timestamp())) {
      context().forward(push);
    }
  }

  private boolean isNew(String id, long timestamp) {
    var at = Instant.ofEpochMilli(timestamp);
    try (var before = seen.fetch(id, at.minus(WINDOW), at.plus(WINDOW))) {
      if (before.hasNext()) return false;
    }
    seen.put(id, true, timestamp);
    return true;
  }

  static final class Supplier implements FixedKeyProcessorSupplier<String, String, String> {
    @Override
    public FixedKeyProcessor<String, String, String> get() {
      return new DropRepeats();
    }

    @Override
    public Set<StoreBuilder<?>> stores() {
      var store = Stores.persistentWindowStore(STORE, WINDOW.multipliedBy(2), WINDOW, false);
      return Set.of(Stores.windowStoreBuilder(store, Serdes.String(), Serdes.Boolean()));
    }
  }
}
