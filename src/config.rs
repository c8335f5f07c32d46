//! Every setting: its key, its default, the layers it can come from, and the
//! rules it must keep.
//!
//! The only place that knows these things. Reads files and is given the
//! environment; knows nothing of what the settings are for.
//!
//! ```text
//! files, environment, --set ─ layers ─▶ values by key ─ settle ─▶ Settings
//!                               │                         │ types: values, options
//!                             keys                        │ rules: rules
//! ```

mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod keys;
mod layers;
mod options;
mod properties;
mod rules;
mod secret;
mod sections;
mod settle;
mod telemetry;
#[cfg(test)]
mod tests;
mod value_rules;
mod values;
mod yaml;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use error::Problem;
use keys::Keys;

pub use error::ConfigError;
pub(crate) use properties::Clients;
pub(crate) use rules::SPOOL_TIME_MS;
pub(crate) use secret::{MASK, Secret};
#[cfg(test)]
pub(crate) use sections::Basic;
pub(crate) use sections::{
    Admin, Auth, ClientAddress, Limits, LogFormat, LogLevel, Shutdown, Spool, Streams, Telemetry,
    Tls, UnreadablePolicy,
};
pub use sections::{Http, Kafka, Log, Topics};
pub(crate) use telemetry::{Endpoint, Ratio, SecretHeader};
pub use values::Millis;
pub(crate) use values::PathTemplate;

/// The settings of the process. Loaded settings keep every rule, so nothing
/// that reads them has to check them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The listener for the platform's pushes.
    pub http: Http,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) spool: Spool,
    /// The brokers, and how librdkafka talks to them.
    pub kafka: Kafka,
    /// The names and settings of the topics on the cluster.
    pub topics: Topics,
    pub(crate) admin: Admin,
    pub(crate) telemetry: Telemetry,
    /// The format and level of log lines.
    pub log: Log,
    pub(crate) shutdown: Shutdown,
    pub(crate) streams: Streams,
}

/// The layers above the built-in defaults, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// TOML, YAML or JSON, as the extension says; a later file overrides an
    /// earlier one.
    pub files: Vec<PathBuf>,
    /// Environment variables; only names that begin with `NORTHBRIDGE__` count.
    pub environment: Vec<(OsString, OsString)>,
    /// Texts of the form `key=value`.
    pub overrides: Vec<String>,
    /// The value of the flag `--kafka`: `kafka.bootstrap_servers`.
    pub kafka: Option<String>,
}

impl Settings {
    /// Reads all layers over the built-in defaults.
    ///
    /// # Errors
    ///
    /// Returns every unknown key and every value that is not valid, at once. If
    /// there are none, returns every broken rule between settings.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_over(&Self::default(), sources)
    }

    /// Reads all layers over other defaults, which must contain no secret.
    ///
    /// # Errors
    ///
    /// The same as of [`Settings::load`].
    pub fn load_over(defaults: &Self, sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, origins) = Self::read(defaults, sources)?;
        let problems = rules::broken(&settings, &origins);
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(ConfigError { problems })
    }

    /// Like [`Settings::load`], without the rules between settings: for a command that
    /// asks another process, and may not be given every layer of it.
    ///
    /// # Errors
    ///
    /// Returns every unknown key and every value that is not valid, at once.
    pub fn load_values(sources: &Sources) -> Result<Self, ConfigError> {
        Self::read(&Self::default(), sources).map(|(settings, _)| settings)
    }

    /// Returns the values of these keys, secrets masked; null if a key has none.
    pub(crate) fn values_of<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a &'a str>,
    ) -> BTreeMap<String, serde_json::Value> {
        let tree = settle::tree(self);
        let value = |key: &&str| ((*key).to_owned(), keys::value_at(&tree, key).clone());
        keys.into_iter().map(value).collect()
    }

    /// Returns the keys whose values differ in `other`, in alphabetical order.
    pub(crate) fn changed_keys(&self, other: &Self) -> Vec<String> {
        let keys = |settings: &Self| Keys::of(&settle::tree(settings));
        let mut changed = keys(self).differing(&keys(other));
        let (auth, new) = (&self.auth, &other.auth);
        let secrets = [
            (
                "auth.basic.password",
                auth.basic.password != new.basic.password,
            ),
            (
                "auth.basic.username",
                auth.basic.username != new.basic.username,
            ),
            ("auth.token", auth.token != new.token),
            (
                "telemetry.headers",
                self.telemetry.headers != other.telemetry.headers,
            ),
        ];
        let secrets = secrets.iter().filter(|(_, differs)| *differs);
        changed.extend(secrets.map(|(key, _)| (*key).to_owned()));
        if self.kafka.options != other.kafka.options {
            changed.push("kafka.options".to_owned());
        }
        changed.sort();
        changed.dedup();
        changed
    }

    fn read(defaults: &Self, sources: &Sources) -> Result<(Self, settle::Origins), ConfigError> {
        let mut problems = Vec::new();
        let keys = Keys::of(&settle::tree(defaults));
        let layers = layers::read(sources, &keys, &mut problems);
        let settled = settle::settle(defaults, &keys, layers, &mut problems);
        if problems.is_empty() {
            return Ok(settled);
        }
        Err(ConfigError { problems })
    }

    /// The error that librdkafka rejects these options, or their combination, for a
    /// reason that only a client shows. `sources` are those of the settings.
    pub fn rejected_options(&self, sources: &Sources, names: &[String], rule: &str) -> ConfigError {
        let tree = settle::tree(self);
        let layers = layers::read(sources, &Keys::of(&tree), &mut Vec::new());
        let problem = |name: &String| {
            let key = keys::option_key(name);
            Problem::Value {
                value: keys::shown(&key, keys::value_at(&tree, &key)),
                origin: settle::origin(layers.get(&key)),
                rule: rule.to_owned(),
                key,
            }
        };
        let mut problems: Vec<Problem> = names.iter().map(problem).collect();
        if problems.is_empty() {
            problems.push(Problem::Options(rule.to_owned()));
        }
        ConfigError { problems }
    }

    /// The settings as TOML, secrets masked. Without secrets, it loads to the
    /// same settings again.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "strings, numbers and tables always make TOML"
    )]
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::try_from(self).expect("settings make TOML");
        // A protection that is off has no value: an empty one is an error.
        if let Some(toml::Value::Table(auth)) = table.get_mut("auth") {
            remove_empty(auth);
        }
        toml::to_string(&table).expect("settings make TOML")
    }
}

/// Removes empty lists, and then empty tables.
fn remove_empty(table: &mut toml::Table) {
    table.retain(|_, value| match value {
        toml::Value::Array(items) => !items.is_empty(),
        toml::Value::Table(inner) => {
            remove_empty(inner);
            !inner.is_empty()
        }
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => true,
    });
}
