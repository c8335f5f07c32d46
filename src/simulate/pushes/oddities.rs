//! Deviations of real pushes from the platform's documents.
//!
//! Owns which oddities exist and which pushes have one; what an oddity does to
//! a body is defined beside that body.

use super::json::JsonObject;
use super::random::Salt;
use super::scenario::{PushDraft, Scenario};
use crate::topics::Topic;

/// One way of deviating from the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// The fields in reverse order.
    KeyOrder,
    /// Undocumented fields: keys in Chinese, integers above 2^53, a NUL.
    UnknownKeys,
    /// A mandatory field that is `null`.
    NullField,
    /// A documented value of an enumeration in another spelling.
    OtherWord,
    /// A value that is not in the enumeration.
    UnknownWord,
    /// The sibling API's format: milliseconds in a time, a number for a string.
    Dialect,
    /// An id that differs with every push, or a missing field.
    OwnId,
    /// A non-ASCII id, written with `\u` escapes.
    EscapedId,
    /// No usable key, so a dead letter.
    NoKey,
}

const ODDITIES: [Oddity; 9] = [
    Oddity::KeyOrder,
    Oddity::UnknownKeys,
    Oddity::NullField,
    Oddity::OtherWord,
    Oddity::UnknownWord,
    Oddity::Dialect,
    Oddity::OwnId,
    Oddity::EscapedId,
    Oddity::NoKey,
];
/// [`ODDITIES`], and one kind more: bodies that are not notifications.
const KINDS: u64 = 10;
const NOT_A_NOTIFICATION: u64 = 9;
/// Truncated JSON, plain text, and an object of unknown shape.
const OTHER_BODIES: u64 = 3;

/// Returns the oddity of a push, if it has one.
pub(super) fn of(scenario: &Scenario, number: u64) -> Option<Oddity> {
    let kind = kind(scenario, number)?;
    ODDITIES.get(usize::try_from(kind).unwrap_or(0)).copied()
}

/// Returns the body of a push that is not a notification: a tenth of the
/// oddities.
pub(super) fn not_a_notification(scenario: &Scenario, number: u64) -> Option<PushDraft> {
    if kind(scenario, number) != Some(NOT_A_NOTIFICATION) {
        return None;
    }
    let seed = scenario.seed;
    let id = seed.uuid(Salt::Request, number);
    let body = match seed.below(Salt::Reading, number, OTHER_BODIES) {
        0 => format!("{{\"notifyType\":\"messageConfirm\",\"header\":{{\"requestId\":\"{id}"),
        1 => format!("connectivity test {id}"),
        _ => format!("{{\"test\":\"{id}\"}}"),
    };
    Some(PushDraft {
        body,
        topic: Topic::DeadLetter,
        key: None,
        conforms: false,
    })
}

pub(super) fn with_unknown_keys(object: JsonObject, number: u64) -> JsonObject {
    object
        .raw("设备状态", "\"正常\"")
        .raw("sequence", format!("{}", u64::MAX - number))
        .raw("remark", "\"a\\u0000b\"")
}

fn kind(scenario: &Scenario, number: u64) -> Option<u64> {
    let Scenario { seed, mix, .. } = scenario;
    let is_odd = seed.chance(Salt::Oddity, number, mix.oddities);
    is_odd.then(|| seed.below(Salt::OddityKind, number, KINDS))
}
