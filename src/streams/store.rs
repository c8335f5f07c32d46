//! The states of one partition in memory: what its state topic says, byte for
//! byte, and what the gauges must know without decoding it.
//!
//! A value is kept as it is written. Decoded states would cost several times
//! their bytes, and each is needed only when a record for it comes.

use std::collections::HashMap;
use std::time::Duration;

use super::command_state::Status;
use super::stream::{Open, Stream};
use super::time::Timestamp;

/// The states of one partition.
#[derive(Debug, Default)]
pub struct Store {
    entries: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
    next_offset: i64,
}

/// One state.
#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    written_at_ms: i64,
    open: Option<OpenSince>,
}

/// [`Open`] in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct OpenSince {
    status: Status,
    since_ms: i64,
}

impl Store {
    /// An empty store of a partition whose records count from `next_offset`.
    pub fn at(next_offset: i64) -> Self {
        Self {
            next_offset,
            ..Self::default()
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

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| entry.value.as_ref())
    }

    /// Takes the value of a key that was written at `written_at_ms`.
    pub fn put(&mut self, key: &[u8], value: &[u8], written_at_ms: i64, open: Option<Open>) {
        let open = open.map(|open| OpenSince {
            status: open.status,
            since_ms: open.since.map_or(written_at_ms, Timestamp::millis),
        });
        self.bytes += key.len() + value.len();
        let entry = Entry {
            value: value.into(),
            written_at_ms,
            open,
        };
        if let Some(before) = self.entries.insert(key.into(), entry) {
            self.bytes -= key.len() + before.value.len();
        }
    }

    /// Takes a record of the state topic as it is restored.
    pub fn restore<S: Stream>(&mut self, key: &[u8], value: Option<&[u8]>, written_at_ms: i64) {
        match value {
            None => self.remove(key),
            Some(value) => self.put(key, value, written_at_ms, S::open_encoded(value)),
        }
    }

    /// Drops a key.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(before) = self.entries.remove(key) {
            self.bytes -= key.len() + before.value.len();
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

    /// The bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives `each` every open command: its status, and for how long it is open at `now_ms`.
    pub fn open(&self, now_ms: i64, mut each: impl FnMut(Status, Duration)) {
        for open in self.entries.values().filter_map(|entry| entry.open) {
            let age_ms = u64::try_from(now_ms - open.since_ms).unwrap_or(0);
            each(open.status, Duration::from_millis(age_ms));
        }
    }
}
