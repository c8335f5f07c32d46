//! Where a push is stored: the one decision between Kafka and the spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Slot;
use super::delivery::Deliveries;
use super::kept_record;
use super::log::{AppendError, Entry, LogConfig, OpenError};
use super::metrics::SpoolMetrics;
use super::store::{Spooled, Store};
use crate::config::Settings;
use crate::kafka::{Delivery, DeliveryError, Destination, Producer, Settlement};
use crate::metrics::Metrics;
use crate::process::readiness::Fallback;
use crate::record::KeyedRecord;

/// The proof that a push may be answered 200.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored {
    /// Kafka has acknowledged it.
    InKafka(Delivery),
    /// It is on this host's disk.
    Spooled(Spooled),
}

/// Why a push is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// Kafka did not take it, and there is no spool or it does not either.
    #[error(transparent)]
    Kafka(DeliveryError),
    /// Earlier pushes of its partition are spooled, and the spool does not take it.
    #[error(transparent)]
    Spool(AppendError),
}

/// What is called with what became of a push.
pub(crate) type OnStored = Box<dyn FnOnce(Result<Stored, StorageError>) + Send + Sync>;

/// Kafka, and the spool if one is set. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    producer: Producer,
    spool: Option<Spool>,
}

#[derive(Debug)]
struct Spool {
    store: Store,
    /// How long a partition has taken nothing before its pushes are spooled.
    after: Duration,
}

/// Keeps the ingress ready while the spool takes pushes.
#[derive(Debug)]
struct Spooling(Store);

impl Fallback for Spooling {
    fn instead(&self) -> Option<String> {
        let spooled = self.0.len();
        let text = || format!("pushes are spooled, {spooled} so far");
        self.0.can_bridge().then(text)
    }
}

/// Whether a push may be spooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    Spool,
    NotSpool,
}

impl Storage {
    /// Opens the spool, if one is set, and begins to deliver what is in it. Must be called
    /// within a runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if the spool cannot be used.
    pub(crate) fn open(
        settings: &Settings,
        producer: Producer,
        metrics: &Metrics,
    ) -> Result<(Self, Option<Deliveries>), OpenError> {
        let Some(directory) = &settings.spool.directory else {
            let spool = None;
            return Ok((Self(Arc::new(Inner { producer, spool })), None));
        };
        let metrics = SpoolMetrics::register(metrics);
        let config = LogConfig {
            directory: directory.clone(),
            max_bytes: settings.spool.max_bytes,
            segment_bytes: settings.spool.segment_bytes,
        };
        let store = Store::open(&config, metrics.clone())?;
        let deliveries = Deliveries::start(producer.clone(), store.clone(), metrics);
        let spool = Some(Spool {
            store,
            after: settings.spool.after_ms.duration(),
        });
        Ok((Self(Arc::new(Inner { producer, spool })), Some(deliveries)))
    }

    /// What takes Kafka's place while it is down, if a spool is set.
    pub(crate) fn fallback(&self) -> Option<Arc<dyn Fallback>> {
        let spool = self.0.spool.as_ref()?;
        Some(Arc::new(Spooling(spool.store.clone())))
    }

    pub(crate) fn has_spool(&self) -> bool {
        self.0.spool.is_some()
    }

    /// Stores a record by `deadline`; what became of it may be told later.
    pub(crate) fn store(&self, record: KeyedRecord, deadline: Instant, on_stored: OnStored) {
        match self.slot_to_spool(&record) {
            Some(slot) => self.spool(slot, &record, deadline, on_stored),
            None => self.produce(record, deadline, May::Spool, on_stored),
        }
    }

    /// Spools a copy of a record that librdkafka may hold, since there is no time left to
    /// wait for it.
    pub(crate) fn spool_copy(&self, record: &KeyedRecord, on_stored: OnStored) {
        let slot = self.slot(record);
        self.take_back(slot);
        self.append(slot, record, on_stored);
    }

