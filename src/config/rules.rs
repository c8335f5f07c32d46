//! The rules between settings, checked once all values are known.
//!
//! The text of a rule says what it needs to know of the outside world. Rules
//! about a single value are in `value_rules`, or enforced by a type in `values`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value as Json;

use super::error::Problem;
use super::keys;
use super::options::KafkaOptions;
use super::properties::PROPERTIES;
use super::settle::{self, Origins};
use super::values::PathTemplate;
use super::{Auth, ClientAddress, Http, Settings, Streams, Telemetry, Tls, Topics};

/// How long before a push's deadline it is spooled, in milliseconds, and how long that may
/// take. On a busy disk a sync takes more than a second: `docs/DESIGN.md`.
pub(crate) const SPOOL_TIME_MS: u64 = 3_000;

/// The rules between settings that these settings break.
pub(super) fn broken(settings: &Settings, origins: &Origins) -> Vec<Problem> {
    let mut check = Check {
        tree: settle::tree(settings),
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
    check.names_of_options();
    check.security(&settings.kafka.options);
    check.telemetry(&settings.telemetry);
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
                value: keys::shown(key, keys::value_at(&self.tree, key)),
                origin: self.origins.of(key).to_owned(),
                rule: rule.to_owned(),
            });
        }
    }

    fn paths(&mut self, http: &Http, auth: &Auth) {
        let needs_token = http.paths.iter().any(PathTemplate::has_token);
        self.require(
            !needs_token || !auth.token.is_empty(),
            "http.paths",
            "{token} requires auth.token, which is not set",
        );
    }

    /// A push may wait for capacity and for its body before it is produced, and
    /// a push accepted at the last moment must be answered before the process
    /// ends.
    fn deadlines(&mut self, settings: &Settings) {
        let answer = settings.http.answer_deadline_ms.0;
        let admission = settings.limits.admission_timeout_ms.0;
        let body = settings.http.body_timeout_ms.0;
        let rule = format!(
            "must be more than limits.admission_timeout_ms + http.body_timeout_ms \
             ({admission} + {body}), or no time is left for Kafka"
        );
        self.require(admission + body < answer, "http.answer_deadline_ms", &rule);
        let announce = settings.shutdown.announce_ms.0;
        let rule = format!(
            "must be more than shutdown.announce_ms + http.answer_deadline_ms \
             ({announce} + {answer}), or accepted pushes are cut off"
        );
        let deadline = settings.shutdown.deadline_ms.0;
        self.require(announce + answer < deadline, "shutdown.deadline_ms", &rule);
        let spool = &settings.spool;
        let rule = format!(
            "must be less than http.answer_deadline_ms ({answer}) by more than {SPOOL_TIME_MS}, or \
             pushes are answered 503 before they are spooled"
        );
        let is_in_time = spool.after_ms.0 + SPOOL_TIME_MS < answer;
        self.require(
            spool.directory.is_none() || is_in_time,
            "spool.after_ms",
            &rule,
        );
    }

    fn tls(&mut self, tls: &Tls) {
        let certificate = tls.certificate_file.is_some();
        let key = tls.key_file.is_some();
        self.require(
            !certificate || key,
            "tls.certificate_file",
            "requires tls.key_file",
        );
        self.require(
            !key || certificate,
            "tls.key_file",
            "requires tls.certificate_file",
        );
        self.require(
            tls.client_ca_file.is_none() || (certificate && key),
            "tls.client_ca_file",
            "requires tls.certificate_file and tls.key_file",
        );
        let has_ca = tls.client_ca_file.is_some();
        self.require(
            has_ca || tls.client_allowed_names.is_empty(),
            "tls.client_allowed_names",
            "requires tls.client_ca_file",
        );
        self.require(
            has_ca || tls.client_crl_file.is_none(),
            "tls.client_crl_file",
            "requires tls.client_ca_file",
        );
    }

    fn auth(&mut self, auth: &Auth) {
        let (usernames, passwords) = (auth.basic.username.len(), auth.basic.password.len());
        self.require(
            usernames == 0 || passwords > 0,
            "auth.basic.username",
            "requires auth.basic.password",
        );
        self.require(
            passwords == 0 || usernames > 0,
            "auth.basic.password",
            "requires auth.basic.username",
        );
        self.require(
            usernames <= 1 || passwords == 0 || usernames == passwords,
            "auth.basic.username",
            "must be one for all passwords, or as many as there are passwords",
        );
        self.require(
            auth.client_address == ClientAddress::Connection || !auth.trusted_proxies.is_empty(),
            "auth.client_address",
            "requires auth.trusted_proxies, or any client could claim any address",
        );
    }

    fn bytes(&mut self, settings: &Settings) {
        let body_bytes = settings.http.max_body_bytes;
        let rule = format!(
            "must be at least http.max_body_bytes ({body_bytes}), or the largest body is \
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
                "must be at most topics.replication_factor ({factor}), or nothing can be written"
            ),
        );
    }

    fn topic_names(&mut self, topics: &Topics) {
        let mut seen = BTreeSet::new();
        for (key, name) in named(topics) {
            let full = topics.full_name(name);
            let rule = format!(
                "results in the topic {full:?}, but a topic's name has 1 to 249 of the \
                 characters a-z, A-Z, 0-9, '.', '_' and '-', and is neither \".\" nor \"..\""
            );
            self.require(is_topic_name(&full), key, &rule);
            let rule = format!(
                "results in the topic {full:?}, which collides with another topic; Kafka \
                 treats '.' and '_' as the same character"
            );
            self.require(seen.insert(full.replace('.', "_")), key, &rule);
        }
    }

    fn listeners(&mut self, http: SocketAddr, admin: SocketAddr) {
        let same_ip =
            http.ip() == admin.ip() || http.ip().is_unspecified() || admin.ip().is_unspecified();
        let clash = same_ip && http.port() == admin.port() && http.port() != 0;
        let rule = format!("must differ from http.listen ({http})");
        self.require(!clash, "admin.listen", &rule);
    }

    /// Both become part of transactional ids and of the names of groups.
    fn instance(&mut self, streams: &Streams) {
        let rule = "must contain only letters, digits, '.', '_' and '-', at most 128 of them";
        let instance = streams.instance.as_deref().unwrap_or_default();
        self.require(is_id_part(instance), "streams.instance", rule);
        self.require(
            is_id_part(&streams.group_prefix),
            "streams.group_prefix",
            rule,
        );
    }

    /// Two names of one property, of which a client can only be given one.
    fn names_of_options(&mut self) {
        for property in PROPERTIES.iter().filter(|property| property.is_settable()) {
            let of_property = property.names.iter().map(|name| keys::option_key(name));
            let mut set = of_property.filter(|key| !keys::value_at(&self.tree, key).is_null());
            if let (Some(first), Some(second)) = (set.next(), set.next()) {
                let shown = |key| format!("{key} ({})", self.origins.of(key));
                self.problems.push(Problem::SetTwice {
                    first: shown(&first),
                    second: shown(&second),
                    key: first,
                });
            }
        }
    }

    fn telemetry(&mut self, telemetry: &Telemetry) {
        self.require(
            telemetry.headers.is_empty() || telemetry.otlp_endpoint.is_some(),
            "telemetry.headers",
            "requires telemetry.otlp_endpoint",
        );
    }

    /// librdkafka ignores what its protocol has no use for: no certificate is verified,
    /// and no password is sent.
    fn security(&mut self, options: &KafkaOptions) {
        let protocol = options.get("security.protocol").unwrap_or("plaintext");
        let protocol = protocol.to_ascii_lowercase();
        let has_sasl = protocol.starts_with("sasl_");
        let has_tls = protocol.ends_with("ssl");
        for (name, _) in options.iter() {
            let key = keys::option_key(name);
            self.require(
                has_sasl || !name.starts_with("sasl."),
                &key,
                "requires kafka.options.security.protocol = SASL_SSL or SASL_PLAINTEXT",
            );
            let is_tls = name.starts_with("ssl.") || name.starts_with("enable.ssl.");
            self.require(
                has_tls || !is_tls,
                &key,
                "requires kafka.options.security.protocol = SSL or SASL_SSL",
            );
            for (_, needs) in NEEDED.iter().filter(|(needing, _)| *needing == name) {
                self.require_options(options, &key, needs);
            }
        }
        // librdkafka's own default is GSSAPI, which is not built in.
        if has_sasl {
            self.require_options(
                options,
                "kafka.options.security.protocol",
                &["sasl.mechanism"],
            );
        }
    }

    fn require_options(&mut self, options: &KafkaOptions, key: &str, any_of: &[&str]) {
        let needed: Vec<String> = any_of.iter().map(|name| keys::option_key(name)).collect();
        let is_set = any_of.iter().any(|name| options.get(name).is_some());
        self.require(is_set, key, &format!("requires {}", needed.join(" or ")));
    }
}

/// Options without effect unless one of some others is set, and those others.
const NEEDED: &[(&str, &[&str])] = &[
    (
        "ssl.certificate.location",
        &["ssl.key.location", "ssl.key.pem"],
    ),
    ("ssl.certificate.pem", &["ssl.key.location", "ssl.key.pem"]),
    (
        "ssl.key.location",
        &["ssl.certificate.location", "ssl.certificate.pem"],
    ),
    (
        "ssl.key.pem",
        &["ssl.certificate.location", "ssl.certificate.pem"],
    ),
    ("ssl.key.password", &["ssl.key.location", "ssl.key.pem"]),
    ("ssl.keystore.password", &["ssl.keystore.location"]),
];

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

fn is_id_part(text: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= 128 && text.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_is_one_that_kafka_accepts() {
        for name in ["a", "iot.Command_status-1", "...", &"a".repeat(249)] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "ä", "a/b", &"a".repeat(250)] {
            assert!(!is_topic_name(name), "{name}");
        }
    }
}
