//! Which records of a topic a state has counted, told by their positions.
//!
//! Offsets alone do not tell: a topic that was deleted and made again starts over at offset 0. Its
//! records are younger, though, than every record of its predecessor. A consumer that reads again
//! meets old offsets with old timestamps, and one that reads a new topic meets old offsets with new
//! timestamps.

use serde::{Deserialize, Serialize};

/// The position of a record in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970; 0 if it has none.
    pub timestamp_ms: i64,
}

/// The records that a state has counted: all of its key in one partition, in the order of their
/// offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The offset of the last one; `None` if it is unknown, and only timestamps tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<i64>,
    /// The latest timestamp of any, in milliseconds since 1970.
    #[serde(rename = "timestamp")]
    pub(crate) timestamp_ms: i64,
}

impl Counted {
    /// Returns whether the record at this position has been counted.
    pub(crate) fn includes(self, position: Position) -> bool {
        let is_read_again = self.offset.is_none_or(|offset| position.offset <= offset);
        is_read_again && position.timestamp_ms <= self.timestamp_ms
    }

    /// Adds the next record. Its offset is lower than the last one if the topic was made again.
    pub(crate) fn add(&mut self, position: Position) {
        self.offset = Some(position.offset);
        self.timestamp_ms = self.timestamp_ms.max(position.timestamp_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, timestamp_ms: i64) -> Position {
        Position {
            offset,
            timestamp_ms,
        }
    }

    #[test]
    fn a_record_is_counted_before_if_neither_its_offset_nor_its_timestamp_is_later() {
        let mut counted = Counted::default();
        counted.add(at(5, 1_000));
        counted.add(at(7, 900));
        for (position, is_counted) in [
            (at(7, 900), true),
            (at(5, 1_000), true),
            (at(0, 0), true),
            (at(8, 900), false),
            (at(0, 1_001), false),
        ] {
            assert_eq!(counted.includes(position), is_counted, "{position:?}");
        }
    }

    #[test]
    fn without_an_offset_only_timestamps_tell() {
        let counted = Counted {
            offset: None,
            timestamp_ms: 1_000,
        };
        assert!(counted.includes(at(i64::MAX, 1_000)));
        assert!(!counted.includes(at(0, 1_001)));
    }
}
