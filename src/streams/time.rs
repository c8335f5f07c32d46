//! The two kinds of time in a state: what a push says of itself and when it
//! was received.
//!
//! Both are written as RFC 3339 in UTC and stay within the years 0000 to 9999,
//! so that whatever was written can be read again. Nothing here asks a clock.
//!
//! Each event carries a time in and a state carries several out, always in the
//! same few fixed-width forms: those are read and written digit by digit, which
//! takes a tenth of what chrono's general parser and formatter take.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
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

impl Timestamp {
    fn text(self) -> Text {
        Text::of(self.0, 0)
    }
}

impl Receipt {
    fn text(self) -> Text {
        Text::of(self.0, 3)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
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

/// `yyyyMMdd'T'HHmmss'Z'`, with or without milliseconds.
fn from_compact(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = text.as_bytes().split_at_checked(15)?;
    let nanos = match fraction {
        b"Z" => 0,
        [b'.', millis @ .., b'Z'] | [millis @ .., b'Z'] if millis.len() == 3 => {
            fraction_of(millis)?
        }
        _ => return None,
    };
    let (date, time) = seconds.split_at(8);
    let [b'T', time @ ..] = time else { return None };
    let (year, date) = date.split_at(4);
    let (month, day) = date.split_at(2);
    let (hour, time) = time.split_at(2);
    let (minute, second) = time.split_at(2);
    from_digits([year, month, day], [hour, minute, second], nanos)
}

/// The form in which everything here is written is by far the most frequent.
fn from_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    from_written(text.as_bytes()).or_else(|| {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        writable(time.with_timezone(&Utc))
    })
}

/// `YYYY-MM-DD'T'HH:MM:SS'Z'`, with or without a fraction.
fn from_written(text: &[u8]) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = text.split_at_checked(19)?;
    let nanos = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => fraction_of(digits)?,
        _ => return None,
    };
    let (date, time) = seconds.split_at(10);
    let (year, date) = date.split_at(4);
    let ([b'-', month @ .., b'-', _, _], [b'T', time @ ..]) = (date, time) else {
        return None;
    };
    let (hour, time) = time.split_at(2);
    let [b':', minute @ .., b':', _, _] = time else {
        return None;
    };
    let (day, second) = (&date[4..], &time[4..]);
    from_digits([year, month, day], [hour, minute, second], nanos)
}

fn from_digits(
    [year, month, day]: [&[u8]; 3],
    [hour, minute, second]: [&[u8]; 3],
    nanos: u32,
) -> Option<DateTime<Utc>> {
    let year = i32::try_from(number(year)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(month)?, number(day)?)?;
    let (second, nanos) = match number(second)? {
        60 => (59, nanos + LEAP_NANOS),
        second => (second, nanos),
    };
    let time = date.and_hms_nano_opt(number(hour)?, number(minute)?, second, nanos)?;
    Some(time.and_utc())
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + digit)
    })
}

/// Up to nine digits after the point, in nanoseconds.
fn fraction_of(digits: &[u8]) -> Option<u32> {
    let missing = 9_u32.checked_sub(u32::try_from(digits.len()).ok()?)?;
    Some(number(digits)? * 10_u32.pow(missing))
}

fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    writable(DateTime::from_timestamp_millis(millis)?)
}

/// RFC 3339 knows four digits of a year; an offset or a number can leave them.
fn writable(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (0..=9999).contains(&time.year()).then_some(time)
}

/// How chrono marks a leap second: in the nanoseconds of the second before.
const LEAP_NANOS: u32 = 1_000_000_000;

/// A time as it is written, from `0000-01-01T00:00:00Z` to the nanosecond.
struct Text {
    bytes: [u8; 30],
    length: usize,
}

impl Text {
    /// With 0, 3, 6 or 9 digits of a fraction: as many as it needs, and at least so many.
    fn of(time: DateTime<Utc>, least_digits: usize) -> Self {
        let (second, nanos) = match time.nanosecond() {
            leap @ LEAP_NANOS.. => (60, leap - LEAP_NANOS),
            nanos => (time.second(), nanos),
        };
        let mut text = Self {
            bytes: [0; 30],
            length: 0,
        };
        text.digits(time.year().unsigned_abs(), 4);
        for (mark, number) in [
            (b'-', time.month()),
            (b'-', time.day()),
            (b'T', time.hour()),
            (b':', time.minute()),
            (b':', second),
        ] {
            text.mark(mark);
            text.digits(number, 2);
        }
        let (fraction, digits) = match nanos {
            0 => (0, 0),
            nanos if nanos.is_multiple_of(1_000_000) => (nanos / 1_000_000, 3),
            nanos if nanos.is_multiple_of(1_000) => (nanos / 1_000, 6),
            nanos => (nanos, 9),
        };
        if digits.max(least_digits) > 0 {
            text.mark(b'.');
            text.digits(fraction, digits.max(least_digits));
        }
        text.mark(b'Z');
        text
    }

    fn mark(&mut self, mark: u8) {
        self.bytes[self.length] = mark;
        self.length += 1;
    }

    fn digits(&mut self, mut number: u32, width: usize) {
        let place = &mut self.bytes[self.length..self.length + width];
        for digit in place.iter_mut().rev() {
            // A remainder of ten is a digit.
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
        self.length += width;
    }

    fn as_str(&self) -> &str {
        // Only ASCII is put into it.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;

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
            ("2015-12-12T12:12:12.5Z", Some("2015-12-12T12:12:12.500Z")),
            ("2015-12-12T12:12:60.250Z", Some("2015-12-12T12:12:60.250Z")),
            ("20151212T121212.1234Z", None),
            ("20151212T121212.12Z", None),
            ("20151212T121261Z", None),
            ("2015+212T121212Z", None),
            ("2015-12-12T12:12:1", None),
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

    #[test]
    fn every_written_time_is_what_chrono_writes_and_is_read_back_the_same() {
        let whole = -62_167_219_200_000_000_000_i128..253_402_300_800_000_000_000;
        let times = whole.step_by(86_400_000_000_000 * 97 + 3_661_001_002_003);
        for nanos in times {
            let (seconds, nanos) = (
                nanos.div_euclid(1_000_000_000),
                nanos.rem_euclid(1_000_000_000),
            );
            let nanos = u32::try_from(nanos).unwrap();
            for nanos in [
                0,
                nanos / 1_000_000 * 1_000_000,
                nanos / 1_000 * 1_000,
                nanos,
            ] {
                let seconds = i64::try_from(seconds).unwrap();
                let time = DateTime::from_timestamp(seconds, nanos).unwrap();
                let text = Timestamp(time).to_string();
                assert_eq!(text, time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
                assert_eq!(from_written(text.as_bytes()), Some(time));
            }
        }
    }
}
