//! Where one command stands: the confirmation (event), the value in
//! `iot.command-state` (state), and the merge of the two.
//!
//! Confirmations come in any order, more than once, and with one `requestId`
//! for a whole command or one for each push; the platform promises neither. So
//! the state is a join: whatever order, whatever repeats, the same state.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::push::{Poison, UnusableId, fields_of_record};
use super::texts::{Text, Texts};
use super::time::Timestamp;

/// How far a command has come; later variants are further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The platform sent the command to the device.
    Sent,
    /// The device has it.
    Delivered,
    /// The device carried it out.
    Executed,
}

/// One `messageConfirm` push, in its own bytes.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// The command, or the push, where the platform numbers pushes.
    pub request_id: Cow<'a, str>,
    /// `None` where the push says none of the three.
    pub status: Option<Status>,
    /// The push's own timestamp; `None` where it is missing or unreadable.
    pub at: Option<Timestamp>,
    from: Cow<'a, str>,
    to: Option<Cow<'a, str>>,
    body: Option<&'a RawValue>,
}

/// The state of one command, as it stands in its topic.
///
/// Of pushes at the same status the latest supplies `body`, while the field of
/// that status holds the *earliest* time. Whether a further push is later than
/// the one that supplied `body` can therefore not be told from the published
/// fields, and a restored state has nothing else: hence `bodyAt`, the time of
/// the push that supplied `body` (or that left it absent, having none). It is
/// written only where it differs from the time of the status, that is, never
/// as long as each status is confirmed once.
///
/// Where pushes differ in the device and service that they come from, the pair
/// of one push stands: one with a service before one without, then the
/// greatest by bytes; of different `to`, the greatest by bytes.
#[derive(Clone, Debug)]
pub struct CommandState {
    /// `requestId`, `deviceId`, `serviceId` and `to`.
    texts: Texts<4>,
    status: Status,
    sent_at: Option<Timestamp>,
    delivered_at: Option<Timestamp>,
    executed_at: Option<Timestamp>,
    body: Option<Box<RawValue>>,
    body_at: Option<Timestamp>,
}

/// What one confirmation did.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// The push names none of the three statuses: nothing to write, to be
    /// counted.
    UnknownStatus,
    /// The state knew all of it already: nothing to write.
    Unchanged,
    /// The state to write, and what led to it.
    Changed {
        /// The new state.
        state: Box<CommandState>,
        /// The status before; `None` for a command not seen before.
        from: Option<Status>,
        /// The steps whose duration became known by this push.
        transitions: [Option<Transition>; 3],
    },
}

/// A step of a command of which both times are known.
///
/// Each step of a command is reported once, by the push that brought the
/// second of its times, whichever of the two that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The status before.
    pub from: Status,
    /// The status after.
    pub to: Status,
    /// When `from` was reached.
    pub started: Timestamp,
    /// When `to` was reached.
    pub ended: Timestamp,
}

/// Merges a confirmation into the state of its command.
///
/// Commutative, associative and idempotent over events: any order of the same
/// confirmations, with any repeats, leads to the same state.
pub fn apply(state: Option<&CommandState>, event: &Event<'_>) -> Change {
    let Some(status) = event.status else {
        return Change::UnknownStatus;
    };
    let known = state.map(CommandState::fields);
    let alone = Fields::of(event, status);
    let next = match &known {
        Some(known) => join(known, &alone),
        None => alone,
    };
    if known.as_ref() == Some(&next) {
        return Change::Unchanged;
    }
    Change::Changed {
        from: state.map(CommandState::status),
        transitions: new_transitions(known.as_ref(), &next),
        state: Box::new(next.kept()),
    }
}

impl Status {
    /// All statuses, in their order.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Delivered, Self::Executed];

    /// The word in the platform's pushes, in a state and in a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Executed => "executed",
        }
    }

    /// Whether a command at this status still waits for its end.
    pub fn is_open(self) -> bool {
        match self {
            Self::Sent | Self::Delivered => true,
            Self::Executed => false,
        }
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| text.eq_ignore_ascii_case(status.label()))
    }
}

