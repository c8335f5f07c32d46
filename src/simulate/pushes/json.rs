//! Writes JSON objects as the platform does: compact, and with their fields in
//! any chosen order.
//!
//! Does not know what the fields mean.

use std::borrow::Cow;

/// A JSON object under construction: field names with values already in JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct JsonObject(Vec<(Cow<'static, str>, String)>);

impl JsonObject {
    pub(super) fn of_type(notify_type: &str) -> Self {
        Self::default().text("notifyType", notify_type)
    }

    /// Appends a string field. `text` must not need escapes.
    pub(super) fn text(self, name: &'static str, text: &str) -> Self {
        debug_assert!(!text.contains(['"', '\\']), "no escapes: {text}");
        self.raw(name, format!("\"{text}\""))
    }

    /// Appends a field whose value is JSON already.
    pub(super) fn raw(mut self, name: &'static str, json: impl Into<String>) -> Self {
        self.0.push((Cow::Borrowed(name), json.into()));
        self
    }

    pub(super) fn nested(self, name: &'static str, object: &Self) -> Self {
        let json = object.to_json();
        self.raw(name, json)
    }

    /// Replaces the value of an existing field; an absent one stays absent.
    pub(super) fn replace(&mut self, name: &str, json: impl Into<String>) {
        if let Some((_, value)) = self.0.iter_mut().find(|(existing, _)| existing == name) {
            *value = json.into();
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(existing, _)| existing != name);
    }

    pub(super) fn reverse(&mut self) {
        self.0.reverse();
    }

    pub(super) fn to_json(&self) -> String {
        let mut json = String::with_capacity(512);
        json.push('{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push('"');
            json.push_str(name);
            json.push_str("\":");
            json.push_str(value);
        }
        json.push('}');
        json
    }
}
