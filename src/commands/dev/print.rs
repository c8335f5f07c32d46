//! The lines that `northbridge dev` prints.
//!
//! Text from outside is escaped and truncated: a push must not be able to send
//! control sequences to the terminal, or to fill it.

use std::fmt::Display;
use std::net::SocketAddr;

use chrono::Utc;
use serde_json::Value;

use super::fields::Fields;
use crate::config::{PathTemplate, Settings};
use crate::process::output;
use crate::streams::stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};
use crate::topics::{Topic, name};

const UPGRADE: &str = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-1","appId":"app","operationId":"op-1","subOperationId":"sub-1","curVersion":"1.5","targetVersion":"1.5","sourceVersion":"1.0","swUpgradeResult":"SUCCESS","upgradeTime":"183","resultDesc":"done","errorCode":"0","description":""}"#;

const MAX_TEXT_CHARS: usize = 64;

/// Prints what runs, where, and commands to try.
pub(super) fn greeting(settings: &Settings, address: SocketAddr, admin: SocketAddr) {
    let scheme = if settings.tls.certificate_file.is_some() {
        "https"
    } else {
        "http"
    };
    let path = settings
        .http
        .paths
        .first()
        .map_or("/", PathTemplate::as_str);
    let url = format!("{scheme}://{address}{path}");
    let broker = &settings.kafka.bootstrap_servers;
    let topic = name(settings, Topic::CommandState);
    line(format_args!(
        "\
northbridge dev: ingress and both streams over an embedded in-memory broker.
Nothing is kept, nothing needs installing. The embedded broker has no real transactions:
exactly-once behaviour needs a real Kafka.

  pushes          {url}
  administration  http://{admin}/metrics  /livez  /readyz
  broker          {broker}

Confirm a command, and report the result of a software upgrade:

  curl -i {url} -d '{confirm}'

  curl -i {url} -d '{UPGRADE}'

Follow the states:

  kcat -b {broker} -C -t {topic} -f '%k %s\\n'

Ctrl-C stops. Each push that is stored is shown here, and each state that it changes:
",
        confirm = confirm(),
    ));
}

pub(super) fn stored(event: &Fields) {
    line(stored_line(event));
}

pub(super) fn spooled(event: &Fields) {
    line(format_args!(
        "spooled  {}  {}  key {}  {} ms",
        event.text("notify_type"),
        event.text("topic"),
        printable(event.text("key")),
        event.text("took_ms"),
    ));
}

pub(super) fn state_changed(event: &Fields) {
    let (stream, key, value) = (event.text("stream"), event.text("key"), event.text("value"));
    line(state_line(stream, key, value));
}

pub(super) fn farewell() {
    line("Stopped; the embedded broker and all its records are gone.");
}

fn line(line: impl Display) {
    // What cannot be shown is stored all the same.
    let _ = output::print_line(line);
}

/// A confirmation with the current time: an old one would count as overdue.
fn confirm() -> String {
    let now = Utc::now().format("%Y%m%dT%H%M%SZ");
    format!(
        r#"{{"notifyType":"messageConfirm","header":{{"requestId":"r-1","from":"/devices/d-1/services/s-1","to":"app","status":"delivered","timestamp":"{now}"}},"body":{{}}}}"#
    )
}

fn stored_line(event: &Fields) -> String {
    let topic = event.text("topic");
    let what = if topic == Topic::DeadLetter.label() {
        "dead letter"
    } else {
        "stored"
    };
    let reason = event.get("reason");
    let reason = reason.map_or_else(String::new, |reason| format!("  ({reason})"));
    format!(
        "{what}  {}  {topic} partition {} offset {}  key {}  {} ms{reason}",
        event.text("notify_type"),
        event.text("partition"),
        event.text("offset"),
        printable(event.text("key")),
        event.text("took_ms"),
    )
}

fn state_line(stream: &str, key: &str, value: &str) -> String {
    let key = printable(key);
    let state: Value = serde_json::from_str(value).unwrap_or_default();
    let text = |field: &str| {
        let value = &state[field];
        let number = || value.as_u64().map(|number| number.to_string());
        let text = value.as_str().map(printable).or_else(number);
        text.unwrap_or_else(|| "-".to_owned())
    };
    let what = match stream {
        CommandStatus::NAME => format!("{}, device {}", text("status"), text("deviceId")),
        UpgradeResults::NAME => format!(
            "{}, software {}, attempts {}",
            text("result"),
            text("curVersion"),
            state["attempts"].as_array().map_or(0, Vec::len),
        ),
        UpgradeOperations::NAME => format!(
            "devices {}, succeeded {}, failed {}",
            text("devices"),
            text("succeeded"),
            text("failed"),
        ),
        _ => String::new(),
    };
    format!("state   {stream}  key {key}  {what}")
}

fn printable(text: &str) -> String {
    let short = text.chars().take(MAX_TEXT_CHARS);
    short.flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_push_shows_where_it_is_and_a_dead_letter_why() {
        let stored = Fields::from([
            ("notify_type", "messageConfirm"),
            ("topic", "command-status"),
            ("partition", "3"),
            ("offset", "41"),
            ("key", "r-1"),
            ("took_ms", "12"),
        ]);
        assert_eq!(
            stored_line(&stored),
            "stored  messageConfirm  command-status partition 3 offset 41  key r-1  12 ms"
        );
        let dead_letter = Fields::from([
            ("notify_type", "other"),
            ("topic", "dead-letter"),
            ("partition", "0"),
            ("offset", "0"),
            ("took_ms", "3"),
            ("reason", "not-json"),
        ]);
        assert_eq!(
            stored_line(&dead_letter),
            "dead letter  other  dead-letter partition 0 offset 0  key -  3 ms  (not-json)"
        );
    }

    #[test]
    fn a_changed_state_is_summed_up_by_its_stream() {
        for (stream, value, line) in [
            (
                "command-status",
                r#"{"status":"delivered","deviceId":"d-1"}"#,
                "state   command-status  key k  delivered, device d-1",
            ),
            (
                "upgrade-result",
                r#"{"result":"SUCCESS","curVersion":"1.5","attempts":[{},{}]}"#,
                "state   upgrade-result  key k  SUCCESS, software 1.5, attempts 2",
            ),
            (
                "upgrade-operation",
                r#"{"devices":3,"succeeded":2,"failed":1}"#,
                "state   upgrade-operation  key k  devices 3, succeeded 2, failed 1",
            ),
        ] {
            assert_eq!(state_line(stream, "k", value), line);
        }
    }

    #[test]
    fn text_from_outside_is_truncated_and_never_a_control_sequence() {
        let long = "x".repeat(1_000);
        let value = format!(r#"{{"status":"\u001b[2J","deviceId":"{long}"}}"#);
        let line = state_line("command-status", "\x1b[31m\n", &value);
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(line.len() < 200, "{line}");
    }
}
