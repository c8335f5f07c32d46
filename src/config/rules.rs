//! The rules that values and their combinations must keep.
//!
//! A rule about one key is checked where its value is set, a rule between keys once all
//! are known. What a rule needs to know of the outside world stands in its text.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value as Json;

use super::error::Problem;
use super::schema::{self, Origins};
use super::secret::MASK;
use super::{Auth, ClientAddress, Http, Settings, Streams, Tls, Topics, options};

/// Numbers with bounds of their own: key, least, most, and why. All others are at least 1
/// and fit into 32 bits.
const BOUNDS: &[(&str, u64, u64, &str)] = &[
    ("http.max_body_bytes", 1, 16 << 20, ""),
    ("http.max_head_bytes", 8 << 10, 1 << 20, ""),
    (
        "http.answer_deadline_ms",
        1,
        14_000,
        ", because the sender gives up after 15 s",
    ),
    ("topics.partitions", 1, 10_000, ""),
    ("topics.replication_factor", 1, 32_767, ""),
    ("topics.min_insync_replicas", 1, 32_767, ""),
    ("shutdown.announce_ms", 0, LARGEST, ""),
    ("shutdown.idle_ms", 0, LARGEST, ""),
    ("streams.max_batch_records", 1, 100_000, ""),
    ("streams.max_batch_wait_ms", 1, 10_000, ""),
    (
        "streams.transaction_timeout_ms",
        10_000,
        900_000,
        ", the range that brokers take by default",
    ),
    (
        "streams.session_timeout_ms",
        6_000,
        1_800_000,
        ", the range that brokers take by default",
    ),
];

const LARGEST: u64 = 0xffff_ffff;

/// The most secrets of a kind that are valid at a time: the old and the new one of a
/// rotation.
const SECRETS_AT_A_TIME: usize = 2;

/// The segment of a path in whose place the secret token stands.
const TOKEN: &str = "{token}";

/// Checks one value, whose type is right, against the rules of its key.
///
/// # Errors
/// The rule that the value breaks.
pub(super) fn value(key: &str, value: &Json) -> Result<(), String> {
    if let Some(name) = schema::option_name(key) {
        return option(name, value);
    }
    match value {
        Json::Number(number) => bounds(key, number.as_u64().unwrap_or_default()),
        Json::Array(items) if schema::is_secret(key) => secrets(items),
        Json::String(text) if text.is_empty() && key != "topics.prefix" => {
            Err("must not be empty".to_owned())
        }
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => Ok(()),
    }
}

/// The rules between settings that these settings break.
pub(super) fn broken(settings: &Settings, origins: &Origins) -> Vec<Problem> {
    let mut check = Check {
        tree: schema::tree(settings),
        origins,
        problems: Vec::new(),
    };
    check.paths(&settings.http, &settings.auth);
    check.deadlines(settings);
    check.tls(&settings.tls);
    check.auth(&settings.auth);
    check.bytes(settings);
    check.replicas(&settings.topics);
    check.topic_names(&settings.topics);
    check.listeners(settings.http.listen, settings.admin.listen);
    check.instance(&settings.streams);
    check.problems
}

