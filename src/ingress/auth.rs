//! Who may push: the gate every request passes before its body is read.
//!
//! Knows addresses and secrets; not where they come from (`config`), nor how a
//! refusal is answered (`answer`). Keeps hashes of secrets and never shows one.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;

use crate::ingress::client_address::Networks;

/// The `WWW-Authenticate` challenge that belongs to a 401 where Basic
/// credentials are asked for (RFC 7617).
pub const BASIC_CHALLENGE: &str = r#"Basic realm="northbridge", charset="UTF-8""#;

/// Everything an operator chose to ask of whoever pushes.
///
/// What is configured is required, each and all of it; what is not is not
/// asked for.
#[derive(Default)]
pub struct Gate {
    /// The networks a client's address must belong to one of.
    pub allowed_addresses: Option<Networks>,
    /// What [`Secrets::basic`] accepts, asked for in `Authorization`.
    pub basic: Option<Secrets>,
    /// What [`Secrets::tokens`] accepts, asked for in the `{token}` segment of
    /// the path or else in the query.
    pub token: Option<Secrets>,
}

/// What a request shows at the gate.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'request> {
    /// The client's address; `None` where it could not be told.
    pub address: Option<IpAddr>,
    /// The request's headers.
    pub headers: &'request HeaderMap,
    /// The request's query, without the question mark.
    pub query: Option<&'request str>,
    /// What stands in the `{token}` segment of the path, where its configured
    /// path has one.
    pub path_token: Option<&'request str>,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Credentials are missing or wrong: 401.
    Unauthorized,
    /// The address is not allowed, or not known: 403.
    Forbidden,
}

/// The secrets that are accepted at one place; several during a rotation.
///
/// Kept and compared as BLAKE3 hashes, whose equality takes the same time
/// whatever the bytes, and always against all of them: how long a refusal
/// takes tells nothing about how near the attempt was.
pub struct Secrets {
    accepted: Vec<blake3::Hash>,
}

/// Why configured credentials cannot be used. Never holds a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// An empty list would let nobody in.
    #[error("no {what} is configured")]
    None {
        /// What is missing.
        what: &'static str,
    },
    /// An empty secret would let everybody in.
    #[error("{what} number {number} is empty")]
    Empty {
        /// What is empty.
        what: &'static str,
        /// Its place in the list, counted from 1.
        number: usize,
    },
    /// RFC 7617 forbids it: nobody could tell where the password starts.
    #[error("user name number {number} holds a colon")]
    ColonInUsername {
        /// Its place in the list, counted from 1.
        number: usize,
    },
    /// It is not clear which password belongs to which user name.
    #[error(
        "{usernames} user names and {passwords} passwords: give one password for each user name, \
         or one user name for all passwords"
    )]
    Unpaired {
        /// How many user names there are.
        usernames: usize,
        /// How many passwords there are.
        passwords: usize,
    },
}

impl Gate {
    /// Lets the request in, or says why not. The address comes first, so that
    /// strangers learn nothing about credentials.
    pub fn admit(&self, visitor: &Visitor<'_>) -> Result<(), Refused> {
        if !self.allows_address(visitor) {
            return Err(Refused::Forbidden);
        }
        let has_basic = self.accepts_basic(visitor);
        let has_token = self.accepts_token(visitor);
        match (has_basic, has_token) {
            (true, true) => Ok(()),
            (false, _) | (_, false) => Err(Refused::Unauthorized),
        }
    }

    /// What a 401 carries in `WWW-Authenticate`; `None` where only a token is
    /// asked for, which is part of the URL and has no scheme of its own.
    pub fn challenge(&self) -> Option<&'static str> {
        self.basic.is_some().then_some(BASIC_CHALLENGE)
    }

    fn allows_address(&self, visitor: &Visitor<'_>) -> bool {
        let Some(allowed) = &self.allowed_addresses else {
            return true;
        };
        visitor
            .address
            .is_some_and(|address| allowed.contains(address))
    }

    fn accepts_basic(&self, visitor: &Visitor<'_>) -> bool {
        let Some(accepted) = &self.basic else {
            return true;
        };
        basic_credentials(visitor.headers).is_some_and(|shown| accepted.accept(&shown))
    }

    /// A path with a `{token}` segment but no token to compare it with is
    /// closed, not open.
    fn accepts_token(&self, visitor: &Visitor<'_>) -> bool {
        let Some(accepted) = &self.token else {
            return visitor.path_token.is_none();
        };
        let shown = visitor.path_token.or_else(|| query_token(visitor.query?));
        shown.is_some_and(|shown| {
            let shown: Cow<'_, [u8]> = percent_decode_str(shown).into();
            accepted.accept(&shown)
        })
    }
}

