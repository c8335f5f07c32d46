//! The progress of one upgrade operation: the delta of a device (event), the value in
//! `iot.upgrade-operation` (state), and how the state counts deltas.
//!
//! This is the second stage of `upgrade-result`. It is keyed by operation, sees a device only
//! through its deltas, and remembers none. Each delta is counted exactly once, and those of one
//! device in order: the first stage writes them so, and the state remembers which it has counted,
//! however often they are read. Between devices the order does not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::format::{FormatVersion, StoredState};
use super::poison::Poison;
use super::position::{Counted, Position};
use super::texts::Text;
use super::time::ReceivedAt;
use crate::streams::draft::Draft;

/// How many of the latest receipts a state keeps; see [`OperationState`].
const LATEST_KEPT: usize = 16;

/// How an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum UpgradeResult {
    /// The device runs the target version.
    Success,
    /// It does not.
    Fail,
}

/// What counts for a device in an operation: its newest attempt there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceOutcome<'a> {
    pub(crate) result: UpgradeResult,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) target_version: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<Text<'a>>,
    pub(crate) received_at: ReceivedAt,
}

/// A change of one device's outcome in one operation: the value in `iot.upgrade-delta`.
///
/// It carries both sides of the change, so that the operation can uncount one and count the other
/// without knowing the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta<'a> {
    /// Also the record's key.
    #[serde(borrow)]
    pub(crate) operation_id: Text<'a>,
    /// For people who read the topic; the operation does not use it.
    #[serde(borrow)]
    pub(crate) device_id: Text<'a>,
    /// What has counted for the device; absent at its first attempt.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<DeviceOutcome<'a>>,
    /// What counts now; equal to `before` if only `earliest_at` changed.
    #[serde(borrow)]
    pub(crate) after: DeviceOutcome<'a>,
    /// The earliest receipt of any attempt of the device in the operation.
    pub(crate) earliest_at: ReceivedAt,
}

/// A delta as it was read from `iot.upgrade-delta`.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    pub(crate) delta: Delta<'a>,
    pub(crate) position: Position,
}

/// The progress of one operation, as stored in its topic.
///
/// `firstAt` is the earliest receipt of *any* attempt in the operation, even if the device has
/// since been retried: the time of the operation's first result. A minimum only ever falls, so it
/// is exact without remembering devices. The earliest among the newest attempts alone could rise
/// with every retry, and would need all of them.
///
/// `lastAt` is the latest receipt, which belongs to some device's newest attempt. It can fall, if a
/// repeat shows that a push was received earlier than known. The second latest is needed then, so
/// the state keeps the 16 latest receipts that count. Only if all 16 fell without a new result in
/// between would `lastAt` keep the last one known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationState {
    operation_id: String,
    target_versions: BTreeMap<String, u64>,
    succeeded: u64,
    failed: u64,
    /// The sum of `succeeded` and `failed`.
    devices: u64,
    errors: BTreeMap<String, u64>,
    first_at: ReceivedAt,
    last_at: ReceivedAt,
    /// The latest receipts that count, newest first; empty if that is `last_at` alone. Travels in
    /// the record's header; records from before the header have it in the value.
    #[serde(default, skip_serializing)]
    latest: Vec<ReceivedAt>,
    /// Travels in the record's header.
    #[serde(skip)]
    counted: Counted,
}

/// What an operation's state needs beyond the fields of its value.
#[derive(Debug, Serialize, Deserialize)]
pub struct Header {
    version: FormatVersion,
    counted: Counted,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    latest: Vec<ReceivedAt>,
}

/// Counts a delta in the state of its operation, unless the state already contains it.
///
/// Deltas of different devices commute; those of one device must be applied in order. An operation
/// gets the deltas of all its devices, so its state is changed in place.
pub(crate) fn apply(state: &mut Draft<'_, OperationState>, event: &Event<'_>) {
    let Event { delta, position } = event;
    let is_known =
        |state: &OperationState| state.counted.includes(*position) || state.contains(delta);
    if state.get().is_some_and(is_known) {
        return;
    }
    let state = state.edit(|| OperationState::empty(delta));
    state.counted.add(*position);
    state.update_latest(delta);
    if let Some(before) = &delta.before {
        state.uncount(before);
    }
    state.count(&delta.after);
    state.devices = state.succeeded.saturating_add(state.failed);
    state.first_at = state.first_at.min(delta.earliest_at);
}

impl UpgradeResult {
    /// The word for it in states and in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
        }
    }

    /// Reads a push's result: the published words and the variants that platforms send, in any case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "SUCCESS" | "SUCCESSFUL" | "SUCCEEDED" => Some(Self::Success),
            "FAIL" | "FAILED" | "FAILURE" => Some(Self::Fail),
            _ => None,
        }
    }
}

