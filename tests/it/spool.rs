//! The spool: pushes are answered 200 while Kafka is down, and delivered when it returns.

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::failing_disk::{DiskError, FailingDisk};
use crate::support::http::try_post;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};
use crate::support::ordered::{PushesInOrder, first_values};
use crate::support::records::Record;

const TOPIC: &str = "iot.command-status";
const RECORDS: &str = "northbridge_spool_records";

/// A spool, and settings with which it is used soon.
struct Spool(TempDir);

impl Spool {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("spool.directory", self.path()),
            ("spool.after_ms", "200"),
            ("http.body_timeout_ms", "1000"),
            ("http.answer_deadline_ms", "6000"),
        ];
        [&own[..], more].concat()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

fn push(northbridge: &Northbridge, body: &str) -> u16 {
    try_push(northbridge, body).expect("an answer")
}

/// `None` if the process ended before it answered.
fn try_push(northbridge: &Northbridge, body: &str) -> Option<u16> {
    try_post(northbridge.address(), "/notifications", body)
}

fn wait_until_delivered(northbridge: &Northbridge) {
    northbridge.wait_for_metric(RECORDS, &[], 0.0);
}

fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::value_text).collect()
}

fn confirm(request_id: &str) -> String {
    message_confirm(request_id, "d-1", "sent")
}

#[test]
fn pushes_are_spooled_while_kafka_is_down_and_delivered_in_order_when_it_returns() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let ingress = mock.ready_ingress(&spool.settings(&[]));
    let of_device = |number| message_confirm("one-key", &format!("d-{number}"), "sent");
    let bodies: Vec<String> = (0..30).map(of_device).collect();
    for body in &bodies[..10] {
        assert_eq!(push(&ingress, body), 200);
    }
    assert_eq!(spool.files(), 1, "the lock");
    mock.go_down();
    for body in &bodies[10..20] {
        assert_eq!(push(&ingress, body), 200);
    }
    let outcome = [r#"outcome="spooled""#, r#"notify_type="messageConfirm""#];
    ingress.wait_for_metric("northbridge_pushes_total", &outcome, 10.0);
    ingress.wait_for_metric(RECORDS, &[], 10.0);
    assert!(ingress.is_ready());
    mock.come_back();
    for body in &bodies[20..] {
        assert_eq!(push(&ingress, body), 200);
    }
    wait_until_delivered(&ingress);
    let records = mock.records(TOPIC);
    let mut stored = values(&records);
    // The first one may have been in librdkafka as well.
    stored.dedup();
    assert_eq!(stored, bodies);
    eventually("nothing is left on the disk", || {
        (spool.files() == 1).then_some(())
    });
    ingress.wait_for_metric("northbridge_pushes_in_flight", &[], 0.0);
}

#[test]
fn a_killed_process_loses_nothing_of_its_spool() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let ingress = mock.ready_ingress(&spool.settings(&[]));
    mock.go_down();
    let body = confirm("r-1");
    assert_eq!(push(&ingress, &body), 200);
    ingress.kill();
    let ingress = mock.ingress(&spool.settings(&[]));
    ingress.wait_until_ready();
    ingress.wait_for_metric(RECORDS, &[], 1.0);
    let other = confirm("r-2");
    assert_eq!(push(&ingress, &other), 200, "before Kafka was ever there");
    mock.come_back();
    wait_until_delivered(&ingress);
    let records = mock.records(TOPIC);
    let mut stored = values(&records);
    stored.sort();
    stored.dedup();
    assert_eq!(stored, [body, other]);
    let first = records.iter().find(|record| record.key_text() == "r-1");
    let header = |name: &str| first.unwrap().header(name);
    assert!(header("ce_time").is_some() && header("ce_id").is_some());
}

/// A broker that has just started may need seconds for its first acknowledgement.
#[test]
fn a_partition_that_is_back_gets_pushes_from_the_spool_until_it_acknowledges_one() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let ingress = mock.ready_ingress(&spool.settings(&[]));
    assert_eq!(push(&ingress, &confirm("r-1")), 200);
    mock.go_down();
    eventually("the outage is longer than spool.after_ms", || {
        (ingress.metric("northbridge_kafka_outage_seconds", &[]) > 0.5).then_some(())
    });
    mock.come_back();
    eventually("the outage is over", || {
        (ingress.metric("northbridge_kafka_outage_seconds", &[]) < 0.1).then_some(())
    });
    assert_eq!(push(&ingress, &confirm("r-1")), 200);
    ingress.wait_for_outcome("spooled", 1);
    wait_until_delivered(&ingress);
    assert_eq!(push(&ingress, &confirm("r-1")), 200);
    ingress.wait_for_outcome("stored", 2);
}