impl Secrets {
    /// Pairs of user name and password (RFC 7617): the first user name with
    /// the first password and so on, or one user name with every password.
    pub fn basic(usernames: &[String], passwords: &[String]) -> Result<Self, CredentialError> {
        none_empty("user name", usernames)?;
        none_empty("password", passwords)?;
        if let Some(at) = usernames.iter().position(|name| name.contains(':')) {
            return Err(CredentialError::ColonInUsername { number: at + 1 });
        }
        if usernames.len() != 1 && usernames.len() != passwords.len() {
            return Err(CredentialError::Unpaired {
                usernames: usernames.len(),
                passwords: passwords.len(),
            });
        }
        let pairs = usernames.iter().cycle().zip(passwords);
        let credentials = pairs.map(|(username, password)| format!("{username}:{password}"));
        Ok(Self::of(credentials))
    }

    /// Tokens, each as it is before percent-encoding.
    pub fn tokens(tokens: &[String]) -> Result<Self, CredentialError> {
        none_empty("token", tokens)?;
        Ok(Self::of(tokens))
    }

    fn of(secrets: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let hashes = secrets
            .into_iter()
            .map(|secret| blake3::hash(secret.as_ref()));
        Self {
            accepted: hashes.collect(),
        }
    }

    /// Counts the matches instead of looking for one, so that no comparison is
    /// left out.
    fn accept(&self, shown: &[u8]) -> bool {
        let shown = blake3::hash(shown);
        let matching = self.accepted.iter().filter(|hash| **hash == shown);
        matching.count() > 0
    }
}

fn none_empty(what: &'static str, values: &[String]) -> Result<(), CredentialError> {
    if values.is_empty() {
        return Err(CredentialError::None { what });
    }
    match values.iter().position(String::is_empty) {
        Some(at) => Err(CredentialError::Empty {
            what,
            number: at + 1,
        }),
        None => Ok(()),
    }
}

/// The decoded `user:password` of the one `Authorization` header; with several
/// of them nobody could say which one counts.
fn basic_credentials(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    let (scheme, credentials) = line.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    STANDARD.decode(credentials.trim()).ok()
}