struct Check<'a> {
    tree: Json,
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn require(&mut self, holds: bool, key: &str, rule: &str) {
        if !holds {
            self.problems.push(Problem::Value {
                key: key.to_owned(),
                value: schema::shown(key, schema::at(&self.tree, key)),
                origin: self.origins.of(key).to_owned(),
                rule: rule.to_owned(),
            });
        }
    }

    /// Both become part of a transactional id and of a group's name.
    fn instance(&mut self, streams: &Streams) {
        let legal = |text: &str| {
            text.len() <= 128
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let rule = "may hold letters, digits, '.', '_' and '-' only, at most 128";
        let instance = streams.instance.as_deref().unwrap_or_default();
        self.require(legal(instance), "streams.instance", rule);
        self.require(legal(&streams.group_prefix), "streams.group_prefix", rule);
    }

    fn paths(&mut self, http: &Http, auth: &Auth) {
        let key = "http.paths";
        self.require(!http.paths.is_empty(), key, "must name at least one path");
        let mut seen = BTreeSet::new();
        for path in &http.paths {
            let fault = path_fault(path);
            let rule = format!("{path:?} {}", fault.unwrap_or_default());
            self.require(fault.is_none(), key, &rule);
            let again = format!("{path:?} is there twice; a trailing slash is the same path");
            self.require(seen.insert(path.trim_end_matches('/')), key, &again);
        }
        let needs_token = http.paths.iter().any(|path| has_token(path));
        self.require(
            !needs_token || !auth.token.is_empty(),
            key,
            "{token} needs auth.token, which is not set",
        );
    }

    /// What a push may wait for before it is produced must leave time to produce it, and
    /// a push accepted at the last moment must be answered before the process ends.
    fn deadlines(&mut self, settings: &Settings) {
        let answer = settings.http.answer_deadline_ms.0;
        let admission = settings.limits.admission_timeout_ms.0;
        let body = settings.http.body_timeout_ms.0;
        let rule = format!(
            "must be more than limits.admission_timeout_ms + http.body_timeout_ms \
             = {admission} + {body}, or no time is left for Kafka"
        );
        self.require(admission + body < answer, "http.answer_deadline_ms", &rule);
        let announce = settings.shutdown.announce_ms.0;
        let rule = format!(
            "must be more than shutdown.announce_ms + http.answer_deadline_ms \
             = {announce} + {answer}, or accepted pushes are cut off"
        );
        let deadline = settings.shutdown.deadline_ms.0;
        self.require(announce + answer < deadline, "shutdown.deadline_ms", &rule);
    }

    fn tls(&mut self, tls: &Tls) {
        let certificate = tls.certificate_file.is_some();
        let key = tls.key_file.is_some();
        self.require(
            !certificate || key,
            "tls.certificate_file",
            "needs tls.key_file as well",
        );
        self.require(
            !key || certificate,
            "tls.key_file",
            "needs tls.certificate_file as well",
        );
        self.require(
            tls.client_ca_file.is_none() || (certificate && key),
            "tls.client_ca_file",
            "needs tls.certificate_file and tls.key_file",
        );
    }

    fn auth(&mut self, auth: &Auth) {
        let username = !auth.basic.username.is_empty();
        let password = !auth.basic.password.is_empty();
        self.require(
            !username || password,
            "auth.basic.username",
            "needs auth.basic.password as well",
        );
        self.require(
            !password || username,
            "auth.basic.password",
            "needs auth.basic.username as well",
        );
        let (usernames, passwords) = (auth.basic.username.len(), auth.basic.password.len());
        self.require(
            usernames <= 1 || passwords == 0 || usernames == passwords,
            "auth.basic.username",
            "must be one for all passwords, or as many as there are passwords",
        );
        let mut names = auth.basic.username.iter();
        self.require(
            !names.any(|name| name.expose().contains(':')),
            "auth.basic.username",
            "must not hold a colon, which ends the username in Basic credentials",
        );
        self.require(
            auth.client_address == ClientAddress::Connection || !auth.trusted_proxies.is_empty(),
            "auth.client_address",
            "needs auth.trusted_proxies, or any client could claim any address",
        );
    }

    fn bytes(&mut self, settings: &Settings) {
        let body_bytes = settings.http.max_body_bytes;
        let rule = format!(
            "must be at least http.max_body_bytes = {body_bytes}, or the longest body is \
             never admitted"
        );
        self.require(
            settings.limits.max_in_flight_bytes >= body_bytes,
            "limits.max_in_flight_bytes",
            &rule,
        );
    }

    fn replicas(&mut self, topics: &Topics) {
        let factor = topics.replication_factor;
        self.require(
            topics.min_insync_replicas <= factor,
            "topics.min_insync_replicas",
            &format!(
                "must be at most topics.replication_factor = {factor}, or nothing can be written"
            ),
        );
    }

    fn topic_names(&mut self, topics: &Topics) {
        let mut seen = BTreeSet::new();
        for (key, name) in named(topics) {
            let full = topics.full_name(name);
            let rule = format!(
                "makes the topic {full:?}, but names of topics have 1 to 249 of the \
                 characters a-z, A-Z, 0-9, '.', '_' and '-', and are neither \".\" nor \"..\""
            );
            self.require(is_topic_name(&full), key, &rule);
            let rule = format!(
                "makes the topic {full:?}, which another key names already; Kafka holds '.' \
                 and '_' for the same"
            );
            self.require(seen.insert(full.replace('.', "_")), key, &rule);
        }
    }

    fn listeners(&mut self, http: SocketAddr, admin: SocketAddr) {
        let same_ip =
            http.ip() == admin.ip() || http.ip().is_unspecified() || admin.ip().is_unspecified();
        let clash = same_ip && http.port() == admin.port() && http.port() != 0;
        let rule = format!("must differ from http.listen = {http}");
        self.require(!clash, "admin.listen", &rule);
    }
}

