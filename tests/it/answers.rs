//! The listener's answers: every row of the HTTP table, and what all answers
//! have in common.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::gzip;
use crate::support::bodies::message_confirm;
use crate::support::http::{RawConnection, Response, get, post_head, post_with};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

const PATH: &str = "/notifications";

/// Part of every rejected body; it must not appear in any answer.
const MARKER: &str = "never-echoed";

/// A request and the problem that it must be answered with.
struct Rejected {
    what: &'static str,
    request: Vec<u8>,
    status: u16,
    kind: &'static str,
}

#[test]
fn a_stored_push_is_answered_200_with_an_empty_body() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let answer = push(&northbridge, PATH);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(mock.records("iot.command-status").len(), 1);
}

#[test]
fn a_rejected_push_is_answered_with_a_problem_and_not_stored() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.max_body_bytes", "1000"),
        ("http.body_timeout_ms", "300"),
        ("http.unreadable", "reject"),
    ]);
    let rows = rejected_requests();
    for row in &rows {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(&row.request);
        let answer = connection.read_response();
        assert_eq!(answer.status, row.status, "{}", row.what);
        assert_problem(&answer, row.kind, row.what);
    }
    assert!(mock.all_records().is_empty());
}

#[test]
fn an_authorized_push_that_is_not_answered_200_is_logged_at_most_ten_times_a_second() {
    const PUSHES: u64 = 40;
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("auth.token", "s3cret"), ("log.format", "json")]);
    let warning = r#""message":"push not answered 200""#;
    assert_eq!(push(&northbridge, PATH).status, 401);
    let mut connection = RawConnection::open(northbridge.address());
    for number in 0..PUSHES {
        let id = format!("push-{number}");
        let path = format!("{PATH}?token=s3cret");
        connection.write(post_head(&path, &[("x-request-id", &id)], 0));
        assert_eq!(connection.read_response().status, 400);
    }
    // The next second's line, or the end of the process, counts those left out.
    northbridge.signal(rustix::process::Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    let log = northbridge.log();
    let lines: Vec<Value> = log
        .iter()
        .filter(|line| line.contains("not answered 200"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = &lines[0];
    assert_eq!(first["level"], "WARN");
    assert_eq!(first["request_id"], "push-0");
    assert_eq!(first["outcome"], "rejected");
    assert_eq!(first["path"], PATH);
    let written = log.iter().filter(|line| line.contains(warning)).count();
    let left_out: u64 = lines
        .iter()
        .map(|line| line["left_out"].as_u64().unwrap())
        .sum();
    assert_eq!(u64::try_from(written).unwrap() + left_out, PUSHES);
    assert!(left_out > 0, "{written} lines");
}

fn rejected_requests() -> Vec<Rejected> {
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let mut request = post_head(PATH, headers, body.len()).into_bytes();
        request.extend(body);
        request
    };
    let row = |what, request, status, kind| Rejected {
        what,
        request,
        status,
        kind,
    };
    let long = format!("{{\"{MARKER}\":\"{}\"}}", "x".repeat(1000));
    let late = format!("{}{MARKER}", post_head(PATH, &[], 500));
    let chunk = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let chunked =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    let other_path = post_head(&format!("/{MARKER}"), &[], 0);
    let other_method = format!("PUT {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    let brotli = [("content-encoding", "br")];
    let gzipped = [("content-encoding", "gzip")];
    vec![
        row("an empty body", post(&[], b""), 400, "empty-body"),
        row(
            "a body that is not a notification",
            post(&[], MARKER.as_bytes()),
            400,
            "unreadable",
        ),
        row("another path", other_path.into(), 404, "not-found"),
        row(
            "another method",
            other_method.into(),
            405,
            "method-not-allowed",
        ),
        row(
            "a body that does not arrive",
            late.into(),
            408,
            "body-timeout",
        ),
        row(
            "a long body",
            post(&[], long.as_bytes()),
            413,
            "body-too-large",
        ),
        row(
            "a long body of unknown length",
            chunked.into(),
            413,
            "body-too-large",
        ),
        row(
            "a body that is long after decompression",
            post(&gzipped, &gzip(long.as_bytes())),
            413,
            "body-too-large",
        ),
        row(
            "an unknown encoding",
            post(&brotli, MARKER.as_bytes()),
            415,
            "unsupported-encoding",
        ),
    ]
}

/// Checks that the answer is an RFC 9457 problem of this stable type.
fn assert_problem(answer: &Response, kind: &str, what: &str) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        problem["type"],
        format!("urn:northbridge:problem:{kind}"),
        "{what}"
    );
    assert_eq!(problem["status"], answer.status, "{what}");
    for field in ["title", "detail"] {
        assert!(
            problem[field].as_str().is_some_and(|text| !text.is_empty()),
            "{what}"
        );
    }
    assert!(!answer.text().contains(MARKER), "{what}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
}

#[test]
fn a_405_answer_lists_the_allowed_method() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[]);
    for method in ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(format!("{method} {PATH} HTTP/1.0\r\nhost: x\r\n\r\n"));
        let answer = match method {
            // The answer to HEAD has a Content-Length but no body.
            "HEAD" => connection.read_response_head(),
            _ => connection.read_response(),
        };
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST")),
            "{method}"
        );
    }
}

