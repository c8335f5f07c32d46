use std::collections::BTreeMap;

use chrono::DateTime;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::model::{self, Push};
use crate::streams::states::format::StateError;
use crate::streams::tests::{records, schemas};

fn push(status: &str, timestamp: &str, body: &str) -> String {
    format!(
        r#"{{"notifyType":"messageConfirm","header":{{"requestId":"r1",
        "from":"/devices/d1/services/s1","to":"na","status":"{status}",
        "timestamp":"{timestamp}"}},"body":{body}}}"#
    )
}

/// Leaks the bytes, so that an event can be returned without them.
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

/// Applies the pushes in order; every state is written and read again, as after a restart.
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
        assert!(from <= Some(state.status()), "a status went backwards");
        states.insert(event.request_id.into_owned(), records::restored(&*state));
    }
    states
}

fn state_after(pushes: &[String]) -> Value {
    serde_json::to_value(&fold(pushes)["r1"]).unwrap()
}

#[test]
fn three_confirmations_are_written_as_the_documented_value() {
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
fn a_state_with_a_missing_a_repeated_or_a_null_mandatory_field_is_rejected() {
    for (written, accepted) in [
        (r#"{"requestId":"r1","status":"sent","added":1}"#, true),
        (r#"{"requestId":"r1"}"#, false),
        (r#"{"status":"sent"}"#, false),
        (r#"{"requestId":null,"status":"sent"}"#, false),
        (
            r#"{"requestId":"r1","status":"sent","status":"sent"}"#,
            false,
        ),
        (r#"{"requestId":"r1","status":"lost"}"#, false),
    ] {
        let state = serde_json::from_str::<CommandState>(written);
        assert_eq!(state.is_ok(), accepted, "{written}");
    }
}

#[test]
fn a_confirmation_with_its_own_request_id_has_its_own_state() {
    let state = state_after(&[push("delivered", "20260101T000002Z", "{}")]);
    let expected = json!({"requestId": "r1", "deviceId": "d1", "serviceId": "s1", "to": "na",
        "status": "delivered", "deliveredAt": "2026-01-01T00:00:02Z", "body": {}});
    assert_eq!(state, expected);
}

#[test]
fn the_latest_body_of_a_status_is_kept_with_its_earliest_time() {
    let pushes = [
        push("executed", "20260101T000001Z", r#""b1""#),
        push("executed", "20260101T000003Z", r#""b3""#),
        push("executed", "20260101T000002Z", r#""b2""#),
    ];
    let state = state_after(&pushes);
    assert_eq!(state["executedAt"], "2026-01-01T00:00:01Z");
    assert_eq!(state["body"], "b3");
    assert_eq!(
        records::header(&fold(&pushes)["r1"]),
        json!({"version": 1, "bodyAt": "2026-01-01T00:00:03Z"})
    );
}

#[test]
fn the_header_of_a_state_without_more_than_its_value_has_only_the_version() {
    let state = &fold(&[push("sent", "20260101T000000Z", "{}")])["r1"];
    assert_eq!(records::header(state), json!({"version": 1}));
}

#[test]
fn a_state_from_before_the_header_has_the_time_of_its_body_in_its_value() {
    let value = br#"{"requestId":"r1","status":"executed","executedAt":"2026-01-01T00:00:01Z",
        "body":"b3","bodyAt":"2026-01-01T00:00:03Z"}"#;
    let state: CommandState = records::read(value, None).unwrap();
    let earlier = push("executed", "20260101T000002Z", r#""b2""#);
    let state = changed(apply(Some(&state), &event(&earlier))).0;
    assert_eq!(serde_json::to_value(&state).unwrap()["body"], "b3");
    let later = push("executed", "20260101T000004Z", r#""b4""#);
    let state = changed(apply(Some(&state), &event(&later))).0;
    assert_eq!(serde_json::to_value(&state).unwrap()["body"], "b4");
}

#[test]
fn a_state_with_a_newer_or_an_invalid_header_is_not_read() {
    let value = br#"{"requestId":"r1","status":"sent"}"#;
    for (header, error) in [
        (r#"{"version":1,"added":{}}"#, None),
        (
            r#"{"version":2}"#,
            Some("format version 2 is newer than version 1"),
        ),
        (
            r#"{"version":18446744073709551615,"bodyAt":[]}"#,
            Some("format version 18446744073709551615 is newer"),
        ),
        (r#"{"version":0}"#, Some("unreadable")),
        (r#"{"version":1,"bodyAt":[]}"#, Some("unreadable")),
        ("{}", Some("unreadable")),
        ("", Some("unreadable")),
    ] {
        let found = records::read::<CommandState>(value, Some(header.as_bytes()));
        let found = found.err().map(|error| match error {
            StateError::Unreadable => "unreadable".to_owned(),
            StateError::Newer(newer) => newer.to_string(),
        });
        match (found, error) {
            (None, None) => {}
            (Some(found), Some(error)) => assert!(found.starts_with(error), "{header}: {found}"),
            other => panic!("{header}: {other:?}"),
        }
    }
}

#[test]
fn a_status_without_a_readable_time_still_counts() {
    for timestamp in ["", "yesterday"] {
        let state = state_after(&[push("executed", timestamp, "{}")]);
        assert_eq!(state["status"], "executed");
        assert_eq!(state.get("executedAt"), None);
    }
}

#[test]
fn an_unknown_status_is_reported_and_changes_nothing() {
    let known = changed(apply(None, &event(&push("sent", "", "{}")))).0;
    for status in ["failed", "", "sent ", "SENT\\u0000"] {
        let event = event(&push(status, "20260101T000000Z", r#""new""#));
        assert_eq!(apply(Some(&known), &event), Change::UnknownStatus);
        assert_eq!(apply(None, &event), Change::UnknownStatus);
    }
}

#[test]
fn the_case_of_a_status_does_not_matter() {
    for (text, status) in [
        ("SENT", Status::Sent),
        ("Delivered", Status::Delivered),
        ("eXecuted", Status::Executed),
    ] {
        assert_eq!(event(&push(text, "", "{}")).status, Some(status));
    }
}

#[test]
fn a_repeated_confirmation_changes_nothing() {
    let event = event(&push("sent", "20260101T000000Z", "{}"));
    let state = changed(apply(None, &event)).0;
    assert_eq!(apply(Some(&state), &event), Change::Unchanged);
}

#[test]
fn every_transition_is_reported_once_in_any_order_of_pushes() {
    let pushes = [
        push("executed", "20260101T000005Z", "{}"),
        push("sent", "20260101T000000Z", "{}"),
        push("delivered", "20260101T000002Z", "{}"),
    ];
    let mut state = None;
    let mut reported = Vec::new();
    for push in &pushes {
        let (next, _, transitions) = changed(apply(state.as_ref(), &event(push)));
        let seconds = |step: Transition| (step.from.label(), step.to.label(), step.seconds());
        reported.push(
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
    assert_eq!(reported, expected);
}

#[test]
fn a_change_reports_the_previous_status_and_when_the_command_was_opened() {
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
fn the_device_and_the_service_are_read_from_both_published_forms_of_from() {
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
        let origin = Origin::parse(from);
        assert_eq!(origin.device_id, device, "{from}");
        assert_eq!(origin.service_id, service, "{from}");
    }
}

#[test]
fn a_push_without_a_usable_request_id_is_poison() {
    let long = format!(r#"{{"header":{{"requestId":"{}"}}}}"#, "x".repeat(513));
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
    (id, status, timestamp, body, from, to).prop_map(|(id, status, timestamp, body, from, to)| {
        format!(
            r#"{{"notifyType":"messageConfirm","header":{{"requestId":{id},
                "from":{from},"to":{to},"status":{status},"timestamp":{timestamp}}},
                "body":{body}}}"#
        )
    })
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
    fn any_order_with_any_repeats_leads_to_the_state_of_the_model(
        (pushes, disorder) in pushes_and_disorder()
    ) {
        let states = fold(&pushes);
        prop_assert_eq!(&fold(&disorder), &states);
        let mut written = BTreeMap::new();
        for (id, state) in &states {
            let value = serde_json::to_value(state).unwrap();
            prop_assert_eq!(schemas::violations(&schemas::COMMAND_STATE, &value), None);
            written.insert(id.clone(), value);
        }
        prop_assert_eq!(written, expected(&pushes));
    }

    #[test]
    fn states_of_two_parts_join_into_the_state_of_the_whole(
        (pushes, _) in pushes_and_disorder(), split in any::<Index>()
    ) {
        let (left, right) = pushes.split_at(split.index(pushes.len()));
        let (left, right) = (fold(left), fold(right));
        for (id, all) in fold(&pushes) {
            let joined = match (left.get(&id), right.get(&id)) {
                (Some(a), Some(b)) => {
                    let (a, b) = (a.view(), b.view());
                    prop_assert_eq!(join(a, b), join(b, a));
                    join(a, b).to_state()
                }
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => unreachable!("a state of no push"),
            };
            prop_assert_eq!(&joined, &all);
            let all = all.view();
            prop_assert_eq!(join(all, all), all);
        }
    }
}
