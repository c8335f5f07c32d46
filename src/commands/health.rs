//! `northbridge health`: queries the admin server of a running
//! process, for containers without a shell or curl. Knows nothing of Kafka.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::config::Settings;
use crate::process::readiness::Report;
use crate::process::{Exit, output};

/// A live process answers from memory. Shorter than the timeouts of supervisors,
/// so that the line with the reason still reaches them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Larger than any readiness report.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What to ask a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Can it answer at all? Kafka plays no part.
    Live,
    /// Are all conditions of its readiness met?
    Ready,
}

#[derive(Debug, Error)]
#[error(
    "admin.listen has port 0, so the port is chosen at start and unknown here; set a fixed port"
)]
struct NoPort;

/// Why the answer is not yes.
#[derive(Debug, Error)]
enum Failure {
    #[error("cannot connect to {0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    #[error("no answer from {0} within {seconds} s", seconds = ANSWER_TIMEOUT.as_secs())]
    TimedOut(SocketAddr),
    #[error("no HTTP response from {0}: {1}")]
    NotHttp(SocketAddr, hyper::Error),
    #[error("{0} answered {1}")]
    Status(SocketAddr, StatusCode),
    #[error("{0}")]
    NotReady(String),
}

/// Asks, and prints the answer on one line. That the process is not there is an
/// answer too: [`Exit::Findings`].
///
/// # Errors
///
/// Returns an error if `admin.listen` has port 0.
pub async fn run(settings: &Settings, question: Question) -> anyhow::Result<Exit> {
    let address = connect_address(settings.admin.listen);
    if address.port() == 0 {
        return Err(NoPort.into());
    }
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(address, question)).await;
    match answer.unwrap_or(Err(Failure::TimedOut(address))) {
        Ok(()) => {
            output::print_line(question.word())?;
            Ok(Exit::Done)
        }
        Err(failure) => {
            output::print_line(failure)?;
            Ok(Exit::Findings)
        }
    }
}

/// The address to connect to: loopback if the server listens on all addresses.
fn connect_address(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        bound @ (IpAddr::V4(_) | IpAddr::V6(_)) => bound,
    };
    SocketAddr::new(address, listen.port())
}

async fn ask(address: SocketAddr, question: Question) -> Result<(), Failure> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| Failure::Unreachable(address, error))?;
    let response = get(stream, address, question.path())
        .await
        .map_err(|error| Failure::NotHttp(address, error))?;
    match (response.status(), question) {
        (StatusCode::OK, _) => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Question::Ready) => {
            Err(Failure::NotReady(reasons(response.body())))
        }
        (status, _) => Err(Failure::Status(address, status)),
    }
}

async fn get(
    stream: TcpStream,
    address: SocketAddr,
    path: &'static str,
) -> Result<Response<Bytes>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(path);
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let (head, body) = sender.send_request(request).await?.into_parts();
    // A truncated report cannot be read, but the status still is an answer.
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes);
    Ok(Response::from_parts(head, body.unwrap_or_default()))
}

fn reasons(body: &[u8]) -> String {
    serde_json::from_slice(body).map_or_else(
        |_| "not ready: the reason is unknown".to_owned(),
        |report: Report| report.to_string(),
    )
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_queried_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.0.2.7:9", "192.0.2.7:9"),
        ] {
            assert_eq!(
                connect_address(listen.parse().unwrap()),
                asked.parse().unwrap(),
                "{listen}"
            );
        }
    }

    #[test]
    fn unmet_conditions_are_reported_on_one_line() {
        let report = r#"{"ready":false,"conditions":[
            {"name":"accepting","met":true,"since":"…","why":"open"},
            {"name":"kafka","met":false,"since":"…","why":"no broker\nanswers"},
            {"name":"topics","met":false,"since":"…","why":"not asked yet"}]}"#;
        assert_eq!(
            reasons(report.as_bytes()),
            "not ready: kafka: no broker answers; topics: not asked yet"
        );
        assert_eq!(reasons(b"busy"), "not ready: the reason is unknown");
    }
}
