//! The end of the process: what was accepted is answered, and what was
//! answered 200 is in Kafka.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::http::{RawConnection, get, post_with};
use crate::support::load::{Answer, Load};
use crate::support::mock::Mock;

const PATH: &str = "/notifications";

#[test]
fn under_load_every_accepted_push_is_answered_200_and_is_in_kafka() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.announce_ms", "1000")]);
    mock.round_trip(Duration::from_millis(20));
    let load = Load {
        rate_per_s: 300,
        connections: 32,
        ..Load::to(northbridge.address())
    };
    let running = load.start();
    running.wait_for_answers(200);
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    let report = running.stop();
    let failed = report
        .pushes
        .iter()
        .filter(|push| push.answer != Answer::Status(200));
    for push in failed {
        // Nobody listens any more: the sender knows that nothing was taken.
        let answer = push.answer.to_string();
        assert!(
            answer.contains("Connection refused"),
            "{} {answer}",
            push.number
        );
    }
    let stored = mock.all_records();
    let values = stored
        .iter()
        .filter_map(|(_, record)| record.value.as_deref());
    assert!(report.missing_from(values).is_empty());
}

#[test]
fn a_push_under_way_is_answered_before_the_end() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.round_trip(Duration::from_millis(1500));
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    northbridge.signal(Signal::TERM);
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.is_closed());
    assert_eq!(northbridge.wait(), 0);
    mock.round_trip(Duration::ZERO);
    assert_eq!(mock.records("iot.command-status").len(), 1);
}

#[test]
fn a_push_whose_body_is_under_way_is_taken_to_its_end() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let (start, end) = body.split_at(20);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(crate::support::http::post_head(PATH, &[], body.len()));
    connection.write(start);
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    northbridge.signal(Signal::TERM);
    eventually("nobody listens any more", || {
        RawConnection::try_open(northbridge.address())
            .is_err()
            .then_some(())
    });
    connection.write(end);
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(northbridge.wait(), 0);
    assert_eq!(mock.records("iot.command-status").len(), 1);
}

#[test]
fn while_the_end_is_announced_it_is_not_ready_and_pushes_are_taken() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.announce_ms", "3000")]);
    northbridge.signal(Signal::TERM);
    eventually("it is not ready", || {
        (!northbridge.is_ready()).then_some(())
    });
    let report = get(northbridge.admin_address(), "/readyz").unwrap();
    assert!(report.text().contains("draining"), "{}", report.text());
    let body = message_confirm("r", "d", "sent");
    let answer = post_with(northbridge.address(), PATH, &[], body);
    // The client's pool is to leave this connection before it is gone.
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn connections_without_a_request_do_not_hold_up_the_end() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.header_timeout_ms", "500"),
        ("shutdown.deadline_ms", "60000"),
    ]);
    let mut connections = Vec::new();
    for start in ["", "POST /noti", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(start);
        connections.push(connection);
    }
    let mut kept = RawConnection::open(northbridge.address());
    kept.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    kept.read_response();
    northbridge.wait_for_metric("northbridge_connections", &[], 4.0);
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    drop(connections);
}

#[test]
fn a_connection_made_at_the_last_moment_is_served() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut connection = RawConnection::open(northbridge.address());
    northbridge.wait_for_metric("northbridge_connections", &[], 1.0);
    northbridge.signal(Signal::TERM);
    eventually("nobody listens any more", || {
        RawConnection::try_open(northbridge.address())
            .is_err()
            .then_some(())
    });
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn an_idle_connection_is_left_open_for_one_more_push() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.idle_ms", "15000")]);
    let mut idle = RawConnection::open(northbridge.address());
    let mut push = || {
        idle.write_post(PATH, &[], message_confirm("r", "d", "sent"));
        idle.read_response()
    };
    assert_eq!(push().header("connection"), None);
    northbridge.signal(Signal::TERM);
    eventually("nobody listens any more", || {
        RawConnection::try_open(northbridge.address())
            .is_err()
            .then_some(())
    });
    let answer = push();
    let told = (answer.status, answer.header("connection"));
    assert_eq!(told, (200, Some("close")));
    assert!(idle.is_closed());
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn a_second_signal_stops_at_once_and_says_that_not_all_is_settled() {
    let mock = Mock::start();
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let northbridge = mock.ready_ingress(&[("shutdown.announce_ms", "10000")]);
        northbridge.signal(first);
        northbridge.wait_for_message("draining; another signal stops at once");
        northbridge.signal(second);
        assert_eq!(northbridge.wait(), 75);
    }
}

#[test]
fn what_cannot_be_settled_by_the_deadline_is_told_by_the_exit_code() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.answer_deadline_ms", "1000"),
        ("http.body_timeout_ms", "500"),
        ("limits.admission_timeout_ms", "100"),
        ("shutdown.deadline_ms", "3000"),
    ]);
    mock.go_away();
    let answer = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    assert_eq!(answer.status, 503);
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 75);
}

#[test]
fn without_kafka_and_without_pushes_the_end_is_clean() {
    let northbridge = crate::support::northbridge::Northbridge::start(
        &["ingress"],
        &[
            ("kafka.bootstrap_servers", "127.0.0.1:1"),
            ("shutdown.announce_ms", "0"),
        ],
    );
    northbridge.address();
    northbridge.signal(Signal::INT);
    assert_eq!(northbridge.wait(), 0);
}
