//! `northbridge health`, as a container's health check asks it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};

/// Nobody listens there.
const NO_KAFKA: (&str, &str) = ("kafka.bootstrap_servers", "127.0.0.1:1");

#[test]
fn a_process_without_kafka_is_live_and_not_ready_and_the_line_says_why() {
    let northbridge = Northbridge::start(&["ingress"], &[NO_KAFKA]);
    let live = ask(&northbridge, &["health"]);
    assert_eq!((live.status.code(), line(&live)), (Some(0), "live".into()));
    let ready = ask(&northbridge, &["health", "--ready"]);
    assert_eq!(ready.status.code(), Some(1));
    let said = line(&ready);
    assert!(
        said.starts_with("not ready: ") && said.contains("kafka: ") && !said.contains("accepting"),
        "{said}"
    );
}

#[test]
fn a_process_that_has_all_it_needs_is_ready() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let ready = ask(&northbridge, &["health", "--ready"]);
    assert_eq!(
        (ready.status.code(), line(&ready)),
        (Some(0), "ready".into())
    );
}

#[test]
fn a_server_on_every_address_is_found_over_loopback() {
    let northbridge = Northbridge::start(&["ingress"], &[NO_KAFKA, ("admin.listen", "0.0.0.0:0")]);
    let port = northbridge.admin_address().port();
    let output = run(&["health"], &[("admin.listen", &format!("0.0.0.0:{port}"))]);
    assert_eq!(output.status.code(), Some(0), "{}", line(&output));
}

#[test]
fn nobody_there_is_unhealthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let output = run(&["health"], &[("admin.listen", &address)]);
    assert_eq!(output.status.code(), Some(1));
    let said = line(&output);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn a_process_that_does_not_answer_is_unhealthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = run(&["health"], &[("admin.listen", &address)]);
    assert_eq!(output.status.code(), Some(1));
    let said = line(&output);
    assert!(
        said.contains("no answer") && said.contains(&address),
        "{said}"
    );
}

#[test]
fn an_answer_that_is_none_of_northbridge_is_unhealthy() {
    for (answer, says) in [
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
        let said = line(&output);
        assert!(said.contains(says), "{said}");
        serving.join().unwrap();
    }
}

#[test]
fn a_port_that_cannot_be_known_is_wrong_configuration() {
    let output = run(&["health"], &[("admin.listen", "127.0.0.1:0")]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("admin.listen"), "{said}");
}

fn ask(northbridge: &Northbridge, command: &[&str]) -> Output {
    let address = northbridge.admin_address().to_string();
    run(command, &[("admin.listen", &address), NO_KAFKA])
}

/// The output, which must be one line.
fn line(output: &Output) -> String {
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(output.stderr.is_empty());
    printed.trim_end().to_owned()
}
