//! What can be wrong with the configuration, in words that let an operator fix
//! it: key, value, rule and source.
//!
//! No message contains the value of a secret or the contents of a file.

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// Never empty.
    pub(super) problems: Vec<Problem>,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A configuration file cannot be read or parsed.
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    /// A key or a variable that does not exist. Both names are spelled as their
    /// source spells them.
    #[error("{name} ({origin}): unknown key{}", hint(.nearest.as_deref()))]
    UnknownKey {
        name: String,
        origin: String,
        nearest: Option<String>,
    },
    /// A section has a value instead of keys.
    #[error("{key} ({origin}): must be a section with keys, not a value")]
    NotASection { key: String, origin: String },
    /// A value breaks a rule. A secret value is masked.
    #[error("{key} = {value} ({origin}): {rule}")]
    Value {
        key: String,
        value: String,
        origin: String,
        rule: String,
    },
    /// A protection without a value.
    #[error(
        "{key} ({origin}): must not be null or empty, or the listener would be open by mistake; \
         remove the key if it is not meant"
    )]
    Missing { key: String, origin: String },
    /// The name or the text of a variable is not UTF-8.
    #[error("{variable} (environment): must be UTF-8")]
    NotUtf8 { variable: String },
    /// No single option is to blame.
    #[error("kafka.options: {0}")]
    Options(String),
    /// Two variables, or two names of one librdkafka property, set the same key.
    #[error("{key}: {first} and {second} are both set; set only one of them")]
    SetTwice {
        key: String,
        first: String,
        second: String,
    },
    /// The file that a variable names cannot be read.
    #[error("{key} (environment variable {variable}): cannot read {path}: {reason}")]
    ValueFile {
        key: String,
        variable: String,
        path: String,
        reason: String,
    },
    /// A `--set` is not of the form `key=value`. Only its start is shown, as far
    /// as that looks like a key: the rest may be a secret.
    #[error("--set {start}: must be of the form key=value")]
    Override { start: String },
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
