//! The drain: every accepted push is answered, and every push answered 200 is in
//! Kafka.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::bodies::message_confirm;
use crate::support::http::{RawConnection, get, post_head, post_with};
use crate::support::load::{Answer, Load};
use crate::support::mock::Mock;

const PATH: &str = "/notifications";

#[test]
fn a_drain_under_load_answers_200_to_every_accepted_push_and_stores_it() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.announce_ms", "1000")]);
    mock.set_round_trip(Duration::from_millis(20));
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
        // The listener is closed, so the sender knows that nothing was received.
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
fn a_body_that_is_still_arriving_at_the_last_call_is_answered_503() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.body_timeout_ms", "3000"),
        ("http.answer_deadline_ms", "4000"),
        ("shutdown.deadline_ms", "4500"),
        ("shutdown.idle_ms", "2000"),
    ]);
    let body = message_confirm("r", "d", "sent");
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], &body);
    assert_eq!(connection.read_response().status, 200);
    northbridge.signal(Signal::TERM);
    // The last call comes three seconds after the signal, before the body's timeout.
    std::thread::sleep(Duration::from_secs(1));
    connection.write(post_head(PATH, &[], body.len()));
    connection.write(&body[..10]);
    let answer = connection.read_response();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("urn:northbridge:problem:draining"));
    drop(connection);
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn a_push_in_flight_is_answered_before_the_process_exits() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.set_round_trip(Duration::from_millis(1500));
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    northbridge.signal(Signal::TERM);
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.is_closed());
    assert_eq!(northbridge.wait(), 0);
    mock.set_round_trip(Duration::ZERO);
    assert_eq!(mock.records("iot.command-status").len(), 1);
}

#[test]
fn a_push_whose_body_is_arriving_is_completed_during_the_drain() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let (start, end) = body.split_at(20);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(crate::support::http::post_head(PATH, &[], body.len()));
    connection.write(start);
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    northbridge.signal(Signal::TERM);
    northbridge.wait_until_not_listening();
    connection.write(end);
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(northbridge.wait(), 0);
    assert_eq!(mock.records("iot.command-status").len(), 1);
}

#[test]
fn during_the_announcement_it_is_not_ready_but_accepts_pushes() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.announce_ms", "3000")]);
    northbridge.signal(Signal::TERM);
    northbridge.wait_until_not_ready();
    let report = get(northbridge.admin_address(), "/readyz").unwrap();
    assert!(report.text().contains("draining"), "{}", report.text());
    let body = message_confirm("r", "d", "sent");
    let answer = post_with(northbridge.address(), PATH, &[], body);
    // `Connection: close` makes the client's pool drop the connection in time.
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn idle_connections_do_not_delay_the_drain() {
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
fn a_connection_opened_just_before_the_drain_is_served() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut connection = RawConnection::open(northbridge.address());
    northbridge.wait_for_metric("northbridge_connections", &[], 1.0);
    northbridge.signal(Signal::TERM);
    northbridge.wait_until_not_listening();
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn an_idle_connection_may_send_one_more_push_during_the_drain() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("shutdown.idle_ms", "15000")]);
    let mut idle = RawConnection::open(northbridge.address());
    let mut push = || {
        idle.write_post(PATH, &[], message_confirm("r", "d", "sent"));
        idle.read_response()
    };
    assert_eq!(push().header("connection"), None);
    northbridge.signal(Signal::TERM);
    northbridge.wait_until_not_listening();
    let answer = push();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(idle.is_closed());
    assert_eq!(northbridge.wait(), 0);
}

#[test]
fn a_second_signal_stops_at_once_with_75() {
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
fn a_drain_that_misses_its_deadline_exits_with_75() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.answer_deadline_ms", "1000"),
        ("http.body_timeout_ms", "500"),
        ("limits.admission_timeout_ms", "100"),
        ("shutdown.deadline_ms", "3000"),
    ]);
    mock.go_down();
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
fn a_drain_without_kafka_and_without_pushes_exits_with_0() {
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
