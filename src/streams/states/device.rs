//! The software of one device: the upgrade result (event), the value in `iot.device-software`
//! (state), and the merge of one into the other.
//!
//! A change that an upgrade operation must know about leaves as a [`Delta`]. How operations count
//! is up to [`super::operation`].

mod json;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::fields::{JsonField, UnusableId, fields_of_record};
use super::operation::{Delta, DeviceOutcome, UpgradeResult};
use super::poison::Poison;
use super::texts::{Text, Texts};
use super::time::ReceivedAt;
use crate::notification::closed_list::closed_list;

/// Every attempt received at most this many days before the newest is kept.
const KEPT_DAYS: i64 = 7;

/// This many attempts are kept, however old they are.
const KEPT_ATTEMPTS: usize = 16;

/// One `swUpgradeResultNotify` push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// As the platform allocated it when the device was registered.
    pub(crate) device_id: Cow<'a, str>,
    attempt: Attempt,
}

/// The state of one device, as stored in its topic.
///
/// `attempts` are those of the last 7 days before the newest, and at least the 16 newest. An attempt
/// is dropped by its rank alone, and no rank rises again while the receipt of a push stays the same. So any order of the same records, with any repeats, leads to the same attempts.
///
/// An operation counts each device once and never forgets one, so the newest attempt of this device
/// in each operation must stay known even if 16 attempts in other operations push it out of
/// `attempts`. It then moves to `older`, one attempt for each such operation, which travels in the
/// record's header; without it, a late record would count its device twice. While `attempts` holds
/// everything, `older` is absent.
///
/// Dropping attempts has two consequences. First, if the platform repeated a push that is over 7
/// days older than the newest, that 16 newer ones follow, and that is not the newest in its
/// operation (or has none), it would count as new. The platform holds pushes for at most 24 hours,
/// so no repeat is that late. Second, if a repeat shows that a push was received *earlier* than
/// known, attempts that were dropped because of its later receipt do not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSoftware {
    device_id: String,
    /// Newest first, never empty.
    attempts: Vec<Attempt>,
    /// Newest first.
    older: Vec<Attempt>,
}

/// One distinct push: two pushes with equal published fields are the same attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    texts: Texts<TEXTS>,
    result: UpgradeResult,
    received_at: ReceivedAt,
}

closed_list! {
    /// The fields of an attempt in a state, in the order in which they are written.
    ///
    /// All before `result` are texts, which have the same names in a push. Their order also decides
    /// between attempts received in the same millisecond.
    enum AttemptField {
        AppId = "appId",
        OperationId = "operationId",
        SubOperationId = "subOperationId",
        CurVersion = "curVersion",
        TargetVersion = "targetVersion",
        SourceVersion = "sourceVersion",
        UpgradeTime = "upgradeTime",
        ErrorCode = "errorCode",
        ResultDesc = "resultDesc",
        Description = "description",
        Result = "result",
        ReceivedAt = "receivedAt",
    }
}

/// How many fields of an attempt are texts.
const TEXTS: usize = AttemptField::Result.index();

/// The fields of a push that are read: the texts of the attempt, then three others.
const PUSH_FIELDS: [&str; TEXTS + 3] = {
    let mut names = [""; TEXTS + 3];
    let mut place = 0;
    while place < TEXTS {
        names[place] = AttemptField::ALL[place].label();
        place += 1;
    }
    names[TEXTS] = "notifyType";
    names[TEXTS + 1] = "deviceId";
    names[TEXTS + 2] = "swUpgradeResult";
    names
};

/// What one upgrade result did to the state of its device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    /// The state to write; `None` if it is unchanged.
    pub(crate) state: Option<Box<DeviceSoftware>>,
    /// The result to count, if the attempt was unknown.
    pub(crate) new_result: Option<UpgradeResult>,
    /// What the attempt's operation must know.
    pub(crate) delta: Option<Delta<'a>>,
}

/// Merges an upgrade result into the state of its device.
///
/// Commutative, associative and idempotent over events, within the bounds that [`DeviceSoftware`]
/// describes.
pub(crate) fn apply<'a>(state: Option<&'a DeviceSoftware>, event: &'a Event<'_>) -> Change<'a> {
    let known = state.and_then(|state| state.find(&event.attempt));
    if known.is_some_and(|known| known.received_at <= event.attempt.received_at) {
        return Change::default();
    }
    let next = DeviceSoftware::with(state, event);
    let kept = next.find(&event.attempt).is_some();
    Change {
        delta: delta(state, event),
        new_result: (known.is_none() && kept).then_some(event.attempt.result),
        state: (state != Some(&next)).then(|| Box::new(next)),
    }
}

impl<'a> Event<'a> {
    /// Reads a `swUpgradeResultNotify` push that was received at `received_at`. Only its `deviceId`
    /// and `swUpgradeResult` are mandatory.
    ///
    /// # Errors
    ///
    /// Returns [`Poison`] if the bytes are not a JSON object, if the push is of another type, if it
    /// has no usable `deviceId`, or if its result is neither a success nor a failure.
    pub(crate) fn decode(push: &'a [u8], received_at: ReceivedAt) -> Result<Self, Poison> {
        let [texts @ .., notify_type, device_id, result] = fields_of_record(push, PUSH_FIELDS)?;
        notify_type.expect_notify_type("swUpgradeResultNotify")?;
        let device_id = device_id.id().map_err(|unusable| match unusable {
            UnusableId::Missing => Poison::DeviceIdMissing,
            UnusableId::TooLong => Poison::DeviceIdTooLong,
        })?;
        let attempt = Attempt::from_push(texts, result, received_at)?;
        Ok(Self { device_id, attempt })
    }
}

