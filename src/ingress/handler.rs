//! The path of one request: `Push → KeyedRecord → Delivery → Answer`.
//!
//! Decides only in which order things happen; each step has its own module.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Version};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Reservation};
use super::answer::{self, Answer, Refusal, RouteError, X_REQUEST_ID};
use super::auth::{Caller, Denied, Gate};
use super::body::{self, ReceivedBody};
use super::client_address::ClientAddresses;
use super::metrics::{PushMetrics, ServerMetrics};
use super::paths::{PathMatch, Paths};
use super::publisher::{InFlightPush, Publisher};
use crate::config::UnreadablePolicy;
use crate::headers;
use crate::kafka::Delivery;
use crate::notification::{self, Notification, Rules, Unreadable};
use crate::record::{Arrival, KeyedRecord};

/// A longer `X-Request-Id` is replaced, so that logs and answers stay short.
const MAX_REQUEST_ID_BYTES: usize = 128;

pub(crate) struct Handler {
    pub(crate) paths: Paths,
    pub(crate) gate: Gate,
    pub(crate) addresses: ClientAddresses,
    pub(crate) admission: Admission,
    pub(crate) publisher: Publisher,
    pub(crate) rules: Rules,
    /// `http.unreadable`.
    pub(crate) unreadable: UnreadablePolicy,
    /// `http.max_body_bytes`.
    pub(crate) max_body_bytes: usize,
    /// `http.body_timeout_ms`, counted from the end of the head.
    pub(crate) body_timeout: Duration,
    pub(crate) push_metrics: Arc<PushMetrics>,
    pub(crate) server_metrics: Arc<ServerMetrics>,
    /// Set when shutdown is announced: from then on, answers over HTTP/1 close
    /// their connections.
    pub(crate) draining: AtomicBool,
    /// Cancelled shortly before the shutdown deadline: new pushes are refused.
    pub(crate) cancel_pending: CancellationToken,
    pub(crate) request_ids: RequestIds,
}

/// Makes ids that no other instance makes: a random start and a counter.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    next: AtomicU64,
}

/// A `POST` to a configured path, whose head is complete.
struct Push<'a> {
    path: PathMatch<'a, 'a>,
    head: &'a Parts,
    peer: IpAddr,
    request_id: &'a HeaderValue,
}

impl Handler {
    /// Answers one request, at the latest at its answer deadline.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let (head, body) = request.into_parts();
        let request_id = self.request_ids.id_for(&head.headers);
        let mut answer = match self.route(&head) {
            Ok(path) => {
                let push = Push {
                    path,
                    head: &head,
                    peer,
                    request_id: &request_id,
                };
                self.answer_push(&push, body).await
            }
            Err(error) => {
                body::discard_rest(body);
                error.into_answer()
            }
        };
        answer.headers_mut().insert(X_REQUEST_ID, request_id);
        if head.version <= Version::HTTP_11 && self.draining.load(Ordering::Relaxed) {
            // The client's pool reconnects, to another instance, before the
            // listener closes. HTTP/2 has GOAWAY for that.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        self.server_metrics.responded(answer.status());
        answer
    }

