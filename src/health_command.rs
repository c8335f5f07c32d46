//! `northbridge health`: asks a running process's administration server how it
//! is, for containers that have no shell and no curl. Knows nothing of Kafka.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::config::Settings;
use crate::process::Exit;

/// A process that lives answers from memory; supervisors have time-outs of
/// their own, and should get to see the line that says why.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// More than any report of readiness.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether the process can answer at all.
    Live,
    /// Whether every condition of readiness is met.
    Ready,
}

/// Nobody can be asked.
#[derive(Debug, Error)]
#[error("admin.listen has port 0, so that its port is not known here: give it a fixed one")]
pub struct NoPort;

/// Why there is no answer that counts.
#[derive(Debug, Error)]
enum Failure {
    #[error("nothing answers at {0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    #[error("no answer from {0} within {seconds} s", seconds = ANSWER_WITHIN.as_secs())]
    TimedOut(SocketAddr),
    #[error("no HTTP from {0}: {1}")]
    Broken(SocketAddr, hyper::Error),
    #[error("{0} from {1}")]
    Status(StatusCode, SocketAddr),
    #[error("not ready: {0}")]
    NotReady(String),
}

/// The part of `/readyz` that is needed.
#[derive(Debug, Deserialize)]
struct Report {
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    name: String,
    met: bool,
    why: String,
}

/// Asks, prints one line, and ends with 0 or 1.
///
/// # Errors
///
/// Where `admin.listen` does not say which port to ask.
pub async fn run(settings: &Settings, question: Question) -> anyhow::Result<Exit> {
    let address = reachable(settings.admin.listen);
    if address.port() == 0 {
        return Err(NoPort.into());
    }
    let answer = tokio::time::timeout(ANSWER_WITHIN, ask(address, question)).await;
    Ok(match answer.unwrap_or(Err(Failure::TimedOut(address))) {
        Ok(()) => {
            println!("{}", question.word());
            Exit::Done
        }
        Err(failure) => {
            println!("{failure}");
            Exit::Findings
        }
    })
}

/// A server on every address is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
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
        .map_err(|error| Failure::Broken(address, error))?;
    match (response.status(), question) {
        (StatusCode::OK, _) => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Question::Ready) => {
            Err(Failure::NotReady(unmet(response.body())))
        }
        (status, _) => Err(Failure::Status(status, address)),
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
    // Without its end the report cannot be read, and the status has said enough.
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes);
    Ok(Response::from_parts(head, body.unwrap_or_default()))
}

/// The conditions that are not met, and why, on one line.
fn unmet(body: &[u8]) -> String {
    let Ok(report) = serde_json::from_slice::<Report>(body) else {
        return "for an unknown reason".to_owned();
    };
    let unmet = report.conditions.iter().filter(|condition| !condition.met);
    let reasons: Vec<_> = unmet
        .map(|condition| format!("{}: {}", condition.name, condition.why))
        .collect();
    reasons.join("; ").replace(['\r', '\n'], " ")
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
    fn a_server_on_every_address_is_asked_on_the_loopback_one() {
        for (listen, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.0.2.7:9", "192.0.2.7:9"),
        ] {
            assert_eq!(
                reachable(listen.parse().unwrap()),
                asked.parse().unwrap(),
                "{listen}"
            );
        }
    }

    #[test]
    fn what_is_not_met_stands_on_one_line() {
        let report = r#"{"ready":false,"conditions":[
            {"name":"accepting","met":true,"since":"…","why":"open"},
            {"name":"kafka","met":false,"since":"…","why":"no broker\nanswers"},
            {"name":"topics","met":false,"since":"…","why":"not asked yet"}]}"#;
        assert_eq!(
            unmet(report.as_bytes()),
            "kafka: no broker answers; topics: not asked yet"
        );
        assert_eq!(unmet(b"busy"), "for an unknown reason");
    }
}
