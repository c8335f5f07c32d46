//! Which keys there are, and the way from their values to the settings.
//!
//! The keys are those of the default settings, so that no list of them is kept twice.
//! Knows nothing of where values come from, and leaves rules to `rules`.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};
use serde::Deserialize;
use serde_json::Value as Json;

use super::Settings;
use super::error::Problem;
use super::layers::Layer;
use super::secret::MASK;
use super::{options, rules};

/// The keys that hold secrets: each takes one text or a list of them.
const SECRET_LISTS: &[&str] = &["auth.basic.username", "auth.basic.password", "auth.token"];

/// The one section whose keys are not ours.
const OPTIONS: &str = "kafka.options";

/// The one key that takes a list and keeps it as one text, as librdkafka does.
const SERVERS: &str = "kafka.bootstrap_servers";

/// How alike two keys must be (1 is equal) for one to be suggested for the other.
const ALIKE: f64 = 0.5;

/// The keys and what kind of value each has by default.
pub(super) struct Schema {
    sections: BTreeSet<String>,
    leaves: BTreeMap<String, Json>,
    defaults: Json,
    settings: Settings,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Section,
    Leaf,
    /// A librdkafka property, or what its name begins with.
    Option,
    Unknown,
}

/// Where the values that were set come from.
#[derive(Default)]
pub(super) struct Origins(BTreeMap<String, String>);

impl Schema {
    /// The keys of `defaults`, which are also the lowest layer.
    pub(super) fn new(defaults: &Settings) -> Self {
        let settings = defaults.clone();
        let defaults = tree(defaults);
        let mut schema = Self {
            sections: BTreeSet::new(),
            leaves: BTreeMap::new(),
            defaults: defaults.clone(),
            settings,
        };
        schema.learn("", defaults);
        schema
    }

    fn learn(&mut self, key: &str, value: Json) {
        let Json::Object(table) = value else {
            self.leaves.insert(key.to_owned(), value);
            return;
        };
        for (name, inner) in table {
            self.learn(&joined(key, &name), inner);
        }
        if !key.is_empty() {
            self.sections.insert(key.to_owned());
        }
    }

    pub(super) fn kind(&self, key: &str) -> Kind {
        if self.leaves.contains_key(key) {
            Kind::Leaf
        } else if self.sections.contains(key) {
            Kind::Section
        } else if option_name(key).is_some() {
            Kind::Option
        } else {
            Kind::Unknown
        }
    }

    /// The known key that looks most like this one, if any does.
    pub(super) fn nearest(&self, key: &str) -> Option<&str> {
        let known = self.leaves.keys().chain(&self.sections);
        let rated = known.map(|name| (strsim::normalized_damerau_levenshtein(key, name), name));
        let best = rated.max_by(|one, other| one.0.total_cmp(&other.0))?;
        (best.0 >= ALIKE).then_some(best.1)
    }

    /// Gives a value the type that its key has: texts, as all values of the environment
    /// are, become numbers and lists.
    fn shape(&self, key: &str, value: &Json) -> Result<Json, String> {
        match self.leaves.get(key) {
            Some(Json::Number(_)) => {
                whole_number(value).ok_or_else(|| "must be a whole number".to_owned())
            }
            Some(Json::Array(_)) => list(value, is_secret(key))
                .ok_or_else(|| "must be a text or a list of texts".to_owned()),
            Some(_) if key == SERVERS => {
                joined_list(value).ok_or_else(|| "must be a text or a list of texts".to_owned())
            }
            Some(_) => text(value).ok_or_else(|| "must be a text".to_owned()),
            None => scalar_text(value).ok_or_else(|| "must be a single value".to_owned()),
        }
    }

    /// Every key with its default: null where there is none.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> &BTreeMap<String, Json> {
        &self.leaves
    }
}

impl Origins {
    /// Where the key's value comes from.
    pub(super) fn of(&self, key: &str) -> &str {
        self.0.get(key).map_or("default", String::as_str)
    }
}

