//! What a batch changes: the overlay that lies on top of the stores until the
//! transaction is committed.
//!
//! Only computes: the loop writes the overlay within a transaction, and merges
//! it into the stores after the commit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use rdkafka::message::{BorrowedMessage, Message as _};

use super::WorkerConfig;
use super::batch::Batch;
use super::dead_letter::DeadLetterReason;
use crate::headers;
use crate::kafka;
use crate::kafka::transactions::Write;
use crate::streams::draft::Draft;
use crate::streams::states::format::StoredState;
use crate::streams::store::Stores;
use crate::streams::stream::{Applied, Effect, Forward, Stream};
use crate::topics::RECORD_OVERHEAD_BYTES;

pub(super) struct Overlay<'b, S: Stream> {
    /// One for each partition and key of the batch's records.
    changes: Vec<StateChange<'b, S>>,
    /// The records that cannot be applied, by their index in the batch.
    pub(super) dead_letters: Vec<(usize, DeadLetterReason)>,
    /// The JSON of all changed states: value and header of each, one after the
    /// other.
    json: Vec<u8>,
    /// The most bytes that key, value and headers of a record may have.
    limit: usize,
    /// The index in `changes`, by the index of the record in the batch; `None`
    /// for a record that could not be applied.
    change_of_record: Vec<Option<usize>>,
    /// The index in `changes`, by partition and key.
    change_of_key: HashMap<(i32, Cow<'b, str>), usize>,
}

/// What a batch changes under one key.
pub(super) struct StateChange<'b, S: Stream> {
    pub(super) partition: i32,
    pub(super) key: Cow<'b, str>,
    /// The new state; `None` if the records leave the state as it is.
    pub(super) state: Option<Box<S::State>>,
    /// What the metrics count after the commit.
    pub(super) effects: Vec<Effect>,
    forwards: Vec<Forward>,
    /// Where the overlay's `json` has the new state.
    encoded: Encoded,
    has_large_forward: bool,
}

/// The ranges of a state's value and header in the overlay's `json`.
#[derive(Default)]
struct Encoded {
    value: Range<usize>,
    header: Range<usize>,
}

impl<'b, S: Stream> Overlay<'b, S> {
    /// Applies a batch on top of the stores, to which nothing is written. No
    /// state or forward to write is larger than `max_record_bytes`.
    pub(super) fn of(batch: &'b Batch<'_>, stores: &Stores<S>, max_record_bytes: u64) -> Self {
        let limit = usize::try_from(max_record_bytes.saturating_sub(RECORD_OVERHEAD_BYTES))
            .unwrap_or(usize::MAX);
        let mut overlay = Self {
            changes: Vec::new(),
            dead_letters: Vec::new(),
            json: Vec::new(),
            limit,
            change_of_record: Vec::with_capacity(batch.records.len()),
            change_of_key: HashMap::with_capacity(batch.records.len()),
        };
        for (partition, key) in &batch.outdated {
            overlay.rewrite(*partition, key, stores);
        }
        for (record_index, record) in batch.records.iter().enumerate() {
            let applied = overlay.apply_record(record, stores);
            overlay.change_of_record.push(applied.ok());
            if let Err(reason) = applied {
                overlay.dead_letters.push((record_index, reason));
            }
        }
        for index in 0..overlay.changes.len() {
            if overlay.encode(index).is_err() {
                overlay.reapply_one_by_one(index, batch, stores);
            }
        }
        overlay
    }

