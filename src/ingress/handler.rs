//! The way of one request: `Push → Notification → KeyedRecord → Delivery →
//! Outcome → Response`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Version};
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::answer::{self, Answer, NoPush, Refusal, X_REQUEST_ID};
use super::auth::{Gate, Refused, Visitor};
use super::body::{self, Whole};
use super::client_address::ClientAddresses;
use super::paths::{PathMatch, Paths};
use super::publisher::{Entry, Publisher};
use crate::config;
use crate::kafka::Delivery;
use crate::metrics::{PushMetrics, ServerMetrics};
use crate::notification::{self, Rules, Unreadable};
use crate::record::{KeyedRecord, Receipt};

/// The longest `X-Request-Id` that is taken from a request, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What all requests share.
pub struct Handler {
    /// The configured paths.
    pub paths: Paths,
    /// Who may push.
    pub gate: Gate,
    /// How the client's address is told.
    pub addresses: ClientAddresses,
    /// What is held at once.
    pub admission: Admission,
    /// Where pushes go.
    pub publisher: Publisher,
    /// How pushes are read.
    pub rules: Rules,
    /// What becomes of what cannot be read.
    pub unreadable: config::Unreadable,
    /// `http.max_body_bytes`.
    pub max_body_bytes: usize,
    /// `http.body_timeout_ms`.
    pub body_timeout: Duration,
    /// What is counted of pushes.
    pub pushes: Arc<PushMetrics>,
    /// What is counted of answers.
    pub server: Arc<ServerMetrics>,
    /// Set when shutdown was announced: connections are to be given up.
    pub leaving: AtomicBool,
    /// Cancelled when there is no time left to publish anything.
    pub last_call: CancellationToken,
    /// Makes ids for requests that bring none.
    pub request_ids: RequestIds,
}

/// Ids that no other instance makes: a random start and a count.
#[derive(Debug)]
pub struct RequestIds {
    start: u64,
    next: AtomicU64,
}

/// A push whose head is complete.
struct Push<'a> {
    path: PathMatch<'a, 'a>,
    head: &'a Parts,
    peer: IpAddr,
}

impl Handler {
    /// Answers one request. Resolves by the answer's deadline.
    pub async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let (head, body) = request.into_parts();
        let id = self.request_ids.of(&head.headers);
        let mut answer = match self.route(&head) {
            Ok(path) => {
                self.push(
                    &Push {
                        path,
                        head: &head,
                        peer,
                    },
                    body,
                    &id,
                )
                .await
            }
            Err(no_push) => {
                body::linger(body);
                no_push.into_answer()
            }
        };
        answer.headers_mut().insert(X_REQUEST_ID, id);
        if head.version <= Version::HTTP_11 && self.leaving.load(Ordering::Relaxed) {
            // Lets the client's pool move on before the listener is gone.
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.server.responded(answer.status());
        answer
    }

