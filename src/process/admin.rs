//! The admin server, on a port of its own and never on the listener's:
//!
//! - `GET /metrics`: Prometheus's text format
//! - `GET /livez`: 200 while the process can answer; Kafka has no part in it
//! - `GET /readyz`: 200 or 503, and each condition with since when and why
//!
//! Knows no metric and no condition by name: components add their own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::readiness::Readiness;
use super::vital;
use crate::metrics::Metrics;

/// How long a client may take to send the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is served; a client that does not read holds its answer for
/// as long.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The open connections; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 256;
/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a process reports about itself, and the server that serves it. Clones
/// share it.
#[derive(Debug, Clone)]
pub(crate) struct AdminServer {
    /// Served at `/metrics`.
    pub(crate) metrics: Metrics,
    /// Served at `/readyz`.
    pub(crate) readiness: Readiness,
}

/// The admin server's address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: set another address with --set admin.listen=ADDRESS:PORT")]
pub(crate) struct CannotListen {
    address: SocketAddr,
    source: std::io::Error,
}

impl AdminServer {
    /// Starts with the metrics of the process itself, and without conditions.
    pub(crate) fn new() -> Self {
        let metrics = Metrics::new();
        let readiness = Readiness::new(&metrics);
        Self { metrics, readiness }
    }

    /// Serves on `address` until the process ends. Returns the address it is
    /// bound to, which has the real port if `address` has port 0.
    ///
    /// # Errors
    ///
    /// Returns `CannotListen` if the address cannot be bound.
    pub(crate) async fn start(self, address: SocketAddr) -> Result<SocketAddr, CannotListen> {
        let cannot_listen = |source| CannotListen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        vital::spawn("admin server", self.accept(listener));
        tracing::info!(%address, "admin server listening");
        Ok(address)
    }

    async fn accept(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = self.clone().serve(stream);
                    tokio::spawn(async move {
                        let _timed_out = timeout(CONNECTION_TIMEOUT, serving).await;
                        drop(permit);
                    });
                }
                // Most likely out of file descriptors, until other connections close.
                Err(_) => tokio::time::sleep(ACCEPT_BACKOFF).await,
            }
        }
    }

    async fn serve(self, stream: TcpStream) {
        let service =
            service_fn(|request| std::future::ready(Ok::<_, Infallible>(self.answer(&request))));
        let _client_error = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/metrics" | "/livez" | "/readyz" if !is_read => method_not_allowed(),
            "/metrics" => text(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                self.metrics.render(),
            ),
            "/livez" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => self.readyz(),
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "not found\n".to_owned(),
            ),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
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
