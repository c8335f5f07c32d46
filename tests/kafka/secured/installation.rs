//! One installation on the secured cluster, with a user for each command.

use std::process::Output;

use serde_json::Value;

use super::rights::documented;
use super::sessions::log_sessions;
use crate::support::bodies;
use crate::support::kafka_cluster::secured::{self, Right, User};
use crate::support::kafka_cluster::unique_prefix;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, produce};

/// A way to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Scram256,
    Scram512,
    Certificate,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [
        Self::Plain,
        Self::Scram256,
        Self::Scram512,
        Self::Certificate,
    ];

    fn mechanism(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram256 => "SCRAM-SHA-256",
            Self::Scram512 => "SCRAM-SHA-512",
            Self::Certificate => panic!("certificates need no SASL"),
        }
    }

    /// Returns whether the broker ends sessions that are not renewed.
    pub(super) fn has_sessions(self) -> bool {
        self == Self::Scram256
    }
}

/// Settings by key.
pub(super) type Settings = Vec<(String, String)>;

/// How a user reaches the cluster.
pub(super) fn access(user: &User, way: Way) -> Settings {
    let cluster = secured::cluster();
    let authority = cluster.authority();
    let mut settings = vec![(
        "kafka.options.ssl.ca.location".to_owned(),
        authority.ca_file().display().to_string(),
    )];
    let mut set = |key: &str, value: &str| settings.push((key.to_owned(), value.to_owned()));
    if way == Way::Certificate {
        let (certificate, key) = authority.named_client(&user.name);
        set("kafka.bootstrap_servers", &cluster.certificates());
        set("kafka.options.security.protocol", "ssl");
        let location = "kafka.options.ssl.certificate.location";
        set(location, &certificate.display().to_string());
        let location = "kafka.options.ssl.key.location";
        set(location, &key.display().to_string());
    } else {
        set("kafka.bootstrap_servers", &cluster.sasl());
        set("kafka.options.security.protocol", "sasl_ssl");
        set("kafka.options.sasl.mechanism", way.mechanism());
        set("kafka.options.sasl.username", &user.name);
        set("kafka.options.sasl.password", &user.password);
    }
    settings
}

/// An installation with topics of its own.
pub(super) struct Installation {
    pub(super) prefix: String,
    /// `streams.group_prefix`.
    pub(super) groups: String,
    pub(super) way: Way,
}

impl Installation {
    pub(super) fn new(test: &str, way: Way) -> Self {
        Self {
            prefix: unique_prefix(test),
            groups: "northbridge.".to_owned(),
            way,
        }
    }

    /// Like [`Installation::new`], with its topics.
    pub(super) fn with_topics(test: &str, way: Way) -> Self {
        let installation = Self::new(test, way);
        installation.create_topics();
        installation
    }

    pub(super) fn create_topics(&self) {
        let created = self.run_as("topics create", &["topics", "create"]);
        assert_eq!(created.status.code(), Some(0), "{created:?}");
    }

    /// Runs a one-shot command as a user with the rights that are documented
    /// for `command`.
    pub(super) fn run_as(&self, command: &str, arguments: &[&str]) -> Output {
        let user = user_with(&self.rights(command));
        run(arguments, &borrowed(&self.settings(&user)))
    }

    /// Starts a command as a user with the rights that are documented for it.
    pub(super) fn start_as(&self, command: &str) -> Northbridge {
        let user = user_with(&self.rights(command));
        let mut settings = self.settings(&user);
        if self.way.has_sessions() {
            log_sessions(&mut settings);
        }
        start(command, &settings)
    }

    pub(super) fn rights(&self, command: &str) -> Vec<Right> {
        documented(command, &self.prefix, &self.groups)
    }

    /// The settings of this installation for one user.
    pub(super) fn settings(&self, user: &User) -> Settings {
        let mut settings = access(user, self.way);
        let own = [
            ("topics.prefix", self.prefix.as_str()),
            ("streams.group_prefix", &self.groups),
            ("topics.partitions", "2"),
            ("topics.replication_factor", "1"),
            ("topics.min_insync_replicas", "1"),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ];
        settings.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        settings
    }

    /// Pushes, verifies what is stored and the states, and returns the answers by
    /// code. Lasts long enough that sessions end meanwhile, if they do.
    ///
    /// # Panics
    ///
    /// Panics if something is missing or wrong.
    pub(super) fn simulate(&self, ingress: &Northbridge) -> Value {
        let mut rights = self.rights("simulate --verify");
        rights.extend(self.rights("simulate --verify-state"));
        let settings = self.settings(&user_with(&rights));
        let bootstrap = &settings
            .iter()
            .find(|(key, _)| key == "kafka.bootstrap_servers")
            .unwrap()
            .1;
        let url = format!("http://{}/notifications", ingress.address());
        let duration = if self.way.has_sessions() {
            "--duration=13s"
        } else {
            "--duration=1s"
        };
        let mut arguments = vec!["simulate", url.as_str(), "--verify", bootstrap, duration];
        arguments.extend(["--rate=50", "--json", "--verify-state"]);
        let output = run(&arguments, &borrowed(&settings));
        assert_eq!(output.status.code(), Some(0), "{:?}: {output:?}", self.way);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        summary["answers"].clone()
    }

    /// Writes a dead letter that a replay can send.
    pub(super) fn write_readable_dead_letter(&self) {
        let body = bodies::message_confirm("replayed", "device", "sent");
        let letter = NewRecord::keyed("replayed", body)
            .with_header("ce_source", "/notifications")
            .with_header("ce_time", "2026-01-01T00:00:00.125Z")
            .with_header("northbridge-reason", "not-gzip");
        let topic = format!("{}dead-letter", self.prefix);
        produce(&secured::cluster().bootstrap(), &topic, &[letter]);
    }
}

/// Starts a command with these settings.
pub(super) fn start(command: &str, settings: &Settings) -> Northbridge {
    Northbridge::start(&[command], &borrowed(settings))
}

/// Sets a key, or changes its value.
pub(super) fn set(settings: &mut Settings, key: &str, value: &str) {
    settings.retain(|(found, _)| found != key);
    settings.push((key.to_owned(), value.to_owned()));
}

pub(super) fn borrowed(settings: &Settings) -> Vec<(&str, &str)> {
    settings
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// A user with these rights.
pub(super) fn user_with(rights: &[Right]) -> User {
    let user = secured::cluster().user();
    secured::cluster().allow(&user, rights);
    user
}
