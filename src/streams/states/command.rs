//! The progress of one command: the confirmation (event), the value in `iot.command-state` (state),
//! and the merge of one into the other.
//!
//! The platform promises neither the order of confirmations nor that each comes once, and may use
//! one `requestId` for a whole command or one for each push. So a state is a join: any order of the
//! same confirmations, with any repeats, leads to the same state.

mod json;

use std::array;
use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::{UnusableId, fields_of_record};
use super::poison::Poison;
use super::texts::Texts;
use super::time::Timestamp;
use crate::notification::closed_list::closed_list;

/// A step in the life of a command; later variants are further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The platform sent the command to the device.
    Sent,
    /// The device received it.
    Delivered,
    /// The device carried it out.
    Executed,
}

/// One `messageConfirm` push, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Identifies the command, or this push alone if the platform numbers pushes.
    pub(crate) request_id: Cow<'a, str>,
    /// `None` if the push names none of the three.
    status: Option<Status>,
    /// The push's own timestamp; `None` if it is missing or unreadable.
    at: Option<Timestamp>,
    from: Cow<'a, str>,
    to: Option<Cow<'a, str>>,
    body: Option<&'a RawValue>,
}

/// The state of one command, as stored in its topic.
///
/// `deviceId` and `serviceId` always come from the same push: of several, from one with a service
/// before one without, then from the one whose ids are greatest by bytes. `to` is the greatest of
/// all by bytes. `body` comes from the latest push at the furthest status.
#[derive(Clone, Debug)]
pub struct CommandState {
    texts: Texts<TEXTS>,
    progress: Progress,
    body: Option<Box<RawValue>>,
}

closed_list! {
    /// The fields of a state, in the order in which they are written. All before `status` are texts.
    enum StateField {
        RequestId = "requestId",
        DeviceId = "deviceId",
        ServiceId = "serviceId",
        To = "to",
        Status = "status",
        SentAt = "sentAt",
        DeliveredAt = "deliveredAt",
        ExecutedAt = "executedAt",
        Body = "body",
    }
}

/// How many fields of a state are texts.
const TEXTS: usize = StateField::Status.index();

/// The furthest status of a command, and the times of its confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    status: Status,
    /// The earliest confirmation of each status, in the order of [`Status::ALL`].
    reached_at: [Option<Timestamp>; Status::ALL.len()],
    /// The time of the push that supplied `body`, unless that is the time of the furthest status.
    ///
    /// The latest push at a status supplies `body`, but the status keeps its *earliest* time. From
    /// the published fields alone a restored state could not tell whether the next push is later
    /// than the one that supplied `body`. So this time travels in the record's header, as `bodyAt`;
    /// it is absent while each status has been confirmed only once.
    body_at: Option<Timestamp>,
}

/// What one confirmation did to a state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The push names none of the three statuses: it is counted, and nothing is written.
    UnknownStatus,
    /// The state already contained everything that the push says.
    Unchanged,
    /// The state must be written.
    Changed {
        state: Box<CommandState>,
        /// The status before; `None` if the command was unknown.
        from: Option<Status>,
        /// The transitions whose duration this push made known.
        transitions: [Option<Transition>; 3],
    },
}

/// A step of a command, both of whose times are known.
///
/// Each is reported exactly once, by the push that supplied the second of its times, whether that
/// is the start or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: Status,
    pub(crate) to: Status,
    started: Timestamp,
    ended: Timestamp,
}

/// Merges a confirmation into the state of its command.
///
/// Commutative, associative and idempotent over events.
pub(crate) fn apply(state: Option<&CommandState>, event: &Event<'_>) -> Change {
    let Some(status) = event.status else {
        return Change::UnknownStatus;
    };
    let known = state.map(CommandState::view);
    let alone = View::of_event(event, status);
    let next = known.map_or(alone, |known| join(known, alone));
    if known == Some(next) {
        return Change::Unchanged;
    }
    Change::Changed {
        from: state.map(CommandState::status),
        transitions: new_transitions(known.map(|known| known.progress), next.progress),
        state: Box::new(next.to_state()),
    }
}

impl Status {
    /// From the first to the last.
    pub(crate) const ALL: [Self; 3] = [Self::Sent, Self::Delivered, Self::Executed];

    /// The word for it in pushes, in states and in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Executed => "executed",
        }
    }

    /// Returns whether a command at this status still waits for its execution.
    pub(crate) fn is_open(self) -> bool {
        match self {
            Self::Sent | Self::Delivered => true,
            Self::Executed => false,
        }
    }

    /// Reads a push's status, in any case.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| text.eq_ignore_ascii_case(status.label()))
    }
}

impl<'a> Event<'a> {
    /// Reads a `messageConfirm` push. Only its `header.requestId` is mandatory.
    ///
    /// # Errors
    ///
    /// Returns [`Poison`] if the bytes are not a JSON object, if the push is of another type, or if
    /// it has no usable `header.requestId`.
    pub(crate) fn decode(push: &'a [u8]) -> Result<Self, Poison> {
        let [notify_type, header, body] = fields_of_record(push, ["notifyType", "header", "body"])?;
        notify_type.expect_notify_type("messageConfirm")?;
        let [request_id, status, timestamp, from, to] =
            header.fields(["requestId", "status", "timestamp", "from", "to"]);
        Ok(Self {
            request_id: request_id.id().map_err(|unusable| match unusable {
                UnusableId::Missing => Poison::RequestIdMissing,
                UnusableId::TooLong => Poison::RequestIdTooLong,
            })?,
            status: status.text().and_then(|text| Status::parse(&text)),
            at: timestamp
                .text()
                .and_then(|text| Timestamp::from_push(&text)),
            from: from.text().unwrap_or_default(),
            to: to.text(),
            body: body.json(),
        })
    }
}

