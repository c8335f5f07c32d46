//! Reads a single JSON value: as a text, as an id, as the path of a device.
//!
//! Decodes only strings with escapes, and must not know which field a value belongs to.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::MAX_ID_BYTES;
use super::unreadable::IdProblem;

/// The text of a JSON string; `None` for any other value, and for a string with a lone surrogate,
/// which UTF-8 cannot represent.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = between_quotes(value)?;
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The text of a value that is to be a key: of a string its content, of a number its digits as
/// they were sent.
pub(super) fn id(value: Option<&RawValue>) -> Result<Cow<'_, str>, IdProblem> {
    let value = value
        .filter(|value| !is_null(value))
        .ok_or(IdProblem::Missing)?;
    let text = if is_number(value) {
        Some(Cow::Borrowed(value.get()))
    } else {
        text(value)
    };
    usable(text.ok_or(IdProblem::NotAString)?)
}

/// The device in a path such as `/devices/{deviceId}/services/{serviceId}`. The rest of the path
/// does not matter.
pub(super) fn device_in_path(value: Option<&RawValue>) -> Result<Cow<'_, str>, IdProblem> {
    let value = value
        .filter(|value| !is_null(value))
        .ok_or(IdProblem::Missing)?;
    let device_id = match text(value).ok_or(IdProblem::NotAString)? {
        Cow::Borrowed("") => return Err(IdProblem::Empty),
        Cow::Borrowed(path) => first_segment(path).map(Cow::Borrowed),
        Cow::Owned(path) => first_segment(&path).map(|device| Cow::Owned(device.to_owned())),
    };
    usable(device_id.ok_or(IdProblem::NotInPath)?)
}

/// Returns whether `path` is `/devices/{deviceId}` or `/devices/{deviceId}/services/{serviceId}`.
pub(super) fn is_device_path(path: &str) -> bool {
    let mut segments = path.as_bytes().split(|byte| *byte == b'/');
    let device = segments.next() == Some(b"")
        && segments.next() == Some(b"devices")
        && segments.next().is_some_and(|id| !id.is_empty());
    let service = match segments.next() {
        None => true,
        Some(segment) => segment == b"services" && segments.next().is_some_and(|id| !id.is_empty()),
    };
    device && service && segments.next().is_none()
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

/// Returns whether the value is a string of at most `max_chars` characters.
///
/// Decodes only if the raw form leaves doubt: a string without escapes is as long as it was sent.
pub(super) fn is_text_within(value: &RawValue, max_chars: usize) -> bool {
    let Some(inner) = between_quotes(value) else {
        return false;
    };
    let certain = inner.len() <= max_chars && !inner.contains('\\');
    certain || text(value).is_some_and(|text| text.chars().count() <= max_chars)
}

/// The raw content of a string, with its escapes.
fn between_quotes(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

fn first_segment(path: &str) -> Option<&str> {
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
