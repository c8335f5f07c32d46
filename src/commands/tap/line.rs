//! A record as one line, for people or as JSON.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::message::Message;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Format;
use crate::commands::printable::{printable, printable_json};
use crate::headers::{CE_SUBJECT, CE_TIME, CE_TYPE, REASON, REPLAYED};
use crate::kafka::headers;

/// What a tap shows of a record. Texts are bytes, since anybody may have written it.
#[derive(Debug, Clone, Default)]
pub(super) struct Line<'a> {
    /// The record's timestamp.
    pub(super) written_at: DateTime<Utc>,
    /// When the push was received, if a header says so.
    pub(super) received_at: Option<DateTime<Utc>>,
    pub(super) notify_type: Option<&'a [u8]>,
    pub(super) device: Option<&'a [u8]>,
    /// Why it is a dead letter.
    pub(super) reason: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) value: Option<&'a [u8]>,
}

/// An object with its fields in this order.
struct Fields(Vec<(String, Value)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'a> Line<'a> {
    /// Returns `None` for a marker of a replay, which is not a push.
    pub(super) fn of<M: Message>(record: &'a M) -> Option<Self>
    where
        M::Headers: 'a,
    {
        let header = |name| headers::first(record.headers(), name);
        if header(REPLAYED).is_some() {
            return None;
        }
        let written_ms = record.timestamp().to_millis().unwrap_or_default();
        Some(Self {
            written_at: DateTime::from_timestamp_millis(written_ms).unwrap_or_default(),
            received_at: header(CE_TIME).and_then(time),
            notify_type: header(CE_TYPE),
            device: header(CE_SUBJECT),
            reason: header(REASON),
            key: record.key(),
            topic: record.topic(),
            partition: record.partition(),
            offset: record.offset(),
            value: record.payload(),
        })
    }

    /// Returns the line, without a line break and harmless on a terminal.
    pub(super) fn show(&self, format: Format) -> String {
        let value = self.value.filter(|_| format.values);
        if format.json {
            self.json(value)
        } else {
            self.text(value)
        }
    }

    fn text(&self, value: Option<&[u8]>) -> String {
        let shown = |text: Option<&[u8]>| text.map_or_else(|| "-".to_owned(), printable);
        let added = |text: Option<&[u8]>| text.map(printable);
        let reason = added(self.reason).map_or_else(String::new, |it| format!("  ({it})"));
        let value = added(value).map_or_else(String::new, |it| format!("  {it}"));
        format!(
            "{time}  {notify_type}  key {key}  {topic} partition {partition} offset {offset}{reason}{value}",
            time = self.time(),
            notify_type = shown(self.notify_type),
            key = shown(self.key),
            topic = self.topic,
            partition = self.partition,
            offset = self.offset,
        )
    }

    /// Bytes that are not UTF-8 are in a field with another name, in base64.
    fn json(&self, value: Option<&[u8]>) -> String {
        let text = |name: &str, bytes: Option<&[u8]>| {
            let bytes = bytes?;
            Some(match std::str::from_utf8(bytes) {
                Ok(text) => (name.to_owned(), text.into()),
                Err(_) => (
                    format!("{name}Base64"),
                    BASE64_STANDARD.encode(bytes).into(),
                ),
            })
        };
        let field = |name: &str, value: Value| Some((name.to_owned(), value));
        let fields = [
            field("time", self.time().into()),
            text("type", self.notify_type),
            text("key", self.key),
            text("device", self.device),
            field("topic", self.topic.into()),
            field("partition", self.partition.into()),
            field("offset", self.offset.into()),
            text("reason", self.reason),
            text("value", value),
        ];
        let fields = Fields(fields.into_iter().flatten().collect());
        // Texts and numbers always serialize.
        printable_json(&serde_json::to_string(&fields).unwrap_or_default())
    }

    fn time(&self) -> String {
        let time = self.received_at.unwrap_or(self.written_at);
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

fn time(header: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(header).ok()?;
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Format = Format {
        json: false,
        values: false,
    };
    const ALL: Format = Format {
        json: false,
        values: true,
    };
    const JSON: Format = Format {
        json: true,
        values: true,
    };

    fn line() -> Line<'static> {
        Line {
            received_at: time(b"2026-01-31T09:00:00.125+01:00"),
            notify_type: Some(b"messageConfirm"),
            device: Some(b"d-1"),
            key: Some(b"r-1"),
            topic: "iot.command-status",
            partition: 5,
            offset: 41,
            value: Some(b"{\"a\":\n1}"),
            ..Line::default()
        }
    }

    #[test]
    fn a_line_says_when_what_and_where() {
        let shown = "2026-01-31T08:00:00.125Z  messageConfirm  key r-1  iot.command-status partition 5 offset 41";
        assert_eq!(line().show(TEXT), shown);
        assert_eq!(line().show(ALL), format!(r#"{shown}  {{"a":\n1}}"#));
        let letter = Line {
            key: None,
            notify_type: None,
            reason: Some(b"not-json"),
            received_at: None,
            ..line()
        };
        assert_eq!(
            letter.show(TEXT),
            "1970-01-01T00:00:00.000Z  -  key -  iot.command-status partition 5 offset 41  (not-json)"
        );
    }

    #[test]
    fn a_line_of_json_has_the_exact_bytes() {
        let shown: serde_json::Value = serde_json::from_str(&line().show(JSON)).unwrap();
        let expected = serde_json::json!({
            "time": "2026-01-31T08:00:00.125Z", "type": "messageConfirm", "key": "r-1",
            "device": "d-1", "topic": "iot.command-status", "partition": 5, "offset": 41,
            "value": "{\"a\":\n1}",
        });
        assert_eq!(shown, expected);
        let start = r#"{"time":"2026-01-31T08:00:00.125Z","type":"messageConfirm","key":"r-1","#;
        assert!(line().show(JSON).starts_with(start));
        let binary = Line {
            key: Some(b"\xff"),
            value: None,
            ..line()
        };
        let shown: serde_json::Value = serde_json::from_str(&binary.show(JSON)).unwrap();
        assert_eq!(shown["keyBase64"], "/w==");
        assert_eq!((shown.get("key"), shown.get("value")), (None, None));
    }

    #[test]
    fn nothing_of_a_record_controls_the_terminal() {
        let hostile: &[u8] = "\x1b[2J\x07\u{9b}31m\r\n\u{202e}".as_bytes();
        let line = Line {
            notify_type: Some(hostile),
            device: Some(hostile),
            reason: Some(hostile),
            key: Some(hostile),
            value: Some(hostile),
            ..line()
        };
        for format in [ALL, JSON] {
            let shown = line.show(format);
            let harmful = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!shown.contains(harmful), "{shown:?}");
        }
    }
}
