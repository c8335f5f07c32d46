//! What a command prints may lose its reader, as in `northbridge topics verify | head -1`.

use std::net::TcpListener;

use crate::support::eventually;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run, run_into, run_with_head};

/// An address that is not listening.
const UNREACHABLE_KAFKA: (&str, &str) = ("kafka.bootstrap_servers", "127.0.0.1:1");

#[test]
fn a_command_whose_reader_is_gone_ends_quietly_with_the_code_of_its_result() {
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let kafka = [("kafka.bootstrap_servers", bootstrap.as_str())];
    let ingress = mock.ready_ingress(&[]);
    let url = format!("http://{}/notifications", ingress.address());
    let simulate = ["simulate", &url, "--count=1", "--json"];
    let rows: &[(usize, &[&str], i32)] = &[
        (0, &["--help"], 0),
        (0, &["config", "print"], 0),
        (1, &["config", "print"], 0),
        (0, &["topics", "verify"], 1),
        (1, &["topics", "verify"], 1),
        (0, &simulate, 0),
        (0, &["health", "--set", "admin.listen=127.0.0.1:1"], 1),
        (0, &["ingest"], 64),
    ];
    for (lines, arguments, code) in rows {
        let output = run_with_head(*lines, arguments, &kafka);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
        assert!(!errors.contains("pipe"), "{arguments:?}: {errors}");
    }
}

#[test]
fn dev_ends_with_0_when_its_reader_goes_away_though_it_has_nothing_to_print() {
    let output = run_with_head(1, &["dev"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = run_into(full.unwrap(), &["config", "print"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    assert!(
        errors.starts_with("error: cannot write to standard output: No space left"),
        "{errors}"
    );
}

#[test]
fn a_process_whose_log_lost_its_reader_goes_on() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let listen = ("admin.listen", address.as_str());
    let ingress = Northbridge::start_unread(&["ingress"], &[UNREACHABLE_KAFKA, listen]);
    eventually("the ingress has logged that Kafka is unreachable", || {
        let health = run(&["health", "--ready"], &[listen]);
        let printed = String::from_utf8_lossy(&health.stdout).into_owned();
        printed.contains("no broker is reachable").then_some(())
    });
    assert_eq!(ingress.exit_code(), None);
}