#[test]
fn a_body_at_the_size_limit_is_stored_byte_for_byte() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let limit = 1024 * 1024;
    let body = padded(limit);
    assert_eq!(
        post_with(northbridge.address(), PATH, &[], &body).status,
        200
    );
    let over = padded(limit + 1);
    assert_eq!(
        post_with(northbridge.address(), PATH, &[], &over).status,
        413
    );
    let stored = mock.records("iot.command-status");
    assert_eq!(stored.len(), 1);
    assert!(stored[0].value.as_deref() == Some(body.as_bytes()));
}

#[test]
fn a_decompression_bomb_does_not_exhaust_memory() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    push(&northbridge, PATH);
    let before = peak_memory_kb(&northbridge);
    // gzip members may be concatenated (RFC 1952, section 2.2): 600 MiB in 600 kB.
    let bomb = gzip(&vec![b' '; 1024 * 1024]).repeat(600);
    for _ in 0..4 {
        let answer = post_with(
            northbridge.address(),
            PATH,
            &[("content-encoding", "gzip")],
            &bomb,
        );
        assert_eq!(answer.status, 413);
    }
    let grown = peak_memory_kb(&northbridge) - before;
    assert!(grown < 32 * 1024, "{grown} kB more at the peak");
    let resident = northbridge.metric("process_resident_memory_bytes", &[]);
    assert!(resident > 0.0 && resident < 200e6, "{resident}");
}

#[test]
fn a_push_above_the_in_flight_limit_is_answered_503() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("limits.max_in_flight", "1"),
        ("limits.admission_timeout_ms", "50"),
    ]);
    mock.set_round_trip(Duration::from_millis(1500));
    let mut first = RawConnection::open(northbridge.address());
    first.write_post(PATH, &[], message_confirm("r-1", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    let second = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r-2", "d", "sent"),
    );
    assert_unavailable(&second, "overloaded");
    assert_eq!(first.read_response().status, 200);
    northbridge.wait_for_outcome("overloaded", 1);
    northbridge.wait_for_outcome("stored", 1);
}

#[test]
fn an_unacknowledged_push_is_answered_503_at_its_deadline() {
    let mock = Mock::start();
    let quick = mock.ready_ingress(&SHORT_DEADLINE);
    let patient = mock.ready_ingress(&[]);
    mock.go_down();
    // Sent first, but held until the default deadline of 13 s.
    let mut held = RawConnection::open(patient.address());
    held.write_post(PATH, &[], message_confirm("r-1", "d", "sent"));
    patient.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);

    assert_unavailable(&push(&quick, PATH), "unconfirmed");
    assert!(patient.metric("northbridge_pushes_in_flight", &[]) > 0.0);
    quick.wait_for_outcome("unconfirmed", 1);
}

#[test]
fn a_push_is_answered_503_at_once_while_kafka_is_known_to_be_down() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&SHORT_DEADLINE);
    mock.go_down();
    northbridge.wait_until_not_ready();
    assert_unavailable(&push(&northbridge, PATH), "unavailable");
    northbridge.wait_for_outcome("unavailable", 1);
}

