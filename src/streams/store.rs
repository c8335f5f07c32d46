//! The states of one partition, in memory.
//!
//! A state is kept decoded, in a compact form that takes no more memory than
//! its JSON. So only a restore decodes states, and no event does.

mod open_commands;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::states::command::Status;
use super::states::format::{self, NewerFormat, StateError, StoredState as _};
use super::states::position::Counted;
use super::states::time::Timestamp;
use super::stream::Stream;
use crate::topics::Cleanup;
pub(crate) use open_commands::OpenCommands;
use open_commands::OpenIndex;

/// A key, shared by the state and its place in the order of expiry.
pub(crate) type Key = Arc<[u8]>;

/// The stores of an instance, by partition.
pub(crate) type Stores<S> = BTreeMap<i32, Store<S>>;

/// The states of one partition.
#[derive(Debug)]
pub struct Store<S: Stream> {
    entries: HashMap<Key, Entry<S::State>>,
    bytes: usize,
    open_commands: OpenIndex,
    /// Every key of a topic whose states expire, the oldest first: with the time
    /// of its last write, or of an earlier one. A write does not move its key;
    /// that is left to the expiry.
    by_age: BinaryHeap<Reverse<(i64, Key)>>,
    next_offset: i64,
    /// The keys whose restored states must be rewritten at once.
    outdated: HashSet<Key>,
    /// The keys whose restored states only a newer version can read.
    newer: HashMap<Box<[u8]>, NewerFormat>,
}

#[derive(Debug)]
struct Entry<State> {
    state: Result<Box<State>, UnreadableState>,
    written_at_ms: i64,
    value_bytes: u32,
}

/// The state topic has a value for this key that does not decode as a state:
/// another program wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value in the state topic is not a state")]
pub(crate) struct UnreadableState;

impl<S: Stream> Store<S> {
    const EXPIRES: bool = matches!(S::STATE.cleanup(), Cleanup::CompactAndDelete);

