//! From the values of all layers to the settings: every value is converted and
//! checked for itself and put into one tree over the defaults, which is then
//! deserialized once.
//!
//! Knows neither the layers nor the rules between values (`rules`).

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value as Json;

use super::Settings;
use super::error::Problem;
use super::keys::{self, Keys};
use super::layers::Layer;
use super::value_rules;

/// The origin of each value that was set, by key.
#[derive(Default)]
pub(super) struct Origins(BTreeMap<String, String>);

impl Origins {
    pub(super) fn of(&self, key: &str) -> &str {
        self.0.get(key).map_or(DEFAULT, String::as_str)
    }
}

/// The origin of what no layer sets.
const DEFAULT: &str = "default";

/// Where a value of the layers comes from.
pub(super) fn origin(value: Option<&Value>) -> String {
    value
        .map_or(DEFAULT, |value| value.origin().unwrap_or_default())
        .to_owned()
}

/// The settings as a tree, secrets masked.
#[expect(
    clippy::expect_used,
    reason = "strings, numbers and tables always make JSON"
)]
pub(super) fn tree(settings: &Settings) -> Json {
    serde_json::to_value(settings).expect("settings make JSON")
}

/// Overlays the defaults with the values. A value that is not valid becomes a
/// problem, and its default stays.
///
/// `defaults` must contain no secret: the tree would contain its mask.
pub(super) fn settle(
    defaults: &Settings,
    keys: &Keys,
    layer: Layer,
    problems: &mut Vec<Problem>,
) -> (Settings, Origins) {
    let mut settling = Settling {
        tree: tree(defaults),
        overlaid: BTreeMap::new(),
        origins: Origins::default(),
        problems: BTreeMap::new(),
    };
    for (key, value) in layer {
        settling.set(keys, key, value);
    }
    let settings = settling.deserialize(defaults);
    problems.extend(settling.problems.into_values().flatten());
    (settings, settling.origins)
}

struct Settling {
    tree: Json,
    /// The defaults of the keys that were set.
    overlaid: BTreeMap<String, Json>,
    origins: Origins,
    /// By key, so that they are reported in the order of the keys.
    problems: BTreeMap<String, Vec<Problem>>,
}

impl Settling {
    fn set(&mut self, keys: &Keys, key: String, value: Value) {
        self.origins.0.insert(key.clone(), origin(Some(&value)));
        let given = to_json(value);
        let checked = value_rules::check_given(&key, &given);
        let converted = match checked.and_then(|()| keys.convert(&key, &given)) {
            Ok(converted) => converted,
            Err(rule) => return self.reject(&key, &given, rule),
        };
        if let Err(rule) = value_rules::check(&key, &converted) {
            return self.reject(&key, &converted, &rule);
        }
        let default = std::mem::replace(keys::place(&mut self.tree, &key), converted);
        self.overlaid.insert(key, default);
    }

    /// Deserializes the tree. A value that its type rejects is replaced by its
    /// default, so that the next attempt finds the next such value.
    fn deserialize(&mut self, defaults: &Settings) -> Settings {
        loop {
            let fault = match Settings::deserialize(Node(&self.tree)) {
                Ok(settings) => return settings,
                Err(fault) => fault,
            };
            let rejected = keys::value_at(&self.tree, &fault.key).clone();
            self.reject(&fault.key, &rejected, &fault.rules);
            match self.overlaid.remove(&fault.key) {
                Some(default) => *keys::place(&mut self.tree, &fault.key) = default,
                // The default itself is rejected; there is nothing to replace it with.
                None => return defaults.clone(),
            }
        }
    }

    fn reject(&mut self, key: &str, value: &Json, rules: &str) {
        let problems = rules.lines().map(|rule| Problem::Value {
            key: key.to_owned(),
            value: keys::shown(key, value),
            origin: self.origins.of(key).to_owned(),
            rule: rule.to_owned(),
        });
        self.problems.insert(key.to_owned(), problems.collect());
    }
}

fn to_json(value: Value) -> Json {
    match value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => flag.into(),
        ValueKind::I64(number) => number.into(),
        ValueKind::U64(number) => number.into(),
        ValueKind::Float(number) => number.into(),
        ValueKind::I128(number) => number.to_string().into(),
        ValueKind::U128(number) => number.to_string().into(),
        ValueKind::String(text) => text.into(),
        ValueKind::Table(table) => {
            let pairs = table
                .into_iter()
                .map(|(name, inner)| (name, to_json(inner)));
            Json::Object(pairs.collect())
        }
        ValueKind::Array(items) => items.into_iter().map(to_json).collect(),
    }
}

/// A tree whose deserialization names the key of a value that its type rejects,
/// which `serde_json` does not.
#[derive(Clone, Copy)]
struct Node<'de>(&'de Json);

/// The entries of a table.
struct Entries<'de> {
    rest: serde_json::map::Iter<'de>,
    /// The entry whose name has been read and whose value has not.
    current: Option<(&'de str, Node<'de>)>,
}

/// The key of a rejected value and the rules that it breaks, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {rules}")]
struct Fault {
    key: String,
    rules: String,
}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(text: T) -> Self {
        Self {
            key: String::new(),
            rules: rules_of(text.to_string()),
        }
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        de::Error::custom(error)
    }
}

/// The rules behind an error of a type: those of `values` are rules already;
/// serde's own name what was expected.
fn rules_of(text: String) -> String {
    match text.rsplit_once("expected ") {
        Some((_, expected)) if !text.contains("must ") => format!("must be {expected}"),
        Some(_) | None => text,
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Json::Object(table) = self.0 else {
            return Ok(self.0.deserialize_any(visitor)?);
        };
        visitor.visit_map(Entries {
            rest: table.iter(),
            current: None,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        Ok(self.0.deserialize_enum(name, variants, visitor)?)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.current = Some((name, Node(value)));
        let name: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.current.take().unwrap_or(("", Node(&Json::Null)));
        seed.deserialize(value).map_err(|fault| Fault {
            key: if fault.key.is_empty() {
                name.to_owned()
            } else {
                keys::joined(name, &fault.key)
            },
            ..fault
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_key_of_the_rejected_value() {
        let mut tree = tree(&Settings::default());
        *keys::place(&mut tree, "topics.command_status.key") = Json::from("name");
        let fault = Settings::deserialize(Node(&tree)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "topics.command_status.key: must be `request-id` or `device-id`"
        );
    }
}