/// As long as nothing is known of the partitions, all pushes wait together.
#[test]
fn pushes_keep_their_order_from_the_start_of_a_process_without_kafka() {
    let (mock, spool) = (Mock::start(), Spool::new());
    mock.go_down();
    let ingress = mock.ingress(&spool.settings(&[("spool.after_ms", "2500")]));
    let of_device = |number| message_confirm("one-key", &format!("d-{number}"), "sent");
    let bodies: Vec<String> = (0..10).map(of_device).collect();
    let waiting = PushesInOrder::send(&ingress, &bodies[..5]);
    // Until one of them is spooled.
    for body in &bodies[5..] {
        assert_eq!(push(&ingress, body), 200);
    }
    assert_eq!(waiting.statuses(), [200; 5]);
    mock.come_back();
    ingress.wait_until_ready();
    wait_until_delivered(&ingress);
    assert_eq!(first_values(&mock.records(TOPIC), "one-key"), bodies);
}

#[test]
fn a_process_that_stops_during_an_outage_leaves_its_spool_to_the_next_one() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let deadline = [("shutdown.deadline_ms", "8000")];
    let ingress = mock.ready_ingress(&spool.settings(&deadline));
    mock.go_down();
    for number in 0..3 {
        let body = confirm(&format!("r-{number}"));
        assert_eq!(push(&ingress, &body), 200);
    }
    ingress.signal(Signal::TERM);
    assert_eq!(ingress.wait(), 0);
    let left = ingress.log();
    let left = left
        .iter()
        .find(|line| line.contains("pushes stay in the spool"));
    assert!(left.unwrap().contains(r#""records":3"#), "{left:?}");
    mock.come_back();
    let ingress = mock.ready_ingress(&spool.settings(&[]));
    wait_until_delivered(&ingress);
    assert!(values(&mock.records(TOPIC)).len() >= 3);
}

#[test]
fn a_full_spool_is_answered_503_as_without_one_and_ends_readiness() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let ingress = mock.ready_ingress(&spool.settings(&[("spool.max_bytes", "1048576")]));
    assert_eq!(push(&ingress, &confirm("r-0")), 200);
    mock.go_down();
    let large = confirm("r-1") + &" ".repeat(300_000);
    let answers: Vec<u16> = (0..5).map(|_| push(&ingress, &large)).collect();
    assert_eq!(answers, [200, 200, 200, 503, 503]);
    ingress.wait_until_not_ready();
    mock.come_back();
    ingress.wait_until_ready();
    wait_until_delivered(&ingress);
    assert_eq!(push(&ingress, &large), 200);
}

#[test]
fn a_disk_that_returns_errors_is_answered_503_until_it_recovers_and_loses_nothing() {
    let (mock, spool, disk) = (Mock::start(), Spool::new(), FailingDisk::new());
    let ingress = mock.ingress_in_environment(&spool.settings(&[]), &disk.environment());
    ingress.wait_until_ready();
    assert_eq!(push(&ingress, &confirm("warm")), 200);
    mock.go_down();
    let mut answered = Vec::new();
    for (number, error) in [DiskError::NoSpaceToWrite, DiskError::SyncFails]
        .into_iter()
        .enumerate()
    {
        let body = |time| confirm(&format!("{time}-{number}"));
        assert_eq!(push(&ingress, &body("before")), 200);
        disk.fail(error);
        assert_eq!(push(&ingress, &body("during")), 503, "{error:?}");
        assert_eq!(push(&ingress, &body("during-too")), 503, "{error:?}");
        ingress.wait_until_not_ready();
        disk.recover();
        assert_eq!(push(&ingress, &body("after")), 200, "{error:?}");
        assert!(ingress.is_ready());
        answered.extend([body("before"), body("after")]);
    }
    let logged = |message: &str| {
        let log = ingress.log();
        log.iter().filter(|line| line.contains(message)).count()
    };
    assert_eq!(
        logged("the spool takes no pushes"),
        2,
        "once for each error"
    );
    assert_eq!(logged("the spool takes pushes again"), 2);
    disk.fail(DiskError::ReadFails);
    mock.come_back();
    ingress.wait_for_message("cannot read the spool; retrying");
    ingress.wait_for_metric(RECORDS, &[], 4.0);
    disk.recover();
    wait_until_delivered(&ingress);
    let stored = values(&mock.records(TOPIC));
    let lost = answered.iter().filter(|body| !stored.contains(body));
    assert_eq!(lost.count(), 0, "{stored:?}");
}

