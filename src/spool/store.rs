//! The thread that owns the log: pushes that wait together share one sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Slot;
use super::log::{AppendError, Cursor, Entry, Log, LogConfig, OpenError, Stored, Waiting};
use super::metrics::SpoolMetrics;
use crate::kafka::partition_of_key;
use crate::process::vital;

/// The most bytes that one write and one sync take.
const MAX_BATCH_BYTES: u64 = 4 << 20;

/// The proof that a push is on this host's disk, synced. Only the store makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spooled {
    slot: Slot,
}

/// What is called with the result of an append.
pub(crate) type OnSpooled = Box<dyn FnOnce(Result<Spooled, AppendError>) + Send + Sync>;

/// A log on the disk, and the thread that it belongs to. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    requests: Sender<Request>,
    pending: Arc<Pending>,
}

/// The entries that have not been delivered.
#[derive(Debug)]
struct Pending {
    /// Of all slots, so that an empty store costs one comparison.
    all: AtomicU64,
    by_slot: Mutex<BTreeMap<Slot, Backlog>>,
    /// The last append found no room, or failed.
    is_stuck: AtomicBool,
    /// Kafka has acknowledged a push, of this process or of an earlier one.
    is_proven: AtomicBool,
}

/// The entries of a slot that have not been delivered.
#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    waiting: Waiting,
    /// How many of them, the first ones, the producer has. Later records of their keys
    /// follow them there.
    handed_over: u64,
}

enum Request {
    Append(Entry, OnSpooled),
    Read {
        slot: Slot,
        cursor: Cursor,
        max_bytes: usize,
        reply: Box<dyn FnOnce(io::Result<Vec<Stored>>) + Send>,
    },
    Delivered {
        entries: Vec<Stored>,
        count: usize,
        reply: Box<dyn FnOnce(io::Result<Cursor>) + Send>,
    },
    SetAside(Stored, Box<dyn FnOnce(io::Result<()>) + Send>),
}

impl Spooled {
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Store {
    /// Opens the log, and starts its thread, which ends once every clone is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the log cannot be used.
    pub(crate) fn open(config: &LogConfig, metrics: SpoolMetrics) -> Result<Self, OpenError> {
        let directory = config.directory.clone();
        let max_bytes = config.max_bytes;
        let (log, damage) = Log::open(config)?;
        let backlog = |waiting| Backlog {
            waiting,
            ..Backlog::default()
        };
        let pending = log.pending().into_iter();
        let by_slot: BTreeMap<Slot, Backlog> = pending
            .map(|(slot, waiting)| (slot, backlog(waiting)))
            .collect();
        let all = by_slot.values().map(|backlog| backlog.waiting.count).sum();
        if damage.places > 0 {
            let places = damage.places;
            tracing::error!(
                directory = %directory.display(),
                places,
                "the spool was damaged; what could not be read was set aside in files of its own"
            );
        }
        if all > 0 {
            tracing::info!(
                directory = %directory.display(),
                records = all,
                "delivering what an earlier process spooled"
            );
        }
        metrics.damaged.inc_by(damage.places);
        metrics
            .max_bytes
            .set(i64::try_from(max_bytes).unwrap_or(i64::MAX));
        let pending = Arc::new(Pending {
            all: AtomicU64::new(all),
            by_slot: Mutex::new(by_slot),
            is_stuck: AtomicBool::new(false),
            is_proven: AtomicBool::new(log.was_used()),
        });
        let (requests, received) = channel();
        let worker = Worker {
            log,
            pending: Arc::clone(&pending),
            metrics,
            batch: Vec::new(),
            batch_bytes: 0,
        };
        worker.show();
        let started = vital::start_thread("spool", move || worker.run(&received));
        started.map_err(|source| OpenError::Directory {
            path: directory,
            source,
        })?;
        Ok(Self { requests, pending })
    }

    /// Appends an entry with this key, whose slot is where it would go now. From this call
    /// on it [precedes](Store::precedes) what comes later.
    pub(crate) fn append(&self, mut entry: Entry, key: Option<&[u8]>, on_spooled: OnSpooled) {
        entry.slot = self.pending.add(&entry, key);
        // The thread ends only after the last sender.
        let _ = self.requests.send(Request::Append(entry, on_spooled));
    }

    /// Returns whether an entry that the producer does not have, or that is about to be
    /// appended, may have the key of a record that would go to this slot.
    pub(crate) fn precedes(&self, slot: Slot, key: Option<&[u8]>) -> bool {
        self.len() > 0 && {
            let by_slot = self.pending.lock();
            let backlog = by_slot.get(&slot_among(&by_slot, slot, key));
            backlog.is_some_and(|backlog| backlog.handed_over < backlog.waiting.count)
        }
    }

    /// The producer has so many more entries of a slot, until they are
    /// [delivered](Store::delivered), or not.
    pub(crate) fn hand_over(&self, slot: Slot, count: usize) {
        if let Some(backlog) = self.pending.lock().get_mut(&slot) {
            backlog.handed_over += u64::try_from(count).unwrap_or(u64::MAX);
        }
    }

    /// Returns whether it may take the place of Kafka: the last push found room, and the
    /// settings have led to Kafka before. A first start with wrong ones must not seem
    /// ready.
    pub(crate) fn can_bridge(&self) -> bool {
        let pending = &self.pending;
        pending.is_proven.load(Ordering::Relaxed) && !pending.is_stuck.load(Ordering::Relaxed)
    }

    /// Kafka has acknowledged a push.
    pub(crate) fn prove(&self) {
        let is_proven = &self.pending.is_proven;
        if !is_proven.load(Ordering::Relaxed) {
            is_proven.store(true, Ordering::Relaxed);
        }
    }

    /// How many entries have not been delivered.
    pub(crate) fn len(&self) -> u64 {
        self.pending.all.load(Ordering::Acquire)
    }

    /// When the oldest entry was received, if there is one: milliseconds of Unix time.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let by_slot = self.pending.lock();
        let oldest = by_slot.values().map(|backlog| backlog.waiting.oldest_ms);
        oldest.min()
    }

