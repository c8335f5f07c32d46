//! The published field tables as data, and the check of a body against one of them.
//!
//! Knows the formats of field that the platform publishes, and must not know which type has which.

use std::ops::Range;

use chrono::NaiveDate;
use serde_json::value::RawValue;

use super::Validation;
use super::drift::{Drift, Field};
use super::scan::Values;
use super::value;

/// One row of a table. Every field in a table is mandatory.
pub(super) struct Row {
    pub(super) field: Field,
    pub(super) format: Format,
}

/// The published format of a field; lengths are in characters.
#[derive(Clone, Copy)]
pub(super) enum Format {
    /// A string.
    Text,
    /// A string of at least one character and at most this many.
    TextUpTo(usize),
    /// Exactly one of these strings.
    OneOf(&'static [&'static str]),
    /// `yyyyMMdd'T'HHmmss'Z'`.
    Timestamp,
    /// `/devices/{deviceId}` or `/devices/{deviceId}/services/{serviceId}`, of at most this many
    /// characters.
    DevicePath(usize),
    /// A string, or the number that another page of the same API has instead.
    TextOrNumber,
    /// An object with any content.
    Object,
}

/// Checks values that are in the order of the rows.
///
/// # Errors
///
/// Returns the first field that is not as published, under [`Validation::Strict`] only.
pub(super) fn check<const N: usize>(
    rows: &[Row; N],
    values: &Values<'_, N>,
    validation: Validation,
) -> Result<Drift, Field> {
    let mut drift = Drift::default();
    for (row, value) in rows.iter().zip(values) {
        match (row.format.check(*value), validation) {
            (Conformance::Published, _) | (Conformance::Variant, Validation::Tolerant) => {}
            (Conformance::Drift, Validation::Tolerant) => drift.add(row.field),
            (Conformance::Variant | Conformance::Drift, Validation::Strict) => {
                return Err(row.field);
            }
        }
    }
    Ok(drift)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conformance {
    Published,
    /// As another version of the platform sends it: expected, but not in the table.
    Variant,
    Drift,
}

impl Format {
    fn check(self, value: Option<&RawValue>) -> Conformance {
        let Some(value) = value else {
            return Conformance::Drift;
        };
        match self {
            Self::Text => published_if(value::is_text_within(value, usize::MAX)),
            Self::TextUpTo(max) => published_if(is_filled(value, max)),
            Self::OneOf(known) => published_if(is_one_of(value, known)),
            Self::Timestamp => check_timestamp(value),
            Self::DevicePath(max) => published_if(
                is_filled(value, max)
                    && value::text(value).is_some_and(|path| value::is_device_path(&path)),
            ),
            Self::TextOrNumber => {
                published_if(value::is_number(value) || value::is_text_within(value, usize::MAX))
            }
            Self::Object => published_if(value::is_object(value)),
        }
    }
}

fn published_if(holds: bool) -> Conformance {
    if holds {
        Conformance::Published
    } else {
        Conformance::Drift
    }
}

fn is_filled(value: &RawValue, max_chars: usize) -> bool {
    value.get() != "\"\"" && value::is_text_within(value, max_chars)
}

fn is_one_of(value: &RawValue, known: &[&str]) -> bool {
    value::text(value).is_some_and(|text| known.contains(&&*text))
}

fn check_timestamp(value: &RawValue) -> Conformance {
    let Some(text) = value::text(value) else {
        return Conformance::Drift;
    };
    match text.split_at_checked("yyyyMMddTHHmmss".len()) {
        Some((time, "Z")) if is_time(time) => Conformance::Published,
        Some((time, rest)) if is_milliseconds(rest) && is_time(time) => Conformance::Variant,
        Some(_) | None => Conformance::Drift,
    }
}

/// Returns whether `time`, 15 bytes long, exists in the calendar.
fn is_time(time: &str) -> bool {
    let number = |digits: Range<usize>| {
        let digits = time.get(digits)?;
        // A number may have a sign.
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| is_plain)
    };
    let date = || {
        let year = i32::try_from(number(0..4)?).ok()?;
        NaiveDate::from_ymd_opt(year, number(4..6)?, number(6..8)?)
    };
    let is_clock = || Some(number(9..11)? < 24 && number(11..13)? < 60 && number(13..15)? <= 60);
    time.get(8..9) == Some("T") && date().is_some() && is_clock() == Some(true)
}

