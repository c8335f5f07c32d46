//! Reads the bytes of a push into a [`Notification`], or says why they are [`Unreadable`].
//!
//! Owns the shapes that reach the listener, the ids in them and the limits on those ids.
//! It is pure, and must not know HTTP, Kafka, topic names, metrics or logs.
//! The body is scanned and never built into a tree, because the sender's bytes are what is stored.
//!
//! ```text
//! bytes ── UTF-8 ── scan ── Push ─┬─ command_status ─┐
//!                                 ├─ upgrade_result ─┼─ Notification, or Unreadable
//!                                 └─ other ──────────┘
//! ```

pub(crate) mod closed_list;
mod command_status;
mod drift;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod laws;
mod notify_type;
mod other;
mod push;
pub(crate) mod scan;
mod table;
mod unreadable;
mod upgrade_result;
mod value;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use drift::{Drift, Field};
pub use notify_type::{Category, NotifyType};
pub use unreadable::{Cause, IdProblem, Unreadable};

use push::Push;

/// The longest id that can be a key, in bytes of its decoded text.
///
/// The published limit is 128 characters, of up to four bytes each.
pub const MAX_ID_BYTES: usize = 512;

/// Reads one push.
///
/// Looks only at the few fields that matter, in any order; of a repeated name the last counts, as
/// in most JSON readers.
/// For a confirmation or an upgrade result as the platform writes them it allocates nothing. JSON
/// escapes in a field that matters cost a decoded copy, and nesting costs a byte for each level.
///
/// # Errors
///
/// Returns [`Unreadable`] if the push cannot be keyed, or if [`Validation::Strict`] is set and the
/// push violates the published table of its type.
pub fn read(body: &[u8], rules: Rules) -> Result<Notification<'_>, Unreadable<'_>> {
    let text = scan::utf8(body).map_err(|cause| Unreadable::new(cause, Subject::unknown()))?;
    let push = Push::scan(text).map_err(|cause| Unreadable::new(cause, Subject::unknown()))?;
    let Some(identity) = push.identity() else {
        return other::read_unknown(&push)
            .ok_or_else(|| Unreadable::new(Cause::UnknownShape, Subject::unknown()));
    };
    match identity.notify_type.category() {
        Category::CommandStatus => command_status::read(&push, rules),
        Category::UpgradeResult => upgrade_result::read(&push, rules.validation),
        Category::Notifications => Ok(other::read(&push, identity)),
    }
}

/// Returns whether a body is a push about this request.
pub(crate) fn names_request(body: &[u8], id: &str) -> bool {
    let push = scan::utf8(body).and_then(Push::scan);
    push.is_ok_and(|push| other::names_request(&push, id))
}

/// The operator's settings for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// The id that keys a command confirmation.
    pub command_key: CommandKey,
    /// What happens to a push that violates the published table of its type.
    pub validation: Validation,
}

/// The choice of the id that keys a `messageConfirm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandKey {
    /// `header.requestId`: all confirmations of a command share a partition.
    #[default]
    RequestId,
    /// The device in `header.from`: all commands of a device share a partition.
    DeviceId,
}

/// How strictly confirmations and upgrade results are checked against their published field tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validation {
    /// A push that violates its table is stored in its topic and reported as [`Drift`].
    #[default]
    Tolerant,
    /// A push that violates its table is [`Unreadable`].
    Strict,
}

/// A push that could be read, with its category and the best key that it contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification<'a> {
    subject: Subject<'a>,
    drift: Drift,
}

impl<'a> Notification<'a> {
    fn new(subject: Subject<'a>, drift: Drift) -> Self {
        Self { subject, drift }
    }

    /// The category of its type.
    pub(crate) fn category(&self) -> Category {
        self.subject.notify_type.category()
    }

    /// The type, the device and the key. A confirmation or an upgrade result always has a key.
    pub(crate) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    /// The fields that are not as published, although the push could be read.
    pub(crate) fn drift(&self) -> Drift {
        self.drift
    }
}

/// The type of a push and the ids in it, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject<'a> {
    notify_type: NotifyType,
    type_name: Cow<'a, str>,
    device_id: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
}

impl<'a> Subject<'a> {
    /// A subject whose type is known, so that the type's name is its label.
    fn new(
        notify_type: NotifyType,
        device_id: Option<Cow<'a, str>>,
        key: Option<Cow<'a, str>>,
    ) -> Self {
        let type_name = Cow::Borrowed(notify_type.label());
        Self {
            notify_type,
            type_name,
            device_id,
            key,
        }
    }

    /// The subject of bytes that reveal nothing.
    fn unknown() -> Self {
        Self::new(NotifyType::Other, None, None)
    }

    /// [`NotifyType::Other`] if the push names no known type.
    pub(crate) fn notify_type(&self) -> NotifyType {
        self.notify_type
    }

    /// The type as the sender names it, for the `type` of `CloudEvents`.
    ///
    /// 1 to 256 bytes without control characters; `other` if the sender gives no such name.
    pub(crate) fn type_name(&self) -> &str {
        &self.type_name
    }

    /// 1 to [`MAX_ID_BYTES`] bytes, with any character.
    pub(crate) fn device_id(&self) -> Option<&str> {
        self.device_id.as_deref()
    }

    /// The key of the push's record, 1 to [`MAX_ID_BYTES`] bytes.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}
