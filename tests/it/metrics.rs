//! The metrics: all exposed from the first scrape, and the identity
//! received = sum over outcomes + in flight.

use crate::gzip;
use crate::support::bodies::message_confirm;
use crate::support::http::{RawConnection, get, post_head, post_with};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

const PATH: &str = "/notifications";

const OUTCOMES: [&str; 8] = [
    "stored",
    "dead_lettered",
    "rejected",
    "overloaded",
    "unavailable",
    "unconfirmed",
    "draining",
    "disconnected",
];

#[test]
fn every_metric_is_exposed_at_zero_from_the_first_scrape() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[]);
    let metrics = northbridge.metrics();
    let at_zero = |series: &str| {
        let value = metrics.get(series).unwrap_or_else(|| panic!("no {series}"));
        assert!(*value == 0.0, "{series} {value}");
    };
    at_zero("northbridge_pushes_received_total");
    at_zero("northbridge_pushes_in_flight");
    for outcome in OUTCOMES {
        for notify_type in [
            "messageConfirm",
            "swUpgradeResultNotify",
            "ruleEvent",
            "other",
        ] {
            at_zero(&format!(
                "northbridge_pushes_total{{notify_type=\"{notify_type}\",outcome=\"{outcome}\"}}"
            ));
        }
        at_zero(&format!(
            "northbridge_push_duration_seconds_count{{outcome=\"{outcome}\"}}"
        ));
    }
    for topic in [
        "command-status",
        "upgrade-result",
        "notifications",
        "dead-letter",
    ] {
        at_zero(&format!(
            "northbridge_produce_duration_seconds_count{{topic=\"{topic}\"}}"
        ));
    }
    at_zero("northbridge_producer_restarts_total");
    for prefix in [
        "northbridge_build_info{revision=",
        "northbridge_kafka_",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        let exposed = metrics.keys().any(|series| series.starts_with(prefix));
        assert!(exposed, "no {prefix}");
    }
}

#[test]
fn metrics_are_in_prometheus_text_format() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[]);
    let answer = get(northbridge.admin_address(), "/metrics").unwrap();
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = answer.text();
    for name in ["northbridge_pushes_total", "northbridge_pushes_in_flight"] {
        assert!(
            text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} "))
        );
    }
}

#[test]
fn received_pushes_equal_the_sum_of_their_outcomes() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.answer_deadline_ms", "1500"),
        ("http.body_timeout_ms", "500"),
        ("http.max_body_bytes", "2000"),
        ("limits.max_in_flight", "3"),
        ("limits.admission_timeout_ms", "50"),
    ]);
    let mut received = 0;
    for _ in 0..3 {
        received += push_every_kind(&northbridge);
    }
    mock.go_down();
    received += push_concurrently(&northbridge, 8);
    mock.come_back();
    received += push_concurrently(&northbridge, 8);
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 0.0);
    let total = |name| northbridge.metric(name, &[]).to_bits();
    let received = f64::from(received).to_bits();
    assert_eq!(total("northbridge_pushes_received_total"), received);
    assert_eq!(total("northbridge_pushes_total"), received);
    assert_eq!(total("northbridge_push_duration_seconds_count"), received);
    for outcome in [
        "stored",
        "dead_lettered",
        "rejected",
        "overloaded",
        "unconfirmed",
        "disconnected",
    ] {
        let label = format!("outcome=\"{outcome}\"");
        assert!(
            northbridge.metric("northbridge_pushes_total", &[&label]) > 0.0,
            "{outcome}"
        );
    }
    northbridge.wait_for_metric("northbridge_in_flight_bytes", &[], 0.0);
}

#[test]
fn consecutive_failures_are_counted_until_a_push_is_stored_and_not_only_dead_lettered() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let row = "northbridge_consecutive_failed_pushes";
    for failures in [1.0, 2.0, 3.0] {
        assert_eq!(post_with(northbridge.address(), PATH, &[], "").status, 400);
        northbridge.wait_for_metric(row, &[], failures);
    }
    let junk = post_with(northbridge.address(), PATH, &[], "junk of a stranger");
    assert_eq!(junk.status, 200);
    northbridge.wait_for_outcome("dead_lettered", 1);
    northbridge.wait_for_metric(row, &[], 3.0);
    let confirmation = message_confirm("r", "d", "sent");
    let answer = post_with(northbridge.address(), PATH, &[], confirmation);
    assert_eq!(answer.status, 200);
    northbridge.wait_for_metric(row, &[], 0.0);
}

#[test]
fn the_configured_limits_are_exposed_as_metrics() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[
        ("limits.max_connections", "11"),
        ("limits.max_in_flight", "12"),
        ("limits.max_in_flight_bytes", "1300000"),
    ]);
    northbridge.wait_for_metric("northbridge_max_connections", &[], 11.0);
    northbridge.wait_for_metric("northbridge_max_pushes_in_flight", &[], 12.0);
    northbridge.wait_for_metric("northbridge_max_in_flight_bytes", &[], 1_300_000.0);
}

#[test]
fn requests_that_are_not_pushes_are_not_counted_as_pushes() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    post_with(northbridge.address(), "/elsewhere", &[], "x");
    get(northbridge.address(), PATH).unwrap();
    RawConnection::open(northbridge.address()).write("nonsense\r\n\r\n");
    northbridge.wait_for_metric("northbridge_http_responses_total", &[r#"code="404""#], 1.0);
    northbridge.wait_for_metric("northbridge_http_responses_total", &[r#"code="405""#], 1.0);
    assert!(northbridge.metric("northbridge_pushes_received_total", &[]) < 1.0);
}

/// Sends one push of each kind in turn. Returns how many it sent.
fn push_every_kind(northbridge: &Northbridge) -> u32 {
    let confirm = message_confirm("r", "d", "sent");
    let bomb = gzip(&[b' '; 4000]);
    let rows: [(Option<&str>, &[u8]); 6] = [
        (None, confirm.as_bytes()),
        (None, b"no JSON"),
        (None, b""),
        (Some("br"), b"x"),
        (Some("gzip"), &bomb),
        (Some("gzip"), b"no gzip"),
    ];
    for (encoding, body) in rows {
        let header = encoding.map(|encoding| ("content-encoding", encoding));
        post_with(northbridge.address(), PATH, header.as_slice(), body);
    }
    let mut slow = RawConnection::open(northbridge.address());
    slow.write(post_head(PATH, &[], 10));
    assert_eq!(slow.read_response().status, 408);
    let mut disconnected = RawConnection::open(northbridge.address());
    disconnected.write(post_head(PATH, &[], 10));
    disconnected.write("{");
    drop(disconnected);
    8
}

fn push_concurrently(northbridge: &Northbridge, count: u32) -> u32 {
    let mut connections: Vec<_> = (0..count)
        .map(|_| RawConnection::open(northbridge.address()))
        .collect();
    for connection in &mut connections {
        connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    }
    for connection in &mut connections {
        connection.read_response();
    }
    count
}
