//! `northbridge simulate` against the real ingress. The submodules run it against
//! listeners that break the guarantees in ways that its verification must detect.

use std::net::TcpListener;

use chrono::{TimeDelta, Utc};
use rustix::process::Signal;
use serde_json::Value;

use crate::protected_listener::{PATH, tls_ingress};
use crate::support::certificates::Certificates;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};

mod goaway;
mod listener;
mod states;
mod stored;

use goaway::GoawayListener;

/// Runs with a fixed seed, so with the same pushes each time.
fn simulate(url: &str, flags: &[&str]) -> (Option<i32>, Value) {
    run_simulate(url, &[&["--seed", "1"], flags].concat())
}

fn run_simulate(url: &str, flags: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["simulate", url, "--json", "--rate", "500"];
    arguments.extend(flags);
    let output = run(&arguments, &[]);
    let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), summary)
}

#[test]
fn every_push_answered_200_is_verified_to_be_stored() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = format!("http://{}/notifications", northbridge.address());
    for protocol in [&[][..], &["--http2"]] {
        let bootstrap = mock.bootstrap();
        let mut flags = vec!["--count", "500", "--oddities", "20", "--verify", &bootstrap];
        flags.extend(protocol);
        let (code, summary) = simulate(&url, &flags);
        assert_eq!(code, Some(0), "{summary}");
        assert_eq!(summary["answers"]["200"], 500);
        assert_eq!(summary["verification"]["stored"], 500);
        assert_eq!(summary["verification"]["others"], 0);
    }
}

#[test]
fn an_answer_other_than_200_is_a_failure_if_200_is_required() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let flags = ["--count", "2", "--connections", "1", "--require-200"];
    for (path, code, answer) in [("/notifications", 0, "200"), ("/another-path", 1, "404")] {
        let (exit, summary) = simulate(&format!("http://{}{path}", northbridge.address()), &flags);
        assert_eq!(exit, Some(code), "{summary}");
        assert_eq!(summary["answers"][answer], 2);
    }
}

#[test]
fn ten_consecutive_failures_blacklist_the_host_and_the_rest_is_backlogged() {
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
    let (code, summary) = simulate(&url, &flags);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["blacklistings"], 1);
    assert_eq!(summary["probes"], 1);
    let lost = summary["lostByPolicy"].as_u64().unwrap();
    assert!(lost >= 10, "{summary}");
    assert_eq!(summary["backlogAtEnd"].as_u64().unwrap() + lost, 50);
}

#[test]
fn pushes_are_sent_over_tls_with_a_given_ca_or_without_verification() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let url = url(&northbridge, "https", PATH);
    let ca = certificates.ca_file().display().to_string();
    for trust in [&["--ca", &ca][..], &["--insecure"]] {
        for protocol in [&[][..], &["--http2"], &["--sni"]] {
            let (code, summary) = simulate(&url, &[&["--count", "20"], trust, protocol].concat());
            assert_eq!(code, Some(0), "{summary}");
            assert_eq!(summary["answers"]["200"], 20, "{trust:?} {protocol:?}");
        }
    }
}

#[test]
fn a_certificate_of_another_ca_is_not_trusted() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let others = Certificates::new();
    let ca = others.ca_file().display().to_string();
    for trust in [&["--ca", &ca][..], &[]] {
        let url = url(&northbridge, "https", PATH);
        let own = ["simulate", url.as_str(), "--json", "--count", "20"];
        let output = run(&[&own[..], trust].concat(), &[]);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["answers"]["no-connection"], 20, "{trust:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("TLS: invalid peer certificate"), "{stderr}");
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
        let (_, summary) = simulate(&with_token, &flags);
        assert_eq!(summary["answers"]["200"], 20, "{summary}");
        let without_token = url(&northbridge, "http", PATH);
        let (_, summary) = simulate(&without_token, &flags);
        assert_eq!(summary["answers"]["401"], 20, "{summary}");
    }
    let (_, summary) = simulate(&with_token, &["--count", "20"]);
    assert_eq!(summary["answers"]["401"], 20, "{summary}");
}

#[test]
fn a_token_in_the_url_is_never_printed() {
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
        let printed = [output.stdout, output.stderr, std::fs::read(&page).unwrap()].concat();
        assert!(!String::from_utf8_lossy(&printed).contains("s3cret"));
    }
}

