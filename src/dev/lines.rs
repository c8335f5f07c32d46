//! What `northbridge dev` prints. All that comes from outside is escaped and cut:
//! on a terminal it must be neither long nor a control sequence.

use std::net::SocketAddr;

use chrono::Utc;
use serde_json::Value;

use crate::config::Settings;
use crate::ingress::publisher::KeyedRecordSummary;
use crate::streams::stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};
use crate::topics::{Topic, name};

const UPGRADE: &str = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-1","appId":"app","operationId":"op-1","subOperationId":"sub-1","curVersion":"1.5","targetVersion":"1.5","sourceVersion":"1.0","swUpgradeResult":"SUCCESS","upgradeTime":"183","resultDesc":"done","errorCode":"0","description":""}"#;

/// A confirmation of just now: one of long ago would be an overdue command.
fn confirm() -> String {
    let now = Utc::now().format("%Y%m%dT%H%M%SZ");
    format!(
        r#"{{"notifyType":"messageConfirm","header":{{"requestId":"r-1","from":"/devices/d-1/services/s-1","to":"app","status":"delivered","timestamp":"{now}"}},"body":{{}}}}"#
    )
}

/// The most characters of a text from outside.
const TEXT_CHARS: usize = 64;

/// The first lines: what runs, where, and what to try.
pub(super) fn greet(settings: &Settings, address: SocketAddr, admin: SocketAddr) {
    let scheme = if settings.tls.certificate_file.is_some() {
        "https"
    } else {
        "http"
    };
    let path = settings.http.paths.first().map_or("/", String::as_str);
    let url = format!("{scheme}://{address}{path}");
    let broker = &settings.kafka.bootstrap_servers;
    let topic = name(settings, Topic::CommandState);
    println!(
        "\
northbridge dev: ingress and both streams over an embedded broker in memory.
Nothing is kept, nothing needs installing. The embedded broker has no real transactions:
what is exactly once on Kafka is only shown here.

  pushes          {url}
  administration  http://{admin}/metrics  /livez  /readyz
  broker          {broker}

Confirm a command, and end a software upgrade:

  curl -i {url} -d '{confirm}'

  curl -i {url} -d '{UPGRADE}'

Read along:

  kcat -b {broker} -C -t {topic} -f '%k %s\\n'

Ctrl-C stops. Each push that is stored shows here, and each state that it changes
(the streams take about three seconds to start):
",
        confirm = confirm(),
    );
}

/// A push that was stored.
pub(super) fn stored(summary: &KeyedRecordSummary) {
    let delivery = &summary.delivery;
    let what = if delivery.topic() == Topic::DeadLetter {
        "dead letter"
    } else {
        "stored"
    };
    let reason = summary
        .reason
        .map(|reason| format!("  ({reason})"))
        .unwrap_or_default();
    println!(
        "{what}  {}  {} partition {} offset {}  key {}  {} ms{reason}",
        summary.notify_type.label(),
        delivery.topic().label(),
        delivery.partition(),
        delivery.offset(),
        summary
            .key
            .as_deref()
            .map_or_else(|| "-".to_owned(), printable),
        summary.took.as_millis(),
    );
}

/// A state that a stream committed.
pub(super) fn changed(stream: &'static str, key: &[u8], value: &[u8]) {
    println!("{}", state_line(stream, key, value));
}

fn state_line(stream: &str, key: &[u8], value: &[u8]) -> String {
    let key = printable(&String::from_utf8_lossy(key));
    let state: Value = serde_json::from_slice(value).unwrap_or_default();
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
    let short = text.chars().take(TEXT_CHARS);
    short.flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_says_what_became_of_a_key() {
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
            assert_eq!(state_line(stream, b"k", value.as_bytes()), line);
        }
    }

    #[test]
    fn what_comes_from_outside_is_short_and_no_control_sequence() {
        let long = "x".repeat(1_000);
        let value = format!(r#"{{"status":"\u001b[2J","deviceId":"{long}"}}"#);
        let line = state_line("command-status", b"\x1b[31m\n", value.as_bytes());
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(line.len() < 200, "{line}");
    }
}
