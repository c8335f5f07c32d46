//! Which keys there are, and what each of them is.
//!
//! The keys are the fields of the default settings, so there is no second list
//! to maintain. Knows nothing of where values come from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::options;
use super::secret::MASK;

/// The keys of secrets: each accepts one string or a list of them.
const SECRETS: &[&str] = &[
    "auth.basic.username",
    "auth.basic.password",
    "auth.token",
    "telemetry.headers",
];

/// The key whose value may have credentials in it by mistake.
const ENDPOINT: &str = "telemetry.otlp_endpoint";

/// The section whose keys are librdkafka's.
const OPTIONS: &str = "kafka.options";

/// The key that accepts a list but keeps one string, as librdkafka does.
pub(super) const SERVERS: &str = "kafka.bootstrap_servers";

/// The least similarity (1 is equality) at which a key is suggested for another.
const MIN_SIMILARITY: f64 = 0.5;

/// All keys, with the default of each that has a value.
pub(super) struct Keys {
    sections: BTreeSet<String>,
    defaults: BTreeMap<String, Json>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Section,
    Value,
    /// A librdkafka property, or the beginning of the name of one.
    Option,
    Unknown,
}

impl Keys {
    /// The keys of a tree of default settings.
    pub(super) fn of(defaults: &Json) -> Self {
        let mut keys = Self {
            sections: BTreeSet::new(),
            defaults: BTreeMap::new(),
        };
        keys.add("", defaults);
        keys
    }

    fn add(&mut self, key: &str, value: &Json) {
        let Json::Object(table) = value else {
            self.defaults.insert(key.to_owned(), value.clone());
            return;
        };
        for (name, inner) in table {
            self.add(&joined(key, name), inner);
        }
        if !key.is_empty() {
            self.sections.insert(key.to_owned());
        }
    }

    pub(super) fn kind(&self, key: &str) -> Kind {
        if self.defaults.contains_key(key) {
            Kind::Value
        } else if self.sections.contains(key) {
            Kind::Section
        } else if option_name(key).is_some() {
            Kind::Option
        } else {
            Kind::Unknown
        }
    }

    /// The key whose words a variable's name has, with `_file` at its end if the name has
    /// that. `words` are joined by underscores of any number.
    pub(super) fn of_words(&self, words: &str) -> Option<String> {
        let words = words.to_lowercase().replace("__", "_");
        let options = format!("{}_", OPTIONS.replace('.', "_"));
        let (stem, ending) = match words.strip_suffix("_file") {
            Some(stem) => (stem, "_file"),
            None => (words.as_str(), ""),
        };
        if let Some(name) = stem.strip_prefix(&options) {
            return Some(option_key(&name.replace('_', ".")) + ending);
        }
        let of = |words: &str| {
            let mut keys = self.defaults.keys();
            keys.find(|key| key.replace('.', "_") == words).cloned()
        };
        of(&words).or_else(|| Some(of(stem)? + ending))
    }

    /// The keys whose values differ in `other`, secrets aside, which look alike.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let all = self.defaults.keys().chain(other.defaults.keys());
        let differs = |key: &&String| self.defaults.get(*key) != other.defaults.get(*key);
        all.filter(differs).cloned().collect()
    }

    /// Returns whether the value of the key is a number.
    pub(super) fn is_number(&self, key: &str) -> bool {
        matches!(self.defaults.get(key), Some(Json::Number(_)))
    }

    /// Returns whether the value of the key is a number that need not be whole.
    pub(super) fn is_fraction(&self, key: &str) -> bool {
        matches!(self.defaults.get(key), Some(Json::Number(default)) if default.is_f64())
    }

    /// The known key that is most similar to this one, if any is similar enough.
    pub(super) fn nearest(&self, key: &str) -> Option<&str> {
        let known = self.defaults.keys().chain(&self.sections);
        let rated = known.map(|name| (strsim::normalized_damerau_levenshtein(key, name), name));
        let best = rated.max_by(|one, other| one.0.total_cmp(&other.0))?;
        (best.0 >= MIN_SIMILARITY).then_some(best.1)
    }

    /// Converts a value to the JSON type of its key: strings, as all values of
    /// the environment are, become numbers and lists.
    ///
    /// # Errors
    ///
    /// Returns the rule that the value breaks.
    pub(super) fn convert(&self, key: &str, value: &Json) -> Result<Json, &'static str> {
        match self.defaults.get(key) {
            Some(_) if self.is_fraction(key) => {
                fraction(value).ok_or("must be a number such as 0.5")
            }
            Some(Json::Number(_)) => whole_number(value).ok_or("must be a whole number"),
            Some(Json::Array(_)) => {
                list(value, is_secret(key)).ok_or("must be a string or a list of strings")
            }
            Some(_) if key == SERVERS => {
                joined_list(value).ok_or("must be a string or a list of strings")
            }
            Some(_) => string(value).ok_or("must be a string"),
            None => scalar(value),
        }
    }

    /// Every key that has a value, with its default: null if there is none.
    #[cfg(test)]
    pub(super) fn defaults(&self) -> &BTreeMap<String, Json> {
        &self.defaults
    }
}

