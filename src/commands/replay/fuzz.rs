//! What is in the dead-letter topic, and what an operator selects of it.

use std::collections::{BTreeMap, HashSet};

use chrono::DateTime;
use rdkafka::Timestamp;
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

use super::dead_letter::Entry;
use super::route::{Router, TARGETS};
use super::selection::{Selection, parse_time};
use crate::config::Settings;
use crate::topics::{self, Topic};

/// Routes and selects a record: zero bytes separate its value, its key, the names and
/// values of two headers, a reason and a time.
///
/// # Panics
///
/// Panics if a record is routed to a topic that is no target, or if the selection leaves
/// what the topic has.
pub fn dead_letter(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (value, key) = (part(), part());
    let headers = [(part(), part()), (part(), part())];
    let (reason, time) = (part(), part());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let add = |headers: OwnedHeaders, (name, value): (&[u8], &[u8])| {
        headers.insert(Header {
            key: &text(name),
            value: Some(value),
        })
    };
    let record = OwnedMessage::new(
        Some(value.to_vec()),
        Some(key.to_vec()),
        "iot.dead-letter".to_owned(),
        Timestamp::CreateTime(1_767_225_600_000),
        0,
        1,
        Some(headers.into_iter().fold(OwnedHeaders::new(), add)),
    );
    let settings = Settings::default();
    let router = Router::new(&settings, reason.len() % 2 == 0, &HashSet::from(Topic::ALL));
    let now = DateTime::UNIX_EPOCH;
    let selection = Selection {
        reasons: Vec::from([text(reason)]),
        since: parse_time(&text(time), now).ok(),
        from_offset: i64::try_from(key.len()).ok(),
        ..Selection::default()
    };
    let bounds = BTreeMap::from([(0, 0..3), (1, 5..9)]);
    let ranges = selection.ranges(&bounds).expect("no partition is named");
    for (partition, range) in &ranges {
        let bounds = &bounds[partition];
        assert!(bounds.start <= range.start && range.end <= bounds.end && !range.is_empty());
    }
    let Entry::DeadLetter(letter) = Entry::of(&record) else {
        return;
    };
    let _ = selection.matches(&letter);
    if let Ok(outgoing) = router.route(&letter) {
        let mut targets = TARGETS.iter().map(|topic| topics::name(&settings, *topic));
        assert!(targets.any(|name| name == outgoing.topic));
    }
}
