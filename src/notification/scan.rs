//! Picks a few named values out of a JSON object and skips the rest.
//!
//! Builds no tree, copies nothing and does not recurse, so that any depth of nesting is safe.
//! It must not know what the names mean.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::unreadable::Cause;
use super::value;

/// The values of one object, in the order of their names.
pub(crate) type Values<'a, const N: usize> = [Option<&'a RawValue>; N];

/// The body as text, without a byte order mark, which RFC 8259 allows a reader to ignore.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Cause> {
    let text = str::from_utf8(body).map_err(Cause::NotUtf8)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The values under `names` in `text`, which must be exactly one JSON object.
///
/// Of a repeated name the last counts.
/// Strings are validated but not decoded, and numbers may have any size.
///
/// # Errors
///
/// Returns [`Cause::NotJson`], [`Cause::SeveralValues`] or [`Cause::NotAnObject`] if `text` is not
/// a JSON object.
pub(crate) fn object<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Result<Values<'a, N>, Cause> {
    pick(text, names).map_err(|_| cause_of_failure(text))
}

/// The same for a value that is known to be JSON; a value that is not an object has no values.
pub(crate) fn nested<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Values<'a, N> {
    pick(text, names).unwrap_or([None; N])
}

fn pick<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Result<Values<'a, N>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let values = reader.deserialize_map(Picker { names })?;
    reader.end()?;
    Ok(values)
}

/// Parses the text once more, because the error of a failed `deserialize_map` would quote the body.
fn cause_of_failure(text: &str) -> Cause {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Cause::NotAnObject,
        Err(_) if has_several_values(text) => Cause::SeveralValues,
        Err(error) => Cause::NotJson(error),
    }
}

fn has_several_values(text: &str) -> bool {
    let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut count = 0;
    let all_are_json = values.inspect(|_| count += 1).all(|value| value.is_ok());
    all_are_json && count > 1
}

struct Picker<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Picker<'_, N> {
    type Value = Values<'de, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        // Names are read raw: to decode one with a lone surrogate would fail the whole body.
        while let Some(name) = map.next_key::<&RawValue>()? {
            match self.position(name) {
                Some(position) => values[position] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

impl<const N: usize> Picker<'_, N> {
    fn position(&self, name: &RawValue) -> Option<usize> {
        let name = value::text(name)?;
        self.names.iter().position(|known| *known == name)
    }
}
