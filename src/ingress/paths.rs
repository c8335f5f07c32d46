//! Which configured path a request asks for, and the secret that stands in it.
//!
//! Knows nothing of whether that secret is right (`auth`), nor of methods and
//! answers (`handler`).

use std::sync::Arc;

use http::uri::PathAndQuery;

/// The segment of a configured path that stands for the secret token.
pub const TOKEN_SEGMENT: &str = "{token}";

/// The same in a path's name: braces are no part of a URI reference (RFC 3986),
/// which the name is where it becomes an event's `ce_source`.
const TOKEN_IN_NAME: &str = "%7Btoken%7D";

/// The paths the listener answers on.
///
/// A trailing slash makes no difference, and percent-encoding is compared as
/// it stands: the platform repeats the callback URL it was given, byte for
/// byte.
#[derive(Debug)]
pub struct Paths {
    /// Those without a token first, so that `/push/{token}` never swallows
    /// `/push/health`.
    configured: Vec<ConfiguredPath>,
}

/// A configured path that a request asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct PathMatch<'paths, 'request> {
    /// The path as configured, with `%7Btoken%7D` in the place of the secret:
    /// stable over instances and rotations, and safe to store and to log.
    pub name: &'paths Arc<str>,
    /// What stands in the place of `{token}`, percent-encoded as it came;
    /// `None` where the configured path has no such segment.
    pub token: Option<&'request str>,
}

/// Why a configured path cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Without a path nothing could be received.
    #[error("no path is configured")]
    NoneConfigured,
    /// A path that no request line can carry.
    #[error(
        "`{path}` is not a path: it must start with `/` and hold neither `?`, `#` nor white space"
    )]
    NotAPath {
        /// The path as configured.
        path: String,
    },
    /// Braces that are not exactly one whole `{token}` segment.
    #[error("`{path}` has braces other than one whole segment `{{token}}`")]
    MisplacedToken {
        /// The path as configured.
        path: String,
    },
    /// Two configured paths that are the same one.
    #[error("`{path}` is configured twice (a trailing slash makes no difference)")]
    Repeated {
        /// The path as configured the second time.
        path: String,
    },
}

impl Paths {
    /// Takes the configured paths, each at most once and at least one.
    pub fn new(configured: &[String]) -> Result<Self, PathError> {
        if configured.is_empty() {
            return Err(PathError::NoneConfigured);
        }
        let mut paths: Vec<ConfiguredPath> = Vec::with_capacity(configured.len());
        for path in configured {
            let parsed = ConfiguredPath::parse(path)?;
            if paths.iter().any(|known| known.shape == parsed.shape) {
                return Err(PathError::Repeated { path: path.clone() });
            }
            paths.push(parsed);
        }
        paths.sort_by_key(|path| path.shape.has_token());
        Ok(Self { configured: paths })
    }

    /// The configured path that `path`, the path of a request without its
    /// query, asks for. Allocates nothing.
    ///
    /// A `{token}` segment matches whatever is not empty, right or wrong:
    /// whether it is right is for the gate to say.
    pub fn find<'paths, 'request>(
        &'paths self,
        path: &'request str,
    ) -> Option<PathMatch<'paths, 'request>> {
        let path = without_trailing_slash(path);
        self.configured
            .iter()
            .find_map(|configured| configured.matches(path))
    }
}

#[derive(Debug)]
struct ConfiguredPath {
    name: Arc<str>,
    shape: Shape,
}

/// A path without its trailing slash.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    Plain(Box<str>),
    WithToken { before: Box<str>, after: Box<str> },
}

impl ConfiguredPath {
    fn parse(path: &str) -> Result<Self, PathError> {
        let as_sent: Option<PathAndQuery> = path.parse().ok();
        if !path.starts_with('/') || as_sent.is_none_or(|sent| sent.path() != path) {
            return Err(PathError::NotAPath { path: path.into() });
        }
        let shape = Shape::parse(without_trailing_slash(path))
            .ok_or_else(|| PathError::MisplacedToken { path: path.into() })?;
        let name = path.replace(TOKEN_SEGMENT, TOKEN_IN_NAME).into();
        Ok(Self { name, shape })
    }

