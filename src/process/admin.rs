//! The admin server, on a port of its own and never on the listener's:
//!
//! - `GET /metrics`: Prometheus's text format
//! - `GET /livez`: 200 while the process can answer; Kafka has no part in it
//! - `GET /readyz`: 200 or 503, and each condition with since when and why
//! - `GET /`: the status [`page`](super::page)
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

use super::last_errors::LastErrors;
use super::page::StatusPage;
use super::readiness::Readiness;
use super::vital;
use crate::config::Settings;
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
    /// Shown on the status page.
    pub(crate) last_errors: LastErrors,
}

/// What is served at the admin server's paths.
#[derive(Debug)]
struct Routes {
    reported: AdminServer,
    page: StatusPage,
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
        Self {
            metrics,
            readiness,
            last_errors: LastErrors::default(),
        }
    }

    /// Serves at `admin.listen` until the process ends. The status page has the title
    /// `process` and shows the settings with the keys `shown`. Returns the address the
    /// server is bound to, which has the real port if the setting has port 0.
    ///
    /// # Errors
    ///
    /// Returns `CannotListen` if the address cannot be bound.
    pub(crate) async fn start(
        self,
        settings: &Settings,
        process: &'static str,
        shown: &[&str],
    ) -> Result<SocketAddr, CannotListen> {
        let address = settings.admin.listen;
        let cannot_listen = |source| CannotListen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let routes = Arc::new(Routes {
            page: StatusPage::new(self.clone(), process, settings, shown),
            reported: self,
        });
        let sampled = Arc::clone(&routes);
        vital::spawn("status page", async move { sampled.page.sample().await });
        vital::spawn("admin server", routes.accept(listener));
        tracing::info!(%address, "admin server listening");
        Ok(address)
    }
}

impl Routes {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = Arc::clone(&self).serve(stream);
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

    async fn serve(self: Arc<Self>, stream: TcpStream) {
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
            "/metrics" | "/livez" | "/readyz" | "/" if !is_read => method_not_allowed(),
            "/metrics" => respond(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                self.reported.metrics.render(),
            ),
            "/livez" => respond(StatusCode::OK, "text/plain", "ok\n"),
            "/readyz" => self.readyz(),
            "/" => self.page.answer(request.headers()),
            _ => respond(StatusCode::NOT_FOUND, "text/plain", "not found\n"),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let report = self.reported.readiness.report();
        let status = if report.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let body = serde_json::to_string(&report).unwrap_or_default();
        respond(status, "application/json", body)
    }
}

pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let mut response = respond(
        StatusCode::METHOD_NOT_ALLOWED,
        "text/plain",
        "method not allowed\n",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
