//! Who may push: the gate that every request passes before its body is read.
//!
//! Knows addresses and secrets; not how a request is answered when it is
//! denied (`answer`). Keeps only hashes of the secrets.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;

use super::client_address::Networks;
use crate::config::{Auth, Secret};

/// The `WWW-Authenticate` challenge of a 401 if Basic credentials are required
/// (RFC 7617).
pub(crate) const BASIC_CHALLENGE: &str = r#"Basic realm="northbridge", charset="UTF-8""#;

/// The protections that an operator configured. A request must satisfy each of
/// them; one that is `None` is not configured.
#[derive(Default)]
pub(crate) struct Gate {
    allowed_addresses: Option<Networks>,
    /// Expected in the `Authorization` header.
    basic: Option<SecretHashes>,
    /// Expected in the `{token}` segment of the path, or else in the query.
    token: Option<SecretHashes>,
}

/// What a request shows at the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'request> {
    /// The client's address; `None` if it is unknown.
    pub(crate) address: Option<IpAddr>,
    /// The headers, of which `Authorization` counts.
    pub(crate) headers: &'request HeaderMap,
    /// The query, without the question mark.
    pub(crate) query: Option<&'request str>,
    /// The segment that matches `{token}`, percent-encoded; `None` if the
    /// configured path has no such segment.
    pub(crate) path_token: Option<&'request str>,
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Credentials are missing or wrong: 401.
    Unauthorized,
    /// The address is not allowed, or unknown: 403.
    Forbidden,
}

impl Denied {
    pub(crate) const ALL: [Self; 2] = [Self::Unauthorized, Self::Forbidden];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
        }
    }

    /// The position in [`Denied::ALL`].
    #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl Gate {
    /// The gate of the settings.
    pub(crate) fn new(auth: &Auth) -> Self {
        let allowed = &auth.allowed_addresses;
        let pairs = auth.basic.pairs();
        let basic = pairs
            .map(|(username, password)| format!("{}:{}", username.expose(), password.expose()));
        let tokens = auth.token.iter().map(Secret::expose);
        Self {
            allowed_addresses: (!allowed.is_empty()).then(|| Networks::new(allowed.clone())),
            basic: auth.basic.is_set().then(|| SecretHashes::of(basic)),
            token: (!auth.token.is_empty()).then(|| SecretHashes::of(tokens)),
        }
    }

    /// Checks the address first, so that a stranger learns nothing about the
    /// credentials.
    ///
    /// # Errors
    ///
    /// Returns the reason if the caller must not push.
    pub(crate) fn authorize(&self, caller: &Caller<'_>) -> Result<(), Denied> {
        if !self.allows_address(caller) {
            return Err(Denied::Forbidden);
        }
        // Both are always checked: the time of a 401 must not tell which was wrong.
        let basic_is_right = self.accepts_basic(caller);
        let token_is_right = self.accepts_token(caller);
        if basic_is_right && token_is_right {
            Ok(())
        } else {
            Err(Denied::Unauthorized)
        }
    }

    /// The `WWW-Authenticate` header of a 401; `None` if only a token is
    /// required, which has no authentication scheme.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        self.basic.is_some().then_some(BASIC_CHALLENGE)
    }

    /// Returns whether everybody may push.
    pub(crate) fn is_open(&self) -> bool {
        self.allowed_addresses.is_none() && self.basic.is_none() && self.token.is_none()
    }

    /// Returns whether a client at this address may push, if it shows the right
    /// credentials.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let mut allowed = self.allowed_addresses.iter();
        allowed.all(|allowed| allowed.contains(address))
    }

    fn allows_address(&self, caller: &Caller<'_>) -> bool {
        self.allowed_addresses.is_none()
            || caller.address.is_some_and(|address| self.allows(address))
    }

    fn accepts_basic(&self, caller: &Caller<'_>) -> bool {
        let Some(accepted) = &self.basic else {
            return true;
        };
        basic_credentials(caller.headers).is_some_and(|shown| accepted.contain(&shown))
    }

    /// Denies a request to a path with a `{token}` segment if no token is
    /// configured: it must not be open to everybody.
    fn accepts_token(&self, caller: &Caller<'_>) -> bool {
        let Some(accepted) = &self.token else {
            return caller.path_token.is_none();
        };
        let shown = caller.path_token.or_else(|| query_token(caller.query?));
        shown.is_some_and(|shown| {
            let shown: Cow<'_, [u8]> = percent_decode_str(shown).into();
            accepted.contain(&shown)
        })
    }
}

/// The accepted secrets of one kind; several during a rotation.
///
/// Compared as BLAKE3 hashes, in constant time, and always with all of them:
/// the time of an answer says nothing about how close a guess was.
struct SecretHashes(Vec<blake3::Hash>);

impl SecretHashes {
    fn of(secrets: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let secrets = secrets.into_iter();
        Self(
            secrets
                .map(|secret| blake3::hash(secret.as_ref()))
                .collect(),
        )
    }

    /// Counts the matches, so that the first one does not end the comparison.
    fn contain(&self, shown: &[u8]) -> bool {
        let shown = blake3::hash(shown);
        self.0.iter().filter(|hash| **hash == shown).count() > 0
    }
}

/// The decoded `user:password` of the only `Authorization` header; `None` if
/// there are several, since it would be unclear which one counts.
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