/// The key of a name in a section; the root is the section without a name.
pub(super) fn joined(section: &str, name: &str) -> String {
    if section.is_empty() {
        return name.to_owned();
    }
    format!("{section}.{name}")
}

/// Returns whether the value of the key is a secret or a list of secrets.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Returns whether the value of the key must never be shown.
pub(super) fn is_any_secret(key: &str) -> bool {
    is_secret(key) || option_name(key).is_some_and(options::is_secret)
}

/// Returns whether the value of the key is a PEM text, which ends with a line break.
pub(super) fn is_pem(key: &str) -> bool {
    key.rsplit('.').next() == Some("pem")
}

/// Returns whether the key is that of a protection: a value that is missing there by
/// mistake would leave the listener open.
pub(super) fn is_protection(key: &str) -> bool {
    key == "auth" || key.starts_with("auth.")
}

/// The librdkafka property that the key names.
pub(super) fn option_name(key: &str) -> Option<&str> {
    key.strip_prefix(OPTIONS)?.strip_prefix('.')
}

/// The key of a librdkafka property.
pub(super) fn option_key(name: &str) -> String {
    joined(OPTIONS, name)
}

/// The value at a key of a tree; null if there is none.
pub(super) fn value_at<'a>(tree: &'a Json, key: &str) -> &'a Json {
    match option_name(key) {
        Some(name) => &value_at(tree, OPTIONS)[name],
        None => key.split('.').fold(tree, |inner, name| &inner[name]),
    }
}

/// The place of a key's value in a tree.
pub(super) fn place<'a>(tree: &'a mut Json, key: &str) -> &'a mut Json {
    match option_name(key) {
        Some(name) => &mut place(tree, OPTIONS)[name],
        None => key.split('.').fold(tree, |inner, name| &mut inner[name]),
    }
}

/// The value as a message may show it: secrets are masked.
pub(super) fn shown(key: &str, value: &Json) -> String {
    masked(key, value.to_string())
}

/// The text of a value, or the mask if it is a secret.
pub(super) fn masked(key: &str, text: String) -> String {
    if is_any_secret(key) || (key == ENDPOINT && text.contains('@')) {
        return MASK.to_owned();
    }
    text
}

fn whole_number(value: &Json) -> Option<Json> {
    match value {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().parse::<u64>().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
    .map(Json::from)
}

fn fraction(value: &Json) -> Option<Json> {
    let number = match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    number.filter(|number| number.is_finite()).map(Json::from)
}

/// A list of strings. One string is split at its commas, except a secret: it
/// may contain one.
fn list(value: &Json, is_secret: bool) -> Option<Json> {
    match value {
        Json::Array(items) => items.iter().map(string).collect::<Option<Vec<_>>>(),
        Json::String(one) if is_secret => Some(vec![Json::from(one.as_str())]),
        Json::String(many) => Some(many.split(',').map(|one| Json::from(one.trim())).collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => None,
    }
    .map(Json::Array)
}

fn joined_list(value: &Json) -> Option<Json> {
    let Json::Array(items) = value else {
        return string(value);
    };
    let texts: Option<Vec<&str>> = items.iter().map(Json::as_str).collect();
    texts.map(|texts| Json::from(texts.join(",")))
}

fn string(value: &Json) -> Option<Json> {
    value.is_string().then(|| value.clone())
}

/// A librdkafka option: librdkafka accepts every value as a string. A fraction or an
/// exponent may have been written in another way than it would be passed.
fn scalar(value: &Json) -> Result<Json, &'static str> {
    match value {
        Json::String(_) => Ok(value.clone()),
        Json::Number(number) if number.is_f64() => Err("must be quoted"),
        Json::Bool(_) | Json::Number(_) => Ok(Json::from(value.to_string())),
        Json::Null | Json::Array(_) | Json::Object(_) => Err("must be a single value"),
    }
}
