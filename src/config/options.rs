//! The librdkafka properties that an operator has set.
//!
//! `properties` knows which of them nobody may set; librdkafka itself decides whether
//! any other exists and accepts its value. Knows nothing of what the clients do with
//! the properties.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use serde::{Deserialize, Serialize, Serializer};

use super::properties::{self, Clients, Property, Rule};
use super::secret::{MASK, Secret};

/// librdkafka properties by name; `Debug` and `Serialize` mask the secret ones.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct KafkaOptions(BTreeMap<String, String>);

impl KafkaOptions {
    /// The properties that reach these clients, unmasked, each under the one name
    /// that northbridge uses: only for the configuration of a client.
    pub(crate) fn reaching(&self, clients: Clients) -> impl Iterator<Item = (&str, &str)> {
        self.iter()
            .filter(move |(name, _)| [Clients::All, clients].contains(&properties::clients(name)))
            .map(|(name, value)| (properties::canonical(name), value))
    }

    /// The value of a property under any of its names.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut set = self.iter();
        set.find(|(other, _)| properties::canonical(other) == name)
            .map(|(_, value)| value)
    }

    /// The names of the properties that a text of librdkafka's is about, as the
    /// operator has spelled them.
    pub(crate) fn named_in(&self, text: &str) -> Vec<String> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        let words: BTreeSet<&str> = text
            .split(|c| !is_of_name(c))
            .map(|word| properties::canonical(word.trim_matches('.')))
            .collect();
        let set = self.0.keys().map(String::as_str);
        set.filter(|name| words.contains(properties::canonical(name)))
            .map(str::to_owned)
            .collect()
    }

    /// The properties whose values name files or directories.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        // librdkafka looks for the system's authorities itself if told to probe.
        self.iter()
            .filter(|(name, file)| name.ends_with(".location") && *file != "probe")
    }

    /// The properties by name, unmasked.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a property unless the operator has set it.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        let entry = self.0.entry(name.to_owned());
        entry.or_insert_with(|| value.to_owned());
    }

    /// Leaves a property at the default of the clients.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The values that must never be shown.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secrets = self.iter().filter(|(name, _)| is_secret(name));
        secrets.map(|(_, value)| value)
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| {
            let shown = if is_secret(name) { MASK } else { value };
            (name, shown)
        })
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for KafkaOptions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.shown())
    }
}

/// Returns whether the property's value must never be shown.
pub(super) fn is_secret(name: &str) -> bool {
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Checks one property and its value.
///
/// # Errors
///
/// Returns the rule that they break.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    allowed(name, value)?;
    well_formed(name)?;
    if is_secret(name) || value.is_empty() {
        Secret::check(value)?;
    }
    accepted(name, value)
}

fn allowed(name: &str, value: &str) -> Result<(), String> {
    match Property::of(name).map(|property| &property.rule) {
        Some(Rule::Refused(why)) => Err(format!("cannot be set: {why}")),
        Some(Rule::Limited { values, reason, .. }) if !values.contains(&value) => {
            Err(format!("must be {}: {reason}", values.join(" or ")))
        }
        Some(Rule::Passed(_) | Rule::Limited { .. }) | None => Ok(()),
    }
}

fn well_formed(name: &str) -> Result<(), String> {
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    if name.is_empty() || !name.chars().all(is_legal) {
        return Err(format!(
            "cannot be set: the properties of librdkafka are lower-case words joined by \
             dots, and callbacks are not supported{}",
            suggestion(name)
        ));
    }
    Ok(())
}

/// Checks whether librdkafka takes the property and reads its value as it is
/// written. Its own text is never shown for a secret, which it may quote.
fn accepted(name: &str, value: &str) -> Result<(), String> {
    let config = ClientConfig::from_iter([(name.to_owned(), value.to_owned())]);
    let why = match config.create_native_config() {
        Ok(config) => return unchanged(value, &config.get(name).unwrap_or_default()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            format!("no such configuration property{}", suggestion(name))
        }
        Err(KafkaError::ClientConfig(_, why, _, _)) if !is_secret(name) => {
            return Err(rejected(name, &why));
        }
        Err(_) => "the value is not valid".to_owned(),
    };
    Err(format!("rejected by librdkafka: {why}"))
}

/// librdkafka does not say which values it would accept.
fn rejected(name: &str, why: &str) -> String {
    match VALUES.iter().find(|(known, _)| *known == name) {
        Some((_, values)) => format!("must be one of {values}"),
        None => format!("rejected by librdkafka: {}", why.trim_end()),
    }
}

/// The property that was probably meant, if its name is similar enough.
fn suggestion(name: &str) -> String {
    let dotted = name.to_ascii_lowercase().replace(['_', '-'], ".");
    let known = properties::settable().chain(COMMON.iter().copied());
    let rated = known.map(|known| {
        (
            strsim::normalized_damerau_levenshtein(&dotted, known),
            known,
        )
    });
    let best = rated.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}