    /// Every record that the transaction of the batch writes: changed states,
    /// each followed by its forwards; tombstones of expired states; dead
    /// letters.
    pub(super) fn writes<'w>(
        &'w self,
        batch: &'w Batch<'_>,
        config: &'w WorkerConfig,
    ) -> impl Iterator<Item = Write<'w>> {
        let changes = self.changes.iter();
        let expired = batch.expired.iter();
        let dead_letters = self.dead_letters.iter();
        changes
            .flat_map(|change| self.writes_of(change, config))
            .chain(
                expired
                    .filter(|(partition, key)| !self.changes_state(*partition, key))
                    .map(|(partition, key)| tombstone(config, *partition, key)),
            )
            .chain(dead_letters.filter_map(|(record_index, reason)| {
                let record = batch.records.get(*record_index)?;
                Some(reason.write(record, config))
            }))
    }

    /// Calls `each` with every change and the JSON of its new state, which is
    /// empty if there is none.
    pub(super) fn into_changes(self, mut each: impl FnMut(StateChange<'b, S>, &[u8])) {
        for change in self.changes {
            let value = self.json.get(change.encoded.value.clone());
            each(change, value.unwrap_or_default());
        }
    }

    fn writes_of<'w>(
        &'w self,
        change: &'w StateChange<'b, S>,
        config: &'w WorkerConfig,
    ) -> impl Iterator<Item = Write<'w>> {
        let state = self.state_write(change, config);
        let topic = config.forward_topic.iter();
        let forwards = topic.flat_map(|topic| {
            change.forwards.iter().map(move |forward| Write {
                topic,
                partition: None,
                key: Some(forward.key.as_bytes()),
                value: Some(&forward.value),
                headers: None,
            })
        });
        state.into_iter().chain(forwards)
    }

    /// The record of a changed state.
    fn state_write<'w>(
        &'w self,
        change: &'w StateChange<'b, S>,
        config: &'w WorkerConfig,
    ) -> Option<Write<'w>> {
        change.state.as_ref()?;
        let value = self.json.get(change.encoded.value.clone())?;
        let header = self.json.get(change.encoded.header.clone())?;
        Some(Write {
            value: Some(value),
            headers: Some(kafka::headers::of_state(header)),
            ..tombstone(config, change.partition, change.key.as_bytes())
        })
    }

    /// Returns whether the batch writes a new state under this key.
    fn changes_state(&self, partition: i32, key: &[u8]) -> bool {
        let Ok(key) = str::from_utf8(key) else {
            return false;
        };
        let index = self.change_of_key.get(&(partition, Cow::Borrowed(key)));
        index.is_some_and(|index| self.changes[*index].state.is_some())
    }

    /// Makes a change of a committed state that only writes it again.
    fn rewrite(&mut self, partition: i32, key: &'b [u8], stores: &Stores<S>) {
        let state = stores
            .get(&partition)
            .and_then(|store| store.get(key).ok()?);
        let (Some(state), Ok(key)) = (state, str::from_utf8(key)) else {
            return;
        };
        let index = self.change_index(partition, Cow::Borrowed(key));
        self.changes[index].state = Some(Box::new(state.clone()));
    }

    /// Applies one record. Returns the index of the change that it belongs to.
    fn apply_record(
        &mut self,
        record: &'b BorrowedMessage<'_>,
        stores: &Stores<S>,
    ) -> Result<usize, DeadLetterReason> {
        let event = S::decode(record).map_err(DeadLetterReason::Poison)?;
        let index = self.change_index(record.partition(), S::key(&event));
        let change = &mut self.changes[index];
        let applied = change.apply(&event, stores)?;
        change.has_large_forward |= has_large_forward(&applied, self.limit);
        change.keep(applied);
        Ok(index)
    }

    /// The index of the change under this key, which is added if it is the
    /// first of the batch.
    fn change_index(&mut self, partition: i32, key: Cow<'b, str>) -> usize {
        match self.change_of_key.entry((partition, key)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.changes
                    .push(StateChange::none(partition, new.key().1.clone()));
                *new.insert(self.changes.len() - 1)
            }
        }
    }

    /// Encodes the new state of a change: once, however many records changed it.
    fn encode(&mut self, index: usize) -> Result<(), DeadLetterReason> {
        let change = &mut self.changes[index];
        if change.has_large_forward {
            return Err(DeadLetterReason::StateTooLarge);
        }
        if let Some(state) = &change.state {
            change.encoded = append_json(&mut self.json, &**state, &change.key, self.limit)?;
        }
        Ok(())
    }

    /// Applies the records of a change again, one at a time, and makes dead
    /// letters of exactly those with which a record to write would be too
    /// large. Which ones these are does not depend on how records are batched.
    fn reapply_one_by_one(&mut self, index: usize, batch: &'b Batch<'_>, stores: &Stores<S>) {
        let StateChange { partition, key, .. } = &self.changes[index];
        // The new change has no state, so it starts from the committed one.
        let mut redone = StateChange::none(*partition, key.clone());
        let records = self.change_of_record.iter().enumerate();
        for (record_index, _) in records.filter(|(_, change)| **change == Some(index)) {
            // Every record of a change has been decoded before.
            let Some(Ok(event)) = batch.records.get(record_index).map(S::decode) else {
                continue;
            };
            // Events may edit the state in place, so undoing one takes a copy.
            // The normal path, which undoes nothing, makes none.
            let before = redone.state.clone();
            let applied = redone.apply(&event, stores);
            // Encode after every record, not once for the batch: only this shows
            // which record takes the state over the limit.
            let fits = applied.and_then(|applied| {
                redone.check_size(&applied, &mut self.json, self.limit)?;
                Ok(applied)
            });
            match fits {
                Ok(applied) => redone.keep(applied),
                Err(reason) => {
                    // Later records apply as if this one had never arrived; a
                    // smaller one may still fit.
                    redone.state = before;
                    self.dead_letters.push((record_index, reason));
                }
            }
        }
        self.changes[index] = redone;
        // Cannot fail: the last state that was kept passed the same check.
        let _ = self.encode(index);
    }
}

