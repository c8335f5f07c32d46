//! The published field tables as data, and the check of a body against one.
//!
//! Knows what kinds of field the platform publishes, and must not know which type has which.

use chrono::NaiveDateTime;
use serde_json::value::RawValue;

use super::Validation;
use super::drift::{Drift, Field};
use super::scan::Values;
use super::value;

/// One row of a table: every field in them is mandatory.
pub(super) struct Row {
    pub(super) field: Field,
    pub(super) kind: Kind,
}

/// What is published about a field; lengths are in characters.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A string of at least one character and at most so many.
    TextUpTo(usize),
    /// One of these strings, letter for letter.
    OneOf(&'static [&'static str]),
    /// `yyyyMMdd'T'HHmmss'Z'`.
    Timestamp,
    /// `/devices/{deviceId}` or `/devices/{deviceId}/services/{serviceId}`, of at most so many
    /// characters.
    DevicePath(usize),
    /// A string, or the number that another page of the same API has in its place.
    TextOrNumber,
    /// An object with anything in it.
    Object,
}

/// Checks the values, in the order of the rows.
///
/// # Errors
///
/// Under [`Validation::Strict`] the first field that is not as published.
pub(super) fn check<const N: usize>(
    rows: &[Row; N],
    values: &Values<'_, N>,
    validation: Validation,
) -> Result<Drift, Field> {
    let mut drift = Drift::default();
    for (row, value) in rows.iter().zip(values) {
        match (row.kind.judge(*value), validation) {
            (Verdict::AsPublished, _) | (Verdict::Sibling, Validation::Tolerant) => {}
            (Verdict::Drift, Validation::Tolerant) => drift.add(row.field),
            (Verdict::Sibling | Verdict::Drift, Validation::Strict) => return Err(row.field),
        }
    }
    Ok(drift)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    AsPublished,
    /// As a sibling dialect of the platform has it: no news, but not in the table.
    Sibling,
    Drift,
}

impl Kind {
    fn judge(self, value: Option<&RawValue>) -> Verdict {
        let Some(value) = value else {
            return Verdict::Drift;
        };
        match self {
            Self::Text => as_published(value::is_text_within(value, usize::MAX)),
            Self::TextUpTo(max) => as_published(is_filled(value, max)),
            Self::OneOf(known) => as_published(is_one_of(value, known)),
            Self::Timestamp => judge_timestamp(value),
            Self::DevicePath(max) => as_published(
                is_filled(value, max)
                    && value::text(value).is_some_and(|path| value::is_device_path(&path)),
            ),
            Self::TextOrNumber => {
                as_published(value::is_number(value) || value::is_text_within(value, usize::MAX))
            }
            Self::Object => as_published(value::is_object(value)),
        }
    }
}

fn as_published(is_so: bool) -> Verdict {
    if is_so {
        Verdict::AsPublished
    } else {
        Verdict::Drift
    }
}

fn is_filled(value: &RawValue, max_chars: usize) -> bool {
    value.get() != "\"\"" && value::is_text_within(value, max_chars)
}

fn is_one_of(value: &RawValue, known: &[&str]) -> bool {
    value::text(value).is_some_and(|text| known.contains(&&*text))
}

fn judge_timestamp(value: &RawValue) -> Verdict {
    let Some(text) = value::text(value) else {
        return Verdict::Drift;
    };
    match text.split_at_checked("yyyyMMddTHHmmss".len()) {
        Some((time, "Z")) if is_time(time) => Verdict::AsPublished,
        Some((time, rest)) if is_milliseconds(rest) && is_time(time) => Verdict::Sibling,
        Some(_) | None => Verdict::Drift,
    }
}

/// Whether `time`, 15 bytes long, is a moment of the calendar.
fn is_time(time: &str) -> bool {
    // chrono would take a sign and spaces as part of a number.
    let plain = time
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'T');
    plain && NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%S").is_ok()
}