    fn matches<'paths, 'request>(
        &'paths self,
        path: &'request str,
    ) -> Option<PathMatch<'paths, 'request>> {
        let name = &self.name;
        match &self.shape {
            Shape::Plain(plain) => (**plain == *path).then_some(PathMatch { name, token: None }),
            Shape::WithToken { before, after } => {
                let token = path.strip_prefix(&**before)?.strip_suffix(&**after)?;
                let is_one_segment = !token.is_empty() && !token.contains('/');
                is_one_segment.then_some(PathMatch {
                    name,
                    token: Some(token),
                })
            }
        }
    }
}

impl Shape {
    fn parse(path: &str) -> Option<Self> {
        let Some((before, after)) = path.split_once(TOKEN_SEGMENT) else {
            return (!path.contains(['{', '}'])).then(|| Self::Plain(path.into()));
        };
        let is_segment = before.ends_with('/') && (after.is_empty() || after.starts_with('/'));
        let has_more_braces = before.contains(['{', '}']) || after.contains(['{', '}']);
        (is_segment && !has_more_braces).then(|| Self::WithToken {
            before: before.into(),
            after: after.into(),
        })
    }

    fn has_token(&self) -> bool {
        matches!(self, Self::WithToken { .. })
    }
}

fn without_trailing_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(configured: &[&str]) -> Result<Paths, PathError> {
        let configured: Vec<String> = configured.iter().map(ToString::to_string).collect();
        Paths::new(&configured)
    }

    #[test]
    fn a_request_finds_its_path_and_what_stands_for_the_token() {
        let paths = paths(&["/push/{token}", "/n", "/push/plain", "/{token}/in/", "/"]).unwrap();
        let rows = [
            ("/n", Some(("/n", None))),
            ("/n/", Some(("/n", None))),
            ("/n//", None),
            ("/", Some(("/", None))),
            ("/push/s3cret", Some(("/push/%7Btoken%7D", Some("s3cret")))),
            ("/push/s3cret/", Some(("/push/%7Btoken%7D", Some("s3cret")))),
            ("/push/a%2Fb", Some(("/push/%7Btoken%7D", Some("a%2Fb")))),
            ("/push/plain", Some(("/push/plain", None))),
            ("/push", None),
            ("/push/", None),
            ("/push/a/b", None),
            ("/s3cret/in", Some(("/%7Btoken%7D/in/", Some("s3cret")))),
            ("//in", None),
            ("/N", None),
            ("/%6E", None),
            ("/other", None),
            ("*", None),
            ("", Some(("/", None))),
        ];
        for (path, expected) in rows {
            let found = paths.find(path).map(|found| (&**found.name, found.token));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_an_error_that_names_it() {
        let not_a_path = |path: &str| PathError::NotAPath { path: path.into() };
        let misplaced = |path: &str| PathError::MisplacedToken { path: path.into() };
        let rows: &[(&[&str], PathError)] = &[
            (&[], PathError::NoneConfigured),
            (&["n"], not_a_path("n")),
            (&["*"], not_a_path("*")),
            (&[""], not_a_path("")),
            (&["/n?token=1"], not_a_path("/n?token=1")),
            (&["/n#part"], not_a_path("/n#part")),
            (&["/two words"], not_a_path("/two words")),
            (&["/n/{tokn}"], misplaced("/n/{tokn}")),
            (&["/n/x{token}"], misplaced("/n/x{token}")),
            (&["/n/{token}x"], misplaced("/n/{token}x")),
            (&["/{token}/{token}"], misplaced("/{token}/{token}")),
            (&["/n", "/n/"], PathError::Repeated { path: "/n/".into() }),
        ];
        for (configured, expected) in rows {
            assert_eq!(paths(configured).unwrap_err(), *expected, "{configured:?}");
        }
    }

    proptest! {
        #[test]
        fn the_name_never_holds_the_token(token in "[!-.0-~]{1,64}") {
            let paths = paths(&["/push/{token}/x", "/n"]).unwrap();
            let path = format!("/push/{token}/x");
            let found = paths.find(&path).unwrap();
            prop_assert_eq!(found.token, Some(token.as_str()));
            prop_assert_eq!(&**found.name, "/push/%7Btoken%7D/x");
        }
    }
}
