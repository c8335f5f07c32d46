//! Picks a few named values out of a JSON object, and skips the rest.
//!
//! Builds no tree, copies nothing, and does not recurse, so that nesting of any depth is safe.
//! It must not know what the names mean.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::unreadable::Cause;
use super::value;

/// The named values of one object: the place of each is that of its name.
pub(crate) type Values<'a, const N: usize> = [Option<&'a RawValue>; N];

/// The body as text, without a byte order mark (which RFC 8259 lets a reader ignore).
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Cause> {
    let text = str::from_utf8(body).map_err(Cause::NotUtf8)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The values that `text`, a JSON object and nothing else, holds under `names`.
///
/// Of a repeated name the last counts.
/// Strings are checked for form but not decoded, and numbers may be of any size.
///
/// # Errors
///
/// [`Cause::NotJson`] or [`Cause::NotAnObject`].
pub(crate) fn object<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Result<Values<'a, N>, Cause> {
    pick(text, names).map_err(|_| what_is_wrong_with(text))
}

/// The same for a value that is known to be JSON; nothing is found in what is not an object.
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

/// Words of its own: those of a failed `deserialize_map` would quote the body.
fn what_is_wrong_with(text: &str) -> Cause {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Cause::NotAnObject,
        Err(error) => Cause::NotJson(error),
    }
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
        // Keys are taken raw: decoding one would fail the whole body for a lone surrogate.
        while let Some(key) = map.next_key::<&RawValue>()? {
            match self.place_of(key) {
                Some(place) => values[place] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

impl<const N: usize> Picker<'_, N> {
    fn place_of(&self, key: &RawValue) -> Option<usize> {
        let name = value::text(key)?;
        self.names.iter().position(|known| *known == name)
    }
}