/// The first `token=` of a query. A `+` stays a plus: URLs are given by hand
/// here, not by HTML forms.
fn query_token(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    fn basic(usernames: &[&str], passwords: &[&str]) -> Secrets {
        let secrets = Secrets::basic(&owned(usernames), &owned(passwords));
        secrets.ok().unwrap()
    }

    fn tokens(values: &[&str]) -> Secrets {
        Secrets::tokens(&owned(values)).ok().unwrap()
    }

    fn authorization(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| line.parse().unwrap());
        lines.map(|line| (AUTHORIZATION, line)).collect()
    }

    fn basic_line(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    fn visitor(headers: &HeaderMap) -> Visitor<'_> {
        Visitor {
            address: None,
            headers,
            query: None,
            path_token: None,
        }
    }

    #[test]
    fn a_gate_without_a_choice_lets_everybody_in() {
        let gate = Gate::default();
        assert_eq!(gate.admit(&visitor(&HeaderMap::new())), Ok(()));
        assert_eq!(gate.challenge(), None);
    }

    #[test]
    fn basic_credentials_are_accepted_in_their_pairs() {
        let pairs = basic(&["old", "new"], &["first", "second"]);
        let one_name = basic(&["name"], &["first", "sec:ond"]);
        let unicode = basic(&["Jürgen"], &["pässword"]);
        let rows = [
            (&pairs, "old:first", true),
            (&pairs, "new:second", true),
            (&pairs, "old:second", false),
            (&pairs, "new:first", false),
            (&pairs, "old:", false),
            (&pairs, "old", false),
            (&pairs, "", false),
            (&one_name, "name:first", true),
            (&one_name, "name:sec:ond", true),
            (&one_name, "name:third", false),
            (&one_name, "Name:first", false),
            (&unicode, "Jürgen:pässword", true),
        ];
        for (secrets, credentials, expected) in rows {
            let headers = authorization(&[&basic_line(credentials)]);
            let shown = basic_credentials(&headers).unwrap();
            let accepted = secrets.accept(&shown);
            assert_eq!(accepted, expected, "{credentials}");
        }
    }

    #[test]
    fn the_authorization_header_must_be_one_of_basic() {
        let gate = Gate {
            basic: Some(basic(&["name"], &["word"])),
            ..Gate::default()
        };
        let right = basic_line("name:word");
        let encoded = STANDARD.encode("name:word");
        let rows = [
            (vec![right.clone()], Ok(())),
            (vec![format!("bAsIc   {encoded}")], Ok(())),
            (vec![], Err(Refused::Unauthorized)),
            (vec![right.clone(), right], Err(Refused::Unauthorized)),
            (vec![encoded.clone()], Err(Refused::Unauthorized)),
            (
                vec![format!("Bearer {encoded}")],
                Err(Refused::Unauthorized),
            ),
            (vec!["Basic".to_owned()], Err(Refused::Unauthorized)),
            (
                vec!["Basic name:word".to_owned()],
                Err(Refused::Unauthorized),
            ),
        ];
        for (lines, expected) in rows {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let headers = authorization(&lines);
            assert_eq!(gate.admit(&visitor(&headers)), expected, "{lines:?}");
        }
        assert_eq!(gate.challenge(), Some(BASIC_CHALLENGE));
    }

    #[test]
    fn the_token_stands_in_the_path_or_else_in_the_query() {
        let gate = Gate {
            token: Some(tokens(&["old/secret", "new+1"])),
            ..Gate::default()
        };
        let no_headers = HeaderMap::new();
        let unauthorized = Err(Refused::Unauthorized);
        let rows = [
            (None, Some("token=old/secret"), Ok(())),
            (None, Some("token=old%2Fsecret"), Ok(())),
            (None, Some("token=new+1"), Ok(())),
            (None, Some("token=new%2B1"), Ok(())),
            (None, Some("a=b&token=new%2b1&c=d"), Ok(())),
            (None, Some("token=new+1&token=wrong"), Ok(())),
            (None, Some("token=wrong&token=new+1"), unauthorized),
            (None, Some("xtoken=new+1"), unauthorized),
            (None, Some("token=new+12"), unauthorized),
            (None, Some("token=new+"), unauthorized),
            (None, Some("token="), unauthorized),
            (None, Some("token"), unauthorized),
            (None, Some(""), unauthorized),
            (None, None, unauthorized),
            (Some("old%2Fsecret"), None, Ok(())),
            (Some("new+1"), Some("token=wrong"), Ok(())),
            (Some("wrong"), Some("token=new+1"), unauthorized),
            (Some("%FF"), None, unauthorized),
        ];
        for (path_token, query, expected) in rows {
            let visitor = Visitor {
                query,
                path_token,
                ..visitor(&no_headers)
            };
            assert_eq!(gate.admit(&visitor), expected, "{path_token:?} {query:?}");
        }
        assert_eq!(gate.challenge(), None);
    }

    #[test]
    fn a_path_with_a_token_is_closed_while_no_token_is_configured() {
        let no_headers = HeaderMap::new();
        let visitor = Visitor {
            path_token: Some("anything"),
            ..visitor(&no_headers)
        };
        assert_eq!(Gate::default().admit(&visitor), Err(Refused::Unauthorized));
    }

    #[test]
    fn what_is_configured_together_is_required_together() {
        let gate = Gate {
            allowed_addresses: Some(Networks::new(vec!["10.0.0.0/8".parse().unwrap()])),
            basic: Some(basic(&["name"], &["word"])),
            token: Some(tokens(&["secret"])),
        };
        let right = authorization(&[&basic_line("name:word")]);
        let wrong = authorization(&[&basic_line("name:sword")]);
        let inside = Some(IpAddr::from([10, 0, 0, 1]));
        let outside = Some(IpAddr::from([192, 0, 2, 1]));
        let rows = [
            (inside, &right, Some("token=secret"), Ok(())),
            (inside, &right, Some("token=no"), Err(Refused::Unauthorized)),
            (inside, &right, None, Err(Refused::Unauthorized)),
            (
                inside,
                &wrong,
                Some("token=secret"),
                Err(Refused::Unauthorized),
            ),
            (
                outside,
                &right,
                Some("token=secret"),
                Err(Refused::Forbidden),
            ),
            (outside, &wrong, None, Err(Refused::Forbidden)),
            (None, &right, Some("token=secret"), Err(Refused::Forbidden)),
        ];
        for (address, headers, query, expected) in rows {
            let visitor = Visitor {
                address,
                query,
                ..visitor(headers)
            };
            assert_eq!(gate.admit(&visitor), expected, "{address:?} {query:?}");
        }
    }

    #[test]
    fn credentials_that_cannot_work_are_errors_that_show_no_secret() {
        let rows: &[(&[&str], &[&str], &str)] = &[
            (&[], &["p"], "no user name is configured"),
            (&["u"], &[], "no password is configured"),
            (&["u", ""], &["p", "q"], "user name number 2 is empty"),
            (&["u"], &["", "q"], "password number 1 is empty"),
            (&["u:v"], &["p"], "user name number 1 holds a colon"),
            (
                &["u", "v"],
                &["p", "q", "r"],
                "2 user names and 3 passwords: give one password for each user name, \
                 or one user name for all passwords",
            ),
        ];
        for (usernames, passwords, expected) in rows {
            let error = Secrets::basic(&owned(usernames), &owned(passwords)).err();
            assert_eq!(error.unwrap().to_string(), *expected);
        }
        let error = Secrets::tokens(&owned(&["t", ""])).err();
        assert_eq!(error.unwrap().to_string(), "token number 2 is empty");
    }
}
