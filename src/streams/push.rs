//! Reads a push as the streams need it: leniently, field by field, and says
//! what can never be applied.
//!
//! One odd field never costs the others: `null` is absent, a number where a
//! string should be stands as it was written, of duplicate keys the last
//! counts, and depth costs no stack. What a field means is the business of the
//! states, not of this file.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::notification::scan;

/// The longest `requestId` or `deviceId`, in bytes: twice what the published
/// tables allow in characters, and the bound of every key.
pub const MAX_ID_BYTES: usize = 256;

/// Why a record can never be applied, however often it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Poison {
    /// The bytes are no JSON object in UTF-8.
    #[error("the value is not one JSON object in UTF-8")]
    NotJsonObject,
    /// The push says that it is of a type that does not belong to this stream.
    #[error("the notifyType is not the one of this stream")]
    OtherNotifyType,
    /// A confirmation without a usable `header.requestId`.
    #[error("header.requestId is missing, empty or not a string")]
    RequestIdMissing,
    /// A confirmation whose `header.requestId` is over [`MAX_ID_BYTES`].
    #[error("header.requestId is over {MAX_ID_BYTES} bytes")]
    RequestIdTooLong,
    /// An upgrade result without a usable `deviceId`.
    #[error("deviceId is missing, empty or not a string")]
    DeviceIdMissing,
    /// An upgrade result whose `deviceId` is over [`MAX_ID_BYTES`].
    #[error("deviceId is over {MAX_ID_BYTES} bytes")]
    DeviceIdTooLong,
    /// An upgrade result that does not say how the upgrade ended.
    #[error("swUpgradeResult is missing or not a string")]
    ResultMissing,
    /// An upgrade result that is neither a success nor a failure.
    #[error("swUpgradeResult is neither a success nor a failure")]
    ResultUnknown,
    /// A record of the internal topic that is no delta.
    #[error("the value is not an upgrade delta")]
    NotADelta,
}

impl Poison {
    /// The word for the header `northbridge-reason`, from a closed list.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotJsonObject => "not-json-object",
            Self::OtherNotifyType => "other-notify-type",
            Self::RequestIdMissing => "request-id-missing",
            Self::RequestIdTooLong => "request-id-too-long",
            Self::DeviceIdMissing => "device-id-missing",
            Self::DeviceIdTooLong => "device-id-too-long",
            Self::ResultMissing => "result-missing",
            Self::ResultUnknown => "result-unknown",
            Self::NotADelta => "not-a-delta",
        }
    }
}

/// One field of a JSON object, still in the sender's bytes; `null` is absent.
#[derive(Clone, Copy)]
pub(super) struct Field<'a>(Option<&'a RawValue>);

/// Why an id cannot be used.
pub(super) enum UnusableId {
    Missing,
    TooLong,
}

/// Reads the fields of these names of a whole record value; a byte order mark
/// is skipped.
pub(super) fn fields_of_record<'a, const N: usize>(
    value: &'a [u8],
    names: [&str; N],
) -> Result<[Field<'a>; N], Poison> {
    let values = scan::utf8(value).and_then(|text| scan::object(text, names));
    Ok(values.map_err(|_| Poison::NotJsonObject)?.map(Field::of))
}

impl<'a> Field<'a> {
    fn of(value: Option<&'a RawValue>) -> Self {
        Self(value.filter(|raw| raw.get() != "null"))
    }

    /// Its own fields of these names, where it is an object.
    pub(super) fn fields<const N: usize>(self, names: [&str; N]) -> [Field<'a>; N] {
        let values = self.0.map(|raw| scan::nested(raw.get(), names));
        values.unwrap_or([None; N]).map(Field::of)
    }