fn bounds(key: &str, number: u64) -> Result<(), String> {
    let own = BOUNDS.iter().find(|(name, ..)| *name == key);
    let (_, least, most, why) = *own.unwrap_or(&(key, 1, LARGEST, ""));
    if number < least {
        return Err(format!("must be at least {least}{why}"));
    }
    if number > most {
        return Err(format!("must be at most {most}{why}"));
    }
    Ok(())
}

fn secrets(items: &[Json]) -> Result<(), String> {
    if items.len() > SECRETS_AT_A_TIME {
        return Err("must hold at most two secrets, the old and the new one".to_owned());
    }
    items
        .iter()
        .try_for_each(|item| secret(item.as_str().unwrap_or_default()))
}

/// An empty secret would open the door that it should close, and so would the mask, known
/// to all, when printed settings are taken for a configuration.
fn secret(text: &str) -> Result<(), String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        MASK => Err("must be the secret itself, not the mask that stands for it".to_owned()),
        _ => Ok(()),
    }
}

fn option(name: &str, value: &Json) -> Result<(), String> {
    if let Some(rule) = options::forbidden(name) {
        return Err(rule);
    }
    let text = value.as_str().unwrap_or_default();
    if options::is_secret(name) {
        secret(text)?;
    }
    options::refused(name, text).map_or(Ok(()), Err)
}

fn path_fault(path: &str) -> Option<&'static str> {
    let is_visible = |c: char| c.is_ascii_graphic();
    if !path.starts_with('/') {
        Some("must begin with \"/\"")
    } else if path.contains(['?', '#']) {
        Some("must have no query and no fragment")
    } else if !path.chars().all(is_visible) {
        Some("must hold visible ASCII characters alone; others are percent-encoded")
    } else if path.split('/').filter(|segment| *segment == TOKEN).count() > 1 {
        Some("must hold {token} only once")
    } else if path.split('/').any(has_other_braces) {
        Some("must hold no braces but those of a whole segment {token}")
    } else {
        None
    }
}

fn has_token(path: &str) -> bool {
    path.split('/').any(|segment| segment == TOKEN)
}

fn has_other_braces(segment: &str) -> bool {
    segment != TOKEN && segment.contains(['{', '}'])
}

fn named(topics: &Topics) -> [(&'static str, &str); 8] {
    [
        ("topics.command_status.name", &topics.command_status.name),
        ("topics.upgrade_result.name", &topics.upgrade_result.name),
        ("topics.notifications.name", &topics.notifications.name),
        ("topics.dead_letter.name", &topics.dead_letter.name),
        ("topics.command_state.name", &topics.command_state.name),
        ("topics.device_software.name", &topics.device_software.name),
        ("topics.upgrade_delta.name", &topics.upgrade_delta.name),
        (
            "topics.upgrade_operation.name",
            &topics.upgrade_operation.name,
        ),
    ]
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
fn is_topic_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(is_legal) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_topics_are_those_that_kafka_takes() {
        for name in ["a", "iot.Command_status-1", "...", &"a".repeat(249)] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "ä", "a/b", &"a".repeat(250)] {
            assert!(!is_topic_name(name), "{name}");
        }
    }
}
