//! What real pushes have that no document publishes.
//!
//! Knows which oddities there are and which pushes have one; what each does to
//! a body stands with the body.

use super::json::Object;
use super::random::Salt;
use super::{Draft, World};
use crate::topics::Topic;

/// One way of not being as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// The fields in another order.
    KeyOrder,
    /// Fields that no document has: keys in Chinese, integers above 2^53, a NUL.
    UnknownKeys,
    /// A mandatory field that is `null`.
    NullField,
    /// An enumeration's value in other words.
    OtherWord,
    /// A value that no enumeration has.
    UnknownWord,
    /// The sibling dialect: milliseconds in a time, a number for a string.
    Dialect,
    /// An id that is new with every push, or a field that is missing.
    OwnId,
    /// An id beyond ASCII, written with escapes.
    EscapedId,
    /// No usable key, hence a dead letter.
    NoKey,
}

const KINDS: [Oddity; 9] = [
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

/// Texts in place of a notification: cut off, none at all, of no known shape.
const NOT_NOTIFICATIONS: u64 = 3;

/// The oddity of a push, if it has one.
pub(super) fn of(world: &World, number: u64) -> Option<Oddity> {
    if !world
        .seed
        .chance(Salt::Oddity, number, world.shares.oddities)
    {
        return None;
    }
    let kind = world.seed.below(Salt::OddityKind, number, 10);
    KINDS.get(usize::try_from(kind).unwrap_or(0)).copied()
}

/// A tenth of the odd pushes are no notification at all.
pub(super) fn not_a_notification(world: &World, number: u64) -> Option<Draft> {
    let odd = world
        .seed
        .chance(Salt::Oddity, number, world.shares.oddities);
    if !odd || world.seed.below(Salt::OddityKind, number, 10) != 9 {
        return None;
    }
    let id = world.seed.uuid(Salt::Request, number);
    let body = match world.seed.below(Salt::Reading, number, NOT_NOTIFICATIONS) {
        0 => format!("{{\"notifyType\":\"messageConfirm\",\"header\":{{\"requestId\":\"{id}"),
        1 => format!("connectivity test {id}"),
        _ => format!("{{\"test\":\"{id}\"}}"),
    };
    Some(Draft {
        body,
        topic: Topic::DeadLetter,
        key: None,
        as_published: false,
    })
}

/// Adds what no document has.
pub(super) fn with_unknown_keys(object: Object, number: u64) -> Object {
    object
        .raw("设备状态", "\"正常\"")
        .raw("sequence", format!("{}", u64::MAX - number))
        .raw("remark", "\"a\\u0000b\"")
}