    fn route<'a>(&'a self, head: &'a Parts) -> Result<PathMatch<'a, 'a>, NoPush> {
        let path = self.paths.find(head.uri.path()).ok_or(NoPush::NotFound)?;
        if head.method == Method::POST {
            Ok(path)
        } else {
            Err(NoPush::MethodNotAllowed)
        }
    }

    async fn push(&self, push: &Push<'_>, mut body: Incoming, id: &HeaderValue) -> Answer {
        let entry = Entry::open(Arc::clone(&self.pushes));
        let refusal = match self.receive(push, &mut body, &entry).await {
            Ok((whole, reservation)) => match self.understand(push, &whole) {
                Ok(record) => {
                    let answered = self.publisher.publish(record, entry, reservation);
                    return match answered.await {
                        Ok(Ok(delivery)) => stored(&delivery, id),
                        Ok(Err(refusal)) => refused(refusal, push.peer, id),
                        // The task ends without an answer only by a panic.
                        Err(_) => refused(Refusal::Unconfirmed, push.peer, id),
                    };
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        entry.close(refusal.outcome());
        body::linger(body);
        refused(refusal, push.peer, id)
    }

    /// Everything before the body is understood: the gate, the limits, the bytes.
    async fn receive(
        &self,
        push: &Push<'_>,
        incoming: &mut Incoming,
        entry: &Entry,
    ) -> Result<(Whole, super::admission::Reservation), Refusal> {
        if self.last_call.is_cancelled() {
            return Err(Refusal::Draining);
        }
        self.admit(push)?;
        let encoding = body::encoding(&push.head.headers)?;
        if body::declared_too_large(incoming, self.max_body_bytes) {
            return Err(Refusal::BodyTooLarge {
                limit: self.max_body_bytes,
            });
        }
        let declared = hyper::body::Body::size_hint(incoming).exact();
        let mut reservation = self.admission.reserve(declared).await?;
        let reading = body::read(incoming, encoding, self.max_body_bytes, &mut reservation);
        let deadline = entry.started() + self.body_timeout;
        let whole = tokio::time::timeout_at(deadline.into(), reading)
            .await
            .map_err(|_| Refusal::BodyTimeout)??;
        if whole.bytes.is_empty() {
            return Err(Refusal::EmptyBody);
        }
        Ok((whole, reservation))
    }

    fn admit(&self, push: &Push<'_>) -> Result<(), Refusal> {
        let headers = &push.head.headers;
        let visitor = Visitor {
            address: self.addresses.of_request(push.peer, headers),
            headers,
            query: push.head.uri.query(),
            path_token: push.path.token,
        };
        self.gate.admit(&visitor).map_err(|refused| match refused {
            Refused::Unauthorized => Refusal::Unauthorized {
                challenge: self.gate.challenge(),
            },
            Refused::Forbidden => Refusal::Forbidden,
        })
    }

    /// The record of a body; also that of one that cannot be read, unless
    /// those are to be rejected.
    fn understand(&self, push: &Push<'_>, whole: &Whole) -> Result<KeyedRecord, Refusal> {
        let receipt = Receipt {
            source: Bytes::copy_from_slice(push.path.name.as_bytes()),
            received_at: Utc::now(),
            traceparent: traceparent(&push.head.headers),
        };
        let read = if whole.corrupt {
            Err(Unreadable::not_gzip())
        } else {
            notification::read(&whole.bytes, self.rules)
        };
        match read {
            Ok(notification) => {
                for field in notification.drift().iter() {
                    self.pushes
                        .drifted(notification.subject().notify_type(), field);
                }
                Ok(KeyedRecord::of_notification(
                    &whole.bytes,
                    &notification,
                    receipt,
                ))
            }
            Err(unreadable) => match self.unreadable {
                config::Unreadable::Reject => Err(Refusal::Unreadable {
                    reason: unreadable.reason(),
                }),
                config::Unreadable::DeadLetter => Ok(KeyedRecord::of_unreadable(
                    &whole.bytes,
                    &unreadable,
                    receipt,
                )),
            },
        }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl RequestIds {
    /// Starts at random.
    pub fn new() -> Self {
        Self {
            start: fastrand::u64(..),
            next: AtomicU64::new(0),
        }
    }

    /// The request's own id where it is printable and short, else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let own = headers.get(X_REQUEST_ID).filter(|id| {
            let id = id.as_bytes();
            !id.is_empty()
                && id.len() <= MAX_REQUEST_ID_BYTES
                && id.iter().all(u8::is_ascii_graphic)
        });
        own.cloned().unwrap_or_else(|| {
            let count = self.next.fetch_add(1, Ordering::Relaxed);
            let id = format!("{:016x}-{count:x}", self.start);
            HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
        })
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

fn stored(delivery: &Delivery, id: &HeaderValue) -> Answer {
    tracing::debug!(
        request_id = id.to_str().unwrap_or("-"),
        topic = delivery.topic().label(),
        partition = delivery.partition(),
        offset = delivery.offset(),
        "stored"
    );
    answer::stored(delivery)
}

/// Logs and answers a refusal. What an operator must notice of them is in the
/// metrics; a flood of refused requests must not be one of log lines.
fn refused(refusal: Refusal, peer: IpAddr, id: &HeaderValue) -> Answer {
    let request_id = id.to_str().unwrap_or("-");
    let (status, kind) = (refusal.status().as_u16(), refusal.kind());
    tracing::debug!(request_id, %peer, status, kind, "refused");
    refusal.into_answer()
}

/// A `traceparent` of the one form that version 00 has (W3C Trace Context);
/// anything else is left out.
fn traceparent(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers.get("traceparent")?.as_bytes();
    let dashes = [2, 35, 52];
    let well_formed = value.len() == 55
        && value.iter().enumerate().all(|(position, byte)| {
            if dashes.contains(&position) {
                *byte == b'-'
            } else {
                matches!(byte, b'0'..=b'9' | b'a'..=b'f')
            }
        });
    well_formed.then(|| Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_taken_where_it_is_short_and_printable_and_made_otherwise() {
        let ids = RequestIds {
            start: 0xabc,
            next: AtomicU64::new(0),
        };
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(
                X_REQUEST_ID,
                HeaderValue::from_bytes(value).expect("a header value"),
            );
            ids.of(&headers)
        };
        assert_eq!(of(b"job-17"), "job-17");
        assert_eq!(of(b"two words"), "0000000000000abc-0");
        assert_eq!(of(b""), "0000000000000abc-1");
        assert_eq!(of(&[b'x'; 129]), "0000000000000abc-2");
        assert_eq!(of("ü".as_bytes()), "0000000000000abc-3");
        assert_eq!(ids.of(&HeaderMap::new()), "0000000000000abc-4");
    }

    #[test]
    fn only_a_well_formed_traceparent_is_passed_on() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            traceparent(&headers)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good).as_deref(), Some(good.as_bytes()));
        assert_eq!(
            of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"),
            None
        );
        assert_eq!(
            of("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            None
        );
        assert_eq!(
            of("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            None
        );
    }
}