impl<'a> Event<'a> {
    /// Reads a `messageConfirm` push.
    ///
    /// # Errors
    ///
    /// [`Poison`] where the bytes are no JSON object, the push is of another
    /// type, or no usable `header.requestId` says which command it is about.
    /// No other field is needed.
    pub fn decode(push: &'a [u8]) -> Result<Self, Poison> {
        let [notify_type, header, body] = fields_of_record(push, ["notifyType", "header", "body"])?;
        notify_type.expect_notify_type("messageConfirm")?;
        let [request_id, status, timestamp, from, to] =
            header.fields(["requestId", "status", "timestamp", "from", "to"]);
        Ok(Self {
            request_id: request_id.id().map_err(|unusable| match unusable {
                UnusableId::Missing => Poison::RequestIdMissing,
                UnusableId::TooLong => Poison::RequestIdTooLong,
            })?,
            status: status.text().and_then(|text| Status::read(&text)),
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
    pub fn status(&self) -> Status {
        self.status
    }

    /// The time from which the command has been open: the earliest one known.
    /// `None` where it has ended or where no push carried a readable time.
    pub fn open_since(&self) -> Option<Timestamp> {
        let times = [self.sent_at, self.delivered_at, self.executed_at];
        let earliest = times.into_iter().flatten().min();
        earliest.filter(|_| self.status.is_open())
    }

    fn fields(&self) -> Fields<'_> {
        let [request_id, device_id, service_id, to] =
            self.texts.all().map(|text| text.map(Text::from));
        Fields {
            request_id: request_id.unwrap_or_default(),
            device_id,
            service_id,
            to,
            status: self.status,
            sent_at: self.sent_at,
            delivered_at: self.delivered_at,
            executed_at: self.executed_at,
            body: self.body.as_deref().map(Body),
            body_at: self.body_at,
        }
    }
}

impl PartialEq for CommandState {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Eq for CommandState {}

impl Serialize for CommandState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CommandState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Fields::deserialize(deserializer)?.kept())
    }
}

/// The fields of a state, wherever they stand: in a [`CommandState`], in a push
/// or in the value as it is written. States are joined without a copy of
/// either, and most joins change little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    request_id: Text<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    device_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    service_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    to: Option<Text<'a>>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed_at: Option<Timestamp>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_at: Option<Timestamp>,
}

impl<'a> Fields<'a> {
    /// The state after this push alone.
    fn of(event: &'a Event<'_>, status: Status) -> Self {
        let at = |wanted| event.at.filter(|_| status == wanted);
        let origin = Origin::read(&event.from);
        Self {
            request_id: Text::from(&*event.request_id),
            device_id: origin.device_id.map(Text::from),
            service_id: origin.service_id.map(Text::from),
            to: event.to.as_deref().map(Text::from),
            status,
            sent_at: at(Status::Sent),
            delivered_at: at(Status::Delivered),
            executed_at: at(Status::Executed),
            body: event.body.map(Body),
            body_at: None,
        }
    }

    /// Copied, to stay.
    fn kept(&self) -> CommandState {
        let texts = [&self.device_id, &self.service_id, &self.to];
        let [device_id, service_id, to] = texts.map(|text| text.as_ref().map(Text::as_str));
        let request_id = Some(self.request_id.as_str());
        CommandState {
            texts: Texts::of([request_id, device_id, service_id, to]),
            status: self.status,
            sent_at: self.sent_at,
            delivered_at: self.delivered_at,
            executed_at: self.executed_at,
            body: self.body.map(|Body(json)| json.to_owned()),
            body_at: self.body_at,
        }
    }

    /// The earliest time at which `status` was confirmed.
    fn at(&self, status: Status) -> Option<Timestamp> {
        match status {
            Status::Sent => self.sent_at,
            Status::Delivered => self.delivered_at,
            Status::Executed => self.executed_at,
        }
    }

    /// By what two states dispute `body`: the furthest status, then the latest
    /// push (one without a time before all others), then the greatest bytes.
    fn supplier(&self) -> (Status, Option<Timestamp>, Option<Body<'a>>) {
        let at = self.body_at.or_else(|| self.at(self.status));
        (self.status, at, self.body)
    }

    fn origin(&self) -> (bool, &Option<Text<'a>>, &Option<Text<'a>>) {
        (self.service_id.is_some(), &self.device_id, &self.service_id)
    }
}

/// The least state that holds what both hold.
fn join<'a>(a: &Fields<'a>, b: &Fields<'a>) -> Fields<'a> {
    let (_, device_id, service_id) = a.origin().max(b.origin());
    let (status, body_at, body) = a.supplier().max(b.supplier());
    let mut joined = Fields {
        request_id: a.request_id.clone(),
        device_id: device_id.clone(),
        service_id: service_id.clone(),
        to: (&a.to).max(&b.to).clone(),
        status,
        sent_at: earliest(a.sent_at, b.sent_at),
        delivered_at: earliest(a.delivered_at, b.delivered_at),
        executed_at: earliest(a.executed_at, b.executed_at),
        body,
        body_at: None,
    };
    joined.body_at = body_at.filter(|at| joined.at(status) != Some(*at));
    joined
}

