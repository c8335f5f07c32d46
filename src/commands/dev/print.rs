//! The lines that `northbridge dev` shows for events.
//!
//! Text from outside is escaped and truncated: a push must not be able to send
//! control sequences to the terminal, or to fill it.

use serde_json::Value;

use super::fields::Fields;
use crate::streams::stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};
use crate::topics::Topic;

const MAX_TEXT_CHARS: usize = 64;

/// Returns the line of an event, or `None` if it is none that `dev` shows.
pub(super) fn line(event: &Fields) -> Option<String> {
    match event.text("message") {
        "stored" => Some(stored_line(event)),
        "spooled" => Some(spooled_line(event)),
        "state changed" => Some(state_line(
            event.text("stream"),
            event.text("key"),
            event.text("value"),
        )),
        _ => None,
    }
}

fn spooled_line(event: &Fields) -> String {
    format!(
        "spooled  {}  {}  key {}  {} ms",
        event.text("notify_type"),
        event.text("topic"),
        printable(event.text("key")),
        event.text("took_ms"),
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
