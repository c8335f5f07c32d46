//! Sends batches of spans to a collector: OTLP 1 over HTTP, in protobuf.
//!
//! Every batch has a connection of its own: none is ever stale, and the instances of a
//! collector behind a load balancer share the batches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;

use super::otlp::ExportTraceServiceResponse;
use crate::config::{Endpoint, SecretHeader};
use crate::process::system_roots::system_roots;

/// How long a batch may take; OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A collector, and how to reach it.
pub(super) struct Collector {
    host: String,
    port: u16,
    path: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    headers: HeaderMap,
}

/// Why the collector has not taken a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Connection(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("answered {0}")]
    Status(StatusCode),
}

impl ExportError {
    /// Returns whether the collector may take the same batch later. The statuses are
    /// those of OTLP's specification ("Failures", "Retryable Response Codes").
    pub(super) fn is_retriable(&self) -> bool {
        match self {
            Self::Timeout | Self::Connection(_) | Self::Http(_) | Self::Answer(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl Collector {
    /// A collector to which these headers are sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint requires TLS, and its certificate could not be
    /// verified.
    pub(super) fn new(endpoint: &Endpoint, headers: &[SecretHeader]) -> anyhow::Result<Self> {
        let all = fixed_headers(endpoint.authority())?;
        let all = headers.iter().fold(all, |mut all, header| {
            all.append(header.name.clone(), header.value.clone());
            all
        });
        let tls = endpoint.is_https().then(|| tls(endpoint.host()));
        Ok(Self {
            host: endpoint.host().to_owned(),
            port: endpoint.port(),
            path: endpoint.path().clone(),
            tls: tls.transpose().context("telemetry.otlp_endpoint")?,
            headers: all,
        })
    }

    /// Sends a request. Returns how many of its spans the collector rejected.
    pub(super) async fn export(&self, request: Bytes) -> Result<u64, ExportError> {
        timeout(TIMEOUT, self.send(request))
            .await
            .unwrap_or(Err(ExportError::Timeout))
    }

    async fn send(&self, request: Bytes) -> Result<u64, ExportError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                self.post(TokioIo::new(stream), request).await
            }
            None => self.post(TokioIo::new(stream), request).await,
        }
    }

    async fn post<S>(&self, stream: S, body: Bytes) -> Result<u64, ExportError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(stream).await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        // It ends with the sender in it, and with that the connection.
        let answer = async move {
            let response = sender.send_request(request).await?;
            if !response.status().is_success() {
                return Err(ExportError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(ExportError::Answer)?;
            rejected_spans(body.to_bytes())
        };
        let (_closed, rejected) = tokio::join!(connection, answer);
        rejected
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Collector")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// What every request has. A connection carries one.
fn fixed_headers(authority: &str) -> anyhow::Result<HeaderMap> {
    let agent = concat!("northbridge/", env!("CARGO_PKG_VERSION"));
    Ok(HeaderMap::from_iter([
        (HOST, HeaderValue::try_from(authority)?),
        (USER_AGENT, HeaderValue::from_static(agent)),
        (CONNECTION, HeaderValue::from_static("close")),
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        ),
    ]))
}

fn rejected_spans(body: Bytes) -> Result<u64, ExportError> {
    let answer = ExportTraceServiceResponse::decode(body)
        .map_err(|error| ExportError::Answer(error.into()))?;
    let rejected = answer.partial_success.map_or(0, |part| part.rejected_spans);
    Ok(u64::try_from(rejected).unwrap_or(0))
}

/// TLS with what the collector's certificate must have.
fn tls(host: &str) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let roots = system_roots();
    anyhow::ensure!(
        !roots.is_empty(),
        "this host trusts no certificate authority; install them, or set SSL_CERT_FILE to a file \
         of them"
    );
    let name = ServerName::try_from(host.to_owned())?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), name))
}
