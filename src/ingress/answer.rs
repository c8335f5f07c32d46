//! Turns results into responses: [`Stored`] into the 200, each [`Refusal`]
//! into its row of one table of statuses, problem types and outcomes.
//!
//! Only [`Stored`] can become a 200, and only Kafka's acknowledgement or, where a
//! spool is set, the sync of this host's disk can become that.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::metrics::Outcome;
use crate::spool::Stored;

pub(crate) type Answer = Response<Bytes>;

/// Names the request in every answer and in the log.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a push is not answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    EmptyBody,
    /// The body is not a notification, and `http.unreadable` is `reject`.
    Unreadable {
        /// One of [`Cause::REASONS`](crate::notification::Cause::REASONS).
        reason: &'static str,
    },
    /// Credentials are missing or wrong.
    Unauthorized {
        /// The value of `WWW-Authenticate`, if Basic credentials would do.
        challenge: Option<&'static str>,
    },
    /// The client's address is not allowed.
    Forbidden,
    BodyTimeout,
    BodyTooLarge {
        /// `http.max_body_bytes`.
        limit: usize,
    },
    /// A `Content-Encoding` that is neither `identity` nor `gzip`.
    UnsupportedEncoding,
    /// A limit of pushes or bytes in flight is reached.
    Overloaded,
    /// Kafka is known to be down, or a broker rejected the record permanently.
    Unavailable,
    /// Kafka did not acknowledge the record before the answer deadline.
    Unconfirmed,
    /// The process is shutting down.
    Draining,
    /// The client disconnected before the end of its body. Usually nobody
    /// reads this answer.
    Disconnected,
}

/// Why a request is not a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteError {
    /// HTTP/1.1 without a `Host`, or with several (RFC 9112, 3.2).
    Host,
    /// A transfer coding besides `chunked` (RFC 9112, 6.1).
    TransferCoding,
    NotFound,
    MethodNotAllowed,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    outcome: Outcome,
    /// The last part of the problem's `type`. Senders may depend on it.
    kind: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
}

/// The 200, which takes the proof that the push is stored.
pub(crate) fn stored(_proof: &Stored) -> Answer {
    Response::new(Bytes::new())
}

impl Refusal {
    /// Returns whether it is the gate's, so that the client is a stranger.
    pub(crate) fn is_of_gate(self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Forbidden)
    }

    pub(crate) fn outcome(self) -> Outcome {
        self.row().outcome
    }

    pub(crate) fn status(self) -> StatusCode {
        self.row().status
    }

    pub(crate) fn kind(self) -> &'static str {
        self.row().kind
    }

    pub(crate) fn into_answer(self) -> Answer {
        let row = self.row();
        let mut answer = problem(row.status, row.kind, row.title, &row.detail);
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
        const SAFE_TO_RETRY: &str = "Nothing was stored; it is safe to retry.";
        const MAY_BE_STORED: &str =
            "The push may still be stored; it is safe to retry, which may store it twice.";
        let row = |status, outcome, kind, title, detail| Row {
            status,
            outcome,
            kind,
            title,
            detail: Cow::Borrowed(detail),
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
                title: "The body is not a notification",
                detail: Cow::Owned(format!("Reason: {reason}. Nothing was stored.")),
            },
            Self::Unauthorized { .. } => row(
                StatusCode::UNAUTHORIZED,
                Outcome::Rejected,
                "unauthorized",
                "Credentials are missing or wrong",
                "The request does not carry the credentials that this listener requires.",
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
                SAFE_TO_RETRY,
            ),
            Self::BodyTooLarge { limit } => Row {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                outcome: Outcome::Rejected,
                kind: "body-too-large",
                title: "The body is too large",
                detail: Cow::Owned(format!(
                    "At most {limit} bytes are accepted, counted after decompression."
                )),
            },
            Self::UnsupportedEncoding => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Outcome::Rejected,
                "unsupported-encoding",
                "The content encoding is not supported",
                "Use identity or gzip.",
            ),
            Self::Overloaded => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "overloaded",
                "Too many pushes are in flight",
                SAFE_TO_RETRY,
            ),
            Self::Unavailable => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Unavailable,
                "unavailable",
                "Kafka is unavailable",
                "Kafka did not acknowledge the push; it is safe to retry.",
            ),
            Self::Unconfirmed => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Unconfirmed,
                "unconfirmed",
                "Kafka did not acknowledge the push in time",
                MAY_BE_STORED,
            ),
            Self::Draining => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Draining,
                "draining",
                "The listener is shutting down",
                MAY_BE_STORED,
            ),
            Self::Disconnected => row(
                StatusCode::BAD_REQUEST,
                Outcome::Disconnected,
                "disconnected",
                "The body is incomplete",
                SAFE_TO_RETRY,
            ),
        }
    }
}

impl RouteError {
    /// Returns whether it is not certain where the next request begins.
    pub(crate) fn breaks_framing(self) -> bool {
        match self {
            Self::Host | Self::TransferCoding => true,
            Self::NotFound | Self::MethodNotAllowed => false,
        }
    }

    pub(crate) fn into_answer(self) -> Answer {
        match self {
            Self::Host => problem(
                StatusCode::BAD_REQUEST,
                "host",
                "The request needs exactly one Host",
                "Send one Host header field.",
            ),
            Self::TransferCoding => problem(
                StatusCode::NOT_IMPLEMENTED,
                "transfer-coding",
                "The transfer coding is not supported",
                "Use chunked alone; compress with Content-Encoding: gzip.",
            ),
            Self::NotFound => problem(
                StatusCode::NOT_FOUND,
                "not-found",
                "Path not found",
                "Send pushes to one of the paths in http.paths.",
            ),
            Self::MethodNotAllowed => {
                let mut answer = problem(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    "Method not allowed",
                    "Send pushes with POST.",
                );
                let allowed = HeaderValue::from_static("POST");
                answer.headers_mut().insert(ALLOW, allowed);
                answer
            }
        }
    }
}

fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Answer {
    let problem = Problem {
        r#type: format!("urn:northbridge:problem:{kind}"),
        title,
        status: status.as_u16(),
        detail,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
