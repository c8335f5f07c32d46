//! What a rebalance does to a worker: partitions go, with their states, and
//! partitions come, whose states are restored before their first record.
//!
//! It knows nothing of transactions: none is open while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::{ABORT_PAUSE, Batch, Ended, RESTORE_PROGRESS, Worker};
use crate::kafka::group::{Member, Moved};
use crate::streams::store::Store;
use crate::streams::stream::Stream;

impl<'m, S: Stream> Worker<'m, S> {
    /// Applies what rebalances did inside the polls since the last call.
    ///
    /// A restore has to poll, or the group would give this member up. So
    /// partitions that stay are held back meanwhile, and whatever else happens
    /// in those polls is applied before a single record is let through.
    pub(super) fn rebalance(
        &mut self,
        batch: &mut Batch<'m>,
        stop: &AtomicBool,
    ) -> Result<(), Ended> {
        let (mut coming, mut fresh) = (BTreeSet::new(), BTreeMap::new());
        if !self.note_moves(batch, &mut coming, &mut fresh) {
            return Ok(());
        }
        let began = Instant::now();
        if !coming.is_empty() {
            self.restored
                .set(false, "restoring the states of new partitions");
        }
        let mut said = began;
        while !self.settle(&mut coming, batch, stop, &mut said)? {
            if stop.load(Ordering::Relaxed) {
                // Where things stand is unknown; a successor begins at what is committed.
                batch.clear();
                return Ok(());
            }
        }
        self.all_restored(began.elapsed());
        Ok(())
    }

    /// Whether there was a rebalance. Whatever went is in none of the three
    /// any more; what came, even what only went and came back, is in `coming`.
    fn note_moves(
        &mut self,
        batch: &mut Batch<'m>,
        coming: &mut BTreeSet<i32>,
        fresh: &mut BTreeMap<i32, Store<S>>,
    ) -> bool {
        let moves = self.member.moved();
        for moved in &moves {
            match moved {
                Moved::Went(partitions) => {
                    tracing::info!(stream = S::NAME, ?partitions, "partitions went to others");
                    for partition in partitions {
                        coming.remove(partition);
                        fresh.remove(partition);
                        self.stores.remove(partition);
                        self.metrics.forget(*partition);
                    }
                    batch.forget(partitions);
                }
                Moved::Came(partitions) if partitions.is_empty() => {}
                Moved::Came(partitions) => {
                    tracing::info!(
                        stream = S::NAME,
                        ?partitions,
                        "partitions came; restoring their states"
                    );
                    coming.extend(partitions);
                }
            }
        }
        !moves.is_empty()
    }

    /// One attempt to bring everything into its place after a rebalance;
    /// whether it is.
    fn settle(
        &mut self,
        coming: &mut BTreeSet<i32>,
        batch: &mut Batch<'m>,
        stop: &AtomicBool,
        said: &mut Instant,
    ) -> Result<bool, Ended> {
        let mut fresh = match self.read_states(coming, batch, stop) {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Ok(false),
            Err(Failed::Ended(ended)) => return Err(ended),
            Err(Failed::Again(error)) => {
                // What comes with an election is over before it is worth a word.
                if said.elapsed() >= RESTORE_PROGRESS {
                    *said = Instant::now();
                    tracing::warn!(stream = S::NAME, %error, "states cannot be restored yet");
                }
                self.restored
                    .set(false, &format!("the restore is tried again: {error}"));
                std::thread::sleep(ABORT_PAUSE);
                attend(self.member, batch)?;
                BTreeMap::new()
            }
        };
        let moved = self.note_moves(batch, coming, &mut fresh);
        coming.retain(|partition| !fresh.contains_key(partition));
        self.stores.append(&mut fresh);
        if moved || !coming.is_empty() {
            return Ok(false);
        }
        self.member
            .resume(&self.partitions())
            .map_err(|error| Ended::Lost(error.to_string()))?;
        Ok(true)
    }