    /// The JSON that it is.
    pub(super) fn json(self) -> Option<&'a RawValue> {
        self.0
    }

    /// As text, where it is a string or a number.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        scalar(self.0?, |quoted| Some(decode_string(quoted)))
    }

    /// As the id of a device or a command; no replacement characters here, or
    /// two ids could become one.
    pub(super) fn id(self) -> Result<Cow<'a, str>, UnusableId> {
        let exact = |raw| scalar(raw, |quoted| serde_json::from_str(quoted).ok());
        let id = self.0.and_then(exact).unwrap_or_default();
        match id.len() {
            0 => Err(UnusableId::Missing),
            1..=MAX_ID_BYTES => Ok(id),
            _ => Err(UnusableId::TooLong),
        }
    }

    /// Holds a `notifyType` against that of the stream. A push without one is
    /// taken at its word: other writers may leave it out.
    pub(super) fn expect_notify_type(self, expected: &str) -> Result<(), Poison> {
        match self.text() {
            Some(other) if other != expected => Err(Poison::OtherNotifyType),
            Some(_) | None => Ok(()),
        }
    }
}

/// A string, or a number exactly as it was written; `decode` is for strings
/// with escapes.
fn scalar(raw: &RawValue, decode: impl FnOnce(&str) -> Option<String>) -> Option<Cow<'_, str>> {
    let json = raw.get();
    match json.as_bytes().first()? {
        b'"' if json.contains('\\') => decode(json).map(Cow::Owned),
        b'"' => json.get(1..json.len() - 1).map(Cow::Borrowed),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

/// Decodes a JSON string. JSON may escape lone surrogates, which no text can
/// hold; they become replacement characters.
fn decode_string(quoted: &str) -> String {
    serde_json::from_str::<String>(quoted)
        .or_else(|_| serde_json::from_str::<Lossy>(quoted).map(|Lossy(text)| text))
        .unwrap_or_default()
}

struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Option<String> {
        let [field] = fields_of_record(json.as_bytes(), ["a"]).unwrap();
        field.text().map(Cow::into_owned)
    }

    #[test]
    fn a_field_is_text_where_it_is_a_string_or_a_number() {
        let cases = [
            (r#"{"a":"x"}"#, Some("x")),
            (r#"{"a":"\u0000\u00e9"}"#, Some("\0\u{e9}")),
            (r#"{"a":123}"#, Some("123")),
            (r#"{"a":1.50}"#, Some("1.50")),
            (r#"{"a":-0e99999}"#, Some("-0e99999")),
            (
                r#"{"a":123456789012345678901234567890}"#,
                Some("123456789012345678901234567890"),
            ),
            (r#"{"a":null}"#, None),
            (r#"{"a":true}"#, None),
            (r#"{"a":["x"]}"#, None),
            (r#"{"b":"x"}"#, None),
            (r#"{"a":"x","a":"y"}"#, Some("y")),
            (r#"{"\u0061":"x"}"#, Some("x")),
            ("\u{feff}{\"a\":\"x\"}", Some("x")),
        ];
        for (json, expected) in cases {
            assert_eq!(text(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn a_lone_surrogate_spoils_neither_its_field_nor_the_others() {
        let json = r#"{"\ud800":1,"b":"\udc00","a":"x\ud800"}"#;
        let text = text(json).unwrap();
        assert!(text.starts_with('x') && text.contains('\u{fffd}'));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let json = format!(r#"{{"deep":{deep},"a":"x"}}"#);
        assert_eq!(text(&json).as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_json_object_is_poison() {
        let cases: [&[u8]; 8] = [
            b"",
            b"null",
            b"[]",
            b"\"a\"",
            b"{",
            b"{}x",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
        ];
        for value in cases {
            assert_eq!(
                fields_of_record(value, ["a"]).err(),
                Some(Poison::NotJsonObject),
                "{value:?}"
            );
        }
    }

    #[test]
    fn an_id_has_one_to_256_bytes_and_is_exact() {
        let limit = "x".repeat(256);
        let over = "x".repeat(257);
        let cases = [
            (r#""r""#, Some("r")),
            ("42", Some("42")),
            (&format!(r#""{limit}""#), Some(limit.as_str())),
            (&format!(r#""{over}""#), None),
            (r#""""#, None),
            (r#""\ud800""#, None),
            ("{}", None),
            ("null", None),
        ];
        for (json, expected) in cases {
            let object = format!(r#"{{"id":{json}}}"#);
            let [id] = fields_of_record(object.as_bytes(), ["id"]).unwrap();
            assert_eq!(id.id().ok().as_deref(), expected, "{json}");
        }
    }
}
