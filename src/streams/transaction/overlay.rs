//! What a batch would change.
//!
//! Nothing here is written or kept: the loop does both. What cannot be applied
//! is named here, and becomes a record in `dead_letter`.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use rdkafka::message::{BorrowedMessage, Message};

use super::dead_letter::Unapplied;
use super::{Batch, decode};
use crate::streams::store::Store;
use crate::streams::stream::{Applied, Draft, Effect, Forward, Stream};
use crate::topics::RECORD_OVERHEAD_BYTES;

/// The stores that a batch is applied over, by partition.
pub(super) type Stores<S> = BTreeMap<i32, Store<S>>;

/// What a batch would change.
pub(super) struct Overlay<'b, S: Stream> {
    /// What it would change of each state that it is about.
    pub(super) changes: Vec<Change<'b, S>>,
    /// The records, by their place in the batch, that are dead letters.
    pub(super) unapplied: Vec<(usize, Unapplied)>,
    /// The new values, one after the other.
    values: Vec<u8>,
    /// The largest record, in bytes.
    limit: usize,
    /// Which of the changes each record belongs to.
    change_of: Vec<Option<usize>>,
    /// Where the change of a partition and a key is.
    places: HashMap<(i32, Cow<'b, str>), usize>,
}

/// What a batch would change of one state.
pub(super) struct Change<'b, S: Stream> {
    /// The partition of its records, and of the state.
    pub(super) partition: i32,
    /// The key of the state.
    pub(super) key: Cow<'b, str>,
    /// The new state; none where it stays as it is.
    pub(super) state: Option<Box<S::State>>,
    /// Records for the other topic, in their order.
    pub(super) forwards: Vec<Forward>,
    /// What is to be counted.
    pub(super) effects: Vec<Effect>,
    value: Range<usize>,
    too_large: bool,
}

impl<'b, S: Stream> Overlay<'b, S> {
    /// Applies a batch over the stores; no record may be above `max_record_bytes`.
    pub(super) fn of(batch: &'b Batch<'_>, stores: &Stores<S>, max_record_bytes: u64) -> Self {
        let limit = usize::try_from(max_record_bytes.saturating_sub(RECORD_OVERHEAD_BYTES))
            .unwrap_or(usize::MAX);
        let mut overlay = Self {
            changes: Vec::new(),
            unapplied: Vec::new(),
            values: Vec::new(),
            limit,
            change_of: Vec::with_capacity(batch.records.len()),
            places: HashMap::with_capacity(batch.records.len()),
        };
        for (place, record) in batch.records.iter().enumerate() {
            let taken = overlay.take(record, stores);
            overlay.change_of.push(taken.ok());
            if let Err(unapplied) = taken {
                overlay.unapplied.push((place, unapplied));
            }
        }
        for change in 0..overlay.changes.len() {
            if overlay.encode(change).is_err() {
                overlay.redo_singly(change, batch, stores);
            }
        }
        overlay
    }

    /// The new value of a change; none where the state stays as it is.
    pub(super) fn value(&self, change: &Change<'b, S>) -> Option<&[u8]> {
        change.state.as_ref()?;
        self.values.get(change.value.clone())
    }

    /// Gives `each` every change and its new value, empty where there is none.
    pub(super) fn into_changes(self, mut each: impl FnMut(Change<'b, S>, &[u8])) {
        for change in self.changes {
            let value = self.values.get(change.value.clone());
            each(change, value.unwrap_or_default());
        }
    }

    /// Whether it writes the state of this key.
    pub(super) fn writes(&self, partition: i32, key: &[u8]) -> bool {
        let Ok(key) = str::from_utf8(key) else {
            return false;
        };
        let change = self.places.get(&(partition, Cow::Borrowed(key)));
        change.is_some_and(|change| self.changes[*change].state.is_some())
    }

    /// Applies one record; which change it belongs to.
    fn take(
        &mut self,
        record: &'b BorrowedMessage<'_>,
        stores: &Stores<S>,
    ) -> Result<usize, Unapplied> {
        let event = decode::<S>(record).map_err(Unapplied::Poison)?;
        let place = self.change(record.partition(), S::key(&event));
        let change = &mut self.changes[place];
        let applied = change.apply(&event, stores)?;
        change.too_large |= applied.is_above(self.limit);
        change.keep(applied);
        Ok(place)
    }

    /// Where the change of this key is; a new one where there is none yet.
    fn change(&mut self, partition: i32, key: Cow<'b, str>) -> usize {
        match self.places.entry((partition, key)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.changes
                    .push(Change::nothing(partition, new.key().1.clone()));
                *new.insert(self.changes.len() - 1)
            }
        }
    }

