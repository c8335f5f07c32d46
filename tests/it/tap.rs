//! `northbridge tap` on the mock cluster: one line for each push, until somebody ends
//! it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::bodies;
use crate::support::http::post_with;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run, run_with_head};
use crate::support::records::{NewRecord, produce};

/// A tap that has begun.
fn tap(mock: &Mock, flags: &[&str]) -> Northbridge {
    let bootstrap = mock.bootstrap();
    let arguments = [&["tap"], flags].concat();
    let tap = Northbridge::start(&arguments, &[("kafka.bootstrap_servers", &bootstrap)]);
    tap.wait_for_log(|line| line.starts_with("following "));
    tap
}

#[track_caller]
fn push(ingress: &Northbridge, body: &str) {
    let answer = post_with(ingress.address(), "/notifications", &[], body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Pushes a last one and returns the lines before it, in which it is the mark of the
/// end.
fn lines_until_marked(ingress: &Northbridge, tap: &Northbridge, mark: &str) -> Vec<String> {
    push(ingress, mark);
    tap.wait_for_output(|line| line.contains("the-mark"));
    let lines = tap.output();
    lines
        .into_iter()
        .filter(|line| !line.contains("the-mark"))
        .collect()
}

#[test]
fn each_push_is_a_line_and_a_signal_ends_the_tap_with_0() {
    let mock = Mock::start();
    let ingress = mock.ready_ingress(&[]);
    push(&ingress, &bodies::message_confirm("before", "d-1", "sent"));
    for signal in [Signal::INT, Signal::TERM] {
        let tap = tap(&mock, &[]);
        push(&ingress, &bodies::message_confirm("r-1", "d-1", "sent"));
        let line = tap.wait_for_output(|line| line.contains("key r-1"));
        let (time, rest) = line.split_once("  ").unwrap();
        assert!(
            time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000Z".len(),
            "{time}"
        );
        assert!(
            rest.starts_with("messageConfirm  key r-1  iot.command-status partition "),
            "{rest}"
        );
        push(&ingress, "nonsense");
        let line = tap.wait_for_output(|line| line.contains("iot.dead-letter"));
        assert!(
            line.contains("  other  key -  ") && line.ends_with("  (not-json)"),
            "{line}"
        );
        tap.signal(signal);
        let (code, printed) = tap.wait_for_end();
        assert_eq!(code, 0);
        assert!(!printed.contains("before"), "{printed}");
    }
}

#[test]
fn a_line_of_json_locates_the_record_and_has_its_value() {
    let mock = Mock::start();
    let ingress = mock.ready_ingress(&[]);
    let tap = tap(&mock, &["--json", "--values"]);
    let body = bodies::upgrade_result("d-1", "op-1", "SUCCESS");
    push(&ingress, &body);
    let line = tap.wait_for_output(|line| line.contains("d-1"));
    let line: Value = serde_json::from_str(&line).unwrap();
    let stored = &mock.records("iot.upgrade-result")[0];
    assert_eq!(line["value"], body);
    assert_eq!(line["time"], stored.header("ce_time").unwrap());
    assert_eq!(line["type"], "swUpgradeResultNotify");
    assert_eq!(
        (&line["key"], &line["device"]),
        (&"d-1".into(), &"d-1".into())
    );
    assert_eq!(line["topic"], "iot.upgrade-result");
    assert_eq!(line["partition"], stored.partition);
    assert_eq!(line["offset"], stored.offset);
    assert_eq!(line.get("reason"), None);
}

#[test]
fn filters_leave_out_everything_else() {
    let mock = Mock::start();
    let ingress = mock.ready_ingress(&[]);
    let mark = bodies::message_confirm("the-mark", "the-mark", "sent");
    let rows: &[(&[&str], &[&str])] = &[
        (&["--type", "messageConfirm"], &["key r-1", "key r-2"]),
        (
            &["--device", "d-1", "--device", "the-mark"],
            &["key r-1", "key d-1"],
        ),
        (&["--request", "r-2", "--request", "the-mark"], &["key r-2"]),
        (
            &[
                "--device",
                "d-1",
                "--device",
                "the-mark",
                "--type",
                "messageConfirm",
            ],
            &["key r-1"],
        ),
    ];
    let taps: Vec<_> = rows.iter().map(|(flags, _)| tap(&mock, flags)).collect();
    push(&ingress, &bodies::message_confirm("r-1", "d-1", "sent"));
    push(&ingress, &bodies::message_confirm("r-2", "d-2", "sent"));
    push(&ingress, &bodies::upgrade_result("d-1", "op-1", "FAIL"));
    push(&ingress, "nonsense");
    for ((flags, expected), tap) in rows.iter().zip(taps) {
        let lines = lines_until_marked(&ingress, &tap, &mark);
        assert_eq!(lines.len(), expected.len(), "{flags:?}: {lines:#?}");
        for key in *expected {
            assert!(
                lines.iter().any(|line| line.contains(key)),
                "{key}: {lines:#?}"
            );
        }
    }
}

#[test]
fn a_reason_selects_dead_letters() {
    let mock = Mock::start();
    let ingress = mock.ready_ingress(&[]);
    let tap = tap(&mock, &["--reason", "id-missing", "--values"]);
    push(&ingress, "nonsense");
    push(&ingress, &bodies::message_confirm("r-1", "d-1", "sent"));
    let mark = r#"{"notifyType":"messageConfirm","the-mark":1}"#;
    assert_eq!(lines_until_marked(&ingress, &tap, mark), [""; 0]);
}

#[test]
fn since_shows_what_was_written_at_or_after_a_time() {
    let mock = Mock::start();
    let now_ms = chrono::Utc::now().timestamp_millis();
    let aged = |key: &str, hours: i64| NewRecord {
        timestamp_ms: Some(now_ms - hours * 3_600_000),
        ..NewRecord::keyed(key, "{}")
    };
    let marker = aged("the-marker", 0).with_header("northbridge-replayed", "0/0");
    let records = [aged("old", 5), aged("recent", 3), aged("new", 1)];
    produce(&mock.bootstrap(), "iot.notifications", &records);
    produce(&mock.bootstrap(), "iot.dead-letter", &[marker]);
    let tap = tap(&mock, &["--since", "4h"]);
    tap.wait_for_output(|line| line.contains("key recent"));
    tap.wait_for_output(|line| line.contains("key new"));
    produce(&mock.bootstrap(), "iot.notifications", &[aged("live", 0)]);
    tap.wait_for_output(|line| line.contains("key live"));
    let lines = tap.output();
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn a_tap_ends_quietly_when_nobody_reads_it() {
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let records = ["a", "b", "c"].map(|key| NewRecord::keyed(key, "{}"));
    produce(&bootstrap, "iot.notifications", &records);
    let kafka = [("kafka.bootstrap_servers", bootstrap.as_str())];
    for lines in [0, 1] {
        let output = run_with_head(lines, &["tap", "--since", "1h"], &kafka);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let quiet = said.lines().all(|line| line.starts_with("following "));
        assert!(quiet, "{said}");
    }
}

#[test]
fn an_outage_is_said_once_and_survived() {
    let mock = Mock::start();
    let tap = tap(&mock, &[]);
    mock.go_down();
    tap.wait_for_log(|line| line.contains("is unavailable, or a part of it; waiting: "));
    std::thread::sleep(Duration::from_secs(5));
    mock.come_back();
    let record = NewRecord::keyed("after", "{}");
    produce(&mock.bootstrap(), "iot.notifications", &[record]);
    tap.wait_for_output(|line| line.contains("key after"));
    tap.wait_for_log(|line| line == "Kafka is available again");
    let said = tap.log();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert_eq!(tap.exit_code(), None);
}

#[test]
fn nothing_from_outside_controls_the_terminal() {
    let mock = Mock::start();
    let hostile = "\u{1b}[2J\u{7}\u{9b}31m\u{202e}\r\n";
    let record = NewRecord::keyed(format!("{hostile}key"), format!("{hostile}\0"))
        .with_header("ce_type", hostile)
        .with_header("ce_time", hostile)
        .with_header("ce_subject", hostile)
        .with_header(
            "northbridge-reason",
            [hostile.as_bytes(), b"\xff\x9b"].concat(),
        );
    for flags in [&["--values"][..], &["--json", "--values"]] {
        let tap = tap(&mock, flags);
        produce(
            &mock.bootstrap(),
            "iot.dead-letter",
            std::slice::from_ref(&record),
        );
        let line = tap.wait_for_output(|line| line.contains("key"));
        assert!(
            !line.contains(|it: char| it.is_control() || it == '\u{202e}'),
            "{line:?}"
        );
        tap.signal(Signal::INT);
        let (_, printed) = tap.wait_for_end();
        assert_eq!(printed.lines().count(), 1, "{printed:?}");
    }
}

#[test]
fn a_tap_without_its_topics_does_not_begin() {
    let mock = Mock::without_topics();
    let output = run(&["tap"], &[("kafka.bootstrap_servers", &mock.bootstrap())]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("topic iot.command-status does not exist"),
        "{said}"
    );

    let output = run(&["tap", "--since", "yesterday"], &[]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