#[test]
fn a_push_that_outlasts_the_drain_is_answered_503() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.answer_deadline_ms", "10000"),
        ("shutdown.deadline_ms", "10500"),
    ]);
    mock.go_down();
    let mut waiting = RawConnection::open(northbridge.address());
    waiting.write_post(PATH, &[], message_confirm("r-1", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    northbridge.signal(rustix::process::Signal::TERM);
    assert_unavailable(&waiting.read_response(), "draining");
}

#[test]
fn every_answer_carries_a_request_id() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let own = [("x-request-id", "job-17")];
    let body = message_confirm("r-1", "d", "sent");
    let answers = [
        post_with(northbridge.address(), PATH, &own, &body),
        post_with(northbridge.address(), PATH, &own, ""),
        post_with(northbridge.address(), "/elsewhere", &own, ""),
    ];
    for answer in answers {
        assert_eq!(
            answer.header("x-request-id"),
            Some("job-17"),
            "{}",
            answer.status
        );
    }
    let made: Vec<_> = (0..2)
        .map(|_| {
            push(&northbridge, PATH)
                .header("x-request-id")
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_ne!(made[0], made[1]);
}

#[test]
fn the_log_carries_the_request_id_of_the_answer() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("log.level", "debug")]);
    let id = push(&northbridge, PATH)
        .header("x-request-id")
        .unwrap()
        .to_owned();
    northbridge.wait_for_log(|line| line.contains("\"push stored\"") && line.contains(&id));
    let rejected = post_with(northbridge.address(), PATH, &[], "");
    let id = rejected.header("x-request-id").unwrap().to_owned();
    northbridge.wait_for_log(|line| line.contains("\"push refused\"") && line.contains(&id));
}

#[test]
fn every_configured_path_accepts_pushes_in_all_equivalent_forms() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.paths", "/notifications,/old/callback")]);
    let rows = [
        ("/notifications", 200, "/notifications"),
        ("/notifications/", 200, "/notifications"),
        ("/notifications?a=b&c", 200, "/notifications"),
        ("/notifications/?", 200, "/notifications"),
        ("/old/callback", 200, "/old/callback"),
        ("/old/callback/?x", 200, "/old/callback"),
        ("/old", 404, ""),
        ("/notifications/x", 404, ""),
        ("/Notifications", 404, ""),
        ("/", 404, ""),
    ];
    let mut sources = Vec::new();
    for (path, status, source) in rows {
        assert_eq!(push(&northbridge, path).status, status, "{path}");
        if status == 200 {
            sources.push(source.to_owned());
        }
    }
    let stored = mock.records("iot.command-status");
    let mut found: Vec<_> = stored
        .iter()
        .map(|record| record.header("ce_source").unwrap().to_owned())
        .collect();
    found.sort();
    sources.sort();
    assert_eq!(found, sources);
}

#[test]
fn push_and_administration_ports_serve_only_their_own_paths() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for path in ["/metrics", "/livez", "/readyz", "/"] {
        let answer = get(northbridge.address(), path).unwrap();
        assert_eq!(answer.status, 404, "{path} on the push port");
    }
    for path in ["/metrics", "/livez", "/readyz", "/"] {
        let answer = get(northbridge.admin_address(), path).unwrap();
        assert_eq!(answer.status, 200, "{path} on the administration port");
        let answer = post_with(northbridge.admin_address(), path, &[], "");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    let answer = post_with(
        northbridge.admin_address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    assert_eq!(answer.status, 404);
}

/// Settings for an answer deadline of one second.
const SHORT_DEADLINE: [(&str, &str); 3] = [
    ("http.answer_deadline_ms", "1000"),
    ("http.body_timeout_ms", "500"),
    ("limits.admission_timeout_ms", "100"),
];

fn push(northbridge: &Northbridge, path: &str) -> Response {
    post_with(
        northbridge.address(),
        path,
        &[],
        message_confirm("r-1", "d-1", "delivered"),
    )
}

fn assert_unavailable(answer: &Response, kind: &str) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_problem(answer, kind, kind);
    let retry_after = answer.header("retry-after").expect("Retry-After");
    assert!(retry_after.parse::<u32>().is_ok(), "{retry_after}");
}

/// A notification of exactly `length` bytes.
fn padded(length: usize) -> String {
    let body = message_confirm("r-limit", "d", "delivered");
    let rest = length - body.len();
    body.replace(
        "\"body\":{}",
        &format!("\"body\":{{\"{}\":0}}", "x".repeat(rest - 4)),
    )
}

fn peak_memory_kb(northbridge: &Northbridge) -> u64 {
    let path = format!("/proc/{}/status", northbridge.pid().as_raw_pid());
    let status = fs::read_to_string(path).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.and_then(|peak| peak.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("VmHWM in kB")
}