    /// The states of the partitions that come, unless a stop came first.
    fn read_states(
        &self,
        coming: &BTreeSet<i32>,
        batch: &mut Batch<'m>,
        stop: &AtomicBool,
    ) -> Result<Option<BTreeMap<i32, Store<S>>>, Failed> {
        // First the offsets: whatever they include is then before the ends
        // that the restore reads to.
        let mut fresh = self.settled_stores(coming)?;
        let places = fresh.iter();
        let places = places.map(|(partition, store)| (*partition, store.next_offset()));
        self.member.seek(&places.collect())?;
        let cutoff_ms = self.cutoff_ms();
        let (mut said, mut lost) = (Instant::now(), None);
        let coming: Vec<i32> = coming.iter().copied().collect();
        let complete = self.restore.read(
            &coming,
            |record| {
                if let Some(store) = fresh.get_mut(&record.partition) {
                    let value = record.value.filter(|_| record.written_at_ms >= cutoff_ms);
                    store.restore(record.key, value, record.written_at_ms);
                }
            },
            |read, total| {
                self.metrics.restoring(read);
                if said.elapsed() >= RESTORE_PROGRESS {
                    said = Instant::now();
                    tracing::info!(stream = S::NAME, read, total, "restoring states");
                }
                lost = attend(self.member, batch).err();
                lost.is_none() && !stop.load(Ordering::Relaxed)
            },
        )?;
        match lost {
            Some(ended) => Err(Failed::Ended(ended)),
            None => Ok(complete.then_some(fresh)),
        }
    }

    /// Empty stores for the partitions that come, at their committed offsets;
    /// those that stay are held back, and must stand where they did.
    ///
    /// A member that was given up and has joined again may be left its
    /// partitions without a word, although others had them in between: their
    /// offsets tell. Then the states here are behind.
    fn settled_stores(&self, coming: &BTreeSet<i32>) -> Result<BTreeMap<i32, Store<S>>, Failed> {
        let held = self.partitions();
        let all: Vec<i32> = held.iter().chain(coming).copied().collect();
        if all.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.member.pause(&held)?;
        let offsets = self.member.settled(&all)?;
        let mut fresh = BTreeMap::new();
        for (partition, offset) in offsets {
            match self.stores.get(&partition) {
                Some(store) if store.next_offset() != offset => {
                    let text = format!("another instance worked on partition {partition}");
                    return Err(Failed::Ended(Ended::Lost(text)));
                }
                Some(_) => {}
                None => drop(fresh.insert(partition, Store::at(offset))),
            }
        }
        Ok(fresh)
    }

    fn all_restored(&self, took: Duration) {
        let entries: usize = self.stores.values().map(Store::len).sum();
        let (partitions, seconds) = (self.partitions(), took.as_secs_f64());
        tracing::info!(
            stream = S::NAME,
            ?partitions,
            entries,
            seconds,
            "states restored"
        );
        self.metrics.restored(took);
        let why = if partitions.is_empty() {
            "it has no partitions"
        } else {
            "the states of all its partitions are restored"
        };
        self.show(&BTreeMap::new());
        self.restored.set(true, why);
    }

    fn partitions(&self) -> Vec<i32> {
        self.stores.keys().copied().collect()
    }
}

/// Why the states could not be read.
enum Failed {
    Again(KafkaError),
    Ended(Ended),
}

impl From<KafkaError> for Failed {
    fn from(error: KafkaError) -> Self {
        Self::Again(error)
    }
}

/// Keeps the membership alive. Nothing is due to come, as all partitions are
/// held back; if something comes all the same, it is not lost.
fn attend<'m>(member: &'m Member, batch: &mut Batch<'m>) -> Result<(), Ended> {
    let message = member
        .poll(Duration::ZERO)
        .map_err(|error| Ended::Lost(error.to_string()))?;
    if let Some(message) = message {
        batch.take(message);
    }
    Ok(())
}