    /// The slots with entries that have not been delivered.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.pending.lock().keys().copied().collect()
    }

    /// Copies an entry that cannot be delivered to a file of its own.
    pub(crate) fn set_aside(
        &self,
        stored: Stored,
        reply: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let _ = self
            .requests
            .send(Request::SetAside(stored, Box::new(reply)));
    }

    /// Reads entries of a slot: see [`Log::read`].
    pub(crate) fn read(
        &self,
        slot: Slot,
        cursor: Cursor,
        max_bytes: usize,
        reply: impl FnOnce(io::Result<Vec<Stored>>) + Send + 'static,
    ) {
        let reply = Box::new(reply);
        let _ = self.requests.send(Request::Read {
            slot,
            cursor,
            max_bytes,
            reply,
        });
    }

    /// Notes that entries have been delivered: see [`Log::delivered`].
    pub(crate) fn delivered(
        &self,
        entries: Vec<Stored>,
        count: usize,
        reply: impl FnOnce(io::Result<Cursor>) + Send + 'static,
    ) {
        let reply = Box::new(reply);
        let _ = self.requests.send(Request::Delivered {
            entries,
            count,
            reply,
        });
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Backlog>> {
        self.by_slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, entry: &Entry, key: Option<&[u8]>) -> Slot {
        let mut by_slot = self.lock();
        let slot = slot_among(&by_slot, entry.slot, key);
        let backlog = by_slot.entry(slot).or_default();
        backlog.waiting.add(entry.received_ms);
        self.all.fetch_add(1, Ordering::Release);
        slot
    }

    /// Entries were delivered, up to one that was received at this time.
    fn remove(&self, slot: Slot, count: u64, received_ms: u64) {
        let mut by_slot = self.lock();
        let Some(Backlog { waiting, .. }) = by_slot.get_mut(&slot) else {
            return;
        };
        let count = count.min(waiting.count);
        waiting.count -= count;
        // The next one was received later.
        waiting.oldest_ms = waiting.oldest_ms.max(received_ms);
        if waiting.count == 0 {
            by_slot.remove(&slot);
        }
        self.all.fetch_sub(count, Ordering::Release);
    }

    /// The producer has entries of the slot no more, delivered or not.
    fn hand_back(&self, slot: Slot) {
        if let Some(backlog) = self.lock().get_mut(&slot) {
            backlog.handed_over = 0;
        }
    }

    /// Notes whether there is room, and logs when that begins and ends.
    fn tell(&self, appended: &Result<(), AppendError>) {
        let was_stuck = self.is_stuck.swap(appended.is_err(), Ordering::Relaxed);
        match appended {
            Err(error) if !was_stuck => tracing::error!(
                %error,
                "the spool takes no pushes; those that it should take are answered 503"
            ),
            Ok(()) if was_stuck => tracing::info!("the spool takes pushes again"),
            Ok(()) | Err(_) => {}
        }
    }

    /// The slot has none, whatever was counted: they were damaged.
    fn clear(&self, slot: Slot) {
        let mut by_slot = self.lock();
        if let Some(backlog) = by_slot.remove(&slot) {
            self.all.fetch_sub(backlog.waiting.count, Ordering::Release);
        }
    }
}

