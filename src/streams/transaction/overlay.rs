//! What a batch would change, and what of it cannot be.
//!
//! Nothing here is written or kept: the loop does both.

use std::collections::{BTreeMap, HashMap};

use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};

use super::{Batch, input};
use crate::kafka::transactions::Write;
use crate::streams::push::Poison;
use crate::streams::store::Store;
use crate::streams::stream::{Applied, Effect, Forward, Open, Stream};
use crate::topics::RECORD_OVERHEAD_BYTES;

/// More than the framing of a record, or of a header, takes, in bytes.
const FRAMING_BYTES: usize = 128;

/// What a batch would change.
pub(super) struct Overlay<S: Stream> {
    /// By partition and key.
    pub(super) partitions: BTreeMap<i32, HashMap<Box<[u8]>, Pending<S>>>,
    /// The records, by their place in the batch, that are dead letters.
    pub(super) unapplied: Vec<(usize, Unapplied)>,
}

/// What a batch would change of one state.
pub(super) struct Pending<S: Stream> {
    /// The new value; none where it stays as it is.
    pub(super) encoded: Option<Vec<u8>>,
    /// What the gauges must know of it.
    pub(super) open: Option<Open>,
    /// Records for the other topic, in their order.
    pub(super) forwards: Vec<Forward>,
    /// What is to be counted.
    pub(super) effects: Vec<Effect>,
    state: Option<S::State>,
    changed: bool,
    unreadable: bool,
    records: Vec<usize>,
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unapplied {
    Poison(Poison),
    StateTooLarge,
    StateUnreadable,
}

impl<S: Stream> Overlay<S> {
    /// Applies a batch over the stores; no record may be above `max_record_bytes`.
    pub(super) fn of(batch: &Batch, stores: &BTreeMap<i32, Store>, max_record_bytes: u64) -> Self {
        let limit = usize::try_from(max_record_bytes.saturating_sub(RECORD_OVERHEAD_BYTES))
            .unwrap_or(usize::MAX);
        let mut overlay = Self {
            partitions: BTreeMap::new(),
            unapplied: Vec::new(),
        };
        for (place, record) in batch.records.iter().enumerate() {
            if let Err(unapplied) = overlay.take(place, record, stores, limit) {
                overlay.unapplied.push((place, unapplied));
            }
        }
        for (partition, states) in &mut overlay.partitions {
            for (key, pending) in states {
                if pending.encode(key, limit).is_err() {
                    let value = stores.get(partition).and_then(|store| store.get(key));
                    let refused = pending.redo_singly(value, key, batch, limit);
                    overlay.unapplied.extend(refused);
                }
            }
        }
        overlay
    }

    fn take(
        &mut self,
        place: usize,
        record: &OwnedMessage,
        stores: &BTreeMap<i32, Store>,
        limit: usize,
    ) -> Result<(), Unapplied> {
        let event = S::decode(&input(record)).map_err(Unapplied::Poison)?;
        let key = S::key(&event).as_bytes();
        let states = self.partitions.entry(record.partition()).or_default();
        let pending = match states.get_mut(key) {
            Some(pending) => pending,
            None => states.entry(key.into()).or_insert_with(|| {
                let store = stores.get(&record.partition());
                Pending::over(store.and_then(|store| store.get(key)))
            }),
        };
        let applied = pending.apply(&event, limit)?;
        pending.adopt(place, applied);
        Ok(())
    }
}

impl<S: Stream> Pending<S> {
    fn over(value: Option<&[u8]>) -> Self {
        let decoded = value.map(serde_json::from_slice::<S::State>).transpose();
        let unreadable = decoded.is_err();
        Self {
            encoded: None,
            open: None,
            forwards: Vec::new(),
            effects: Vec::new(),
            state: decoded.ok().flatten(),
            changed: false,
            unreadable,
            records: Vec::new(),
        }
    }

    fn apply(&self, event: &S::Event, limit: usize) -> Result<Applied<S::State>, Unapplied> {
        if self.unreadable {
            return Err(Unapplied::StateUnreadable);
        }
        let applied = S::apply(self.state.as_ref(), event);
        let forward = applied.forward.as_ref();
        if forward.is_some_and(|forward| forward.key.len() + forward.value.len() > limit) {
            return Err(Unapplied::StateTooLarge);
        }
        Ok(applied)
    }

