//! The spool: pushes on this host's disk, while their partition takes nothing.
//!
//! ```text
//! push ─ storage ─┬─────────────── kafka::Producer ─ Delivery ─┬─ Stored
//!                 └─ store ─ log ─ sync ──────────── Spooled ──┘
//!                       └─ delivery ─ kafka::Producer ─ Delivery: the entry is deleted
//! ```
//!
//! Without `spool.directory` every push takes the upper way, and there is no file.

mod delivery;
mod entry;
mod kept_record;
mod log;
mod metrics;
mod names;
mod progress;
mod segment;
mod storage;
mod store;

pub(crate) use delivery::Deliveries;
pub(crate) use log::inspect;
pub(crate) use storage::{Storage, StorageError, Stored};

use crate::topics::Topic;

/// What is delivered in one order: a partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) topic: Topic,
    /// How many partitions the topic had: with another number, other keys share one. 0 if
    /// that was not known.
    pub(crate) partitions: i32,
    pub(crate) partition: i32,
}

impl Slot {
    fn encode(self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.partitions.to_le_bytes());
        buffer.extend_from_slice(&self.partition.to_le_bytes());
        let label = self.topic.label();
        buffer.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        buffer.extend_from_slice(label.as_bytes());
    }

    /// `None` if the topic is not known.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let partitions = i32::from_le_bytes(*take(bytes)?);
        let partition = i32::from_le_bytes(*take(bytes)?);
        let [size] = *take::<1>(bytes)?;
        let (label, rest) = bytes.split_at_checked(usize::from(size))?;
        *bytes = rest;
        let mut topics = Topic::INGRESS.into_iter();
        let topic = topics.find(|topic| topic.label().as_bytes() == label)?;
        Some(Self {
            topic,
            partitions,
            partition,
        })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(|bytes| u64::from_le_bytes(*bytes))
}
