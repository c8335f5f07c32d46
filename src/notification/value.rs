//! What a single JSON value holds: a text, an id, a device's path.
//!
//! Decodes only where a string has escapes, and must not know which field it looks at.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::MAX_ID_BYTES;
use super::unreadable::IdProblem;

/// The text of a JSON string; none for another value, or for half of a surrogate pair, which is
/// no text.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = between_quotes(value)?;
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The text of a value that is to be a key.
pub(super) fn id(value: Option<&RawValue>) -> Result<Cow<'_, str>, IdProblem> {
    let value = value
        .filter(|value| !is_null(value))
        .ok_or(IdProblem::Missing)?;
    usable(text(value).ok_or(IdProblem::NotAString)?)
}

/// The device in a value such as `/devices/{deviceId}/services/{serviceId}`.
///
/// What follows the device is not looked at.
pub(super) fn device_in_path(value: Option<&RawValue>) -> Result<Cow<'_, str>, IdProblem> {
    let value = value
        .filter(|value| !is_null(value))
        .ok_or(IdProblem::Missing)?;
    let device_id = match text(value).ok_or(IdProblem::NotAString)? {
        Cow::Borrowed("") => return Err(IdProblem::Empty),
        Cow::Borrowed(path) => first_step(path).map(Cow::Borrowed),
        Cow::Owned(path) => first_step(&path).map(|device| Cow::Owned(device.to_owned())),
    };
    usable(device_id.ok_or(IdProblem::NotInPath)?)
}

/// Whether `path` is `/devices/{deviceId}` or `/devices/{deviceId}/services/{serviceId}`.
pub(super) fn is_device_path(path: &str) -> bool {
    let mut steps = path.split('/');
    let device = [steps.next(), steps.next()] == [Some(""), Some("devices")]
        && steps.next().is_some_and(|id| !id.is_empty());
    let service = match steps.next() {
        None => true,
        Some(step) => step == "services" && steps.next().is_some_and(|id| !id.is_empty()),
    };
    device && service && steps.next().is_none()
}

pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

pub(super) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

pub(super) fn is_number(value: &RawValue) -> bool {
    value
        .get()
        .starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Whether the value is a string of at most `max_chars` characters.
///
/// Decodes only where the raw form does not settle it: decoding never makes a string longer, and
/// only a `\u` can be half of a pair.
pub(super) fn is_text_within(value: &RawValue, max_chars: usize) -> bool {
    let Some(inner) = between_quotes(value) else {
        return false;
    };
    let settled = inner.len() <= max_chars && !inner.contains("\\u");
    settled || text(value).is_some_and(|text| text.chars().count() <= max_chars)
}

/// What stands between the quotes of a string, escapes and all.
pub(super) fn between_quotes(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

fn first_step(path: &str) -> Option<&str> {
    path.strip_prefix("/devices/")?.split('/').next()
}

fn usable(id: Cow<'_, str>) -> Result<Cow<'_, str>, IdProblem> {
    if id.is_empty() {
        Err(IdProblem::Empty)
    } else if id.len() > MAX_ID_BYTES {
        Err(IdProblem::TooLong)
    } else {
        Ok(id)
    }
}
