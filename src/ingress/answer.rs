//! What is answered: `Delivery → 200`, every [`Refusal`] → its row of the
//! HTTP table.
//!
//! A 200 can be built from a [`Delivery`] alone, and a `Delivery` only from
//! Kafka's acknowledgement.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::kafka::Delivery;
use crate::metrics::Outcome;

/// The response the listener sends.
pub type Answer = Response<Full<Bytes>>;

/// Names the request in every answer and in the log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a push is not answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The body has no bytes.
    EmptyBody,
    /// The body is no notification, and `http.unreadable` is `reject`.
    Unreadable {
        /// From the closed list of reasons.
        reason: &'static str,
    },
    /// Credentials are missing or wrong.
    Unauthorized {
        /// What to send in `WWW-Authenticate`, where a header can help.
        challenge: Option<&'static str>,
    },
    /// The client's address is not allowed.
    Forbidden,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is above the limit.
    BodyTooLarge {
        /// `http.max_body_bytes`.
        limit: usize,
    },
    /// A `Content-Encoding` that is neither `identity` nor `gzip`.
    UnsupportedEncoding,
    /// Too much is in flight.
    Overloaded,
    /// Kafka is known to be down, or refused the record.
    Unavailable,
    /// Kafka did not acknowledge before the deadline.
    Unconfirmed,
    /// The process is about to end.
    Draining,
    /// The client went before its body was there; nobody reads this answer.
    Disconnected,
}

/// A request that is no push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPush {
    /// Another path.
    NotFound,
    /// Another method.
    MethodNotAllowed,
}

/// RFC 9457.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: String,
}

/// One row of the HTTP table.
struct Row {
    status: StatusCode,
    outcome: Outcome,
    kind: &'static str,
    title: &'static str,
    detail: String,
}

/// The 200: the push is in Kafka.
pub fn stored(_proof: &Delivery) -> Answer {
    Response::new(Full::default())
}

impl Refusal {
    /// What the push counts as.
    pub fn outcome(self) -> Outcome {
        self.row().outcome
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// The stable last part of the problem's `type`.
    pub fn kind(self) -> &'static str {
        self.row().kind
    }

    /// The answer.
    pub fn into_answer(self) -> Answer {
        let row = self.row();
        let mut answer = problem(row.status, row.kind, row.title, row.detail);
        let headers = answer.headers_mut();
        if row.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::Unauthorized {
            challenge: Some(challenge),
        } = self
        {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        answer
    }

    fn row(self) -> Row {
        let row = |status, outcome, kind, title, detail: &str| Row {
            status,
            outcome,
            kind,
            title,
            detail: detail.to_owned(),
        };
        match self {
            Self::EmptyBody => row(
                StatusCode::BAD_REQUEST,
                Outcome::Rejected,
                "empty-body",
                "The body is empty",
                "A push is one JSON object.",
            ),
            Self::Unreadable { reason } => Row {
                status: StatusCode::BAD_REQUEST,
                outcome: Outcome::Rejected,
                kind: "unreadable",
                title: "The body is no notification",
                detail: format!("Reason: {reason}. Nothing was stored."),
            },
            Self::Unauthorized { .. } => row(
                StatusCode::UNAUTHORIZED,
                Outcome::Rejected,
                "unauthorized",
                "Credentials are missing or wrong",
                "The listener asks for credentials that the request does not carry.",
            ),
            Self::Forbidden => row(
                StatusCode::FORBIDDEN,
                Outcome::Rejected,
                "forbidden",
                "The address is not allowed",
                "The client's address is not in auth.allowed_addresses.",
            ),
            Self::BodyTimeout => row(
                StatusCode::REQUEST_TIMEOUT,
                Outcome::Rejected,
                "body-timeout",
                "The body did not arrive in time",
                "Nothing was stored; sending again is safe.",
            ),
            Self::BodyTooLarge { limit } => Row {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                outcome: Outcome::Rejected,
                kind: "body-too-large",
                title: "The body is too large",
                detail: format!("At most {limit} bytes are taken, counted after decompression."),
            },
            Self::UnsupportedEncoding => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Outcome::Rejected,
                "unsupported-encoding",
                "The content encoding is not supported",
                "Send identity or gzip.",
            ),
            Self::Overloaded => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "overloaded",
                "Too much is in flight",
                "Nothing was stored; sending again is safe.",
            ),
            Self::Unavailable => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Unavailable,
                "unavailable",
                "Kafka is not available",
                "The push was not acknowledged by Kafka; sending again is safe.",
            ),
            Self::Unconfirmed => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Unconfirmed,
                "unconfirmed",
                "Kafka did not acknowledge in time",
                "The push may be stored yet; sending again is safe and may store it twice.",
            ),
            Self::Draining => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Draining,
                "draining",
                "The listener is about to end",
                "The push may be stored yet; sending again is safe and may store it twice.",
            ),
            Self::Disconnected => row(
                StatusCode::BAD_REQUEST,
                Outcome::Disconnected,
                "disconnected",
                "The body did not arrive whole",
                "Nothing was stored; sending again is safe.",
            ),
        }
    }
}

impl NoPush {
    /// The answer.
    pub fn into_answer(self) -> Answer {
        match self {
            Self::NotFound => problem(
                StatusCode::NOT_FOUND,
                "not-found",
                "No such path",
                "Pushes go to one of http.paths.".to_owned(),
            ),
            Self::MethodNotAllowed => {
                let mut answer = problem(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    "No such method",
                    "Pushes are sent with POST.".to_owned(),
                );
                answer
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("POST"));
                answer
            }
        }
    }
}

fn problem(status: StatusCode, kind: &str, title: &str, detail: String) -> Answer {
    let problem = Problem {
        r#type: format!("urn:northbridge:problem:{kind}"),
        title,
        status: status.as_u16(),
        detail,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