/// librdkafka reads numbers as C does: up to the first character that fits, with
/// octal and hexadecimal prefixes, and without regard to overflows.
fn unchanged(written: &str, read: &str) -> Result<(), String> {
    let Ok(number) = read.parse::<f64>() else {
        return Ok(());
    };
    // librdkafka shows six digits of a fraction.
    let is_same = |other: f64| (other - number).abs() <= number.abs() * 1e-5;
    if written == read || written.parse().is_ok_and(is_same) {
        return Ok(());
    }
    Err(format!(
        "must be a decimal number; librdkafka would read this one as {read}"
    ))
}

/// The least similarity (1 is equality) at which a property is suggested.
const MIN_SIMILARITY: f64 = 0.7;

/// Properties that connections need, beside those of [`properties`]; others are not
/// suggested.
const COMMON: &[&str] = &[
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "debug",
    "enable.ssl.certificate.verification",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
];

/// The values of properties that have few.
const VALUES: &[(&str, &str)] = &[
    (
        "security.protocol",
        "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    ),
    ("enable.ssl.certificate.verification", "true or false"),
    ("ssl.endpoint.identification.algorithm", "https or none"),
];

/// Parts of property names whose values are secrets (librdkafka, CONFIGURATION.md):
/// passwords, passphrases, client secrets, private keys, and the configuration of
/// OAUTHBEARER, which may contain one.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passphrase",
    "secret",
    "jaas",
    "ssl.key.pem",
    "private.key.pem",
    "sasl.oauthbearer.config",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> KafkaOptions {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        KafkaOptions(owned.collect())
    }

    #[test]
    fn secret_options_are_masked_wherever_options_are_shown() {
        let options = options(&[("sasl.password", "s3cret"), ("linger.ms", "5")]);
        assert_eq!(
            format!("{options:?}"),
            r#"{"linger.ms": "5", "sasl.password": "***"}"#
        );
        assert_eq!(
            serde_json::to_string(&options).unwrap(),
            r#"{"linger.ms":"5","sasl.password":"***"}"#
        );
    }

    #[test]
    fn a_client_gets_secret_options_unmasked() {
        let options = options(&[("sasl.password", "s3cret")]);
        assert_eq!(
            options.iter().collect::<Vec<_>>(),
            [("sasl.password", "s3cret")]
        );
    }

    #[test]
    fn passwords_keys_and_tokens_are_secret() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.jaas.config",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn properties_for_tuning_and_security_can_be_set() {
        for (name, value) in [
            ("linger.ms", "0.5"),
            ("compression.type", "zstd"),
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.mechanisms", "PLAIN"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("ssl.endpoint.identification.algorithm", "none"),
            ("client.id", "007"),
            ("socket.timeout.ms", "3000"),
            ("socket.keepalive.enable", "1"),
            ("group.protocol", "classic"),
            ("debug", "broker,security"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_number_that_librdkafka_would_read_differently_is_rejected() {
        for (name, value, read) in [
            ("socket.timeout.ms", "3000 ms", "3000"),
            ("socket.timeout.ms", "10_000", "10"),
            ("socket.timeout.ms", "010000", "4096"),
            ("socket.timeout.ms", "0x1000", "4096"),
            ("socket.timeout.ms", "20e3", "20"),
            ("socket.timeout.ms", "4294967396", "100"),
            ("linger.ms", "5ms", "5"),
        ] {
            let rule =
                format!("must be a decimal number; librdkafka would read this one as {read}");
            assert_eq!(check(name, value), Err(rule), "{name} = {value}");
        }
    }

    #[test]
    fn a_misspelled_property_is_answered_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("sasl.usrname", "sasl.username"),
            ("sasl_username", "sasl.username"),
            ("SASL.Password", "sasl.password"),
            ("ssl.ca.locations", "ssl.ca.location"),
            ("lingr.ms", "linger.ms"),
        ] {
            let rule = check(name, "1").unwrap_err();
            assert!(
                rule.ends_with(&format!("did you mean {meant}?")),
                "{name}: {rule}"
            );
        }
        let rule = check("nothing.like.any", "1").unwrap_err();
        assert!(!rule.contains("mean"), "{rule}");
    }

    #[test]
    fn a_property_that_is_suggested_exists() {
        for name in COMMON.iter().chain(VALUES.iter().map(|(name, _)| name)) {
            assert_eq!(suggestion(name), format!("; did you mean {name}?"));
            let unknown = check(name, "?").is_err_and(|rule| rule.contains("no such"));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn a_value_that_is_not_one_of_few_is_answered_with_all_of_them() {
        for (name, values) in VALUES {
            let rule = format!("must be one of {values}");
            assert_eq!(check(name, "TLS"), Err(rule));
        }
    }

    #[test]
    fn what_librdkafka_says_of_a_secret_is_not_shown() {
        for (name, value) in [("client.secret", "e"), ("sasl.password", "a\0b")] {
            let rule = check(name, value).unwrap_err();
            assert!(!rule.contains("***") && !rule.contains('"'), "{rule}");
        }
    }
}
