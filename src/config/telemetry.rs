//! The types of the values of `telemetry`.
//!
//! As in `values`, an error is the rule that the value breaks.

use std::fmt;

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::header::{HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme, Uri};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::MASK;

/// Where a collector takes traces, below its base URL (OTLP 1.x, "OTLP/HTTP").
const TRACES_PATH: &str = "/v1/traces";

/// The base URL of a collector that speaks OTLP over HTTP: a scheme and a host, without
/// credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Endpoint {
    text: String,
    scheme: Scheme,
    authority: Authority,
    path: Uri,
}

impl Endpoint {
    /// The URL as it was set.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The name or the address of the host; an IPv6 address without brackets.
    pub(crate) fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port, that of the scheme if the URL has none.
    pub(crate) fn port(&self) -> u16 {
        let of_scheme = if self.is_https() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(of_scheme)
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The path to which traces are sent.
    pub(crate) fn path(&self) -> &Uri {
        &self.path
    }
}

impl TryFrom<String> for Endpoint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be a URL such as http://collector:4318";
        if text.contains(['?', '#']) {
            return Err("must not contain a query or a fragment");
        }
        let parts = text.parse::<Uri>().map_err(|_| SHAPE)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(SHAPE);
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err("must begin with http:// or https://");
        }
        if authority.as_str().contains('@') {
            return Err("must not contain credentials; use telemetry.headers");
        }
        let base = parts
            .path_and_query
            .as_ref()
            .map_or("/", |path| path.path());
        let base = base.trim_end_matches('/');
        if base.ends_with(TRACES_PATH) {
            return Err("must be the base URL of the collector; /v1/traces is added to it");
        }
        let path = format!("{base}{TRACES_PATH}").parse().map_err(|_| SHAPE)?;
        Ok(Self {
            text,
            scheme,
            authority,
            path,
        })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub(crate) struct Ratio(f64);

/// It is never NaN.
impl Eq for Ratio {}

impl Ratio {
    pub(super) const TENTH: Self = Self(0.1);

    /// A number from 0 to 1.
    pub(crate) fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = &'static str;

    fn try_from(ratio: f64) -> Result<Self, &'static str> {
        if (0.0..=1.0).contains(&ratio) {
            return Ok(Self(ratio));
        }
        Err("must be from 0 to 1")
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

/// A header of requests to the collector. Its value may be a credential, so `Debug` and
/// `Serialize` show a mask.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretHeader {
    pub(crate) name: HeaderName,
    /// Marked as sensitive.
    pub(crate) value: HeaderValue,
}

/// The headers that follow from what is sent, and to where.
const RESERVED: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TRANSFER_ENCODING,
];

impl SecretHeader {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be of the form Name: value";
        if text == MASK {
            return Err("must be the header itself, not the mask that is printed instead");
        }
        let (name, value) = text.split_once(':').ok_or(SHAPE)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| SHAPE)?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| SHAPE)?;
        if value.is_empty() {
            return Err(SHAPE);
        }
        if RESERVED.contains(&name) {
            return Err("must not name a header that follows from the request");
        }
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

impl<'de> Deserialize<'de> for SecretHeader {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for SecretHeader {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(MASK)
    }
}

impl fmt::Debug for SecretHeader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_below_the_base_url() {
        let rows = [
            ("http://localhost:4318", "localhost", 4318, "/v1/traces"),
            ("https://otlp.example", "otlp.example", 443, "/v1/traces"),
            ("http://[::1]/otlp/", "::1", 80, "/otlp/v1/traces"),
        ];
        for (text, host, port, path) in rows {
            let endpoint = Endpoint::try_from(text.to_owned()).unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.path(), path, "{text}");
        }
    }

    #[test]
    fn the_value_of_a_header_is_never_shown() {
        let header = SecretHeader::parse("Authorization: Bearer s3cret").unwrap();
        assert_eq!(header.name, "authorization");
        assert_eq!(header.value, "Bearer s3cret");
        for shown in [format!("{header:?}"), format!("{:?}", header.value)] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
