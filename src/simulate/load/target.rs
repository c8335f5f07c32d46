//! The target of a run: its URL and credentials, parsed and validated.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use thiserror::Error;

use crate::simulate::arguments::SimulateArgs;

/// A listener and the credentials for it.
#[derive(Debug, Clone)]
pub(crate) struct PushTarget {
    pub(crate) tls: bool,
    /// A name or an address; IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The whole URL, from which hyper takes the pseudo-headers of HTTP/2.
    pub(crate) uri: Uri,
    /// The path and query, the request target of HTTP/1.1.
    pub(crate) path: Uri,
    /// The value of the `Host` header.
    pub(crate) authority: HeaderValue,
    /// The value of the `Authorization` header, marked as sensitive.
    pub(crate) authorization: Option<HeaderValue>,
}

/// A URL or credentials that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// The message omits the URL, because it may contain a token.
    #[error("the URL is not valid: {reason}")]
    Url { reason: &'static str },
    #[error("cannot read --password-file {path}")]
    Password {
        path: String,
        source: std::io::Error,
    },
}

impl PushTarget {
    /// Parses the URL and reads the password file.
    ///
    /// # Errors
    ///
    /// Returns [`TargetError::Url`] if the URL is not `http://` or `https://`
    /// with a host, and [`TargetError::Password`] if the password cannot be
    /// read.
    pub(crate) fn new(arguments: &SimulateArgs) -> Result<Self, TargetError> {
        let invalid = |reason| TargetError::Url { reason };
        let uri: Uri = arguments
            .url
            .parse()
            .map_err(|_| invalid("it cannot be parsed"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid("it must begin with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| invalid("it has no host"))?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(invalid(
                "it contains credentials; use --user and --password-file",
            ));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.parse().map_err(|_| invalid("its path is not valid"))?,
            authority: uri
                .authority()
                .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
                .ok_or_else(|| invalid("its host is not valid"))?,
            authorization: authorization(arguments)?,
            uri,
        })
    }

    /// Scheme, host and port, safe to print: the path and the query may contain
    /// a token.
    pub(crate) fn authority(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = self.authority.to_str().unwrap_or_default();
        format!("{scheme}://{authority}")
    }
}

fn authorization(arguments: &SimulateArgs) -> Result<Option<HeaderValue>, TargetError> {
    let (Some(user), Some(file)) = (&arguments.user, &arguments.password_file) else {
        return Ok(None);
    };
    let password = fs::read_to_string(file).map_err(|source| TargetError::Password {
        path: file.display().to_string(),
        source,
    })?;
    let password = password.trim_end_matches(['\r', '\n']);
    let credentials = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).ok();
    if let Some(value) = &mut value {
        value.set_sensitive(true);
    }
    Ok(value)
}
