//! What can be wrong with the configuration, told so that an operator can put it right:
//! key, value, rule and source.
//!
//! No message holds the value of a secret or the contents of a file.

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A configuration file cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// The file as it was named.
        path: String,
        /// Why, with the line where there is one.
        reason: String,
    },
    /// There is no such key.
    #[error("{name} ({origin}): unknown key{}", hint(.nearest.as_deref()))]
    UnknownKey {
        /// The key or the variable, as its source spells it.
        name: String,
        /// Where it stands.
        origin: String,
        /// The known key that looks most like it, in the same spelling.
        nearest: Option<String>,
    },
    /// A section has a value instead of keys.
    #[error("{key} ({origin}): must be a section with keys, not a value")]
    NotASection {
        /// The section.
        key: String,
        /// Where it stands.
        origin: String,
    },
    /// A value breaks a rule.
    #[error("{key} = {value} ({origin}): {rule}")]
    Value {
        /// The key.
        key: String,
        /// Its value; masked where it is a secret.
        value: String,
        /// Where the value stands.
        origin: String,
        /// What holds for it.
        rule: String,
    },
    /// Two variables give the same key a value.
    #[error("{key}: {first} and {second} are both set; only one of them may be")]
    SetTwice {
        /// The key.
        key: String,
        /// One variable.
        first: String,
        /// The other.
        second: String,
    },
    /// The file that a variable names cannot be read.
    #[error("{key} (environment variable {variable}): cannot read {path}: {reason}")]
    ValueFile {
        /// The key.
        key: String,
        /// The variable that names the file.
        variable: String,
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A `--set` is not of the form `key=value`.
    #[error("--set {start}: must be key=value")]
    Override {
        /// The text as far as it looks like a key.
        start: String,
    },
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
