//! Writes JSON objects compactly and in any order of their fields, as the
//! platform does.
//!
//! Knows nothing of what the fields mean.

use std::borrow::Cow;

/// The fields of an object, each value already in JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Object(Vec<(Cow<'static, str>, String)>);

impl Object {
    pub(super) fn of_type(notify_type: &str) -> Self {
        Self::default().text("notifyType", notify_type)
    }

    /// One more field with a string, which needs no escapes.
    pub(super) fn text(self, name: &'static str, text: &str) -> Self {
        debug_assert!(!text.contains(['"', '\\']), "no escapes: {text}");
        self.raw(name, format!("\"{text}\""))
    }

    /// One more field with a value that is JSON.
    pub(super) fn raw(mut self, name: &'static str, json: impl Into<String>) -> Self {
        self.0.push((Cow::Borrowed(name), json.into()));
        self
    }

    /// One more field with an object.
    pub(super) fn nested(self, name: &'static str, object: &Self) -> Self {
        let json = object.write();
        self.raw(name, json)
    }

    /// Another value for a field that is there.
    pub(super) fn replace(&mut self, name: &str, json: impl Into<String>) {
        if let Some((_, value)) = self.0.iter_mut().find(|(known, _)| known == name) {
            *value = json.into();
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub(super) fn reverse(&mut self) {
        self.0.reverse();
    }

    pub(super) fn write(&self) -> String {
        let mut json = String::with_capacity(512);
        json.push('{');
        for (place, (name, value)) in self.0.iter().enumerate() {
            if place > 0 {
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