/// `.SSSZ`, or `SSSZ` as formatters without a separator write it.
fn is_milliseconds(rest: &str) -> bool {
    let digits = rest.strip_prefix('.').unwrap_or(rest).strip_suffix('Z');
    digits.is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kind: Kind, json: &str) -> Verdict {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        kind.judge(Some(value))
    }

    #[test]
    fn a_timestamp_is_the_published_form_or_its_sibling_with_milliseconds() {
        let table = [
            (r#""20151212T121212Z""#, Verdict::AsPublished),
            (r#""20160229T235959Z""#, Verdict::AsPublished),
            (r#""\u00320151212T121212Z""#, Verdict::AsPublished),
            (r#""20151212T121212.123Z""#, Verdict::Sibling),
            (r#""20151212T121212123Z""#, Verdict::Sibling),
            (r#""20150229T121212Z""#, Verdict::Drift),
            (r#""20151312T121212Z""#, Verdict::Drift),
            (r#""20151212T251212Z""#, Verdict::Drift),
            (r#""20151212T121212""#, Verdict::Drift),
            (r#""20151212T121212.12Z""#, Verdict::Drift),
            (r#""20151212T121212+0800""#, Verdict::Drift),
            (r#""20151212 121212Z""#, Verdict::Drift),
            (r#""+0151212T121212Z""#, Verdict::Drift),
            (r#""2015 1 1T 1 1 1Z""#, Verdict::Drift),
            (r#""2015-12-12T12:12:12Z""#, Verdict::Drift),
            (r#""2015121é2T12121Z""#, Verdict::Drift),
            (r#""""#, Verdict::Drift),
            ("1449922332", Verdict::Drift),
            ("null", Verdict::Drift),
        ];
        for (json, verdict) in table {
            assert_eq!(judge(Kind::Timestamp, json), verdict, "{json}");
        }
    }

    #[test]
    fn a_length_counts_characters_and_not_bytes_or_escapes() {
        let table = [
            (r#""""#, Verdict::Drift),
            (r#""abcd""#, Verdict::AsPublished),
            (r#""abcde""#, Verdict::Drift),
            (r#""设备设备""#, Verdict::AsPublished),
            (r#""\u8bbe\u5907\n\"""#, Verdict::AsPublished),
            (r#""\ud83d\ude00""#, Verdict::AsPublished),
            (r#""\ud83d""#, Verdict::Drift),
            ("12", Verdict::Drift),
        ];
        for (json, verdict) in table {
            assert_eq!(judge(Kind::TextUpTo(4), json), verdict, "{json}");
        }
    }

    #[test]
    fn a_device_path_names_a_device_and_perhaps_a_service() {
        let table = [
            (r#""/devices/d""#, Verdict::AsPublished),
            (r#""/devices/d/services/s""#, Verdict::AsPublished),
            (r#""\/devices\/d""#, Verdict::AsPublished),
            (r#""/devices/""#, Verdict::Drift),
            (r#""/devices/d/""#, Verdict::Drift),
            (r#""/devices/d/services""#, Verdict::Drift),
            (r#""/devices/d/services/""#, Verdict::Drift),
            (r#""/devices/d/services/s/x""#, Verdict::Drift),
            (r#""/devices/d/things/s""#, Verdict::Drift),
            (r#""devices/d""#, Verdict::Drift),
            (r#""/devices/0123456789/services/0123""#, Verdict::Drift),
        ];
        for (json, verdict) in table {
            assert_eq!(judge(Kind::DevicePath(32), json), verdict, "{json}");
        }
    }

    #[test]
    fn a_number_of_any_size_is_a_number() {
        let huge = format!("-{}", "9".repeat(400));
        for json in ["0", "1e99999", "1.5", huge.as_str(), r#""3""#] {
            assert_eq!(
                judge(Kind::TextOrNumber, json),
                Verdict::AsPublished,
                "{json}"
            );
            let text = Kind::Text.judge(Some(serde_json::from_str(json).unwrap()));
            assert_eq!(
                text == Verdict::AsPublished,
                json.starts_with('"'),
                "{json}"
            );
        }
        assert_eq!(judge(Kind::TextOrNumber, "true"), Verdict::Drift);
    }

    #[test]
    fn a_missing_field_is_drift_whatever_its_kind() {
        assert_eq!(Kind::Text.judge(None), Verdict::Drift);
        assert_eq!(Kind::Object.judge(None), Verdict::Drift);
    }
}