#[test]
fn the_report_shows_the_annotations_of_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (page, annotations) = (file("report.html"), file("annotations"));
    let now = Utc::now();
    let before = (now - TimeDelta::hours(1)).to_rfc3339() + " before\n";
    let meanwhile = (0..120).map(|seconds| {
        let at = now + TimeDelta::seconds(seconds);
        at.to_rfc3339() + " broker <1> is killed\n"
    });
    let noted = before + &meanwhile.collect::<String>();
    std::fs::write(&annotations, noted).unwrap();
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let flags = [
        "--count",
        "1500",
        "--report",
        &page,
        "--annotations",
        &annotations,
    ];
    assert_eq!(simulate(&url, &flags).0, Some(0));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("broker &lt;1&gt; is killed"), "{page}");
    assert!(!page.contains("before</td>"), "{page}");
}

#[test]
fn a_report_is_written_without_annotations() {
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
        "--annotations",
        "/nowhere/annotations",
    ];
    let output = run(&[&["simulate", url.as_str()], &flags[..]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--annotations /nowhere/annotations"));
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .ends_with("</html>\n")
    );
}

#[test]
fn no_push_is_lost_when_connections_are_closed_by_goaway() {
    let listener = GoawayListener::after(3);
    let url = format!("http://{}/", listener.address());
    let (code, summary) = run_simulate(&url, &["--http2", "--count", "2000"]);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["answers"]["200"], 2_000, "{summary}");
}

#[test]
fn wrong_flags_exit_with_64_before_anything_is_pushed() {
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
        &["--annotations", "annotations"],
        &["--report", "/nowhere/report.html"],
        &["--user", "platform", "--password-file", "/nowhere/password"],
        &["--verify", ""],
    ];
    for flags in rows {
        let output = run(&[&["simulate", url.as_str()], *flags].concat(), &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {stderr}");
        let mut named = flags.iter().rev().filter(|flag| flag.starts_with("--"));
        assert!(
            stderr.contains(named.next().unwrap()),
            "{flags:?}: {stderr}"
        );
    }
    assert_eq!(mock.all_records().len(), 0);
}

#[test]
fn an_unreadable_ca_file_exits_with_64() {
    let (code, _) = simulate("https://127.0.0.1:1/", &["--ca", "/nowhere/ca.pem"]);
    assert_eq!(code, Some(64));
}

#[test]
fn an_unreachable_kafka_or_missing_topics_exit_with_69() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let bootstrap = mock.bootstrap();
    let rows: &[(&[&str], &str)] = &[
        (&["--verify", "127.0.0.1:1"], "127.0.0.1:1 (--verify)"),
        (
            &["--verify", &bootstrap, "--topics-prefix", "other."],
            "`other.` (--topics-prefix",
        ),
        (
            &["--verify", &bootstrap, "--verify-state"],
            "`northbridge topics verify`",
        ),
    ];
    for (flags, expected) in rows {
        let own = ["simulate", url.as_str(), "--count", "1"];
        let output = run(&[&own[..], flags].concat(), &[]);
        assert_eq!(output.status.code(), Some(69), "{flags:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(expected), "{stderr}");
        assert!(stderr.contains("nothing was pushed"), "{stderr}");
    }
    northbridge.wait_for_metric("northbridge_pushes_received_total", &[], 0.0);
}

fn url(northbridge: &Northbridge, scheme: &str, path: &str) -> String {
    format!("{scheme}://{}{path}", northbridge.address())
}

#[test]
fn a_signal_stops_new_pushes_and_the_summary_is_complete() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let url = url(&northbridge, "http", PATH);
    let flags = ["simulate", &url, "--json", "--duration=1h"];
    let simulate = Northbridge::start(&flags, &[]);
    simulate.wait_for_log(|line| line.contains("200: "));
    simulate.signal(Signal::INT);
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 0);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["answers"]["200"], summary["pushes"]);
}

#[test]
fn a_signal_while_answers_are_outstanding_exits_with_75() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let simulate = Northbridge::start(&["simulate", &url, "--json", "--count=5"], &[]);
    simulate.wait_for_log(|line| line.contains("5 in flight"));
    simulate.signal(Signal::INT);
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 75);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["pushes"], 5);
    simulate.wait_for_log(|line| line.ends_with("before 5 pushes were answered"));
}

#[test]
fn an_unreachable_listener_exits_with_69() {
    let (code, _) = simulate("http://127.0.0.1:1/", &["--count", "1"]);
    assert_eq!(code, Some(69));
}

#[test]
fn an_invalid_url_exits_with_64() {
    for url in ["ftp://x/", "x", "http://user:password@x/"] {
        assert_eq!(simulate(url, &[]).0, Some(64), "{url}");
    }
}
