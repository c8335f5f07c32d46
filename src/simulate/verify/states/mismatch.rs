//! A state that differs from the model, and its description field by field.

use std::fmt;

use serde_json::{Map, Value};

use super::kind::StateKind;

/// The length to which a value is cut in a description.
const MAX_VALUE_CHARS: usize = 100;

/// A state that is not what the model computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateMismatch {
    pub(super) kind: StateKind,
    pub(super) key: String,
    /// `None` if there must be no state.
    pub(super) expected: Option<Value>,
    /// `None` if there is no state.
    pub(super) found: Option<Value>,
}

impl fmt::Display for StateMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.kind.state_topic().label();
        write!(f, "{topic} {}: ", printable(&self.key.as_str().into()))?;
        match (&self.expected, &self.found) {
            (Some(Value::Object(expected)), Some(Value::Object(found))) => {
                write_fields(f, expected, found)
            }
            (Some(expected), Some(found)) => {
                write_difference(f, "the state", Some(expected), Some(found))
            }
            (Some(_), None) => f.write_str("there is no state"),
            (None, _) => f.write_str("there must be no state"),
        }
    }
}

fn write_fields(
    f: &mut fmt::Formatter<'_>,
    expected: &Map<String, Value>,
    found: &Map<String, Value>,
) -> fmt::Result {
    let names = expected.keys().chain(found.keys());
    let mut names: Vec<&String> = names
        .filter(|name| expected.get(*name) != found.get(*name))
        .collect();
    names.sort_unstable();
    names.dedup();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            f.write_str("; ")?;
        }
        write_difference(f, name, expected.get(*name), found.get(*name))?;
    }
    Ok(())
}

fn write_difference(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    expected: Option<&Value>,
    found: Option<&Value>,
) -> fmt::Result {
    let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), printable);
    write!(
        f,
        "{what} must be {} but is {}",
        text(expected),
        text(found)
    )
}

/// A value as JSON, which escapes control characters.
fn printable(value: &Value) -> String {
    let json = value.to_string();
    let mut text: String = json.chars().take(MAX_VALUE_CHARS).collect();
    if text.len() < json.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn describe(expected: Option<Value>, found: Option<Value>) -> String {
        let mismatch = StateMismatch {
            kind: StateKind::Command,
            key: "r\n1".to_owned(),
            expected,
            found,
        };
        mismatch.to_string()
    }

    #[test]
    fn a_mismatch_is_described_field_by_field_without_control_characters() {
        let expected = json!({"status": "executed", "to": "na", "sentAt": "2026-01-01T00:00:00Z"});
        let found = json!({"status": "sent", "to": "na", "body": {}});
        assert_eq!(
            describe(Some(expected), Some(found)),
            "command-state \"r\\n1\": body must be absent but is {}; \
             sentAt must be \"2026-01-01T00:00:00Z\" but is absent; \
             status must be \"executed\" but is \"sent\""
        );
    }

    #[test]
    fn a_missing_state_and_a_superfluous_one_are_described_as_such() {
        let state = || Some(json!({"status": "sent"}));
        assert!(describe(state(), None).ends_with(": there is no state"));
        assert!(describe(None, state()).ends_with(": there must be no state"));
    }
}
