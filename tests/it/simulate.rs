//! `northbridge simulate` against the real ingress, and against listeners that
//! break the promise in ways that its proof must find.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chrono::{DateTime, TimeDelta, Utc};
use northbridge::simulate::model::{self, Push};
use serde_json::Value;

use crate::certificates::Certificates;
use crate::pushes::{PATH, tls_ingress};
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, produce};

const TOPIC: &str = "iot.command-status";
const STATE_TOPIC: &str = "iot.command-state";
const STATE_TOPICS: [&str; 4] = [
    STATE_TOPIC,
    "iot.device-software",
    "iot.upgrade-delta",
    "iot.upgrade-operation",
];
const PUSHES: usize = 20;

fn simulate(url: &str, flags: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["simulate", url, "--json", "--rate", "500", "--seed", "1"];
    arguments.extend(flags);
    let output = run(&arguments, &[]);
    let outcome = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), outcome)
}

#[test]
fn every_push_that_the_ingress_answered_200_is_proved_to_be_stored() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = format!("http://{}/notifications", northbridge.address());
    for protocol in [&[][..], &["--http2"]] {
        let bootstrap = mock.bootstrap();
        let mut flags = vec!["--count", "500", "--oddities", "20", "--verify", &bootstrap];
        flags.extend(protocol);
        let (code, outcome) = simulate(&url, &flags);
        assert_eq!(code, Some(0), "{outcome}");
        assert_eq!(outcome["answers"]["200"], 500);
        assert_eq!(outcome["verification"]["stored"], 500);
        assert_eq!(outcome["verification"]["others"], 0);
    }
}

#[test]
fn ten_failures_in_a_row_blacklist_the_host_and_the_rest_waits() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = format!("http://{}/another-path", northbridge.address());
    let flags = [
        "--count",
        "50",
        "--connections",
        "1",
        "--policy",
        "discard",
        "--probe-interval",
        "1s",
    ];
    let (code, outcome) = simulate(&url, &flags);
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["blacklistings"], 1);
    assert_eq!(outcome["probes"], 1);
    let lost = outcome["lostByPolicy"].as_u64().unwrap();
    assert!(lost >= 10, "{outcome}");
    assert_eq!(outcome["backlogAtEnd"].as_u64().unwrap() + lost, 50);
}

#[test]
fn pushes_go_over_tls_of_both_protocols_to_a_certificate_of_the_given_authority_or_any() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let url = url(&northbridge, "https", PATH);
    let ca = certificates.ca_file().display().to_string();
    for trust in [&["--ca", &ca][..], &["--insecure"]] {
        for protocol in [&[][..], &["--http2"], &["--sni"]] {
            let (code, outcome) = simulate(&url, &[&["--count", "20"], trust, protocol].concat());
            assert_eq!(code, Some(0), "{outcome}");
            assert_eq!(outcome["answers"]["200"], 20, "{trust:?} {protocol:?}");
        }
    }
}

#[test]
fn a_certificate_of_another_authority_is_not_taken() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let others = Certificates::new();
    let ca = others.ca_file().display().to_string();
    for trust in [&["--ca", &ca][..], &[]] {
        let url = url(&northbridge, "https", PATH);
        let (_, outcome) = simulate(&url, &[&["--count", "20"], trust].concat());
        assert_eq!(outcome["answers"]["no-connection"], 20, "{trust:?}");
    }
}

#[test]
fn basic_credentials_and_tokens_are_sent() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("auth.basic.username", "platform"),
        ("auth.basic.password", "open:sesame"),
        ("auth.token", "s3cret"),
    ]);
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password, "open:sesame\n").unwrap();
    let file = password.path().display().to_string();
    let credentials = ["--user", "platform", "--password-file", &file];
    let with_token = url(&northbridge, "http", "/notifications?token=s3cret");
    for protocol in [&[][..], &["--http2"]] {
        let flags = [&["--count", "20"], &credentials[..], protocol].concat();
        let (_, outcome) = simulate(&with_token, &flags);
        assert_eq!(outcome["answers"]["200"], 20, "{outcome}");
        let without_token = url(&northbridge, "http", PATH);
        let (_, outcome) = simulate(&without_token, &flags);
        assert_eq!(outcome["answers"]["401"], 20, "{outcome}");
    }
    let (_, outcome) = simulate(&with_token, &["--count", "20"]);
    assert_eq!(outcome["answers"]["401"], 20, "{outcome}");
}