    /// Encodes a new state once for the whole batch.
    fn encode(&mut self, change: usize) -> Result<(), Unapplied> {
        let change = &mut self.changes[change];
        if change.too_large {
            return Err(Unapplied::StateTooLarge);
        }
        if let Some(state) = &change.state {
            change.value = encode(&mut self.values, &**state, &change.key, self.limit)?;
        }
        Ok(())
    }

    /// Applies the records of a change again, each only where nothing after it
    /// is too large: so it does not depend on the batch which ones are refused.
    fn redo_singly(&mut self, change: usize, batch: &'b Batch<'_>, stores: &Stores<S>) {
        let Change { partition, key, .. } = &self.changes[change];
        let mut redone = Change::nothing(*partition, key.clone());
        let places = self.change_of.iter().enumerate();
        for (place, _) in places.filter(|(_, of)| **of == Some(change)) {
            let Some(Ok(event)) = batch.records.get(place).map(decode::<S>) else {
                continue;
            };
            let before = redone.state.clone();
            let applied = redone.apply(&event, stores);
            match applied.and_then(|applied| redone.fit(applied, &mut self.values, self.limit)) {
                Ok(applied) => redone.keep(applied),
                Err(unapplied) => {
                    redone.state = before;
                    self.unapplied.push((place, unapplied));
                }
            }
        }
        self.changes[change] = redone;
        // What was kept is within the limit.
        let _ = self.encode(change);
    }
}

impl<'b, S: Stream> Change<'b, S> {
    fn nothing(partition: i32, key: Cow<'b, str>) -> Self {
        Self {
            partition,
            key,
            state: None,
            forwards: Vec::new(),
            effects: Vec::new(),
            value: 0..0,
            too_large: false,
        }
    }

    fn apply(&mut self, event: &S::Event<'_>, stores: &Stores<S>) -> Result<Applied, Unapplied> {
        let store = stores.get(&self.partition);
        let known = match (&self.state, store) {
            (None, Some(store)) => store.get(self.key.as_bytes())?,
            (Some(_), _) | (None, None) => None,
        };
        let mut draft = Draft::of(known, self.state.take());
        let applied = S::apply(&mut draft, event);
        self.state = draft.changed();
        Ok(applied)
    }

    /// What an event did, unless any record after it is too large.
    fn fit(
        &self,
        applied: Applied,
        values: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Applied, Unapplied> {
        if applied.is_above(limit) {
            return Err(Unapplied::StateTooLarge);
        }
        if let Some(state) = &self.state {
            let value = encode(values, &**state, &self.key, limit)?;
            values.truncate(value.start);
        }
        Ok(applied)
    }

    fn keep(&mut self, applied: Applied) {
        self.forwards.extend(applied.forward);
        self.effects.extend(applied.effects.into_iter().flatten());
    }
}

impl Applied {
    /// Whether it forwards a record that no topic takes.
    fn is_above(&self, limit: usize) -> bool {
        let forward = self.forward.as_ref();
        forward.is_some_and(|forward| forward.key.len() + forward.value.len() > limit)
    }
}

/// Appends the JSON of a state to `values`; where it stands there.
fn encode(
    values: &mut Vec<u8>,
    state: &impl serde::Serialize,
    key: &str,
    limit: usize,
) -> Result<Range<usize>, Unapplied> {
    let start = values.len();
    // States are texts, numbers and times: they always make JSON.
    let _ = serde_json::to_writer(&mut *values, state);
    let end = values.len();
    if key.len() + (end - start) > limit {
        values.truncate(start);
        return Err(Unapplied::StateTooLarge);
    }
    Ok(start..end)
}