/// The settings that the values make over the defaults. A value that cannot be used is a
/// problem, and what stood before it stands.
pub(super) fn settle(
    schema: &Schema,
    layer: Layer,
    problems: &mut Vec<Problem>,
) -> (Settings, Origins) {
    let mut state = (schema.defaults.clone(), schema.settings.clone());
    let mut origins = BTreeMap::new();
    for (key, value) in layer {
        let origin = value.origin().unwrap_or_default().to_owned();
        let given = to_json(value);
        let shaped = schema.shape(&key, &given);
        let json = shaped.clone().unwrap_or(given);
        match shaped.and_then(|json| with_value(&state.0, &key, json)) {
            Ok(next) => state = next,
            Err(rule) => problems.push(Problem::Value {
                value: shown(&key, &json),
                key: key.clone(),
                origin: origin.clone(),
                rule,
            }),
        }
        origins.insert(key, origin);
    }
    (state.1, Origins(origins))
}

/// The settings as a tree, secrets masked.
#[expect(
    clippy::expect_used,
    reason = "texts, numbers and tables always make JSON"
)]
pub(super) fn tree(settings: &Settings) -> Json {
    serde_json::to_value(settings).expect("settings make JSON")
}

/// The value at a key of a tree.
pub(super) fn at<'a>(tree: &'a Json, key: &str) -> &'a Json {
    key.split('.').fold(tree, |inner, name| &inner[name])
}

/// The key of a name in a section; the section of all sections has no name.
pub(super) fn joined(section: &str, name: &str) -> String {
    if section.is_empty() {
        return name.to_owned();
    }
    format!("{section}.{name}")
}

/// Whether the key holds secrets, one or a list of them.
pub(super) fn is_secret(key: &str) -> bool {
    SECRET_LISTS.contains(&key)
}

/// The value as a message may show it.
pub(super) fn shown(key: &str, value: &Json) -> String {
    if is_secret(key) || option_name(key).is_some_and(options::is_secret) {
        return MASK.to_owned();
    }
    value.to_string()
}

/// The tree with the value in its place, and the settings it makes.
fn with_value(tree: &Json, key: &str, value: Json) -> Result<(Json, Settings), String> {
    rules::value(key, &value)?;
    let mut next = tree.clone();
    *place(&mut next, key) = value;
    let settings = Settings::deserialize(&next).map_err(|error| rule_of(&error))?;
    Ok((next, settings))
}

fn place<'a>(tree: &'a mut Json, key: &str) -> &'a mut Json {
    if let Some(name) = option_name(key) {
        return &mut place(tree, OPTIONS)[name];
    }
    key.split('.').fold(tree, |inner, name| &mut inner[name])
}

/// The librdkafka property that the key names.
pub(super) fn option_name(key: &str) -> Option<&str> {
    key.strip_prefix(OPTIONS)?.strip_prefix('.')
}

/// The rule behind a value that a type refused: the types of this module say it in full,
/// serde says what it expected.
fn rule_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once("expected ") {
        Some((_, expected)) if !text.starts_with("must ") => format!("must be {expected}"),
        Some(_) | None => text,
    }
}

fn whole_number(value: &Json) -> Option<Json> {
    match value {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().parse::<u64>().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
    .map(Json::from)
}

/// A list of texts; one text is split at its commas, or a list of one where it is a
/// secret, which may hold a comma.
fn list(value: &Json, is_secret: bool) -> Option<Json> {
    match value {
        Json::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>(),
        Json::String(one) if is_secret => Some(vec![Json::from(one.as_str())]),
        Json::String(many) => Some(many.split(',').map(|one| Json::from(one.trim())).collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => None,
    }
    .map(Json::Array)
}

fn joined_list(value: &Json) -> Option<Json> {
    let Json::Array(items) = value else {
        return text(value);
    };
    let texts: Option<Vec<&str>> = items.iter().map(Json::as_str).collect();
    texts.map(|texts| Json::from(texts.join(",")))
}

fn text(value: &Json) -> Option<Json> {
    value.is_string().then(|| value.clone())
}

fn scalar_text(value: &Json) -> Option<Json> {
    match value {
        Json::String(_) => Some(value.clone()),
        Json::Bool(_) | Json::Number(_) => Some(Json::from(value.to_string())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
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