impl CommandState {
    /// The furthest status that was confirmed.
    pub(crate) fn status(&self) -> Status {
        self.progress.status
    }

    /// The earliest time known of an open command; `None` if it has been executed or if none of its
    /// pushes had a readable time.
    pub(crate) fn open_since(&self) -> Option<Timestamp> {
        let earliest = self.progress.reached_at.into_iter().flatten().min();
        earliest.filter(|_| self.status().is_open())
    }

    fn view(&self) -> View<'_> {
        View {
            texts: self.texts.all(),
            progress: self.progress,
            body: self.body.as_deref().map(Body),
        }
    }
}

impl PartialEq for CommandState {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

impl Eq for CommandState {}

impl Progress {
    fn reached_at(&self, status: Status) -> Option<Timestamp> {
        let [sent_at, delivered_at, executed_at] = self.reached_at;
        match status {
            Status::Sent => sent_at,
            Status::Delivered => delivered_at,
            Status::Executed => executed_at,
        }
    }
}

/// A state borrowed from a [`CommandState`] or from a push: a join copies no text, and most pushes
/// change little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View<'a> {
    texts: [Option<&'a str>; TEXTS],
    progress: Progress,
    body: Option<Body<'a>>,
}

impl<'a> View<'a> {
    /// The state that results from this push alone.
    fn of_event(event: &'a Event<'_>, status: Status) -> Self {
        let origin = Origin::parse(&event.from);
        Self {
            texts: [
                Some(&event.request_id),
                origin.device_id,
                origin.service_id,
                event.to.as_deref(),
            ],
            progress: Progress {
                status,
                reached_at: Status::ALL.map(|reached| event.at.filter(|_| reached == status)),
                body_at: None,
            },
            body: event.body.map(Body),
        }
    }

    fn to_state(self) -> CommandState {
        CommandState {
            texts: Texts::new(self.texts),
            progress: self.progress,
            body: self.body.map(|Body(json)| json.to_owned()),
        }
    }

    /// Ranks the claims of two states to supply `body`: the furthest status first, then the latest
    /// push (one without a time before all others), then the greatest bytes.
    fn body_rank(&self) -> (Status, Option<Timestamp>, Option<Body<'a>>) {
        let Progress {
            status, body_at, ..
        } = self.progress;
        let at = body_at.or_else(|| self.progress.reached_at(status));
        (status, at, self.body)
    }

    /// Ranks the claims of two states to supply the device and its service.
    fn origin_rank(&self) -> (bool, Option<&'a str>, Option<&'a str>) {
        let [_, device_id, service_id, _] = self.texts;
        (service_id.is_some(), device_id, service_id)
    }
}

/// The least state that contains both.
fn join<'a>(a: View<'a>, b: View<'a>) -> View<'a> {
    let [request_id, _, _, a_to] = a.texts;
    let [_, _, _, b_to] = b.texts;
    let (_, device_id, service_id) = a.origin_rank().max(b.origin_rank());
    let (status, body_at, body) = a.body_rank().max(b.body_rank());
    let mut progress = Progress {
        status,
        reached_at: array::from_fn(|place| {
            let times = [a.progress.reached_at[place], b.progress.reached_at[place]];
            times.into_iter().flatten().min()
        }),
        body_at: None,
    };
    progress.body_at = body_at.filter(|at| progress.reached_at(status) != Some(*at));
    View {
        texts: [request_id, device_id, service_id, a_to.max(b_to)],
        progress,
        body,
    }
}

fn new_transitions(before: Option<Progress>, after: Progress) -> [Option<Transition>; 3] {
    const STEPS: [(Status, Status); 3] = [
        (Status::Sent, Status::Delivered),
        (Status::Delivered, Status::Executed),
        (Status::Sent, Status::Executed),
    ];
    STEPS.map(|(from, to)| {
        let known = before.and_then(|before| transition(before, from, to));
        transition(after, from, to).filter(|_| known.is_none())
    })
}

fn transition(progress: Progress, from: Status, to: Status) -> Option<Transition> {
    Some(Transition {
        from,
        to,
        started: progress.reached_at(from)?,
        ended: progress.reached_at(to)?,
    })
}

impl Transition {
    /// Its duration in seconds; 0 if the platform's clocks disagree about the order.
    pub(crate) fn seconds(&self) -> f64 {
        self.ended.seconds_since(self.started)
    }
}

/// The sender of a confirmation.
#[derive(Default)]
struct Origin<'a> {
    device_id: Option<&'a str>,
    service_id: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Reads `/devices/{deviceId}` or `/devices/{deviceId}/services/{serviceId}`, the two published
    /// forms of `header.from`. Any other form identifies no device.
    fn parse(from: &'a str) -> Self {
        let segment = |text: &'a str| (!text.is_empty()).then_some(text);
        let mut parts = from.split('/');
        let mut next = || parts.next();
        match [next(), next(), next(), next(), next(), next()] {
            [Some(""), Some("devices"), Some(device), None, ..] => Self {
                device_id: segment(device),
                service_id: None,
            },
            [
                Some(""),
                Some("devices"),
                Some(device),
                Some("services"),
                Some(service),
                None,
            ] if !device.is_empty() => Self {
                device_id: segment(device),
                service_id: segment(service),
            },
            _ => Self::default(),
        }
    }
}

/// The body of a push in the sender's bytes: no number is rounded, no key reordered, and two bodies
/// can be compared.
#[derive(Clone, Copy, Debug)]
struct Body<'a>(&'a RawValue);

impl Ord for Body<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.get().cmp(other.0.get())
    }
}

impl PartialOrd for Body<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Body<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Body<'_> {}

#[cfg(test)]
mod tests;