/// Returns whether `rest` is `.SSSZ`, or `SSSZ` as formatters without a separator write it.
fn is_milliseconds(rest: &str) -> bool {
    let digits = rest.strip_prefix('.').unwrap_or(rest).strip_suffix('Z');
    digits.is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, json: &str) -> Conformance {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        format.check(Some(value))
    }

    #[test]
    fn a_timestamp_has_the_published_format_or_its_variant_with_milliseconds() {
        let table = [
            (r#""20151212T121212Z""#, Conformance::Published),
            (r#""20160229T235959Z""#, Conformance::Published),
            (r#""20161231T235960Z""#, Conformance::Published),
            (r#""20161231T235961Z""#, Conformance::Drift),
            (r#""20161231T236000Z""#, Conformance::Drift),
            (r#""20161231T23595+1Z""#, Conformance::Drift),
            (r#""2016123T2359590Z""#, Conformance::Drift),
            (r#""\u00320151212T121212Z""#, Conformance::Published),
            (r#""20151212T121212.123Z""#, Conformance::Variant),
            (r#""20151212T121212123Z""#, Conformance::Variant),
            (r#""20150229T121212Z""#, Conformance::Drift),
            (r#""20151312T121212Z""#, Conformance::Drift),
            (r#""20151212T251212Z""#, Conformance::Drift),
            (r#""20151212T121212""#, Conformance::Drift),
            (r#""20151212T121212.12Z""#, Conformance::Drift),
            (r#""20151212T121212+0800""#, Conformance::Drift),
            (r#""20151212 121212Z""#, Conformance::Drift),
            (r#""+0151212T121212Z""#, Conformance::Drift),
            (r#""2015 1 1T 1 1 1Z""#, Conformance::Drift),
            (r#""2015-12-12T12:12:12Z""#, Conformance::Drift),
            (r#""2015121é2T12121Z""#, Conformance::Drift),
            (r#""""#, Conformance::Drift),
            ("1449922332", Conformance::Drift),
            ("null", Conformance::Drift),
        ];
        for (json, conformance) in table {
            assert_eq!(check(Format::Timestamp, json), conformance, "{json}");
        }
    }

    #[test]
    fn a_length_counts_characters_and_not_bytes_or_escapes() {
        let table = [
            (r#""""#, Conformance::Drift),
            (r#""abcd""#, Conformance::Published),
            (r#""abcde""#, Conformance::Drift),
            (r#""设备设备""#, Conformance::Published),
            (r#""\u8bbe\u5907\n\"""#, Conformance::Published),
            (r#""\ud83d\ude00""#, Conformance::Published),
            (r#""\ud83d""#, Conformance::Drift),
            ("12", Conformance::Drift),
        ];
        for (json, conformance) in table {
            assert_eq!(check(Format::TextUpTo(4), json), conformance, "{json}");
        }
    }

    #[test]
    fn a_device_path_names_a_device_and_optionally_a_service() {
        let table = [
            (r#""/devices/d""#, Conformance::Published),
            (r#""/devices/d/services/s""#, Conformance::Published),
            (r#""\/devices\/d""#, Conformance::Published),
            (r#""/devices/""#, Conformance::Drift),
            (r#""/devices/d/""#, Conformance::Drift),
            (r#""/devices/d/services""#, Conformance::Drift),
            (r#""/devices/d/services/""#, Conformance::Drift),
            (r#""/devices/d/services/s/x""#, Conformance::Drift),
            (r#""/devices/d/things/s""#, Conformance::Drift),
            (r#""devices/d""#, Conformance::Drift),
            (r#""/devices/0123456789/services/0123""#, Conformance::Drift),
        ];
        for (json, conformance) in table {
            assert_eq!(check(Format::DevicePath(32), json), conformance, "{json}");
        }
    }

    #[test]
    fn a_number_of_any_size_is_a_number() {
        let huge = format!("-{}", "9".repeat(400));
        for json in ["0", "1e99999", "1.5", huge.as_str(), r#""3""#] {
            assert_eq!(
                check(Format::TextOrNumber, json),
                Conformance::Published,
                "{json}"
            );
            let text = Format::Text.check(Some(serde_json::from_str(json).unwrap()));
            assert_eq!(
                text == Conformance::Published,
                json.starts_with('"'),
                "{json}"
            );
        }
        assert_eq!(check(Format::TextOrNumber, "true"), Conformance::Drift);
    }

    #[test]
    fn a_missing_field_is_drift_in_every_format() {
        assert_eq!(Format::Text.check(None), Conformance::Drift);
        assert_eq!(Format::Object.check(None), Conformance::Drift);
    }
}