#[test]
fn a_token_in_the_url_is_told_nowhere() {
    let page = tempfile::NamedTempFile::new().unwrap();
    let (mock, file) = (Mock::start(), page.path().display().to_string());
    let northbridge = mock.ready_ingress(&[]);
    let path = "/notifications?token=s3cret";
    for url in [
        url(&northbridge, "http", path),
        format!("http://127.0.0.1:1{path}"),
        format!("ftp://127.0.0.1:1{path}"),
    ] {
        let output = run(&["simulate", &url, "--count", "5", "--report", &file], &[]);
        let said = [output.stdout, output.stderr, std::fs::read(&page).unwrap()].concat();
        assert!(!String::from_utf8_lossy(&said).contains("s3cret"));
    }
}

#[test]
fn the_report_is_a_page_with_the_marks_of_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (page, marks) = (file("report.html"), file("marks"));
    let now = Utc::now();
    let before = (now - TimeDelta::hours(1)).to_rfc3339() + " before\n";
    let meanwhile = (0..120).map(|seconds| {
        let at = now + TimeDelta::seconds(seconds);
        at.to_rfc3339() + " broker <1> is killed\n"
    });
    let noted = before + &meanwhile.collect::<String>();
    std::fs::write(&marks, noted).unwrap();
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let flags = ["--count", "1500", "--report", &page, "--marks", &marks];
    assert_eq!(simulate(&url, &flags).0, Some(0));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("broker &lt;1&gt; is killed"), "{page}");
    assert!(!page.contains("before</td>"), "{page}");
}

#[test]
fn a_page_needs_no_marks() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html").display().to_string();
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let flags = [
        "--count",
        "5",
        "--report",
        &page,
        "--marks",
        "/nowhere/marks",
    ];
    let output = run(&[&["simulate", url.as_str()], &flags[..]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--marks /nowhere/marks"));
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .ends_with("</html>\n")
    );
}

#[test]
fn wrong_flags_are_exit_code_64_before_anything_is_pushed() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let rows: &[&[&str]] = &[
        &["--rate", "0"],
        &["--rate", "fast"],
        &["--duration", "5d"],
        &["--duration", "5m", "--count", "5"],
        &["--repeats", "101"],
        &["--policy", "hope"],
        &["--insecure", "--ca", "ca.pem"],
        &["--user", "platform"],
        &["--verify-state"],
        &["--catch-up", "5s"],
        &["--topics-prefix", "x."],
        &["--marks", "marks"],
        &["--report", "/nowhere/report.html"],
        &["--user", "platform", "--password-file", "/nowhere/password"],
        &["--verify", ""],
    ];
    for flags in rows {
        let output = run(&[&["simulate", url.as_str()], *flags].concat(), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {said}");
        let mut named = flags.iter().rev().filter(|flag| flag.starts_with("--"));
        assert!(said.contains(named.next().unwrap()), "{flags:?}: {said}");
    }
    assert_eq!(mock.all_records().len(), 0);
}

#[test]
fn an_authority_that_cannot_be_read_is_exit_code_64() {
    let (code, _) = simulate("https://127.0.0.1:1/", &["--ca", "/nowhere/ca.pem"]);
    assert_eq!(code, Some(64));
}

