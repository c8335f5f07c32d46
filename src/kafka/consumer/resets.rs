//! Which partitions librdkafka continued at another offset, because the next one
//! was gone. librdkafka only logs it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::config::RDKafkaLogLevel;

use super::lock;

#[derive(Debug, Default)]
pub(super) struct Resets {
    partitions: Mutex<BTreeSet<i32>>,
    /// Whether there are any. Read for every record, too hot for a lock.
    any: AtomicBool,
}

impl Resets {
    /// Notes the partition if this is the log line of a reset. Its record comes
    /// after it in the consumer's queue.
    pub(super) fn observe_log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility != "OFFSET" || !matches!(level, RDKafkaLogLevel::Warning) {
            return;
        }
        if let Some(partition) = partition_of(message) {
            lock(&self.partitions).insert(partition);
            self.any.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the partition was reset since the last call.
    pub(super) fn take(&self, partition: i32) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut partitions = lock(&self.partitions);
        let was_reset = partitions.remove(&partition);
        self.any.store(!partitions.is_empty(), Ordering::Relaxed);
        was_reset
    }
}

/// The partition in `TOPIC [PARTITION]: offset reset (at offset …) to …`.
fn partition_of(message: &str) -> Option<i32> {
    let (before, _) = message.split_once("]: offset reset (at ")?;
    let (_, partition) = before.rsplit_once('[')?;
    partition.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: &str = "[thrd:main]: iot.command-status [3]: offset reset (at offset 10 (leader epoch 0), broker 1) to offset BEGINNING (leader epoch -1): fetch failed due to requested offset not available on the broker: Broker: Offset out of range";

    #[test]
    fn a_reset_is_taken_once() {
        let resets = Resets::default();
        resets.observe_log(RDKafkaLogLevel::Debug, "OFFSET", RESET);
        resets.observe_log(RDKafkaLogLevel::Warning, "OFFSET", "another line [3]");
        assert!(!resets.take(3));
        resets.observe_log(RDKafkaLogLevel::Warning, "OFFSET", RESET);
        assert!(!resets.take(2));
        assert!(resets.take(3));
        assert!(!resets.take(3));
    }
}