impl DeviceSoftware {
    fn with(state: Option<&Self>, event: &Event<'_>) -> Self {
        let known = state.into_iter().flat_map(Self::all);
        let others = known.filter(|known| !known.is_same_push(&event.attempt));
        let attempts = others.chain([&event.attempt]).cloned().collect();
        Self::retaining(event.device_id.clone().into_owned(), attempts)
    }

    /// Keeps what must be kept of distinct attempts in any order.
    fn retaining(device_id: String, mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_unstable_by(|a, b| b.cmp(a));
        let horizon = attempts
            .first()
            .map(|newest| newest.received_at.days_before(KEPT_DAYS));
        let recent = attempts.partition_point(|attempt| Some(attempt.received_at) >= horizon);
        let mut older = attempts.split_off(recent.max(KEPT_ATTEMPTS).min(attempts.len()));
        if !older.is_empty() {
            retain_newest_of_operations(&mut older, &attempts);
        }
        Self {
            device_id,
            attempts,
            older,
        }
    }

    /// Every known attempt, newest first.
    fn all(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().chain(&self.older)
    }

    fn find(&self, push: &Attempt) -> Option<&Attempt> {
        self.all().find(|known| known.is_same_push(push))
    }

    fn in_operation(&self, operation: &str) -> impl Iterator<Item = &Attempt> {
        self.all()
            .filter(move |attempt| attempt.operation() == Some(operation))
    }
}

/// Leaves in `older` the newest attempt of each operation that `attempts` lacks.
fn retain_newest_of_operations(older: &mut Vec<Attempt>, attempts: &[Attempt]) {
    let owned = |attempt: &Attempt| attempt.operation().map(str::to_owned);
    let mut known: BTreeSet<String> = attempts.iter().filter_map(owned).collect();
    older.retain(|attempt| owned(attempt).is_some_and(|operation| known.insert(operation)));
}

/// What the operation of the event's attempt must know: that another attempt of the device now
/// counts there, or that the device's earliest receipt there is earlier than known.
fn delta<'a>(before: Option<&'a DeviceSoftware>, event: &'a Event<'_>) -> Option<Delta<'a>> {
    let attempt = &event.attempt;
    let operation = attempt.operation()?;
    let known = || {
        before
            .into_iter()
            .flat_map(|state| state.in_operation(operation))
    };
    let outcome_before = known().next().map(Attempt::outcome);
    // If the push is known with a later receipt, its known copy no longer counts.
    let others = known().filter(|known| !known.is_same_push(attempt));
    let outcome_after = others
        .fold(attempt, |newest, other| newest.max(other))
        .outcome();
    let earliest_before = known().map(|attempt| attempt.received_at).min();
    let earlier = earliest_before.is_none_or(|earliest| attempt.received_at < earliest);
    if !earlier && outcome_before.as_ref() == Some(&outcome_after) {
        return None;
    }
    Some(Delta {
        operation_id: operation.into(),
        device_id: Text::from(&*event.device_id),
        before: outcome_before,
        after: outcome_after,
        earliest_at: earliest_before.map_or(attempt.received_at, |earliest| {
            earliest.min(attempt.received_at)
        }),
    })
}

impl Attempt {
    fn from_push(
        texts: [JsonField<'_>; TEXTS],
        result: JsonField<'_>,
        received_at: ReceivedAt,
    ) -> Result<Self, Poison> {
        let result = result.text().ok_or(Poison::ResultMissing)?;
        let texts = texts.map(JsonField::text);
        Ok(Self {
            texts: Texts::new(texts.each_ref().map(Option::as_deref)),
            result: UpgradeResult::parse(&result).ok_or(Poison::ResultUnknown)?,
            received_at,
        })
    }

    /// Returns whether both are the same push, whenever each was received.
    fn is_same_push(&self, other: &Self) -> bool {
        self.result == other.result && self.texts == other.texts
    }

    /// The operation that counts the attempt; none if its id is absent or empty.
    fn operation(&self) -> Option<&str> {
        self.text(AttemptField::OperationId)
            .filter(|id| !id.is_empty())
    }

    fn outcome(&self) -> DeviceOutcome<'_> {
        DeviceOutcome {
            result: self.result,
            target_version: self.text(AttemptField::TargetVersion).map(Text::from),
            error_code: self.text(AttemptField::ErrorCode).map(Text::from),
            received_at: self.received_at,
        }
    }

    fn text(&self, field: AttemptField) -> Option<&str> {
        self.texts.get(field.index())
    }
}

impl Ord for Attempt {
    fn cmp(&self, other: &Self) -> Ordering {
        let receipts = self.received_at.cmp(&other.received_at);
        receipts
            .then_with(|| self.result.cmp(&other.result))
            .then_with(|| self.texts.all().cmp(&other.texts.all()))
    }
}

impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