#[test]
fn a_kafka_that_is_not_there_or_lacks_the_topics_is_exit_code_69() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let bootstrap = mock.bootstrap();
    let rows: &[&[&str]] = &[
        &["--verify", "127.0.0.1:1"],
        &["--verify", &bootstrap, "--topics-prefix", "other."],
        &["--verify", &bootstrap, "--verify-state"],
    ];
    for flags in rows {
        let (code, _) = simulate(&url, &[&["--count", "1"], *flags].concat());
        assert_eq!(code, Some(69), "{flags:?}");
    }
    northbridge.wait_for_metric("northbridge_pushes_received_total", &[], 0.0);
}

fn url(northbridge: &Northbridge, scheme: &str, path: &str) -> String {
    format!("{scheme}://{}{path}", northbridge.address())
}

#[test]
fn a_listener_that_is_not_there_is_exit_code_69() {
    let (code, _) = simulate("http://127.0.0.1:1/", &["--count", "1"]);
    assert_eq!(code, Some(69));
}

#[test]
fn a_url_that_is_none_is_exit_code_64() {
    for url in ["ftp://x/", "x", "http://user:password@x/"] {
        assert_eq!(simulate(url, &[]).0, Some(64), "{url}");
    }
}

/// What a listener makes of records before it writes them.
type Change = fn(Vec<NewRecord>) -> Vec<NewRecord>;

#[test]
fn a_listener_that_keeps_the_promise_passes() {
    let (code, outcome) = proved(|records| records);
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["verification"]["stored"], PUSHES);
}

#[test]
fn a_listener_that_answers_early_and_dies_is_caught() {
    assert_caught(|_| Vec::new(), PUSHES);
}

#[test]
fn a_dropped_record_is_caught() {
    assert_caught(without_one, 1);
}

#[test]
fn a_changed_byte_is_caught() {
    assert_caught(
        |mut records| {
            let body = records[7].value.as_mut().unwrap();
            let last = body.len() - 2;
            body[last] = b' ';
            records
        },
        1,
    );
}

#[test]
fn another_key_is_caught() {
    assert_caught(
        |mut records| {
            records[7].key = Some(b"another".to_vec());
            records
        },
        1,
    );
}

fn assert_caught(storing: Change, missing: usize) {
    let (code, outcome) = proved(storing);
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], missing);
    let faults = outcome["verification"]["faults"].as_array().unwrap();
    assert!(faults.len() >= missing.min(20), "{outcome}");
}

#[test]
fn what_a_replay_wrote_is_neither_a_push_nor_misplaced() {
    let (code, outcome) = proved(|mut records| {
        let mut copy = records[7].clone();
        copy.key = Some(b"another".to_vec());
        records.push(copy.with_header("northbridge-replayed-from", "0/7"));
        records
    });
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["verification"]["doubled"], 0);
}

#[test]
fn states_that_follow_from_what_is_stored_pass() {
    let (code, outcome) = Listener::start(keep, keep).proved();
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["states"]["commands"], PUSHES);
    assert_eq!(outcome["states"]["differing"], 0);
}

#[test]
fn a_state_that_is_not_there_is_caught() {
    assert_state_caught(without_one, "there is no state");
}

#[test]
fn a_changed_status_is_caught() {
    assert_state_caught(
        |mut states| {
            let before = text(&states[7]).replace("\"sent\"", "\"delivered\"");
            states[7].value = Some(before.into_bytes());
            states
        },
        "status must be \"sent\" and is \"delivered\"",
    );
}

#[test]
fn a_state_that_was_overwritten_is_caught() {
    assert_state_caught(
        |mut states| {
            let mut last = states[7].clone();
            last.value = Some(b"{}".to_vec());
            states.push(last);
            states
        },
        "requestId must be",
    );
}

#[test]
fn a_state_under_another_key_is_caught() {
    assert_state_caught(
        |mut states| {
            states[7].key = Some(b"another".to_vec());
            states
        },
        "there is no state",
    );
}

fn assert_state_caught(writing: Change, says: &str) {
    let (code, outcome) = Listener::start(keep, writing).proved();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["holds"], true);
    assert_eq!(outcome["states"]["differing"], 1);
    let fault = outcome["states"]["faults"][0].as_str().unwrap();
    assert!(fault.contains(says), "{fault}");
}