    fn adopt(&mut self, place: usize, applied: Applied<S::State>) {
        if let Some(state) = applied.state {
            self.state = Some(state);
            self.changed = true;
        }
        self.forwards.extend(applied.forward);
        self.effects.extend(applied.effects);
        self.records.push(place);
    }

    /// Encodes the state once for the whole batch, where it changed.
    fn encode(&mut self, key: &[u8], limit: usize) -> Result<(), Unapplied> {
        let Some(state) = self.state.as_ref().filter(|_| self.changed) else {
            return Ok(());
        };
        self.encoded = Some(encoded(state, key, limit)?);
        self.open = S::open(state);
        Ok(())
    }

    /// Applies the records again, each only where the state after it is not
    /// too large: so it does not depend on the batch which ones are refused.
    fn redo_singly(
        &mut self,
        value: Option<&[u8]>,
        key: &[u8],
        batch: &Batch,
        limit: usize,
    ) -> Vec<(usize, Unapplied)> {
        let places = std::mem::take(&mut self.records);
        let mut refused = Vec::new();
        *self = Self::over(value);
        for place in places {
            let event = batch
                .records
                .get(place)
                .map(|record| S::decode(&input(record)));
            let Some(Ok(event)) = event else { continue };
            match self.apply_singly(&event, key, limit) {
                Ok(applied) => self.adopt(place, applied),
                Err(unapplied) => refused.push((place, unapplied)),
            }
        }
        // What was adopted is within the limit.
        let _ = self.encode(key, limit);
        refused
    }

    fn apply_singly(
        &self,
        event: &S::Event,
        key: &[u8],
        limit: usize,
    ) -> Result<Applied<S::State>, Unapplied> {
        let applied = self.apply(event, limit)?;
        if let Some(state) = &applied.state {
            encoded(state, key, limit)?;
        }
        Ok(applied)
    }
}

impl Unapplied {
    /// The word for the header `northbridge-reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Poison(poison) => poison.reason(),
            Self::StateTooLarge => "state-too-large",
            Self::StateUnreadable => "state-unreadable",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::Poison(poison) => poison.to_string(),
            Self::StateTooLarge => "the state would be larger than its topic takes".to_owned(),
            Self::StateUnreadable => "the state topic holds something that is no state".to_owned(),
        }
    }

    /// The dead letter of a record from `topic`: the record as it is, with the
    /// reason and where it stands.
    ///
    /// One that leaves no room for those is named by them alone, or it would
    /// stop the stream for good; its topic still has it.
    pub(super) fn dead_letter<'a>(
        self,
        record: &'a OwnedMessage,
        input_topic: &str,
        topic: &'a str,
        max_record_bytes: u64,
    ) -> Write<'a> {
        let whole = Write {
            topic,
            partition: None,
            key: record.key(),
            value: record.payload(),
            headers: Some(self.headers(copied_headers(record), record, input_topic)),
        };
        if u64::try_from(bytes(&whole)).is_ok_and(|bytes| bytes <= max_record_bytes) {
            return whole;
        }
        Write {
            key: None,
            value: None,
            headers: Some(self.headers(OwnedHeaders::new(), record, input_topic)),
            ..whole
        }
    }

    fn headers(self, copied: OwnedHeaders, record: &OwnedMessage, topic: &str) -> OwnedHeaders {
        let own = [
            ("northbridge-reason", self.reason().to_owned()),
            ("northbridge-detail", self.detail()),
            ("northbridge-topic", topic.to_owned()),
            ("northbridge-partition", record.partition().to_string()),
            ("northbridge-offset", record.offset().to_string()),
        ];
        own.iter().fold(copied, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}

fn copied_headers(record: &OwnedMessage) -> OwnedHeaders {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    headers
        .filter(|header| !header.key.starts_with("northbridge-"))
        .fold(OwnedHeaders::new(), OwnedHeaders::insert)
}

fn bytes(write: &Write<'_>) -> usize {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers = write.headers.iter().flat_map(Headers::iter);
    let headers = headers.map(|header| header.key.len() + length(header.value) + FRAMING_BYTES);
    length(write.key) + length(write.value) + headers.sum::<usize>() + FRAMING_BYTES
}

fn encoded<State: serde::Serialize>(
    state: &State,
    key: &[u8],
    limit: usize,
) -> Result<Vec<u8>, Unapplied> {
    // States are texts, numbers and times: they always make JSON.
    let value = serde_json::to_vec(state).unwrap_or_default();
    if key.len() + value.len() > limit {
        return Err(Unapplied::StateTooLarge);
    }
    Ok(value)
}
