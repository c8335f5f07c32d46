//! The two kinds of time in a state: what a push says of itself and when it
//! was received.
//!
//! Both are written as RFC 3339 in UTC and stay within the years 0000 to 9999,
//! so that whatever was written can be read again. Nothing here asks a clock.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The time that a push carries inside; written with the fraction it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

/// When a push was received; written with milliseconds, as `ce_time` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt(DateTime<Utc>);

impl Timestamp {
    /// Reads what the platform writes: `yyyyMMdd'T'HHmmss'Z'` (its published
    /// format), the sibling dialect with milliseconds (with or without a dot
    /// before them), and RFC 3339. Anything else is no time.
    pub fn from_push(text: &str) -> Option<Self> {
        from_compact(text).or_else(|| from_rfc3339(text)).map(Self)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// Seconds from `earlier` to this time, 0 where it is not earlier: the
    /// platform's clocks have whole seconds and do not agree.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0)
            .to_std()
            .unwrap_or_default()
            .as_secs_f64()
    }
}

impl Receipt {
    /// The receipt of a record: its `ce_time` header where that is readable,
    /// else the record's own timestamp in milliseconds since 1970.
    ///
    /// A record with neither counts as received at the start of 1970: older
    /// than all others, and the same at every reading.
    pub fn of_record(ce_time: Option<&[u8]>, record_timestamp_ms: Option<i64>) -> Self {
        let header = ce_time.and_then(|bytes| from_rfc3339(std::str::from_utf8(bytes).ok()?));
        let timestamp = || record_timestamp_ms.and_then(from_millis);
        Self(header.or_else(timestamp).unwrap_or(DateTime::UNIX_EPOCH))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// The time `days` days before this one.
    pub(super) fn days_before(self, days: i64) -> Self {
        Self(self.0 - TimeDelta::days(days))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole_millis = self.0.nanosecond().is_multiple_of(1_000_000);
        let digits = if whole_millis {
            SecondsFormat::Millis
        } else {
            SecondsFormat::AutoSi
        };
        f.write_str(&self.0.to_rfc3339_opts(digits, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Receipt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer).map(Self)
    }
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    struct Rfc3339;
    impl de::Visitor<'_> for Rfc3339 {
        type Value = DateTime<Utc>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time in RFC 3339")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            from_rfc3339(text).ok_or_else(|| E::custom("not a time in RFC 3339"))
        }
    }
    deserializer.deserialize_str(Rfc3339)
}

/// chrono's parser also takes single digits and blanks, so the shape is held
/// first: no text may have two readings.
fn from_compact(text: &str) -> Option<DateTime<Utc>> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let format = match shape.as_str() {
        "00000000T000000Z" => "%Y%m%dT%H%M%SZ",
        "00000000T000000.000Z" => "%Y%m%dT%H%M%S%.3fZ",
        "00000000T000000000Z" => "%Y%m%dT%H%M%S%3fZ",
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(text, format).ok()?;
    Some(time.and_utc())
}

fn from_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    writable(time.with_timezone(&Utc))
}

fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    writable(DateTime::from_timestamp_millis(millis)?)
}

/// RFC 3339 knows four digits of a year; an offset or a number can leave them.
fn writable(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (0..=9999).contains(&time.year()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_time_is_read_in_every_known_dialect_and_in_no_other() {
        let cases = [
            ("20151212T121212Z", Some("2015-12-12T12:12:12Z")),
            ("20151212T121212.123Z", Some("2015-12-12T12:12:12.123Z")),
            ("20151212T121212123Z", Some("2015-12-12T12:12:12.123Z")),
            ("20151212T121212.000Z", Some("2015-12-12T12:12:12Z")),
            ("2015-12-12T12:12:12Z", Some("2015-12-12T12:12:12Z")),
            ("2015-12-12T14:12:12+02:00", Some("2015-12-12T12:12:12Z")),
            ("20161231T235960Z", Some("2016-12-31T23:59:60Z")),
            ("2015121T121212Z", None),
            ("20151312T121212Z", None),
            ("20151212T121212", None),
            ("20151212 121212Z", None),
            ("1449922332", None),
            ("9999-12-31T23:59:59-23:00", None),
            ("0000-01-01T00:00:00+01:00", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let written = Timestamp::from_push(text).map(|time| time.to_string());
            assert_eq!(written.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_receipt_is_the_header_where_readable_else_the_record_else_1970() {
        let header: Option<&[u8]> = Some(b"2026-01-02T03:04:05.678Z");
        let bad: Option<&[u8]> = Some(b"yesterday");
        let not_text: Option<&[u8]> = Some(b"\xff");
        let cases = [
            (header, Some(0), "2026-01-02T03:04:05.678Z"),
            (bad, Some(1_500), "1970-01-01T00:00:01.500Z"),
            (not_text, Some(0), "1970-01-01T00:00:00.000Z"),
            (None, Some(i64::MAX), "1970-01-01T00:00:00.000Z"),
            (None, None, "1970-01-01T00:00:00.000Z"),
        ];
        for (ce_time, timestamp, expected) in cases {
            assert_eq!(Receipt::of_record(ce_time, timestamp).to_string(), expected);
        }
    }

    #[test]
    fn a_receipt_keeps_a_foreign_fraction_and_is_read_back_the_same() {
        for text in [
            "2026-01-02T03:04:05.000Z",
            "2026-01-02T03:04:05.678901Z",
            "2026-01-02T03:04:05.678901234Z",
        ] {
            let receipt = Receipt::of_record(Some(text.as_bytes()), None);
            let json = serde_json::to_string(&receipt).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), receipt);
        }
    }

    #[test]
    fn seconds_are_never_negative() {
        let early = Timestamp::from_push("20260101T000000Z").unwrap();
        let late = Timestamp::from_push("20260101T000001.500Z").unwrap();
        assert!((late.seconds_since(early) - 1.5).abs() < f64::EPSILON);
        assert!(early.seconds_since(late).abs() < f64::EPSILON);
    }
}
