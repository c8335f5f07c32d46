//! `northbridge simulate` against the real ingress, and against listeners that
//! break the promise in ways that its proof must find.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::Value;

use crate::support::mock::Mock;
use crate::support::northbridge::run;
use crate::support::records::{NewRecord, produce};

const TOPIC: &str = "iot.command-status";
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

/// What a listener stores of the pushes that it answers 200.
type Storing = fn(Vec<NewRecord>) -> Vec<NewRecord>;

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
    assert_caught(
        |mut records| {
            records.remove(7);
            records
        },
        1,
    );
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

fn assert_caught(storing: Storing, missing: usize) {
    let (code, outcome) = proved(storing);
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], missing);
    let faults = outcome["verification"]["faults"].as_array().unwrap();
    assert!(faults.len() >= missing.min(20), "{outcome}");
}

fn proved(storing: Storing) -> (Option<i32>, Value) {
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let storage = bootstrap.clone();
    thread::spawn(move || listen(&listener, &storage, storing));
    let count = PUSHES.to_string();
    let mut flags = vec!["--count", &count, "--connections", "1"];
    for share in ["--others", "--upgrades", "--oddities", "--repeats"] {
        flags.extend([share, "0"]);
    }
    flags.extend(["--verify", &bootstrap]);
    simulate(&url, &flags)
}

/// Answers every push 200, and stores all of them before the last answer.
fn listen(listener: &TcpListener, bootstrap: &str, storing: Storing) {
    let mut records = Vec::new();
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        while let Some(body) = read_push(&mut stream) {
            let push: Value = serde_json::from_slice(&body).unwrap();
            let key = push["header"]["requestId"].as_str().unwrap().to_owned();
            records.push(NewRecord::keyed(key, body));
            if records.len() == PUSHES {
                produce(bootstrap, TOPIC, &storing(std::mem::take(&mut records)));
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