/// The first `token=` of a query. A `+` stays a plus: the callback URL is
/// written by hand, not by an HTML form.
fn query_token(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Basic;

    fn secrets(values: &[&str]) -> Vec<Secret> {
        let secrets = values
            .iter()
            .map(|value| Secret::try_from((*value).to_owned()));
        secrets.collect::<Result<_, _>>().unwrap()
    }

    fn basic(usernames: &[&str], passwords: &[&str]) -> Auth {
        Auth {
            basic: Basic {
                username: secrets(usernames),
                password: secrets(passwords),
            },
            ..Auth::default()
        }
    }

    fn tokens(values: &[&str]) -> Auth {
        Auth {
            token: secrets(values),
            ..Auth::default()
        }
    }

    fn authorization(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| line.parse().unwrap());
        lines.map(|line| (AUTHORIZATION, line)).collect()
    }

    fn basic_line(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    fn caller(headers: &HeaderMap) -> Caller<'_> {
        Caller {
            address: None,
            headers,
            query: None,
            path_token: None,
        }
    }

    #[test]
    fn a_gate_without_protections_lets_everybody_in() {
        let gate = Gate::default();
        assert_eq!(gate.authorize(&caller(&HeaderMap::new())), Ok(()));
        assert_eq!(gate.challenge(), None);
    }

    #[test]
    fn basic_credentials_are_accepted_in_pairs() {
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
        for (auth, credentials, expected) in rows {
            let headers = authorization(&[&basic_line(credentials)]);
            let accepted = Gate::new(auth).authorize(&caller(&headers)).is_ok();
            assert_eq!(accepted, expected, "{credentials}");
        }
    }

    #[test]
    fn only_a_single_basic_authorization_header_is_accepted() {
        let gate = Gate::new(&basic(&["name"], &["word"]));
        let right = basic_line("name:word");
        let encoded = STANDARD.encode("name:word");
        let rows = [
            (vec![right.clone()], Ok(())),
            (vec![format!("bAsIc   {encoded}")], Ok(())),
            (vec![], Err(Denied::Unauthorized)),
            (vec![right.clone(), right], Err(Denied::Unauthorized)),
            (vec![encoded.clone()], Err(Denied::Unauthorized)),
            (vec![format!("Bearer {encoded}")], Err(Denied::Unauthorized)),
            (vec!["Basic".to_owned()], Err(Denied::Unauthorized)),
            (
                vec!["Basic name:word".to_owned()],
                Err(Denied::Unauthorized),
            ),
        ];
        for (lines, expected) in rows {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let headers = authorization(&lines);
            assert_eq!(gate.authorize(&caller(&headers)), expected, "{lines:?}");
        }
        assert_eq!(gate.challenge(), Some(BASIC_CHALLENGE));
    }

    #[test]
    fn the_token_is_taken_from_the_path_or_else_from_the_query() {
        let gate = Gate::new(&tokens(&["old/secret", "new+1"]));
        let no_headers = HeaderMap::new();
        let unauthorized = Err(Denied::Unauthorized);
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
            let caller = Caller {
                query,
                path_token,
                ..caller(&no_headers)
            };
            assert_eq!(
                gate.authorize(&caller),
                expected,
                "{path_token:?} {query:?}"
            );
        }
        assert_eq!(gate.challenge(), None);
    }

    #[test]
    fn a_path_with_a_token_is_closed_if_no_token_is_configured() {
        let no_headers = HeaderMap::new();
        let caller = Caller {
            path_token: Some("anything"),
            ..caller(&no_headers)
        };
        assert_eq!(
            Gate::default().authorize(&caller),
            Err(Denied::Unauthorized)
        );
    }

    #[test]
    fn all_configured_protections_are_required() {
        let gate = Gate::new(&Auth {
            allowed_addresses: vec!["10.0.0.0/8".parse().unwrap()],
            token: secrets(&["secret"]),
            ..basic(&["name"], &["word"])
        });
        let right = authorization(&[&basic_line("name:word")]);
        let wrong = authorization(&[&basic_line("name:sword")]);
        let inside = Some(IpAddr::from([10, 0, 0, 1]));
        let outside = Some(IpAddr::from([192, 0, 2, 1]));
        let rows = [
            (inside, &right, Some("token=secret"), Ok(())),
            (inside, &right, Some("token=no"), Err(Denied::Unauthorized)),
            (inside, &right, None, Err(Denied::Unauthorized)),
            (
                inside,
                &wrong,
                Some("token=secret"),
                Err(Denied::Unauthorized),
            ),
            (
                outside,
                &right,
                Some("token=secret"),
                Err(Denied::Forbidden),
            ),
            (outside, &wrong, None, Err(Denied::Forbidden)),
            (None, &right, Some("token=secret"), Err(Denied::Forbidden)),
        ];
        for (address, headers, query, expected) in rows {
            let caller = Caller {
                address,
                query,
                ..caller(headers)
            };
            assert_eq!(gate.authorize(&caller), expected, "{address:?} {query:?}");
        }
    }

    #[test]
    fn incomplete_basic_credentials_deny_everybody() {
        for auth in [basic(&["name"], &[]), basic(&[], &["word"])] {
            for credentials in ["name:", ":word", ":", ""] {
                let headers = authorization(&[&basic_line(credentials)]);
                let denied = Gate::new(&auth).authorize(&caller(&headers));
                assert_eq!(denied, Err(Denied::Unauthorized), "{credentials}");
            }
        }
    }
}
