//! The administration server, on a port of its own and never on the listener's:
//!
//! - `GET /metrics`: Prometheus's text format
//! - `GET /livez`: 200 while the process can answer; Kafka is no part of it
//! - `GET /readyz`: 200 or 503, and each condition with since when and why

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::health::Readiness;
use crate::metrics::{Metrics, ReadinessMetrics};

/// How long a scraper may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The administration server of one process.
#[derive(Debug, Clone)]
pub struct Administration {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/readyz` shows.
    pub readiness: Readiness,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: set another address with --set admin.listen=ADDRESS:PORT")]
pub struct CannotListen {
    address: SocketAddr,
    source: std::io::Error,
}

impl Administration {
    /// What a process begins with: its own metrics, and no conditions. Its
    /// parts register what they report.
    pub fn new() -> Self {
        let metrics = Metrics::new();
        let readiness = Readiness::new(ReadinessMetrics::register(&metrics));
        Self { metrics, readiness }
    }

    /// Listens on `address` and serves until the process ends. The address
    /// that it is bound to.
    ///
    /// # Errors
    ///
    /// Where the address cannot be bound.
    pub async fn start(self, address: SocketAddr) -> Result<SocketAddr, CannotListen> {
        let failed = |source| CannotListen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(self.serve(listener));
        tracing::info!(%address, "administration listening");
        Ok(address)
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: others close theirs meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    std::future::ready(Ok::<_, Infallible>(server.answer(&request)))
                });
                let _gone = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/metrics" | "/livez" | "/readyz" if !reading => method_not_allowed(),
            "/metrics" => text(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                self.metrics.render(),
            ),
            "/livez" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => self.ready(),
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "not found\n".to_owned(),
            ),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let status = if report.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = serde_json::to_string(&report).unwrap_or_default();
        text(status, "application/json", body)
    }
}

impl Default for Administration {
    fn default() -> Self {
        Self::new()
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "text/plain",
        "method not allowed\n".to_owned(),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
