//! The reader on arbitrary bytes.

use serde_json::Value;

use super::laws::{check_laws, compare_with_tree};

/// Reads a body. If `serde_json` can read it too, the keys must be the same.
///
/// # Panics
///
/// Panics if a law of the reader is broken.
pub fn reader(body: &[u8]) {
    check_laws(body);
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(tree) = serde_json::from_slice::<Value>(text)
        && !has_other_numbers(&tree)
    {
        compare_with_tree(body, &tree);
    }
}

/// Whether the tree has numbers that `serde_json` does not print as they were written.
fn has_other_numbers(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_other_numbers),
        Value::Object(members) => members.values().any(has_other_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
