//! Reads the fields of a push as the streams need them: leniently, one by one.
//!
//! One odd field never costs the others. `null` is absent, a number in place of a string is kept as
//! it was written, of a repeated name the last counts, and nesting takes no stack. What a field
//! means is up to the states.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::poison::Poison;
use crate::notification::{MAX_ID_BYTES, scan};

/// The value of one field of a JSON object, still in the sender's bytes; `null` is absent.
#[derive(Clone, Copy)]
pub(super) struct JsonField<'a>(Option<&'a RawValue>);

/// Why an id cannot be used.
pub(super) enum UnusableId {
    Missing,
    TooLong,
}

/// Reads the fields with these names from a record's value, which may start with a byte order mark.
pub(super) fn fields_of_record<'a, const N: usize>(
    value: &'a [u8],
    names: [&str; N],
) -> Result<[JsonField<'a>; N], Poison> {
    let values = scan::utf8(value).and_then(|text| scan::object(text, names));
    let values = values.map_err(|_| Poison::NotJsonObject)?;
    Ok(values.map(JsonField::new))
}

impl<'a> JsonField<'a> {
    fn new(value: Option<&'a RawValue>) -> Self {
        Self(value.filter(|raw| raw.get() != "null"))
    }

    /// The fields of an object; all are absent in any other value.
    pub(super) fn fields<const N: usize>(self, names: [&str; N]) -> [JsonField<'a>; N] {
        let values = self.0.map(|raw| scan::nested(raw.get(), names));
        values.unwrap_or([None; N]).map(Self::new)
    }

    /// The value in the sender's bytes.
    pub(super) fn json(self) -> Option<&'a RawValue> {
        self.0
    }

    /// The text of a string, or a number as it was written.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        scalar(self.0?, |quoted| Some(decode_lossy(quoted)))
    }

    /// The id of a device or a command.
    ///
    /// Unlike [`JsonField::text`] it replaces no lone surrogate: two ids could become one.
    pub(super) fn id(self) -> Result<Cow<'a, str>, UnusableId> {
        let exact = |raw| scalar(raw, |quoted| serde_json::from_str(quoted).ok());
        let id = self.0.and_then(exact).unwrap_or_default();
        match id.len() {
            0 => Err(UnusableId::Missing),
            1..=MAX_ID_BYTES => Ok(id),
            _ => Err(UnusableId::TooLong),
        }
    }

    /// Rejects a `notifyType` other than the stream's. A push without one is accepted, because
    /// other writers may leave it out.
    pub(super) fn expect_notify_type(self, expected: &str) -> Result<(), Poison> {
        match self.text() {
            Some(other) if other != expected => Err(Poison::OtherNotifyType),
            Some(_) | None => Ok(()),
        }
    }
}

/// A string, or a number as it was written; `decode` is called for a string with escapes.
fn scalar(raw: &RawValue, decode: impl FnOnce(&str) -> Option<String>) -> Option<Cow<'_, str>> {
    let json = raw.get();
    match json.as_bytes().first()? {
        b'"' if json.contains('\\') => decode(json).map(Cow::Owned),
        b'"' => json.get(1..json.len() - 1).map(Cow::Borrowed),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

/// Decodes a JSON string. JSON can escape lone surrogates, which no `String` can hold; they become
/// replacement characters.
fn decode_lossy(quoted: &str) -> String {
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
        // Read as bytes, serde_json accepts the lone surrogates that it rejects in a string.
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests;
