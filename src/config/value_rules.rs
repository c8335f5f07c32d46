//! The rules for single values: numbers and librdkafka options.
//!
//! Knows no other value than the one at hand (`rules`). Rules that a type
//! enforces are in `values`.

use serde_json::Value as Json;

use super::{keys, options};

/// Bounds of numbers: key, least, most, and why. All other numbers are at least
/// 1 and fit into 32 bits.
const BOUNDS: &[(&str, u64, u64, &str)] = &[
    ("http.max_body_bytes", 1, 16 << 20, ""),
    ("http.max_head_bytes", 8 << 10, 1 << 20, ""),
    (
        "http.answer_deadline_ms",
        1,
        14_000,
        ", because the sender times out after 15 s",
    ),
    ("limits.max_connections_per_address", 0, MAX_NUMBER, ""),
    ("spool.max_bytes", 1 << 20, 1 << 40, ""),
    ("spool.segment_bytes", 64 << 10, 1 << 30, ""),
    ("topics.partitions", 1, 10_000, ""),
    ("topics.replication_factor", 1, 32_767, ""),
    ("topics.min_insync_replicas", 1, 32_767, ""),
    ("shutdown.announce_ms", 0, MAX_NUMBER, ""),
    ("shutdown.idle_ms", 0, MAX_NUMBER, ""),
    ("streams.max_batch_records", 1, 100_000, ""),
    ("streams.max_batch_bytes", 1, 1 << 30, ""),
    ("streams.max_batch_wait_ms", 1, 10_000, ""),
    ("streams.max_state_bytes", 1, 16 << 20, ""),
    (
        "streams.transaction_timeout_ms",
        10_000,
        900_000,
        " (brokers accept at most 900000 by default)",
    ),
    (
        "streams.session_timeout_ms",
        6_000,
        1_800_000,
        " (brokers accept 6000 to 1800000 by default)",
    ),
];

const MAX_NUMBER: u64 = 0xffff_ffff;

/// Checks a value as it was given: quotes and blanks that a file of variables, unlike
/// a shell, leaves around a value are not part of it. Secrets may contain anything, but
/// those that may be a list may not be in quotes; a PEM text ends with a line break.
///
/// # Errors
///
/// Returns the rule that the value breaks.
pub(super) fn check_given(key: &str, value: &Json) -> Result<(), &'static str> {
    match value {
        Json::String(text) if keys::is_secret(key) => unquoted(text),
        Json::String(text) if !keys::is_any_secret(key) && !keys::is_pem(key) => unwrapped(text),
        Json::Array(items) => items.iter().try_for_each(|item| check_given(key, item)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => Ok(()),
    }
}

/// A client would have to send the quotes as well.
fn unquoted(text: &str) -> Result<(), &'static str> {
    let is_in = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_in('"') || is_in('\'') {
        return Err("must not be in quotes, which would be part of the secret");
    }
    Ok(())
}

fn unwrapped(text: &str) -> Result<(), &'static str> {
    let ends_with = |wraps: fn(char) -> bool| text.starts_with(wraps) || text.ends_with(wraps);
    if ends_with(|c| matches!(c, '"' | '\'')) {
        return Err("must not begin or end with a quote, which would be part of the value");
    }
    if ends_with(char::is_whitespace) {
        return Err("must not begin or end with a blank or a line break");
    }
    Ok(())
}

/// Checks one converted value against the rules of its key.
///
/// # Errors
///
/// Returns the rule that the value breaks.
pub(super) fn check(key: &str, value: &Json) -> Result<(), String> {
    if let Some(name) = keys::option_name(key) {
        return options::check(name, value.as_str().unwrap_or_default());
    }
    match value {
        // The type of a fraction knows its bounds.
        Json::Number(number) if number.is_f64() => Ok(()),
        Json::Number(number) => bounds(key, number.as_u64().unwrap_or_default()),
        Json::String(text) if text.is_empty() && key != "topics.prefix" => {
            Err("must not be empty".to_owned())
        }
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => Ok(()),
    }
}

fn bounds(key: &str, number: u64) -> Result<(), String> {
    let own = BOUNDS.iter().find(|(name, ..)| *name == key);
    let (_, least, most, why) = *own.unwrap_or(&(key, 1, MAX_NUMBER, ""));
    if number < least {
        return Err(format!("must be at least {least}{why}"));
    }
    if number > most {
        return Err(format!("must be at most {most}{why}"));
    }
    Ok(())
}
