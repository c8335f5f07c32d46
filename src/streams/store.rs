//! The states of one partition in memory.
//!
//! A state is kept decoded and compact, which takes no more memory than its
//! JSON: so no event pays for the decoding of a state, only a restore does.

use std::collections::HashMap;
use std::time::Duration;

use super::command_state::Status;
use super::stream::{Open, Stream};
use super::time::Timestamp;

/// The states of one partition.
#[derive(Debug)]
pub struct Store<S: Stream> {
    entries: HashMap<Box<[u8]>, Entry<S::State>>,
    bytes: usize,
    next_offset: i64,
}

/// One state.
#[derive(Debug)]
struct Entry<State> {
    state: Result<Box<State>, Unreadable>,
    written_at_ms: i64,
    value_bytes: u32,
}

/// The state topic holds something under this key that is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state topic holds something that is no state")]
pub struct Unreadable;

impl<S: Stream> Store<S> {
    /// An empty store of a partition whose records count from `next_offset`.
    pub fn at(next_offset: i64) -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            next_offset,
        }
    }

    /// The offset of the first record that is not in the states, as committed.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// All records before `next_offset` are in the states now.
    pub fn advance(&mut self, next_offset: i64) {
        self.next_offset = next_offset;
    }

    /// The state of a key.
    ///
    /// # Errors
    ///
    /// Where what was restored is no state.
    pub fn get(&self, key: &[u8]) -> Result<Option<&S::State>, Unreadable> {
        let entry = self.entries.get(key);
        entry
            .map(|entry| entry.state.as_deref().map_err(|unreadable| *unreadable))
            .transpose()
    }

    /// Takes the state of a key whose value of `value_bytes` was written at
    /// `written_at_ms`.
    pub fn put(
        &mut self,
        key: &[u8],
        state: Box<S::State>,
        value_bytes: usize,
        written_at_ms: i64,
    ) {
        self.take(key, Ok(state), value_bytes, written_at_ms);
    }

    /// Takes a record of the state topic as it is restored.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>, written_at_ms: i64) {
        let Some(value) = value else {
            self.remove(key);
            return;
        };
        let state = serde_json::from_slice(value).map_err(|_| Unreadable);
        self.take(key, state, value.len(), written_at_ms);
    }

    fn take(
        &mut self,
        key: &[u8],
        state: Result<Box<S::State>, Unreadable>,
        value_bytes: usize,
        written_at_ms: i64,
    ) {
        let entry = Entry {
            state,
            written_at_ms,
            // No record is so large that this would not do.
            value_bytes: u32::try_from(value_bytes).unwrap_or(u32::MAX),
        };
        self.bytes += bytes_of(key, &entry);
        // A key that is known, as most are, is not copied.
        let before = match self.entries.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, entry)),
            None => self.entries.insert(key.into(), entry),
        };
        if let Some(before) = before {
            self.bytes -= bytes_of(key, &before);
        }
    }

    /// Drops a key.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(before) = self.entries.remove(key) {
            self.bytes -= bytes_of(key, &before);
        }
    }

    /// Up to `limit` keys that were last written before `before_ms`.
    pub fn written_before(&self, before_ms: i64, limit: usize) -> Vec<Box<[u8]>> {
        let old = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.written_at_ms < before_ms);
        old.take(limit).map(|(key, _)| key.clone()).collect()
    }

    /// How many states there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all keys and values, as they are written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives `each` every open command: its status, and for how long it is open
    /// at `now_ms`; since it was written, where none of its pushes told.
    pub fn open(&self, now_ms: i64, mut each: impl FnMut(Status, Duration)) {
        for entry in self.entries.values() {
            let state = entry.state.as_deref().ok();
            let Some(Open { status, since }) = state.and_then(S::open) else {
                continue;
            };
            let since_ms = since.map_or(entry.written_at_ms, Timestamp::millis);
            let age_ms = u64::try_from(now_ms - since_ms).unwrap_or(0);
            each(status, Duration::from_millis(age_ms));
        }
    }
}

fn bytes_of<State>(key: &[u8], entry: &Entry<State>) -> usize {
    let value_bytes = usize::try_from(entry.value_bytes).unwrap_or(usize::MAX);
    key.len() + value_bytes
}
