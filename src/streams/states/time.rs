//! The two kinds of time in a state: a push's own timestamp, and when the push was received.
//!
//! Both are written as RFC 3339 in UTC and stay within the years 0000 to 9999, so that everything
//! written can be read again. Nothing here reads a clock.
//!
//! Every event brings a time, and every state that is written has several, all in the same few
//! fixed-width formats. Reading and writing those digit by digit takes a tenth of the time that
//! chrono's general parser and formatter take.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A push's own time, which the platform set; written with as much of a fraction as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

/// When a push was received; written with at least milliseconds, as `ce_time` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceivedAt(DateTime<Utc>);

impl Timestamp {
    /// Reads the published format `yyyyMMdd'T'HHmmss'Z'`, its variant with milliseconds (with or
    /// without a dot before them), and RFC 3339.
    pub(crate) fn from_push(text: &str) -> Option<Self> {
        from_compact(text).or_else(|| from_rfc3339(text)).map(Self)
    }

    /// Milliseconds since 1970.
    pub(crate) fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// Seconds from `earlier` to this time; 0 if `earlier` is later, because the platform's clocks
    /// count whole seconds and disagree.
    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0)
            .to_std()
            .unwrap_or_default()
            .as_secs_f64()
    }
}

impl ReceivedAt {
    /// Takes the time from a record's `ce_time` header, or else from the record's own timestamp in
    /// milliseconds since 1970.
    ///
    /// A record with neither counts as received at the start of 1970: older than all others, and
    /// the same whenever it is read.
    pub fn of_record(ce_time: Option<&[u8]>, record_timestamp_ms: Option<i64>) -> Self {
        let header = ce_time.and_then(|bytes| from_rfc3339(std::str::from_utf8(bytes).ok()?));
        let timestamp = || record_timestamp_ms.and_then(from_millis);
        Self(header.or_else(timestamp).unwrap_or(DateTime::UNIX_EPOCH))
    }

    /// Milliseconds since 1970.
    pub(crate) fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    pub(super) fn days_before(self, days: i64) -> Self {
        Self(self.0 - TimeDelta::days(days))
    }
}

impl Timestamp {
    fn rfc3339(self) -> Rfc3339 {
        Rfc3339::new(self.0, 0)
    }
}

impl ReceivedAt {
    fn rfc3339(self) -> Rfc3339 {
        Rfc3339::new(self.0, 3)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rfc3339().as_str())
    }
}

impl fmt::Display for ReceivedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rfc3339().as_str())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.rfc3339().as_str())
    }
}

impl Serialize for ReceivedAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.rfc3339().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for ReceivedAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    struct Time;
    impl de::Visitor<'_> for Time {
        type Value = DateTime<Utc>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time in RFC 3339")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            from_rfc3339(text).ok_or_else(|| E::custom("not a time in RFC 3339"))
        }
    }
    deserializer.deserialize_str(Time)
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

/// Tries first the form in which everything here is written, by far the most frequent one.
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

/// The nanoseconds that up to nine digits after the point stand for.
fn fraction_of(digits: &[u8]) -> Option<u32> {
    let missing = 9_u32.checked_sub(u32::try_from(digits.len()).ok()?)?;
    Some(number(digits)? * 10_u32.pow(missing))
}

fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    writable(DateTime::from_timestamp_millis(millis)?)
}

/// RFC 3339 has four digits for a year; an offset or a number of milliseconds can lead beyond them.
fn writable(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (0..=9999).contains(&time.year()).then_some(time)
}

/// chrono represents a leap second by this many nanoseconds more in the second before it.
const LEAP_NANOS: u32 = 1_000_000_000;

/// A time as it is written: 20 to 30 ASCII characters.
struct Rfc3339 {
    bytes: [u8; 30],
    length: usize,
}

impl Rfc3339 {
    /// Writes the fraction with 0, 3, 6 or 9 digits: as few as represent it exactly, and at least
    /// `least_digits`.
    fn new(time: DateTime<Utc>, least_digits: usize) -> Self {
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
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
        self.length += width;
    }

    fn as_str(&self) -> &str {
        // It holds ASCII only, so this never falls back.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