    fn route<'a>(&'a self, head: &'a Parts) -> Result<PathMatch<'a, 'a>, RouteError> {
        let path = self.paths.find(head.uri.path());
        let path = path.ok_or(RouteError::NotFound)?;
        if head.method == Method::POST {
            Ok(path)
        } else {
            Err(RouteError::MethodNotAllowed)
        }
    }

    async fn answer_push(&self, push: &Push<'_>, mut body: Incoming) -> Answer {
        let in_flight = InFlightPush::start(Arc::clone(&self.push_metrics));
        match self.prepare(push, &mut body, in_flight.started()).await {
            Ok((record, reservation)) => self.publish(push, record, in_flight, reservation).await,
            Err(refusal) => {
                in_flight.finish(refusal.outcome());
                body::discard_rest(body);
                refuse(push, refusal)
            }
        }
    }

    /// Authorizes a push, reads its body and makes the record to publish.
    /// Nothing is stored if any of these refuses it.
    async fn prepare(
        &self,
        push: &Push<'_>,
        incoming: &mut Incoming,
        started: Instant,
    ) -> Result<(KeyedRecord, Reservation), Refusal> {
        if self.cancel_pending.is_cancelled() {
            return Err(Refusal::Draining);
        }
        self.authorize(push)?;
        let (body, reservation) = self.receive(push, incoming, started).await?;
        let record = self.to_record(push, &body)?;
        Ok((record, reservation))
    }

    fn authorize(&self, push: &Push<'_>) -> Result<(), Refusal> {
        let headers = &push.head.headers;
        let caller = Caller {
            address: self.addresses.of_request(push.peer, headers),
            headers,
            query: push.head.uri.query(),
            path_token: push.path.token,
        };
        self.gate.authorize(&caller).map_err(|denied| match denied {
            Denied::Unauthorized => Refusal::Unauthorized {
                challenge: self.gate.challenge(),
            },
            Denied::Forbidden => Refusal::Forbidden,
        })
    }

    /// Reads the whole body, within the limits of size, time and memory.
    async fn receive(
        &self,
        push: &Push<'_>,
        incoming: &mut Incoming,
        started: Instant,
    ) -> Result<(ReceivedBody, Reservation), Refusal> {
        let limit = self.max_body_bytes;
        let encoding = body::encoding(&push.head.headers)?;
        if body::declared_too_large(incoming, limit) {
            return Err(Refusal::BodyTooLarge { limit });
        }
        let declared = hyper::body::Body::size_hint(incoming).exact();
        let mut reservation = self.admission.reserve(declared).await?;
        let reading = body::read(incoming, encoding, limit, &mut reservation);
        let deadline = started + self.body_timeout;
        let body = tokio::time::timeout_at(deadline.into(), reading)
            .await
            .map_err(|_| Refusal::BodyTimeout)??;
        if body.bytes.is_empty() {
            return Err(Refusal::EmptyBody);
        }
        Ok((body, reservation))
    }

    /// Makes the record of a body. One that cannot be read becomes a dead
    /// letter, or is refused if `http.unreadable` says so.
    fn to_record(&self, push: &Push<'_>, body: &ReceivedBody) -> Result<KeyedRecord, Refusal> {
        let bytes = &body.bytes;
        let arrival = push.arrival();
        let read = if body.corrupt_gzip {
            Err(Unreadable::not_gzip())
        } else {
            notification::read(bytes, self.rules)
        };
        match (read, self.unreadable) {
            (Ok(notification), _) => {
                self.count_drift(&notification);
                Ok(KeyedRecord::from_notification(
                    bytes,
                    &notification,
                    arrival,
                ))
            }
            (Err(unreadable), UnreadablePolicy::DeadLetter) => {
                let content_type = push.head.headers.get(CONTENT_TYPE);
                let content_type = content_type.map(HeaderValue::as_bytes);
                Ok(KeyedRecord::from_unreadable(
                    bytes,
                    &unreadable,
                    arrival,
                    content_type,
                ))
            }
            (Err(unreadable), UnreadablePolicy::Reject) => Err(Refusal::Unreadable {
                reason: unreadable.reason(),
            }),
        }
    }

    fn count_drift(&self, notification: &Notification<'_>) {
        let notify_type = notification.subject().notify_type();
        for field in notification.drift().fields() {
            self.push_metrics.drifted(notify_type, field);
        }
    }

    async fn publish(
        &self,
        push: &Push<'_>,
        record: KeyedRecord,
        in_flight: InFlightPush,
        reservation: Reservation,
    ) -> Answer {
        let result = self.publisher.publish(record, in_flight, reservation);
        match result.await {
            Ok(Ok(delivery)) => accept(push, &delivery),
            Ok(Err(refusal)) => refuse(push, refusal),
            // The task ends without a result only if it panics.
            Err(_) => refuse(push, Refusal::Unconfirmed),
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

impl Push<'_> {
    fn arrival(&self) -> Arrival {
        Arrival {
            source: Bytes::copy_from_slice(self.path.name.as_bytes()),
            received_at: Utc::now(),
            traceparent: traceparent(&self.head.headers),
        }
    }
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self {
            start: fastrand::u64(..),
            next: AtomicU64::new(0),
        }
    }

    /// The request's own id if it is printable and short, else a new one.
    fn id_for(&self, headers: &HeaderMap) -> HeaderValue {
        let own = headers.get(X_REQUEST_ID).filter(|id| {
            let id = id.as_bytes();
            !id.is_empty()
                && id.len() <= MAX_REQUEST_ID_BYTES
                && id.iter().all(u8::is_ascii_graphic)
        });
        own.cloned().unwrap_or_else(|| self.next())
    }

    fn next(&self) -> HeaderValue {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{count:x}", self.start);
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// Logs and answers a push that Kafka has acknowledged.
fn accept(push: &Push<'_>, delivery: &Delivery) -> Answer {
    tracing::debug!(
        request_id = push.request_id.to_str().unwrap_or("-"),
        topic = delivery.topic().label(),
        partition = delivery.partition(),
        offset = delivery.offset(),
        "push stored"
    );
    answer::stored(delivery)
}

/// Logs and answers a refusal.
///
/// At `debug`: metrics tell operators how many there are, and a flood of
/// refused requests must not become a flood of log lines.
fn refuse(push: &Push<'_>, refusal: Refusal) -> Answer {
    tracing::debug!(
        request_id = push.request_id.to_str().unwrap_or("-"),
        peer = %push.peer,
        status = refusal.status().as_u16(),
        kind = refusal.kind(),
        "push refused"
    );
    refusal.into_answer()
}

/// The request's `traceparent` if it has the form of version 00 (W3C Trace
/// Context); any other is dropped.
fn traceparent(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers.get(headers::TRACEPARENT)?.as_bytes();
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
    fn a_short_printable_request_id_is_kept_and_any_other_is_replaced() {
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
            ids.id_for(&headers)
        };
        assert_eq!(of(b"job-17"), "job-17");
        assert_eq!(of(b"two words"), "0000000000000abc-0");
        assert_eq!(of(b""), "0000000000000abc-1");
        assert_eq!(of(&[b'x'; 129]), "0000000000000abc-2");
        assert_eq!(of("ü".as_bytes()), "0000000000000abc-3");
        assert_eq!(ids.id_for(&HeaderMap::new()), "0000000000000abc-4");
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
