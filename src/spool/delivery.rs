//! From the spool to Kafka: each slot in its order, and one while others wait.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Slot;
use super::kept_record;
use super::log::{Cursor, Stored};
use super::metrics::SpoolMetrics;
use super::store::Store;
use crate::kafka::{DeliveryError, Producer, Settlement};
use crate::process::vital;

/// What of a slot is under way at a time: enough for a batch, and little beside live pushes.
const CHUNK_BYTES: usize = 128 * 1024;
/// How long a record of the spool is retried before its slot begins again. Long, since
/// later records of its key wait behind it; if its partition is down, it is taken back.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);
/// The pause before the spool is read again after an error.
const READ_PAUSE: Duration = Duration::from_secs(10);
/// How often slots whose partition takes nothing are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// The task that delivers what is spooled.
#[derive(Debug)]
pub(crate) struct Deliveries {
    store: Store,
    stop: CancellationToken,
}

impl Deliveries {
    pub(super) fn start(producer: Producer, store: Store, metrics: SpoolMetrics) -> Self {
        let stop = CancellationToken::new();
        let slots = Slots {
            producer,
            store: store.clone(),
            metrics,
            busy: HashSet::new(),
            tasks: JoinSet::new(),
        };
        vital::spawn("delivery from the spool", slots.run(stop.clone()));
        Self { store, stop }
    }

    /// Returns how many pushes are in the spool.
    pub(crate) fn left(&self) -> u64 {
        self.store.len()
    }

    /// Waits until the spool is empty, or `deadline`. Returns how many pushes are left.
    pub(crate) async fn finish(self, deadline: Instant) -> u64 {
        while self.store.len() > 0 && Instant::now() < deadline {
            tokio::time::sleep(INTERVAL).await;
        }
        self.stop.cancel();
        self.store.len()
    }
}

struct Slots {
    producer: Producer,
    store: Store,
    metrics: SpoolMetrics,
    busy: HashSet<Slot>,
    tasks: JoinSet<Slot>,
}

impl Slots {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let oldest = self.store.oldest_ms();
            let age = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
            let age = Duration::from_millis(age).as_secs_f64();
            self.metrics.oldest_age_seconds.set(age);
            for slot in self.store.slots() {
                if self.can_deliver(slot) && self.busy.insert(slot) {
                    let (producer, store) = (self.producer.clone(), self.store.clone());
                    let metrics = self.metrics.clone();
                    self.tasks.spawn(async move {
                        deliver_slot(&producer, &store, &metrics, slot).await;
                        slot
                    });
                }
            }
            tokio::select! {
                Some(Ok(slot)) = self.tasks.join_next() => {
                    self.busy.remove(&slot);
                }
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// A slot of another number of partitions is keyed anew, so that its partition does
    /// not matter.
    fn can_deliver(&self, slot: Slot) -> bool {
        let partitions = self.producer.partitions(slot.topic);
        if partitions == slot.partitions {
            self.producer.is_available(slot.topic, slot.partition)
        } else {
            (0..partitions).any(|partition| self.producer.is_available(slot.topic, partition))
        }
    }
}

/// Delivers a slot until it is empty, or Kafka takes no more.
async fn deliver_slot(producer: &Producer, store: &Store, metrics: &SpoolMetrics, slot: Slot) {
    let mut cursor = Cursor::default();
    loop {
        let entries = match read(store, slot, cursor).await {
            Ok(entries) if entries.is_empty() => return,
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "cannot read the spool; retrying");
                return tokio::time::sleep(READ_PAUSE).await;
            }
        };
        let all = entries.len();
        let delivered = deliver(producer, store, metrics, &entries).await;
        match note(store, entries, delivered).await {
            Ok(next) => cursor = next,
            Err(error) => {
                tracing::warn!(%error, "cannot note what was delivered from the spool; a restart would deliver it again");
                cursor = Cursor::default();
            }
        }
        if delivered < all {
            return tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Delivers entries in their order. Returns how many of them, from the first on, need no
/// further delivery.
async fn deliver(
    producer: &Producer,
    store: &Store,
    metrics: &SpoolMetrics,
    entries: &[Stored],
) -> usize {
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    let mut settled = Vec::with_capacity(entries.len());
    for stored in entries {
        let (told, settlement) = oneshot::channel();
        let topic = stored.entry.slot.topic;
        match kept_record::decode(topic, stored.entry.record.clone()) {
            Some(record) => {
                let on_settled = Box::new(move |settlement| drop(told.send(settlement)));
                producer.deliver(record, deadline, on_settled);
            }
            None => drop(told),
        }
        settled.push(settlement);
    }
    if let Some(first) = entries.first() {
        store.hand_over(first.entry.slot, entries.len());
    }
    // Waits for all of them even if one failed: none may be stored after its repeat was
    // given to the producer.
    let mut first_failed = None;
    for (index, (settlement, stored)) in settled.into_iter().zip(entries).enumerate() {
        let settlement = settlement.await;
        if first_failed.is_some() {
            continue;
        }
        match settlement {
            Ok(Settlement::Failed(error @ DeliveryError::Rejected { .. })) => {
                tracing::error!(%error, "Kafka rejected a push of the spool; it is set aside");
                set_aside(store, stored).await;
            }
            Err(_) => {
                tracing::error!("a push of the spool cannot be read; it is set aside");
                set_aside(store, stored).await;
            }
            Ok(Settlement::Failed(_) | Settlement::TakenBack(_)) => {
                first_failed = Some(index);
            }
            Ok(Settlement::Delivered(_)) => metrics.delivered.inc(),
        }
    }
    first_failed.unwrap_or(entries.len())
}

async fn read(store: &Store, slot: Slot, cursor: Cursor) -> std::io::Result<Vec<Stored>> {
    let (told, read) = oneshot::channel();
    store.read(slot, cursor, CHUNK_BYTES, move |result| {
        drop(told.send(result));
    });
    read.await.unwrap_or(Ok(Vec::new()))
}

async fn note(store: &Store, entries: Vec<Stored>, count: usize) -> std::io::Result<Cursor> {
    let (told, noted) = oneshot::channel();
    store.delivered(entries, count, move |result| drop(told.send(result)));
    noted.await.unwrap_or(Ok(Cursor::default()))
}

async fn set_aside(store: &Store, stored: &Stored) {
    let (told, done) = oneshot::channel();
    store.set_aside(stored.clone(), move |result| drop(told.send(result)));
    if let Ok(Err(error)) = done.await {
        tracing::error!(%error, "a push of the spool cannot be set aside; it is lost");
    }
}

fn now_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0)
}