    /// An empty store of a partition whose input is consumed from `next_offset`.
    pub fn starting_at(next_offset: i64) -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            open_commands: OpenIndex::new(),
            by_age: BinaryHeap::new(),
            next_offset,
            outdated: HashSet::new(),
            newer: HashMap::new(),
        }
    }

    /// The committed offset: that of the first input record whose effect is not
    /// in the states.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Notes that the states include every input record before `next_offset`.
    pub(crate) fn advance_to(&mut self, next_offset: i64) {
        self.next_offset = next_offset;
    }

    /// The state of a key.
    ///
    /// # Errors
    ///
    /// Returns [`UnreadableState`] if the restored value did not decode.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<&S::State>, UnreadableState> {
        let entry = self.entries.get(key);
        entry
            .map(|entry| entry.state.as_deref().map_err(|unreadable| *unreadable))
            .transpose()
    }

    /// Stores a state whose JSON of `value_bytes` was written at
    /// `written_at_ms`, in milliseconds since 1970.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        state: Box<S::State>,
        value_bytes: usize,
        written_at_ms: i64,
    ) {
        self.insert(key, Ok(state), value_bytes, written_at_ms);
    }

    /// Applies a record of the state topic; one without a value is a tombstone.
    /// `header` is the value of its header `northbridge-state`.
    pub fn restore(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        header: Option<&[u8]>,
        written_at_ms: i64,
    ) {
        // Both are nearly always empty, and then not worth a hash of the key.
        if !self.outdated.is_empty() {
            self.outdated.remove(key);
        }
        if !self.newer.is_empty() {
            self.newer.remove(key);
        }
        let Some(value) = value else {
            self.remove(key);
            return;
        };
        if S::State::REWRITTEN_AT_ONCE && header.is_none() {
            self.outdated.insert(key.into());
        }
        match format::read(value, header, self.counted(written_at_ms)) {
            Ok(state) => self.insert(key, Ok(state), value.len(), written_at_ms),
            Err(StateError::Unreadable) => {
                self.insert(key, Err(UnreadableState), value.len(), written_at_ms);
            }
            Err(StateError::Newer(newer)) => drop(self.newer.insert(key.into(), newer)),
        }
    }

    /// The input records that a state without a header includes: all up to the
    /// committed offset. If that is lost too, those that are not younger than
    /// the state's last write.
    fn counted(&self, written_at_ms: i64) -> Counted {
        Counted {
            offset: (self.next_offset > 0).then_some(self.next_offset - 1),
            timestamp_ms: written_at_ms,
        }
    }

    /// Returns the newest format of the restored states that are newer than
    /// this program; `None` if it can read all of them.
    pub(crate) fn newer_format(&self) -> Option<NewerFormat> {
        self.newer.values().max().copied()
    }

    /// Takes the keys whose restored states must be rewritten at once.
    pub(crate) fn take_outdated(&mut self) -> HashSet<Key> {
        std::mem::take(&mut self.outdated)
    }

    fn insert(
        &mut self,
        key: &[u8],
        state: Result<Box<S::State>, UnreadableState>,
        value_bytes: usize,
        written_at_ms: i64,
    ) {
        let entry = Entry {
            state,
            written_at_ms,
            // Kafka limits a record to 2 GiB.
            value_bytes: u32::try_from(value_bytes).unwrap_or(u32::MAX),
        };
        self.bytes += bytes_of(key, &entry);
        if let Some((status, since_ms)) = open_command::<S>(&entry) {
            self.open_commands.add(status, since_ms);
        }
        // Most writes are to a known key: only a new one is copied.
        match self.entries.get_mut(key) {
            Some(known) => {
                let replaced = std::mem::replace(known, entry);
                self.discount(key, &replaced);
            }
            None => self.insert_new(key.into(), entry),
        }
    }

    fn insert_new(&mut self, key: Key, entry: Entry<S::State>) {
        if Self::EXPIRES {
            self.by_age
                .push(Reverse((entry.written_at_ms, Arc::clone(&key))));
        }
        self.entries.insert(key, entry);
    }

    /// Removes the state of a key, if it has one.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(removed) = self.entries.remove(key) {
            self.discount(key, &removed);
        }
    }

    /// Takes a state that is no longer here out of the sums.
    fn discount(&mut self, key: &[u8], entry: &Entry<S::State>) {
        self.bytes -= bytes_of(key, entry);
        if let Some((status, since_ms)) = open_command::<S>(entry) {
            self.open_commands.remove(status, since_ms);
        }
    }

    /// Takes up to `limit` keys whose states were last written before
    /// `before_ms`. The caller removes these states.
    ///
    /// Each step takes the oldest key, so the work is that of the keys whose time
    /// has come; one that was written again since gets its new place.
    pub(crate) fn take_expired(&mut self, before_ms: i64, limit: usize) -> Vec<Key> {
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(oldest) = self.by_age.peek()
            && oldest.0.0 < before_ms
            && let Some(Reverse((_, key))) = self.by_age.pop()
        {
            match self.entries.get(&key).map(|entry| entry.written_at_ms) {
                Some(written_at_ms) if written_at_ms < before_ms => expired.push(key),
                Some(written_at_ms) => self.by_age.push(Reverse((written_at_ms, key))),
                None => {}
            }
        }
        expired
    }

    /// The number of states, including those that could not be decoded.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of all keys and values as the state topic has them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts the open commands. One is overdue if it is open since before
    /// `horizon_ms`, exact to the second.
    pub(crate) fn open_commands(&mut self, horizon_ms: i64) -> OpenCommands {
        self.open_commands.counts(horizon_ms)
    }
}

/// The status of an open command, and since when it is open. A command whose
/// pushes had no readable time is as old as its last write.
fn open_command<S: Stream>(entry: &Entry<S::State>) -> Option<(Status, i64)> {
    let open = S::open_command(entry.state.as_deref().ok()?)?;
    let since_ms = open.since.map_or(entry.written_at_ms, Timestamp::millis);
    Some((open.status, since_ms))
}

fn bytes_of<State>(key: &[u8], entry: &Entry<State>) -> usize {
    let value_bytes = usize::try_from(entry.value_bytes).unwrap_or(usize::MAX);
    key.len() + value_bytes
}