/// The steps: before a write, before its sync, after it; before a delivery is noted, after
/// that, and after what was delivered is deleted.
#[test]
fn a_process_killed_at_any_step_of_its_spool_loses_nothing_that_was_answered() {
    for at in ["1:1", "1:3", "2:2", "3:1", "3:3", "4:1", "5:1", "6:1"] {
        let (mock, spool) = (Mock::start(), Spool::new());
        let ingress = mock.ingress_with_fail_point(&spool.settings(&[]), at);
        ingress.wait_until_ready();
        mock.go_down();
        let bodies = (0..6).map(|number| confirm(&format!("r-{number}")));
        let answered: Vec<String> = bodies
            .filter(|body| try_push(&ingress, body) == Some(200))
            .collect();
        mock.come_back();
        assert_eq!(ingress.wait(), 137, "step {at}");
        let next = mock.ready_ingress(&spool.settings(&[]));
        wait_until_delivered(&next);
        let stored = values(&mock.records(TOPIC));
        let lost = answered.iter().filter(|body| !stored.contains(body));
        assert_eq!(lost.count(), 0, "step {at}: {} answered", answered.len());
    }
}

#[test]
fn the_commands_show_and_deliver_what_is_spooled() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let bootstrap = mock.bootstrap();
    let settings = spool.settings(&[("kafka.bootstrap_servers", &bootstrap)]);
    let command = |command: &str| {
        let output = run(&["spool", command], &settings);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let ingress = mock.ready_ingress(&spool.settings(&[]));
    mock.go_down();
    for number in 0..5 {
        assert_eq!(push(&ingress, &confirm(&format!("r-{number}"))), 200);
    }
    let (code, text) = command("status");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(": 5 pushes, "), "{text}");
    assert!(text.contains("command-status partition "), "{text}");
    let (code, text) = command("drain");
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("another process uses"), "{text}");
    ingress.kill();
    mock.come_back();
    let (code, text) = command("drain");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("5 pushes delivered"), "{text}");
    assert!(values(&mock.records(TOPIC)).len() >= 5);
    let (code, text) = command("status");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(": 0 pushes, 0 bytes"), "{text}");
    let output = run(&["spool", "status"], &[]);
    assert_eq!(output.status.code(), Some(64));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("spool.directory is not set"), "{error}");
}

#[test]
fn a_first_start_without_kafka_is_not_ready_though_it_spools() {
    let (mock, spool) = (Mock::start(), Spool::new());
    mock.go_down();
    let ingress = mock.ingress(&spool.settings(&[]));
    assert_eq!(push(&ingress, &confirm("r-1")), 200);
    ingress.wait_for_message("Kafka is unreachable; pushes are spooled");
    assert!(!ingress.is_ready(), "its settings may be wrong");
    mock.come_back();
    ingress.wait_until_ready();
    wait_until_delivered(&ingress);
}

#[test]
fn a_spool_belongs_to_one_process() {
    let (mock, spool) = (Mock::start(), Spool::new());
    let _owner = mock.ready_ingress(&spool.settings(&[]));
    let second = mock.ingress(&spool.settings(&[]));
    let code = second.wait();
    let log = second.log().join("\n");
    assert!(log.contains("another process uses"), "{log}");
    assert_ne!(code, 0);
}

#[test]
fn without_a_spool_there_is_no_trace_of_one() {
    let mock = Mock::start();
    let ingress = mock.ready_ingress(&[]);
    let metrics = ingress.metrics();
    assert!(metrics.keys().all(|series| !series.contains("spool")));
}