/// The slot of a record that would now go to `slot`, among those with entries.
///
/// While entries of a topic are spooled, its partitions are counted as for the first of
/// them: so a key has one slot, whose order is the key's, even if partitions are added, or
/// are not known after a restart without Kafka.
fn slot_among(by_slot: &BTreeMap<Slot, Backlog>, slot: Slot, key: Option<&[u8]>) -> Slot {
    let of_topic = by_slot.keys().find(|other| other.topic == slot.topic);
    match of_topic {
        Some(&Slot { partitions, .. }) if partitions != slot.partitions => Slot {
            partitions,
            partition: key.map_or(0, |key| partition_of_key(key, partitions)),
            ..slot
        },
        Some(_) | None => slot,
    }
}

struct Worker {
    log: Log,
    pending: Arc<Pending>,
    metrics: SpoolMetrics,
    /// What is appended and synced together.
    batch: Vec<(Entry, OnSpooled)>,
    batch_bytes: u64,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            self.take(first);
            while self.batch_bytes < MAX_BATCH_BYTES
                && let Ok(next) = requests.try_recv()
            {
                self.take(next);
            }
            self.append();
            self.show();
        }
    }

    fn show(&self) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let records = self.pending.all.load(Ordering::Acquire);
        self.metrics.records.set(signed(records));
        self.metrics.bytes.set(signed(self.log.bytes()));
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Append(entry, on_spooled) => {
                let bytes = self.batch_bytes + entry.size();
                if bytes > self.log.room() {
                    self.pending.tell(&Err(AppendError::Full));
                    self.pending.remove(entry.slot, 1, 0);
                    return on_spooled(Err(AppendError::Full));
                }
                self.batch_bytes = bytes;
                self.batch.push((entry, on_spooled));
            }
            Request::Read {
                slot,
                cursor,
                max_bytes,
                reply,
            } => {
                // Whoever reads sees what was appended before.
                self.append();
                let entries = self.log.read(slot, cursor, max_bytes);
                if cursor == Cursor::default() && entries.as_ref().is_ok_and(Vec::is_empty) {
                    self.pending.clear(slot);
                }
                reply(entries);
            }
            Request::Delivered {
                entries,
                count,
                reply,
            } => {
                let noted = self.log.delivered(&entries, count);
                if let Some(first) = entries.first() {
                    self.pending.hand_back(first.entry.slot);
                }
                if let Some(last) = entries[..count].last() {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    let entry = &last.entry;
                    self.pending.remove(entry.slot, count, entry.received_ms);
                    self.pending.tell(&Ok(()));
                }
                reply(noted);
            }
            Request::SetAside(stored, reply) => {
                self.metrics.damaged.inc();
                reply(self.log.set_entry_aside(&stored));
            }
        }
    }

    fn append(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.batch_bytes = 0;
        let (entries, waiting): (Vec<_>, Vec<_>) = self.batch.drain(..).unzip();
        let began = Instant::now();
        let result = self.log.append(&entries);
        let took = began.elapsed().as_secs_f64();
        self.metrics.write_seconds.observe(took);
        self.pending.tell(&result);
        if result.is_ok() {
            let written = u64::try_from(entries.len()).unwrap_or(0);
            self.metrics.written.inc_by(written);
        }
        for (entry, on_spooled) in entries.iter().zip(waiting) {
            match &result {
                Ok(()) => on_spooled(Ok(Spooled { slot: entry.slot })),
                Err(error) => {
                    self.pending.remove(entry.slot, 1, 0);
                    on_spooled(Err(error.again()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tempfile::TempDir;

    use super::*;
    use crate::metrics::Metrics;
    use crate::topics::Topic;

    const SLOT: Slot = Slot {
        topic: Topic::CommandStatus,
        partitions: 6,
        partition: 3,
    };

    fn store(directory: &TempDir, max_bytes: u64) -> Store {
        let config = LogConfig {
            directory: directory.path().to_owned(),
            max_bytes,
            segment_bytes: 1 << 20,
        };
        let metrics = SpoolMetrics::register(&Metrics::new());
        Store::open(&config, metrics).unwrap()
    }

    fn entry(number: u64) -> Entry {
        Entry {
            slot: SLOT,
            received_ms: number,
            record: vec![b'x'; 300],
        }
    }

    fn read(store: &Store, cursor: Cursor) -> Vec<Stored> {
        let (reply, read) = mpsc::channel();
        store.read(SLOT, cursor, 1 << 20, move |entries| {
            reply.send(entries).unwrap();
        });
        read.recv().unwrap().unwrap()
    }

    fn delivered(store: &Store, entries: Vec<Stored>) -> Cursor {
        let (reply, noted) = mpsc::channel();
        let count = entries.len();
        store.delivered(entries, count, move |cursor| reply.send(cursor).unwrap());
        noted.recv().unwrap().unwrap()
    }

    #[test]
    fn an_entry_precedes_later_records_from_its_append_until_its_delivery() {
        let directory = TempDir::new().unwrap();
        let store = store(&directory, 1 << 30);
        assert!(!store.precedes(SLOT, None));
        let (reply, spooled) = mpsc::channel();
        for number in 0..1_000 {
            let reply = reply.clone();
            let reply = Mutex::new(reply);
            store.append(
                entry(number),
                None,
                Box::new(move |result| reply.into_inner().unwrap().send(result.unwrap()).unwrap()),
            );
            assert!(store.precedes(SLOT, None));
        }
        drop(reply);
        assert_eq!(spooled.iter().count(), 1_000);
        let mut cursor = Cursor::default();
        let mut next = 0;
        while store.precedes(SLOT, None) {
            let entries = read(&store, cursor);
            for stored in &entries {
                assert_eq!(stored.entry.received_ms, next);
                next += 1;
            }
            cursor = delivered(&store, entries);
        }
        assert_eq!(next, 1_000);
        assert!(store.slots().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_keeps_no_slot_busy() {
        let directory = TempDir::new().unwrap();
        let store = store(&directory, 100);
        let (reply, spooled) = mpsc::channel();
        let reply = Mutex::new(reply);
        store.append(
            entry(0),
            None,
            Box::new(move |result| reply.into_inner().unwrap().send(result).unwrap()),
        );
        let result = spooled.recv().unwrap();
        assert!(matches!(result, Err(AppendError::Full)), "{result:?}");
        assert!(!store.precedes(SLOT, None));
    }

    #[test]
    fn a_key_keeps_its_slot_while_partitions_are_added_or_not_known() {
        let directory = TempDir::new().unwrap();
        let store = store(&directory, 1 << 30);
        let key = Some(&b"key"[..]);
        let now = |partitions| Slot {
            partitions,
            partition: partition_of_key(b"key", partitions),
            ..SLOT
        };
        let append = |partitions| {
            let (reply, spooled) = mpsc::channel();
            let reply = Mutex::new(reply);
            let entry = Entry {
                slot: now(partitions),
                ..entry(0)
            };
            store.append(
                entry,
                key,
                Box::new(move |result| reply.into_inner().unwrap().send(result).unwrap()),
            );
            spooled.recv().unwrap().unwrap().slot()
        };
        assert_eq!(append(6), now(6));
        assert_eq!(append(0), now(6), "a restart without Kafka");
        assert_eq!(append(9), now(6), "partitions were added");
        assert!(store.precedes(now(9), key));
        assert_eq!(store.slots(), [now(6)]);
    }
}
