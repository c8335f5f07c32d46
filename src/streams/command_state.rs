//! Where one command stands: the confirmation (event), the value in
//! `iot.command-state` (state), and the merge of the two.
//!
//! Confirmations come in any order, more than once, and with one `requestId`
//! for a whole command or one for each push; the platform promises neither. So
//! the state is a join: whatever order, whatever repeats, the same state.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::push::{Fields, Poison, UnusableId};
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

/// One `messageConfirm` push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The command, or the push, where the platform numbers pushes.
    pub request_id: String,
    /// `None` where the push says none of the three.
    pub status: Option<Status>,
    /// The push's own timestamp; `None` where it is missing or unreadable.
    pub at: Option<Timestamp>,
    origin: Origin,
    to: Option<String>,
    body: Option<Body>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandState {
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
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
        transitions: Vec<Transition>,
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
pub fn apply(state: Option<&CommandState>, event: &Event) -> Change {
    let Some(status) = event.status else {
        return Change::UnknownStatus;
    };
    let alone = CommandState::of(event, status);
    let next = match state {
        Some(known) => join(known, &alone),
        None => alone,
    };
    if state == Some(&next) {
        return Change::Unchanged;
    }
    Change::Changed {
        from: state.map(|known| known.status),
        transitions: new_transitions(state, &next),
        state: Box::new(next),
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

impl Event {
    /// Reads a `messageConfirm` push.
    ///
    /// # Errors
    ///
    /// [`Poison`] where the bytes are no JSON object, the push is of another
    /// type, or no usable `header.requestId` says which command it is about.
    /// No other field is needed.
    pub fn decode(push: &[u8]) -> Result<Self, Poison> {
        let fields = Fields::of_record(push)?;
        fields.expect_notify_type("messageConfirm")?;
        let header = Fields::of_field(fields.get("header"));
        let request_id = header.id("requestId").map_err(|unusable| match unusable {
            UnusableId::Missing => Poison::RequestIdMissing,
            UnusableId::TooLong => Poison::RequestIdTooLong,
        })?;
        Ok(Self {
            request_id,
            status: header.text("status").and_then(|text| Status::read(&text)),
            at: header
                .text("timestamp")
                .and_then(|text| Timestamp::from_push(&text)),
            origin: Origin::read(&header.text("from").unwrap_or_default()),
            to: header.text("to"),
            body: fields.get("body").map(|raw| Body(raw.to_owned())),
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
        let times = Status::ALL.into_iter().filter_map(|status| self.at(status));
        times.min().filter(|_| self.status.is_open())
    }

    /// The earliest time at which `status` was confirmed.
    pub fn at(&self, status: Status) -> Option<Timestamp> {
        match status {
            Status::Sent => self.sent_at,
            Status::Delivered => self.delivered_at,
            Status::Executed => self.executed_at,
        }
    }

    /// The state after this push alone.
    fn of(event: &Event, status: Status) -> Self {
        let at = |wanted| event.at.filter(|_| status == wanted);
        Self {
            request_id: event.request_id.clone(),
            device_id: event.origin.device_id.clone(),
            service_id: event.origin.service_id.clone(),
            to: event.to.clone(),
            status,
            sent_at: at(Status::Sent),
            delivered_at: at(Status::Delivered),
            executed_at: at(Status::Executed),
            body: event.body.clone(),
            body_at: None,
        }
    }

    /// By what two states dispute `body`: the furthest status, then the latest
    /// push (one without a time before all others), then the greatest bytes.
    fn supplier(&self) -> (Status, Option<Timestamp>, Option<&Body>) {
        let at = self.body_at.or_else(|| self.at(self.status));
        (self.status, at, self.body.as_ref())
    }

    fn origin(&self) -> (bool, Option<&String>, Option<&String>) {
        let service = self.service_id.as_ref();
        (service.is_some(), self.device_id.as_ref(), service)
    }
}

/// The least state that holds what both hold.
fn join(a: &CommandState, b: &CommandState) -> CommandState {
    let (_, device_id, service_id) = a.origin().max(b.origin());
    let (status, body_at, body) = a.supplier().max(b.supplier());
    let mut joined = CommandState {
        request_id: a.request_id.clone(),
        device_id: device_id.cloned(),
        service_id: service_id.cloned(),
        to: a.to.as_ref().max(b.to.as_ref()).cloned(),
        status,
        sent_at: earliest(a.sent_at, b.sent_at),
        delivered_at: earliest(a.delivered_at, b.delivered_at),
        executed_at: earliest(a.executed_at, b.executed_at),
        body: body.cloned(),
        body_at: None,
    };
    joined.body_at = body_at.filter(|at| joined.at(status) != Some(*at));
    joined
}

/// The earlier of two times, where a missing one is later than all.
fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

fn new_transitions(before: Option<&CommandState>, after: &CommandState) -> Vec<Transition> {
    const STEPS: [(Status, Status); 3] = [
        (Status::Sent, Status::Delivered),
        (Status::Delivered, Status::Executed),
        (Status::Sent, Status::Executed),
    ];
    let known = |(from, to)| {
        before
            .and_then(|state| transition(state, from, to))
            .is_some()
    };
    STEPS
        .into_iter()
        .filter(|step| !known(*step))
        .filter_map(|(from, to)| transition(after, from, to))
        .collect()
}

fn transition(state: &CommandState, from: Status, to: Status) -> Option<Transition> {
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Origin {
    device_id: Option<String>,
    service_id: Option<String>,
}

impl Origin {
    /// Reads `/devices/{deviceId}` or
    /// `/devices/{deviceId}/services/{serviceId}`, the two published forms of
    /// `header.from`; another form names nobody.
    fn read(from: &str) -> Self {
        let segment = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let parts: Vec<&str> = from.split('/').collect();
        match parts.as_slice() {
            ["", "devices", device] => Self {
                device_id: segment(device),
                service_id: None,
            },
            ["", "devices", device, "services", service] if !device.is_empty() => Self {
                device_id: segment(device),
                service_id: segment(service),
            },
            _ => Self::default(),
        }
    }
}

/// The body of a push in the sender's bytes: no number in it is rounded, no
/// key moved, and it can be compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Body(Box<RawValue>);

impl Ord for Body {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.get().cmp(other.0.get())
    }
}

impl PartialOrd for Body {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Body {}

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

    fn event(push: &str) -> Event {
        Event::decode(push.as_bytes()).unwrap()
    }

    fn changed(change: Change) -> (CommandState, Option<Status>, Vec<Transition>) {
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
            let before = states.get(&event.request_id);
            let Change::Changed { state, from, .. } = apply(before, &event) else {
                continue;
            };
            assert!(from <= Some(state.status), "a status went backwards");
            let written = serde_json::to_vec(&state).unwrap();
            let restored: CommandState = serde_json::from_slice(&written).unwrap();
            assert_eq!(restored, *state);
            states.insert(event.request_id, restored);
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
            told.push(transitions.into_iter().map(seconds).collect::<Vec<_>>());
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
            assert_eq!(origin.device_id.as_deref(), device, "{from}");
            assert_eq!(origin.service_id.as_deref(), service, "{from}");
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
                        prop_assert_eq!(join(a, b), join(b, a));
                        join(a, b)
                    }
                    (Some(one), None) | (None, Some(one)) => one.clone(),
                    (None, None) => unreachable!("a state out of nothing"),
                };
                prop_assert_eq!(&joined, &all);
                prop_assert_eq!(&join(&all, &all), &all);
            }
        }
    }
}