/// What decides is what is stored, not what should be.
#[test]
fn a_state_of_what_was_not_stored_is_not_asked_for() {
    let (code, outcome) = Listener::start(without_one, keep).proved();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], 1);
    assert_eq!(outcome["states"]["holds"], true);
}

/// Its pushes change no state, and no stream writes one that did not change.
#[test]
fn states_of_an_earlier_run_with_the_same_seed_are_no_difference() {
    let listener = Listener::start(keep, keep);
    assert_eq!(listener.proved().0, Some(0));
    listener.write_no_more_states();
    let (code, outcome) = listener.proved();
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["states"]["commands"], PUSHES);
}

fn text(record: &NewRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

fn keep(records: Vec<NewRecord>) -> Vec<NewRecord> {
    records
}

fn without_one(mut records: Vec<NewRecord>) -> Vec<NewRecord> {
    records.remove(7);
    records
}

fn proved(storing: Change) -> (Option<i32>, Value) {
    Listener::start(storing, keep).proved_with(&[])
}

/// Answers every push 200, and stores all of them before the last answer, with
/// the states that follow: it is ingress and stream in one.
struct Listener {
    mock: Mock,
    url: String,
    writes_states: Arc<AtomicBool>,
}

impl Listener {
    fn start(storing: Change, writing: Change) -> Self {
        let mock = Mock::start();
        for topic in STATE_TOPICS {
            mock.create(topic);
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let writes_states = Arc::new(AtomicBool::new(true));
        let (bootstrap, writes) = (mock.bootstrap(), Arc::clone(&writes_states));
        thread::spawn(move || {
            listen(&socket, |records| {
                let states = writing(states(&records));
                produce(&bootstrap, TOPIC, &storing(records));
                if writes.load(Ordering::Relaxed) {
                    produce(&bootstrap, STATE_TOPIC, &states);
                }
            });
        });
        Self {
            mock,
            url,
            writes_states,
        }
    }

    fn write_no_more_states(&self) {
        self.writes_states.store(false, Ordering::Relaxed);
    }

    fn proved(&self) -> (Option<i32>, Value) {
        self.proved_with(&["--verify-state", "--catch-up", "1s"])
    }

    fn proved_with(&self, flags: &[&str]) -> (Option<i32>, Value) {
        let (count, bootstrap) = (PUSHES.to_string(), self.mock.bootstrap());
        let mut all = vec!["--count", &count, "--connections", "1"];
        for share in ["--others", "--upgrades", "--oddities", "--repeats"] {
            all.extend([share, "0"]);
        }
        all.extend(["--verify", &bootstrap]);
        all.extend(flags);
        simulate(&self.url, &all)
    }
}

fn states(records: &[NewRecord]) -> Vec<NewRecord> {
    let pushes = records.iter().map(|record| Push {
        bytes: record.value.clone().unwrap(),
        received_at: DateTime::UNIX_EPOCH,
    });
    let states = model::command_states(&pushes.collect::<Vec<_>>());
    states
        .into_iter()
        .map(|(id, state)| NewRecord::keyed(id, state.to_string()))
        .collect()
}

fn listen(listener: &TcpListener, store: impl Fn(Vec<NewRecord>)) {
    let mut records = Vec::new();
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        while let Some(body) = read_push(&mut stream) {
            let push: Value = serde_json::from_slice(&body).unwrap();
            let key = push["header"]["requestId"].as_str().unwrap().to_owned();
            records.push(NewRecord::keyed(key, body));
            if records.len() == PUSHES {
                store(std::mem::take(&mut records));
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
        }
    }
}

fn read_push(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok();
        }
        if line.is_empty() {
            let mut body = vec![0; length?];
            stream.read_exact(&mut body).ok()?;
            return Some(body);
        }
    }
}
