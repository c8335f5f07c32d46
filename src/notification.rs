//! What a push is: its bytes read into a [`Notification`], or the reason why not.
//!
//! Owns the shapes that reach the listener, the ids inside them and the limits on those ids.
//! It is pure, and must not know HTTP, Kafka, topic names, metrics or logs.
//! The body is scanned and never built into a tree: what is stored are the sender's bytes.
//!
//! ```text
//! bytes ── UTF-8 ── scan ── Push ─┬─ command_status ─┐
//!                                 ├─ upgrade_result ─┼─ Notification, or Unreadable
//!                                 └─ other ──────────┘
//! ```

mod closed_list;
mod command_status;
mod drift;
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
pub use notify_type::{NotifyType, Stream};
pub use unreadable::{Cause, IdProblem, Unreadable};

use push::Push;

/// The longest id, in bytes of its decoded text, that can be a key.
///
/// The published limit is 128 characters, so that even at two bytes a character an id within
/// its table fits.
pub const MAX_ID_BYTES: usize = 256;

/// Reads one push.
///
/// Looks at the few fields that matter, whatever the order of keys; of a repeated key the last
/// counts, as most JSON readers have it.
/// Allocates nothing for the two bodies of the mission as the platform writes them; JSON escapes in
/// a field that is looked at cost a decoded copy, and nested values a byte for each level.
///
/// # Errors
///
/// [`Unreadable`] where the push cannot be keyed, or under [`Validation::Strict`] breaks the
/// published table of its type.
pub fn read(body: &[u8], rules: Rules) -> Result<Notification<'_>, Unreadable<'_>> {
    let text = scan::utf8(body).map_err(|cause| Unreadable::new(cause, Subject::unknown()))?;
    let push = Push::scan(text).map_err(|cause| Unreadable::new(cause, Subject::unknown()))?;
    let Some(kind) = push.kind() else {
        let subject = other::subject_of_unknown(&push);
        return Err(Unreadable::new(Cause::UnknownShape, subject));
    };
    match kind.notify_type.stream() {
        Stream::CommandStatus => command_status::read(&push, rules),
        Stream::UpgradeResult => upgrade_result::read(&push, rules.validation),
        Stream::Notifications => Ok(other::read(&push, kind)),
    }
}

/// What an operator decides about reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// The id that keys a command confirmation.
    pub command_key: CommandKey,
    /// What happens to a push that breaks the published table of its type.
    pub validation: Validation,
}

/// The id that keys a `messageConfirm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandKey {
    /// `header.requestId`: all statuses of one command share a partition.
    #[default]
    RequestId,
    /// The device inside `header.from`: all commands of one device share a partition.
    DeviceId,
}

/// How strictly the published field tables of the two bodies of the mission are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validation {
    /// What breaks a table is stored in its own topic and reported as [`Drift`].
    #[default]
    Tolerant,
    /// What breaks a table is [`Unreadable`].
    Strict,
}

/// A push that has its place: a stream, and the best key it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification<'a> {
    subject: Subject<'a>,
    drift: Drift,
}

impl<'a> Notification<'a> {
    fn new(subject: Subject<'a>, drift: Drift) -> Self {
        Self { subject, drift }
    }

    /// Where the push belongs.
    pub fn stream(&self) -> Stream {
        self.subject.notify_type.stream()
    }

    /// What the push is and whom it concerns.
    ///
    /// Its key is always there for the two streams of the mission.
    pub fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    /// The fields that are not as published, though the push could be placed.
    pub fn drift(&self) -> Drift {
        self.drift
    }
}

/// What a push is and whom it concerns, as far as that could be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject<'a> {
    notify_type: NotifyType,
    type_name: Cow<'a, str>,
    device_id: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
}

impl<'a> Subject<'a> {
    /// A subject whose type is of the closed list, so that its name is its label.
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

    /// The subject of bytes that say nothing.
    fn unknown() -> Self {
        Self::new(NotifyType::Other, None, None)
    }

    /// The type, of a closed list; [`NotifyType::Other`] where it is unknown.
    pub fn notify_type(&self) -> NotifyType {
        self.notify_type
    }

    /// The type as the sender names it, for `CloudEvents`' `type`.
    ///
    /// 1 to 256 bytes without control characters; `other` where the sender names none like that.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The device concerned, 1 to [`MAX_ID_BYTES`] bytes; it may hold any character.
    pub fn device_id(&self) -> Option<&str> {
        self.device_id.as_deref()
    }

    /// The key under which the push is stored, 1 to [`MAX_ID_BYTES`] bytes.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}