impl<'b, S: Stream> StateChange<'b, S> {
    /// A change that changes nothing yet.
    fn none(partition: i32, key: Cow<'b, str>) -> Self {
        Self {
            partition,
            key,
            state: None,
            effects: Vec::new(),
            forwards: Vec::new(),
            encoded: Encoded::default(),
            has_large_forward: false,
        }
    }

    /// Applies an event to the state as the batch has it so far, else to the
    /// one in the store.
    fn apply(
        &mut self,
        event: &S::Event<'_>,
        stores: &Stores<S>,
    ) -> Result<Applied, DeadLetterReason> {
        let committed = match (&self.state, stores.get(&self.partition)) {
            (None, Some(store)) => store.get(self.key.as_bytes())?,
            (Some(_), _) | (None, None) => None,
        };
        let mut draft = Draft::of(committed, self.state.take());
        let applied = S::apply(&mut draft, event);
        self.state = draft.changed();
        Ok(applied)
    }

    /// Checks that neither the state nor a forward exceeds the limit. Uses the
    /// spare room of `json`, and leaves its content as it is.
    fn check_size(
        &self,
        applied: &Applied,
        json: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), DeadLetterReason> {
        if has_large_forward(applied, limit) {
            return Err(DeadLetterReason::StateTooLarge);
        }
        if let Some(state) = &self.state {
            let encoded = append_json(json, &**state, &self.key, limit)?;
            json.truncate(encoded.value.start);
        }
        Ok(())
    }

    fn keep(&mut self, applied: Applied) {
        self.forwards.extend(applied.forward);
        self.effects.extend(applied.effects.into_iter().flatten());
    }
}

/// A record of the state topic that removes a state.
fn tombstone<'w>(config: &'w WorkerConfig, partition: i32, key: &'w [u8]) -> Write<'w> {
    Write {
        topic: &config.state_topic,
        partition: Some(partition),
        key: Some(key),
        value: None,
        headers: None,
    }
}

fn has_large_forward(applied: &Applied, limit: usize) -> bool {
    let forward = applied.forward.as_ref();
    forward.is_some_and(|forward| forward.key.len() + forward.value.len() > limit)
}

/// Appends the value and the header of a state to `json`.
fn append_json<State: StoredState>(
    json: &mut Vec<u8>,
    state: &State,
    key: &str,
    limit: usize,
) -> Result<Encoded, DeadLetterReason> {
    let start = json.len();
    // States hold only texts, numbers and times, which always serialize.
    let _ = serde_json::to_writer(&mut *json, state);
    let value = start..json.len();
    let _ = serde_json::to_writer(&mut *json, &state.header());
    let header = value.end..json.len();
    if key.len() + value.len() + headers::STATE.len() + header.len() > limit {
        json.truncate(start);
        return Err(DeadLetterReason::StateTooLarge);
    }
    Ok(Encoded { value, header })
}