/// The earlier of two times, where a missing one is later than all.
fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn new_transitions(before: Option<&Fields<'_>>, after: &Fields<'_>) -> [Option<Transition>; 3] {
    const STEPS: [(Status, Status); 3] = [
        (Status::Sent, Status::Delivered),
        (Status::Delivered, Status::Executed),
        (Status::Sent, Status::Executed),
    ];
    STEPS.map(|(from, to)| {
        let known = before.and_then(|state| transition(state, from, to));
        transition(after, from, to).filter(|_| known.is_none())
    })
}

fn transition(state: &Fields<'_>, from: Status, to: Status) -> Option<Transition> {
    Some(Transition {
        from,
        to,
        started: state.at(from)?,
        ended: state.at(to)?,
    })
}

impl Transition {
    /// How long the step took, in seconds; 0 where the clocks say less.
    pub fn seconds(&self) -> f64 {
        self.ended.seconds_since(self.started)
    }
}

/// Where a confirmation comes from.
#[derive(Default)]
struct Origin<'a> {
    device_id: Option<&'a str>,
    service_id: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Reads `/devices/{deviceId}` or
    /// `/devices/{deviceId}/services/{serviceId}`, the two published forms of
    /// `header.from`; another form names nobody.
    fn read(from: &'a str) -> Self {
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

/// The body of a push in the sender's bytes: no number in it is rounded, no
/// key moved, and it can be compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Body<'a>(#[serde(borrow)] &'a RawValue);

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
mod tests {
    use std::collections::BTreeMap;

    use chrono::DateTime;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::{Value, json};

    use super::*;
    use crate::streams::model::{self, Push};
    use crate::streams::schemas;

    fn push(status: &str, timestamp: &str, body: &str) -> String {
        format!(
            r#"{{"notifyType":"messageConfirm","header":{{"requestId":"r1",
            "from":"/devices/d1/services/s1","to":"na","status":"{status}",
            "timestamp":"{timestamp}"}},"body":{body}}}"#
        )
    }

    /// Its bytes outlive the test, so that an event can stand without them.
    fn event(push: &str) -> Event<'static> {
        Event::decode(push.to_owned().leak().as_bytes()).unwrap()
    }

    fn changed(change: Change) -> (CommandState, Option<Status>, [Option<Transition>; 3]) {
        match change {
            Change::Changed {
                state,
                from,
                transitions,
            } => (*state, from, transitions),
            Change::UnknownStatus | Change::Unchanged => panic!("nothing changed"),
        }
    }

    /// Applies in order; every state goes through its JSON, as if restored.
    fn fold(pushes: &[String]) -> BTreeMap<String, CommandState> {
        let mut states: BTreeMap<String, CommandState> = BTreeMap::new();
        for push in pushes {
            let Ok(event) = Event::decode(push.as_bytes()) else {
                continue;
            };
            let before = states.get(&*event.request_id);
            let Change::Changed { state, from, .. } = apply(before, &event) else {
                continue;
            };
            assert!(from <= Some(state.status), "a status went backwards");
            let written = serde_json::to_vec(&state).unwrap();
            let restored: CommandState = serde_json::from_slice(&written).unwrap();
            assert_eq!(restored, *state);
            states.insert(event.request_id.into_owned(), restored);
        }
        states
    }

    fn last(pushes: &[String]) -> Value {
        serde_json::to_value(&fold(pushes)["r1"]).unwrap()
    }

    #[test]
    fn a_command_of_three_confirmations_is_the_published_value() {
        let pushes = [
            push("sent", "20260101T000000Z", "{}"),
            push("delivered", "20260101T000002Z", "{}"),
            push("executed", "20260101T000005.250Z", r#"{"a":1.50}"#),
        ];
        let text = serde_json::to_string(&fold(&pushes)["r1"]).unwrap();
        assert_eq!(
            text,
            r#"{"requestId":"r1","deviceId":"d1","serviceId":"s1","to":"na","status":"executed","sentAt":"2026-01-01T00:00:00Z","deliveredAt":"2026-01-01T00:00:02Z","executedAt":"2026-01-01T00:00:05.250Z","body":{"a":1.50}}"#
        );
    }

    #[test]
    fn a_confirmation_with_an_id_of_its_own_is_a_state_of_its_own() {
        let state = last(&[push("delivered", "20260101T000002Z", "{}")]);
        let expected = json!({"requestId": "r1", "deviceId": "d1", "serviceId": "s1", "to": "na",
            "status": "delivered", "deliveredAt": "2026-01-01T00:00:02Z", "body": {}});
        assert_eq!(state, expected);
    }

    #[test]
    fn a_later_body_of_the_same_status_stands_beside_the_earliest_time() {
        let state = last(&[
            push("executed", "20260101T000001Z", r#""b1""#),
            push("executed", "20260101T000003Z", r#""b3""#),
            push("executed", "20260101T000002Z", r#""b2""#),
        ]);
        assert_eq!(state["executedAt"], "2026-01-01T00:00:01Z");
        assert_eq!(state["body"], "b3");
        assert_eq!(state["bodyAt"], "2026-01-01T00:00:03Z");
    }

    #[test]
    fn a_status_counts_without_a_time() {
        for timestamp in ["", "yesterday"] {
            let state = last(&[push("executed", timestamp, "{}")]);
            assert_eq!(state["status"], "executed");
            assert_eq!(state.get("executedAt"), None);
        }
    }

    #[test]
    fn a_status_outside_the_three_changes_nothing_and_is_told() {
        let known = changed(apply(None, &event(&push("sent", "", "{}")))).0;
        for status in ["failed", "", "sent ", "SENT\\u0000"] {
            let event = event(&push(status, "20260101T000000Z", r#""new""#));
            assert_eq!(apply(Some(&known), &event), Change::UnknownStatus);
            assert_eq!(apply(None, &event), Change::UnknownStatus);
        }
    }

    #[test]
    fn a_status_is_read_without_regard_to_case() {
        for (text, status) in [
            ("SENT", Status::Sent),
            ("Delivered", Status::Delivered),
            ("eXecuted", Status::Executed),
        ] {
            assert_eq!(event(&push(text, "", "{}")).status, Some(status));
        }
    }

    #[test]
    fn a_repeat_leaves_nothing_to_write() {
        let event = event(&push("sent", "20260101T000000Z", "{}"));
        let state = changed(apply(None, &event)).0;
        assert_eq!(apply(Some(&state), &event), Change::Unchanged);
    }

    #[test]
    fn every_step_is_told_once_whatever_the_order() {
        let pushes = [
            push("executed", "20260101T000005Z", "{}"),
            push("sent", "20260101T000000Z", "{}"),
            push("delivered", "20260101T000002Z", "{}"),
        ];
        let mut state = None;
        let mut told = Vec::new();
        for push in &pushes {
            let (next, _, transitions) = changed(apply(state.as_ref(), &event(push)));
            let seconds = |step: Transition| (step.from.label(), step.to.label(), step.seconds());
            told.push(
                transitions
                    .into_iter()
                    .flatten()
                    .map(seconds)
                    .collect::<Vec<_>>(),
            );
            state = Some(next);
        }
        let expected = [
            vec![],
            vec![("sent", "executed", 5.0)],
            vec![("sent", "delivered", 2.0), ("delivered", "executed", 3.0)],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_change_tells_the_status_before_and_since_when_the_command_is_open() {
        let sent = event(&push("sent", "20260101T000000Z", "{}"));
        let (state, from, _) = changed(apply(None, &sent));
        let open_since = state.open_since().map(|at| at.to_string());
        assert_eq!((from, state.status()), (None, Status::Sent));
        assert_eq!(open_since.as_deref(), Some("2026-01-01T00:00:00Z"));

        let executed = event(&push("executed", "20260101T000001Z", "{}"));
        let (state, from, _) = changed(apply(Some(&state), &executed));
        assert_eq!(
            (from, state.status()),
            (Some(Status::Sent), Status::Executed)
        );
        assert_eq!(state.open_since(), None);
    }

    #[test]
    fn the_device_and_the_service_are_read_from_the_two_published_forms() {
        let cases = [
            ("/devices/d", Some("d"), None),
            ("/devices/d/services/s", Some("d"), Some("s")),
            ("/devices/d/services/", Some("d"), None),
            ("/devices//services/s", None, None),
            ("/devices/", None, None),
            ("devices/d", None, None),
            ("/users/d", None, None),
            ("", None, None),
        ];
        for (from, device, service) in cases {
            let origin = Origin::read(from);
            assert_eq!(origin.device_id, device, "{from}");
            assert_eq!(origin.service_id, service, "{from}");
        }
    }

    #[test]
    fn what_names_no_command_is_poison() {
        let long = format!(r#"{{"header":{{"requestId":"{}"}}}}"#, "x".repeat(257));
        let cases = [
            ("[]", "not-json-object"),
            ("", "not-json-object"),
            ("{}", "request-id-missing"),
            (r#"{"header":7}"#, "request-id-missing"),
            (
                r#"{"header":{"requestId":null,"status":"sent"}}"#,
                "request-id-missing",
            ),
            (r#"{"header":{"requestId":""}}"#, "request-id-missing"),
            (&long, "request-id-too-long"),
            (
                r#"{"notifyType":"commandRsp","header":{"requestId":"r"}}"#,
                "other-notify-type",
            ),
        ];
        for (push, reason) in cases {
            let poison = Event::decode(push.as_bytes()).unwrap_err();
            assert_eq!(poison.reason(), reason, "{push}");
        }
    }

    /// Confirmations of two commands with little to choose from, so that
    /// equal times, equal bodies and repeats are common.
    fn any_push() -> impl Strategy<Value = String> {
        let status = select(vec![
            r#""sent""#,
            r#""delivered""#,
            r#""executed""#,
            r#""EXECUTED""#,
            r#""failed""#,
            "null",
            "3",
        ]);
        let timestamp = select(vec![
            r#""20260101T000000Z""#,
            r#""20260101T000001Z""#,
            r#""20260101T000001.000Z""#,
            r#""20260101T000001500Z""#,
            r#""2026-01-01T00:00:02Z""#,
            r#""now""#,
            "null",
            "20260101",
        ]);
        let body = select(vec![
            "{}",
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"["\u0000"]"#,
            "null",
            "7",
        ]);
        let from = select(vec![
            r#""/devices/d1""#,
            r#""/devices/d2/services/s1""#,
            r#""/devices/d1/services/s2""#,
            r#""nobody""#,
            "null",
        ]);
        let to = select(vec![r#""na""#, r#""nb""#, "17", "null"]);
        let id = select(vec![r#""r1""#, "2"]);
        (id, status, timestamp, body, from, to).prop_map(
            |(id, status, timestamp, body, from, to)| {
                format!(
                    r#"{{"notifyType":"messageConfirm","header":{{"requestId":{id},
                    "from":{from},"to":{to},"status":{status},"timestamp":{timestamp}}},
                    "body":{body}}}"#
                )
            },
        )
    }

    /// Some pushes, and the same in another order with some of them repeated.
    fn pushes_and_disorder() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
        let repeats = prop::collection::vec(any::<Index>(), 0..6);
        (prop::collection::vec(any_push(), 1..16), repeats).prop_flat_map(|(pushes, repeats)| {
            let again = repeats.iter().map(|at| at.get(&pushes).clone());
            let all: Vec<String> = pushes.iter().cloned().chain(again).collect();
            (Just(pushes), Just(all).prop_shuffle())
        })
    }

    fn expected(pushes: &[String]) -> BTreeMap<String, Value> {
        let records: Vec<Push> = pushes
            .iter()
            .map(|push| Push {
                bytes: push.clone().into_bytes(),
                received_at: DateTime::UNIX_EPOCH,
            })
            .collect();
        model::command_states(&records)
    }

    proptest! {
        #[test]
        fn any_order_with_any_repeats_gives_the_same_state_and_it_is_the_models(
            (pushes, disorder) in pushes_and_disorder()
        ) {
            let states = fold(&pushes);
            prop_assert_eq!(&fold(&disorder), &states);
            let mut written = BTreeMap::new();
            for (id, state) in &states {
                let value = serde_json::to_value(state).unwrap();
                prop_assert_eq!(schemas::broken(&schemas::COMMAND_STATE, &value), None);
                written.insert(id.clone(), model::visible(value));
            }
            prop_assert_eq!(written, expected(&pushes));
        }

        #[test]
        fn states_of_parts_join_to_the_state_of_all(
            (pushes, _) in pushes_and_disorder(), split in any::<Index>()
        ) {
            let (left, right) = pushes.split_at(split.index(pushes.len()));
            let (left, right) = (fold(left), fold(right));
            for (id, all) in fold(&pushes) {
                let joined = match (left.get(&id), right.get(&id)) {
                    (Some(a), Some(b)) => {
                        let (a, b) = (a.fields(), b.fields());
                        prop_assert_eq!(join(&a, &b), join(&b, &a));
                        join(&a, &b).kept()
                    }
                    (Some(one), None) | (None, Some(one)) => one.clone(),
                    (None, None) => unreachable!("a state out of nothing"),
                };
                prop_assert_eq!(&joined, &all);
                let all = all.fields();
                prop_assert_eq!(&join(&all, &all), &all);
            }
        }
    }
}