impl<'a> Delta<'a> {
    /// Reads a value of `iot.upgrade-delta`.
    ///
    /// # Errors
    ///
    /// Returns [`Poison::NotADelta`] if another writer put something else there.
    pub(crate) fn decode(value: &'a [u8]) -> Result<Self, Poison> {
        serde_json::from_slice(value).map_err(|_| Poison::NotADelta)
    }
}

impl StoredState for OperationState {
    type Header = Header;

    /// Its deltas are told by the committed offset at the time of its last write.
    const REWRITTEN_AT_ONCE: bool = true;

    fn header(&self) -> Header {
        Header {
            version: FormatVersion,
            counted: self.counted,
            latest: self.latest.clone(),
        }
    }

    fn set_header(&mut self, header: Header) {
        self.counted = header.counted;
        self.latest = header.latest;
    }

    fn set_counted(&mut self, counted: Counted) {
        self.counted = counted;
    }
}

impl OperationState {
    fn empty(delta: &Delta<'_>) -> Self {
        Self {
            operation_id: delta.operation_id.as_str().to_owned(),
            target_versions: BTreeMap::new(),
            succeeded: 0,
            failed: 0,
            devices: 0,
            errors: BTreeMap::new(),
            first_at: delta.earliest_at,
            last_at: delta.after.received_at,
            latest: Vec::new(),
            counted: Counted::default(),
        }
    }

    /// Returns whether a delta adds nothing to the state.
    fn contains(&self, delta: &Delta<'_>) -> bool {
        delta.before.as_ref() == Some(&delta.after) && delta.earliest_at >= self.first_at
    }

    fn count(&mut self, outcome: &DeviceOutcome<'_>) {
        let total = self.total(outcome.result);
        *total = total.saturating_add(1);
        for (counts, name) in self.counts_by_name(outcome) {
            match counts.get_mut(name) {
                Some(count) => *count = count.saturating_add(1),
                None => drop(counts.insert(name.to_owned(), 1)),
            }
        }
    }

    fn uncount(&mut self, outcome: &DeviceOutcome<'_>) {
        let total = self.total(outcome.result);
        *total = total.saturating_sub(1);
        for (counts, name) in self.counts_by_name(outcome) {
            let left = counts.get(name).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                counts.remove(name);
            } else {
                counts.insert(name.to_owned(), left);
            }
        }
    }

    fn total(&mut self, result: UpgradeResult) -> &mut u64 {
        match result {
            UpgradeResult::Success => &mut self.succeeded,
            UpgradeResult::Fail => &mut self.failed,
        }
    }

    /// The maps that count an outcome, each with the name to count it under. An empty name is
    /// not counted, and neither is the code of a success, which is not an error.
    fn counts_by_name<'s, 'o>(
        &'s mut self,
        outcome: &'o DeviceOutcome<'_>,
    ) -> impl Iterator<Item = (&'s mut BTreeMap<String, u64>, &'o str)> {
        let failed = outcome.result == UpgradeResult::Fail;
        let error = outcome.error_code.as_ref().filter(|_| failed);
        let error = error.map(Text::as_str);
        let version = outcome.target_version.as_ref().map(Text::as_str);
        [
            (&mut self.target_versions, version),
            (&mut self.errors, error),
        ]
        .into_iter()
        .filter_map(|(counts, name)| Some((counts, name.filter(|name| !name.is_empty())?)))
    }

    /// Replaces the receipt that no longer counts by the one that now does. Needs the number of
    /// devices as it was before the delta.
    fn update_latest(&mut self, delta: &Delta<'_>) {
        if self.latest.is_empty() && self.devices > 0 {
            self.latest.push(self.last_at);
        }
        let after = delta.after.received_at;
        let complete = u64::try_from(self.latest.len()) == Ok(self.devices);
        let rank = self.latest.partition_point(|known| *known > after);
        // An incomplete list has dropped receipts below its last. How `after` ranks among those is
        // unknown, so it cannot be appended.
        if complete || rank < self.latest.len() {
            self.latest.insert(rank, after);
        }
        let before = delta.before.as_ref().map(|outcome| outcome.received_at);
        if let Some(at) = self.latest.iter().position(|known| Some(*known) == before) {
            self.latest.remove(at);
        }
        self.latest.truncate(LATEST_KEPT);
        if let Some(last) = self.latest.first() {
            self.last_at = *last;
        }
        if self.latest.len() == 1 {
            self.latest.clear();
        }
    }
}

#[cfg(test)]
mod tests;
