//! `northbridge health`, as a container's health check runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};

/// An address that is not listening.
const UNREACHABLE_KAFKA: (&str, &str) = ("kafka.bootstrap_servers", "127.0.0.1:1");

#[test]
fn a_process_without_kafka_is_live_but_not_ready_and_says_why() {
    let northbridge = Northbridge::start(&["ingress"], &[UNREACHABLE_KAFKA]);
    let live = ask(&northbridge, &["health"]);
    assert_eq!((live.status.code(), line(&live)), (Some(0), "live".into()));
    let ready = ask(&northbridge, &["health", "--ready"]);
    assert_eq!(ready.status.code(), Some(1));
    let report = line(&ready);
    assert!(
        report.starts_with("not ready: ")
            && report.contains("kafka: ")
            && !report.contains("accepting"),
        "{report}"
    );
}

#[test]
fn a_process_whose_conditions_are_met_is_ready() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let ready = ask(&northbridge, &["health", "--ready"]);
    assert_eq!(
        (ready.status.code(), line(&ready)),
        (Some(0), "ready".into())
    );
}

#[test]
fn an_admin_listener_on_all_interfaces_is_queried_over_loopback() {
    let northbridge = Northbridge::start(
        &["ingress"],
        &[UNREACHABLE_KAFKA, ("admin.listen", "0.0.0.0:0")],
    );
    let port = northbridge.admin_address().port();
    let output = run(&["health"], &[("admin.listen", &format!("0.0.0.0:{port}"))]);
    assert_eq!(output.status.code(), Some(0), "{}", line(&output));
}

/// A health check of a container has the variables of the process, not its files.
#[test]
fn settings_that_need_others_do_not_matter() {
    let northbridge = Northbridge::start(&["ingress"], &[UNREACHABLE_KAFKA]);
    let address = northbridge.admin_address().to_string();
    let output = run(
        &["health"],
        &[
            ("admin.listen", &address),
            ("kafka.options.sasl.password", "s3cret"),
        ],
    );
    assert_eq!(line(&output), "live", "{output:?}");
}

#[test]
fn an_address_that_is_not_listening_is_unhealthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let output = run(&["health"], &[("admin.listen", &address)]);
    assert_eq!(output.status.code(), Some(1));
    let report = line(&output);
    assert!(report.contains(&address), "{report}");
}

#[test]
fn a_process_that_does_not_respond_is_unhealthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = run(&["health"], &[("admin.listen", &address)]);
    assert_eq!(output.status.code(), Some(1));
    let report = line(&output);
    assert!(
        report.contains("no answer") && report.contains(&address),
        "{report}"
    );
}

#[test]
fn an_unexpected_response_is_unhealthy() {
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
    ] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let serving = thread::spawn(move || {
            let mut stream = BufReader::new(other.accept().unwrap().0);
            while stream.by_ref().lines().next().unwrap().unwrap() != "" {}
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        let output = run(&["health"], &[("admin.listen", &address)]);
        assert_eq!(output.status.code(), Some(1), "{answer}");
        let report = line(&output);
        assert!(report.contains(expected), "{report}");
        serving.join().unwrap();
    }
}

#[test]
fn an_ephemeral_admin_port_is_a_configuration_error() {
    let output = run(&["health"], &[("admin.listen", "127.0.0.1:0")]);
    assert_eq!(output.status.code(), Some(64));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("admin.listen"), "{stderr}");
}

fn ask(northbridge: &Northbridge, command: &[&str]) -> Output {
    let address = northbridge.admin_address().to_string();
    run(command, &[("admin.listen", &address), UNREACHABLE_KAFKA])
}

/// The standard output, which must be a single line.
fn line(output: &Output) -> String {
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(output.stderr.is_empty());
    printed.trim_end().to_owned()
}
