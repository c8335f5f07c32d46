//! Every setting: its key, its default, the layers it can come from, and the checks
//! between settings.
//!
//! The only place that knows these things. It reads files and is given the environment;
//! it knows nothing of what the settings are for.

mod error;
mod layers;
mod options;
mod rules;
mod schema;
mod secret;
mod sections;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use schema::Schema;

pub use error::{ConfigError, Problem};
pub use options::KafkaOptions;
pub use secret::{MASK, Secret};
pub use sections::{
    Admin, Auth, Basic, ClientAddress, CommandStatusStream, CommandStatusTopic, CompactedTopic,
    Http, Kafka, Limits, Log, LogFormat, LogLevel, Millis, RetainedTopic, Shutdown, Streams, Tls,
    Topics, Unreadable, UpgradeResultStream,
};

/// The settings of the process, each within its bounds and in accord with the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The listener for the platform's pushes.
    pub http: Http,
    /// Encryption of that listener.
    pub tls: Tls,
    /// Who may push.
    pub auth: Auth,
    /// What is refused rather than held.
    pub limits: Limits,
    /// The way to Kafka.
    pub kafka: Kafka,
    /// The topics and what each must be.
    pub topics: Topics,
    /// The listener for probes and metrics.
    pub admin: Admin,
    /// What the process writes about itself.
    pub log: Log,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// The two streams.
    pub streams: Streams,
}

/// Where settings come from, over the built-in defaults; what stands later wins.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// TOML, YAML or JSON, told apart by extension.
    pub files: Vec<PathBuf>,
    /// Environment variables; only those that begin with `NORTHBRIDGE__` are looked at.
    pub environment: Vec<(String, String)>,
    /// Texts of the form `key=value`.
    pub overrides: Vec<String>,
}

impl Settings {
    /// Reads all layers and checks the outcome.
    ///
    /// # Errors
    /// Names every unknown key and unusable value at once; the checks between settings
    /// are made, and all of them named, when each value by itself is sound.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_over(&Self::default(), sources)
    }

    /// Reads all layers over other defaults than the built-in ones.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_over(defaults: &Self, sources: &Sources) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let schema = Schema::new(defaults);
        let layers = layers::read(sources, &schema, &mut problems);
        let (settings, origins) = schema::settle(&schema, layers, &mut problems);
        if problems.is_empty() {
            problems = rules::broken(&settings, &origins);
        }
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(ConfigError { problems })
    }

    /// The settings as TOML, secrets masked; without secrets it loads to the same
    /// settings again.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "texts, numbers and tables always make TOML"
    )]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings make TOML")
    }
}