    /// The slot that a record must be spooled in, if it must.
    fn slot_to_spool(&self, record: &KeyedRecord) -> Option<Slot> {
        let spool = self.0.spool.as_ref()?;
        let (slot, destination) = self.destination(record);
        let takes_nothing = destination.unacknowledged_for >= spool.after;
        if takes_nothing {
            self.take_back(slot);
        }
        // A broker that has just started may need seconds for its first acknowledgement.
        // What is spooled meanwhile is delivered at once, and waits for it.
        let is_unproven = destination.unproven >= spool.after;
        // No push overtakes earlier ones of its key.
        let precedes = || spool.store.precedes(slot, record.key());
        (takes_nothing || is_unproven || precedes()).then_some(slot)
    }

    /// Spools what waits for acknowledgements of the partition, before any later push.
    fn take_back(&self, slot: Slot) {
        self.0.producer.take_back(slot.topic, slot.partition);
    }

    fn slot(&self, record: &KeyedRecord) -> Slot {
        self.destination(record).0
    }

    fn destination(&self, record: &KeyedRecord) -> (Slot, Destination) {
        let destination = self.0.producer.destination(record);
        let slot = Slot {
            topic: record.topic(),
            partitions: destination.partitions,
            partition: destination.partition,
        };
        (slot, destination)
    }

    fn produce(&self, record: KeyedRecord, deadline: Instant, may: May, on_stored: OnStored) {
        let storage = self.clone();
        let copy = (may == May::Spool && self.has_spool()).then(|| record.clone());
        let on_settled = Box::new(move |settlement| match (settlement, copy) {
            (Settlement::Delivered(delivery), _) => {
                if let Some(spool) = &storage.0.spool {
                    spool.store.prove();
                }
                on_stored(Ok(Stored::InKafka(delivery)));
            }
            (Settlement::TakenBack(record), None) => {
                storage.produce(*record, deadline, may, on_stored);
            }
            (Settlement::Failed(error), None) => on_stored(Err(StorageError::Kafka(error))),
            (Settlement::Failed(error @ DeliveryError::Rejected { .. }), Some(_)) => {
                on_stored(Err(StorageError::Kafka(error)));
            }
            // Whoever waited until the deadline has spooled it.
            (Settlement::Failed(error), Some(_)) if Instant::now() >= deadline => {
                on_stored(Err(StorageError::Kafka(error)));
            }
            (Settlement::TakenBack(_) | Settlement::Failed(_), Some(record)) => {
                storage.spool(storage.slot(&record), &record, deadline, on_stored);
            }
        });
        self.0.producer.deliver(record, deadline, on_settled);
    }

    /// Spools a record. If the spool does not take it, it waits for Kafka as without one,
    /// unless earlier ones are spooled.
    fn spool(&self, slot: Slot, record: &KeyedRecord, deadline: Instant, on_stored: OnStored) {
        let (storage, kept) = (self.clone(), record.clone());
        let on_appended = Box::new(move |result: Result<Stored, StorageError>| match result {
            Err(_) if !storage.precedes(slot, &kept) => {
                storage.produce(kept, deadline, May::NotSpool, on_stored);
            }
            result => on_stored(result),
        });
        self.append(slot, record, on_appended);
    }

    fn precedes(&self, slot: Slot, record: &KeyedRecord) -> bool {
        let spool = self.0.spool.as_ref();
        spool.is_some_and(|spool| spool.store.precedes(slot, record.key()))
    }

    fn append(&self, slot: Slot, record: &KeyedRecord, on_stored: OnStored) {
        let Some(spool) = &self.0.spool else {
            return;
        };
        let received_ms = record.received_at().timestamp_millis();
        let entry = Entry {
            slot,
            received_ms: u64::try_from(received_ms).unwrap_or(0),
            record: kept_record::encode(record),
        };
        let on_spooled = Box::new(move |result: Result<Spooled, AppendError>| {
            on_stored(result.map(Stored::Spooled).map_err(StorageError::Spool));
        });
        spool.store.append(entry, record.key(), on_spooled);
    }
}
