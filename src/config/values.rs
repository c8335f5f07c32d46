//! The types of values, and how each is parsed from its text.
//!
//! A value is checked here and nowhere else; the readers of the settings rely on
//! it. Knows nothing of keys, sources or other values (`rules`). An
//! error is the rule that the value breaks; several rules are one per line.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::PathAndQuery;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::secret::Secret;

/// A span of time in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The same span as the standard library counts it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ms", self.0)
    }
}

/// A path that accepts pushes. It begins with `/` and contains only characters
/// of a URI's path; one whole segment may be [`PathTemplate::TOKEN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct PathTemplate(String);

impl PathTemplate {
    /// The segment that stands for the secret token.
    pub(crate) const TOKEN: &'static str = "{token}";

    /// The path of the built-in default.
    pub(super) fn notifications() -> Self {
        Self("/notifications".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn has_token(&self) -> bool {
        self.0.contains(Self::TOKEN)
    }

    /// # Errors
    ///
    /// Returns the rule that `path` breaks.
    pub(crate) fn parse(path: &str) -> Result<Self, &'static str> {
        let tokens = path.split('/').filter(|segment| *segment == Self::TOKEN);
        if !path.starts_with('/') {
            Err("must begin with \"/\"")
        } else if path.contains(['?', '#']) {
            Err("must not contain a query or a fragment")
        } else if !path.is_ascii() || PathAndQuery::try_from(path).is_err() {
            Err("must contain only characters that a URI allows in a path; percent-encode others")
        } else if tokens.count() > 1 {
            Err("must contain {token} only once")
        } else if path.split('/').any(has_other_braces) {
            Err("must not contain braces except as the whole segment {token}")
        } else {
            Ok(Self(path.to_owned()))
        }
    }
}

fn has_other_braces(segment: &str) -> bool {
    segment != PathTemplate::TOKEN && segment.contains(['{', '}'])
}

/// Reads at least one path, none of them twice.
pub(super) fn paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathTemplate>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let (mut paths, mut faults) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for text in &texts {
        match PathTemplate::parse(text) {
            Ok(path) => paths.push(path),
            Err(rule) => faults.push(format!("{text:?} {rule}")),
        }
        if !seen.insert(text.trim_end_matches('/')) {
            faults.push(format!(
                "{text:?} is listed twice; a trailing slash makes no difference"
            ));
        }
    }
    if texts.is_empty() {
        faults.push("must name at least one path".to_owned());
    }
    if faults.is_empty() {
        return Ok(paths);
    }
    Err(de::Error::custom(faults.join("\n")))
}

/// The most secrets of a kind that are valid at a time: the old one and the new
/// one of a rotation.
const MAX_SECRETS: usize = 2;

/// Reads none, one, or two secrets during a rotation.
pub(super) fn secrets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    if texts.len() > MAX_SECRETS {
        return Err(de::Error::custom(
            "must contain at most two secrets, the old one and the new one",
        ));
    }
    let secrets = texts.into_iter().map(Secret::try_from);
    secrets.collect::<Result<_, _>>().map_err(de::Error::custom)
}

/// Reads the usernames of Basic credentials.
pub(super) fn usernames<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    let usernames = secrets(from)?;
    if usernames.iter().any(|name| name.expose().contains(':')) {
        return Err(de::Error::custom(
            "must not contain a colon, which ends the username in Basic credentials",
        ));
    }
    Ok(usernames)
}

/// Reads networks; a single address is the network of that one address.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let networks = texts.iter().map(|text| network(text.trim()));
    networks.collect::<Option<_>>().ok_or_else(|| {
        de::Error::custom(
            "must be addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32",
        )
    })
}

fn network(text: &str) -> Option<IpNet> {
    let net = text.parse().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Reads an address with its port.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        de::Error::custom("must be an address with a port, such as 0.0.0.0:8080 or [::]:8080")
    })
}

/// Reads brokers separated by commas, and removes the blanks between them.
pub(super) fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    match servers.iter().find_map(|server| server_fault(server)) {
        Some(rule) => Err(de::Error::custom(rule)),
        None => Ok(servers.join(",")),
    }
}

/// Why the text is not a broker's address, if it is not.
fn server_fault(text: &str) -> Option<&'static str> {
    if text.contains("://") {
        Some("must be host:port without a scheme; kafka.options.security.protocol turns on TLS")
    } else if text.contains(';') {
        Some("must be separated by commas, not semicolons")
    } else if text.contains(['"', '\'']) {
        Some("must not contain quotes, which would be part of a host's name")
    } else if !is_server(text) {
        Some("must be host:port, or several of them separated by commas")
    } else {
        None
    }
}

fn is_server(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_template_is_a_path_with_at_most_one_token_segment() {
        for path in ["/", "/n", "/n/", "/a%2Fb", "/{token}", "/a/{token}/b/"] {
            assert_eq!(PathTemplate::parse(path).unwrap().as_str(), path);
        }
        for path in [
            "n",
            "*",
            "",
            "/n?token=1",
            "/n#part",
            "/two words",
            "/a<b>",
            "/`",
            "/ä",
            "/n/{tokn}",
            "/n/x{token}",
            "/n/{token}x",
            "/{token}/{token}",
        ] {
            assert!(PathTemplate::parse(path).is_err(), "{path}");
        }
    }
}
