//! Which configured path a request asks for, and the token in it.
//!
//! Knows nothing of whether that token is right (`auth`), nor of methods and
//! answers (`handler`).

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::PathTemplate;

/// The token segment in a path's name: braces are not allowed in a URI
/// reference (RFC 3986), which the name must be as an event's `ce_source`.
const TOKEN_IN_NAME: &str = "%7Btoken%7D";

/// The paths on which the listener accepts pushes.
///
/// A trailing slash makes no difference. Requests are compared after
/// [`normalized`], as the configured paths are.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Paths without a token first, so that `/push/{token}` never matches
    /// `/push/health`.
    configured: Vec<ConfiguredPath>,
}

/// A configured path that a request asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PathMatch<'paths, 'request> {
    /// The path as configured, with `%7Btoken%7D` for the token: the same for
    /// all instances and across rotations, and safe to store and to log.
    pub(crate) name: &'paths Arc<str>,
    /// The segment that matches `{token}`, percent-encoded as it was sent;
    /// `None` if the configured path has no such segment.
    pub(crate) token: Option<&'request str>,
}

impl Paths {
    /// The paths of `templates`, in their order except for tokens.
    pub(crate) fn new(templates: &[PathTemplate]) -> Self {
        let mut configured: Vec<_> = templates.iter().map(ConfiguredPath::new).collect();
        configured.sort_by_key(|path| path.after_token.is_some());
        Self { configured }
    }

    /// The configured path that matches `path`, the [`normalized`] path of a
    /// request without its query. Allocates nothing.
    ///
    /// A `{token}` segment matches any segment that is not empty: whether the
    /// token is right is for the gate to decide.
    pub(crate) fn find<'paths, 'request>(
        &'paths self,
        path: &'request str,
    ) -> Option<PathMatch<'paths, 'request>> {
        let path = without_trailing_slash(path);
        self.configured
            .iter()
            .find_map(|configured| configured.matches(path))
    }
}

/// Returns a path with the escapes of unreserved characters decoded and its dot
/// segments removed: two paths that differ in nothing else are the same (RFC 3986,
/// 6.2.2). All other escapes stay as they were sent.
pub(crate) fn normalized(path: &str) -> Cow<'_, str> {
    let decoded = without_needless_escapes(path);
    if !decoded
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return decoded;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                // Not beyond the root, which is the empty segment before the first slash.
                if kept.len() > 1 {
                    kept.pop();
                }
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            // `/a/.` and `/a/b/..` are `/a/`.
            kept.push("");
        }
    }
    Cow::Owned(kept.join("/"))
}

/// Decodes the escapes of letters, digits and `-._~` (RFC 3986, 2.3).
fn without_needless_escapes(path: &str) -> Cow<'_, str> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    let mut decoded = String::new();
    for (index, part) in parts.enumerate() {
        if index == 0 {
            decoded.push_str(first);
        }
        let escaped = part.get(..2).and_then(|hex| {
            let byte = u8::from_str_radix(hex, 16).ok()?;
            hex.bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then_some(byte)
        });
        match escaped {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&part[2..]);
            }
            Some(_) | None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    if path.contains('%') {
        Cow::Owned(decoded)
    } else {
        Cow::Borrowed(path)
    }
}

/// A path without its trailing slash, split at its token.
#[derive(Debug)]
struct ConfiguredPath {
    name: Arc<str>,
    /// The whole path if it has no token.
    before_token: Box<str>,
    after_token: Option<Box<str>>,
}

impl ConfiguredPath {
    fn new(template: &PathTemplate) -> Self {
        let path = normalized(template.as_str());
        let path = without_trailing_slash(&path);
        let (before, after) = match path.split_once(PathTemplate::TOKEN) {
            Some((before, after)) => (before, Some(after)),
            None => (path, None),
        };
        Self {
            name: template
                .as_str()
                .replace(PathTemplate::TOKEN, TOKEN_IN_NAME)
                .into(),
            before_token: before.into(),
            after_token: after.map(Box::from),
        }
    }

    fn matches<'paths, 'request>(
        &'paths self,
        path: &'request str,
    ) -> Option<PathMatch<'paths, 'request>> {
        let rest = path.strip_prefix(&*self.before_token)?;
        let token = match &self.after_token {
            None if rest.is_empty() => None,
            None => return None,
            Some(after) => Some(rest.strip_suffix(&**after).filter(|it| is_segment(it))?),
        };
        let name = &self.name;
        Some(PathMatch { name, token })
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

fn without_trailing_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(configured: &[&str]) -> Paths {
        let templates = configured.iter().map(|path| PathTemplate::parse(path));
        Paths::new(&templates.collect::<Result<Vec<_>, _>>().unwrap())
    }

    #[test]
    fn a_request_matches_a_configured_path_and_carries_its_token() {
        let paths = paths(&["/push/{token}", "/n", "/push/plain", "/{token}/in/", "/"]);
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
    fn a_path_is_compared_without_needless_escapes_and_dot_segments() {
        let rows = [
            ("/n", "/n"),
            ("/%6E", "/n"),
            ("/%6e%2F%7e", "/n%2F~"),
            ("/%2fn", "/%2fn"),
            ("/a%zz%4", "/a%zz%4"),
            ("/%+41", "/%+41"),
            ("/x/../n", "/n"),
            ("/./n/.", "/n/"),
            ("/n/x/..", "/n/"),
            ("/../../n", "/n"),
            ("/%2e%2E/n", "/n"),
            ("/..", "/"),
            ("/n/...", "/n/..."),
            ("//n", "//n"),
            ("*", "*"),
            ("", ""),
        ];
        for (path, expected) in rows {
            assert_eq!(normalized(path), expected, "{path}");
        }
        let paths = paths(&["/a/%6Eotify"]);
        assert!(paths.find(&normalized("/a/x/../notify/")).is_some());
    }

    proptest! {
        #[test]
        fn the_name_never_contains_the_token(token in "[!-.0-~]{1,64}") {
            let paths = paths(&["/push/{token}/x", "/n"]);
            let path = format!("/push/{token}/x");
            let found = paths.find(&path).unwrap();
            prop_assert_eq!(found.token, Some(token.as_str()));
            prop_assert_eq!(&**found.name, "/push/%7Btoken%7D/x");
        }
    }
}
