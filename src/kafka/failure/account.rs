//! What the sentences about failures take from the settings: who connects, and
//! how the connection is protected.

use crate::config::{MASK, Settings};

/// Whom and what a client claims to be.
#[derive(Clone)]
pub(in crate::kafka) struct Account {
    /// The user of SASL.
    user: Option<String>,
    pub(super) mechanism: String,
    pub(super) protocol: Protocol,
    pub(super) has_ca: bool,
    pub(super) has_certificate: bool,
    /// Whether the broker's certificate must name the address.
    pub(super) verifies_names: bool,
    /// What is strange about the password of SASL, or nothing.
    pub(super) password_hint: &'static str,
    /// What must not appear in any text.
    secrets: Vec<String>,
}

/// A value of `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) tls: bool,
    pub(super) sasl: bool,
}

impl Account {
    pub(in crate::kafka) fn of(settings: &Settings) -> Self {
        let options = &settings.kafka.options;
        let option = |name: &str| options.get(name).map(str::to_owned);
        let has_any = |names: &[&str]| names.iter().any(|name| options.get(name).is_some());
        let protocol = option("security.protocol").unwrap_or_default();
        let protocol = protocol.to_ascii_lowercase();
        let identification = options.get("ssl.endpoint.identification.algorithm");
        Self {
            user: option("sasl.username"),
            mechanism: option("sasl.mechanism").unwrap_or_default(),
            protocol: Protocol {
                tls: protocol.ends_with("ssl"),
                sasl: protocol.starts_with("sasl"),
            },
            has_ca: has_any(&["ssl.ca.location", "ssl.ca.pem"]),
            has_certificate: has_any(&[
                "ssl.certificate.location",
                "ssl.certificate.pem",
                "ssl.keystore.location",
            ]),
            verifies_names: identification != Some("none"),
            password_hint: options.get("sasl.password").map_or("", hint_about),
            secrets: options.secrets().map(str::to_owned).collect(),
        }
    }

    /// Returns a text of the other side without the secrets of this one.
    pub(in crate::kafka) fn mask(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    /// Returns ` as user …`, or nothing if the user is not known.
    pub(super) fn as_user(&self) -> String {
        let user = self.user.as_ref();
        user.map_or_else(String::new, |user| format!(" as user `{user}`"))
    }

    /// Returns whom to grant a missing right.
    pub(super) fn grantee(&self) -> String {
        let user = self.user.as_ref();
        user.map_or_else(
            || "the client's principal".to_owned(),
            |user| format!("user `{user}`"),
        )
    }
}

/// Says whether a password has a character at its beginning or end that it usually
/// gets by mistake, from a file or a variable.
fn hint_about(password: &str) -> &'static str {
    let is_frame = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    if password.starts_with(is_frame) || password.ends_with(is_frame) {
        " (the password begins or ends with a quote or white space)"
    } else {
        ""
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.tls, self.sasl) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        })
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest contains secrets.
        f.debug_struct("Account")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
