//! What is pushed to: the URL and the credentials, taken apart and checked.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use thiserror::Error;

use super::arguments::SimulateArgs;

/// A listener, and how to be let in.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The whole URL, for the request line of HTTP/2.
    pub uri: Uri,
    /// The path and query, for the request line of HTTP/1.1.
    pub path: Uri,
    /// The value of `Host`.
    pub authority: HeaderValue,
    /// The value of `Authorization`.
    pub authorization: Option<HeaderValue>,
}

/// Why there is nothing to push to.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The URL is none. It may hold a secret, so it is not repeated.
    #[error("the URL cannot be pushed to: {reason}")]
    Url {
        /// What is wrong.
        reason: &'static str,
    },
    /// The file with the password cannot be read.
    #[error("--password-file {path}")]
    Password {
        /// As it was given.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Target {
    /// Takes the URL apart.
    ///
    /// # Errors
    ///
    /// Where the URL is not `http://` or `https://` with a host, or the
    /// password cannot be read.
    pub fn new(arguments: &SimulateArgs) -> Result<Self, TargetError> {
        let wrong = |reason| TargetError::Url { reason };
        let uri: Uri = arguments.url.parse().map_err(|_| wrong("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("credentials go into --user and --password-file"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.parse().map_err(|_| wrong("its path is none"))?,
            authority: uri
                .authority()
                .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
                .ok_or_else(|| wrong("its host is none"))?,
            authorization: authorization(arguments)?,
            uri,
        })
    }

    /// What may be told of it: where it is, without a path or query, which may
    /// hold a token.
    pub fn authority(&self) -> String {
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
