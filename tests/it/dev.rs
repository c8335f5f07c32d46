//! `northbridge dev`: the printed commands work, the streams' states appear, and a real
//! Kafka and a terminal are used as asked for.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::support::mock::{Mock, TOPICS};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::read_topic;
use crate::support::terminal::Terminal;
use crate::support::{bodies, eventually, http};

/// The topics that the streams write to, by their default names.
const STATE_TOPICS: [&str; 4] = [
    "iot.command-state",
    "iot.device-software",
    "iot.upgrade-delta",
    "iot.upgrade-operation",
];
/// Changes to the other screen.
const ENTER: &str = "\x1b[?1049h";
/// Shows the cursor, and changes back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[tokio::test]
async fn both_printed_curl_commands_change_a_printed_state() {
    let dev = Northbridge::start(&["dev"], &[]);
    let address = listener(&dev);
    for notify_type in ["messageConfirm", "swUpgradeResultNotify"] {
        let curl = dev.wait_for_output(|line| line.contains("curl ") && line.contains(notify_type));
        let body = curl
            .split('\'')
            .nth(1)
            .expect("a body in quotes")
            .to_owned();
        assert_eq!(
            http::post(address, "/notifications", body).await.status,
            200
        );
    }
    for state in [
        "state   command-status  key r-1  delivered, device d-1",
        "state   upgrade-result  key d-1  SUCCESS, software 1.5, attempts 1",
        "state   upgrade-operation  key op-1  devices 1, succeeded 1, failed 0",
    ] {
        dev.wait_for_output(|line| line == state);
    }
}

#[tokio::test]
async fn sigint_stops_ingress_and_streams_with_0() {
    let dev = Northbridge::start(&["dev"], &[("log.level", "info")]);
    dev.wait_until_ready();
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), 0);
    dev.wait_for_output(|line| line.starts_with("Stopped"));
}

#[test]
fn the_status_page_is_at_the_printed_address() {
    let dev = Northbridge::start(&["dev"], &[]);
    let line = dev.wait_for_output(|line| line.starts_with("  status page "));
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.strip_suffix('/'));
    let address = address.and_then(|address| address.parse().ok());
    let answer = http::get(address.expect("an address and a port"), "/");
    assert!(answer.expect("a page").text().contains("<!doctype html>"));
}

#[test]
fn servers_in_the_settings_are_not_used_without_the_flag_and_it_says_so() {
    let servers = "127.0.0.1:1";
    let kafka = ("kafka.bootstrap_servers", servers);
    // The embedded broker has no TLS.
    let tls = ("kafka.options.security.protocol", "ssl");
    let dev = Northbridge::start(&["dev"], &[kafka, tls, ("log.level", "info")]);
    let hint = dev.wait_for_output(|line| line.contains("not used"));
    assert!(hint.ends_with(&format!("dev --kafka {servers}")), "{hint}");
    dev.wait_until_ready();
}

#[tokio::test]
async fn a_kafka_named_by_the_flag_takes_the_pushes_and_keeps_them() {
    let mock = Mock::start();
    for topic in STATE_TOPICS {
        mock.create_topic(topic);
    }
    let bootstrap = mock.bootstrap();
    let settings = [
        ("topics.partitions", "2"),
        ("kafka.bootstrap_servers", "127.0.0.1:1"),
    ];
    let dev = Northbridge::start(&["dev", "--kafka", &bootstrap], &settings);
    let line = dev.wait_for_output(|line| line.starts_with("  Kafka "));
    assert!(line.ends_with(&bootstrap), "{line}");
    let body = bodies::message_confirm("r-1", "d-1", "sent");
    let answer = http::post(listener(&dev), "/notifications", body).await;
    assert_eq!(answer.status, 200);
    dev.wait_for_output(|line| line.starts_with("stored  messageConfirm"));
    dev.signal(Signal::INT);
    let (code, output) = dev.wait_for_end();
    assert_eq!(code, 0);
    assert!(
        output.ends_with("the topics and the states stay in Kafka."),
        "{output}"
    );
    assert!(!output.contains("embedded"), "{output}");
    assert_eq!(read_topic(&bootstrap, TOPICS[0]).len(), 1);
}

#[test]
fn a_kafka_that_is_not_there_ends_it_with_69() {
    let output = run(&["dev", "--kafka", "127.0.0.1:1"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("error: Kafka at 127.0.0.1:1"), "{said}");
    assert!(said.contains("check that a broker is running"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[tokio::test]
async fn the_view_shows_a_push_follows_the_size_and_ends_with_q() {
    let terminal = Terminal::open(120, 30);
    let dev = at_terminal(&terminal, &[]);
    let picture = terminal.wait_for_picture(|lines| lines[0].contains(": ready,"));
    assert!(terminal.written().contains(ENTER));
    assert!(!terminal.is_for_a_shell());
    let url = picture.iter().find_map(|line| line.split("http://").nth(1));
    let address = url.and_then(|url| url.split_once('/')?.0.parse().ok());
    let body = bodies::message_confirm("r-1", "d-1", "sent");
    let answer = http::post(address.expect("an address"), "/notifications", body).await;
    assert_eq!(answer.status, 200);
    let shows = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    terminal.wait_for_picture(|lines| {
        shows(lines, "answers         stored 1")
            && shows(lines, "stored  messageConfirm  command-status")
            && shows(lines, "state   command-status  key r-1")
    });

    terminal.resize(50, 12);
    terminal.wait_for_picture(|lines| {
        let fits = |line: &String| line.chars().count() < 50;
        lines.len() <= 12 && lines.iter().all(fits) && shows(lines, "…")
    });

    terminal.press("q");
    assert_eq!(dev.wait(), 0);
    assert_restored_before(&terminal, "Stopped");
}

#[test]
fn the_terminal_is_restored_when_a_part_of_the_process_panics() {
    let terminal = Terminal::open(120, 30);
    let dev = at_terminal(&terminal, &[("NORTHBRIDGE_FAIL_POINT", "panic:view")]);
    assert_eq!(dev.wait(), 70);
    // The log is held until the view has gone.
    assert_restored_before(&terminal, "panic, which is a bug");
}

#[tokio::test]
async fn without_a_terminal_the_view_is_lines() {
    let dev = Northbridge::start(&["dev", "--watch"], &[]);
    let body = bodies::message_confirm("r-1", "d-1", "sent");
    let answer = http::post(listener(&dev), "/notifications", body).await;
    assert_eq!(answer.status, 200);
    dev.wait_for_output(|line| line.starts_with("stored  messageConfirm"));
    assert!(!dev.output().join("\n").contains('\x1b'));
}

fn at_terminal(terminal: &Terminal, variables: &[(&str, &str)]) -> Northbridge {
    let arguments = ["dev", "--watch"];
    Northbridge::start_at_terminal(terminal.path(), &arguments, &[], variables)
}

/// Asserts that the terminal has what it had before the view, and this text below.
fn assert_restored_before(terminal: &Terminal, text: &str) {
    eventually("the terminal shows what it had, and the text", || {
        let written = terminal.written();
        written.rsplit_once(LEAVE)?.1.contains(text).then_some(())
    });
    assert!(terminal.is_for_a_shell());
}

fn listener(dev: &Northbridge) -> SocketAddr {
    let line = dev.wait_for_output(|line| line.starts_with("  pushes "));
    let url = line.split("http://").nth(1).expect("a URL");
    let address = url.split('/').next().expect("an address");
    address.parse().expect("an address and a port")
}
