//! The path of one request: `Push → KeyedRecord → Delivery → Answer`.
//!
//! Decides only in which order things happen; each step has its own module.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::Utc;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Version};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Reservation};
use super::answer::{self, Answer, Refusal, RouteError, X_REQUEST_ID};
use super::auth::{Caller, Denied, Gate};
use super::body::{self, Encoding, ReceivedBody};
use super::client_address::ClientAddresses;
use super::metrics::{PushMetrics, ServerMetrics};
use super::paths::{self, PathMatch, Paths};
use super::publisher::{Authorized, InFlightPush, Publisher};
use super::spans::PushSpans;
use super::strangers::ConnectionEntry;
use super::trail::Trail;
use crate::config::{Settings, UnreadablePolicy};
use crate::headers;
use crate::notification::{self, Notification, Rules, Unreadable};
use crate::record::{Arrival, KeyedRecord, MAX_CONTENT_TYPE_BYTES};
use crate::spool::Stored;
use crate::telemetry::traceparent;

/// A longer `X-Request-Id` is replaced, so that logs and answers stay short.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Of a `u64` in hexadecimal.
const MAX_COUNT_DIGITS: usize = 16;

pub(crate) struct Handler {
    paths: Paths,
    /// Exchanged when the settings are reloaded.
    pub(crate) gate: ArcSwap<Gate>,
    pub(crate) addresses: ClientAddresses,
    admission: Admission,
    publisher: Publisher,
    rules: Rules,
    /// `http.unreadable`.
    unreadable: UnreadablePolicy,
    /// `http.max_body_bytes`.
    max_body_bytes: usize,
    /// `http.body_timeout_ms`, counted from the end of the head.
    body_timeout: Duration,
    push_metrics: Arc<PushMetrics>,
    pub(crate) server_metrics: Arc<ServerMetrics>,
    /// Set when shutdown is announced: from then on, answers over HTTP/1 close
    /// their connections.
    pub(crate) draining: AtomicBool,
    /// Cancelled shortly before the shutdown deadline: new pushes are refused.
    cancel_pending: CancellationToken,
    request_ids: RequestIds,
    pub(crate) trail: Arc<Trail>,
    /// `None` if nothing is traced.
    spans: Option<Arc<PushSpans>>,
}

/// Who a connection belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The other end of the connection, or the client in its PROXY header.
    pub(crate) address: IpAddr,
    pub(crate) entry: Arc<ConnectionEntry>,
}

/// Makes ids that no other instance makes: a random start and a counter.
#[derive(Debug)]
struct RequestIds {
    start: String,
    next: AtomicU64,
}

/// A push that the gate has let pass: what is kept of its head, which may be a
/// thousand times larger than on the wire (RFC 7541).
struct Push {
    address: Option<IpAddr>,
    /// The path as configured, without a token.
    path: Arc<str>,
    request_id: HeaderValue,
    encoding: Encoding,
    traceparent: Option<Bytes>,
    /// `None` if it is absent, or too long to be kept.
    content_type: Option<Bytes>,
}

/// An answer, and what it means for the connection.
struct Answered {
    answer: Answer,
    /// Whether the next request on the connection could not be found, or is not
    /// welcome.
    must_close: bool,
}

impl Handler {
    /// A handler that lets pass what the settings let pass.
    pub(crate) fn new(
        settings: &Settings,
        publisher: Publisher,
        push_metrics: Arc<PushMetrics>,
        server_metrics: Arc<ServerMetrics>,
        cancel_pending: CancellationToken,
        spans: Option<Arc<PushSpans>>,
    ) -> Self {
        Self {
            paths: Paths::new(&settings.http.paths),
            gate: ArcSwap::from_pointee(Gate::new(&settings.auth)),
            addresses: ClientAddresses::new(&settings.auth),
            admission: Admission::new(&settings.limits, Arc::clone(&push_metrics)),
            publisher,
            rules: Rules {
                command_key: settings.topics.command_status.key,
                validation: settings.http.validation,
            },
            unreadable: settings.http.unreadable,
            max_body_bytes: settings.http.max_body_bytes,
            body_timeout: settings.http.body_timeout_ms.duration(),
            push_metrics,
            server_metrics,
            draining: AtomicBool::new(false),
            cancel_pending,
            request_ids: RequestIds::new(),
            trail: Arc::new(Trail::new()),
            spans,
        }
    }

    /// Answers one request, at the latest at its answer deadline.
    pub(crate) async fn answer(&self, request: Request<Incoming>, client: &Client) -> Answer {
        let (head, body) = request.into_parts();
        let (version, request_id) = (head.version, self.request_ids.id_for(&head.headers));
        let Answered {
            mut answer,
            must_close,
        } = self.answer_request(head, body, client, &request_id).await;
        answer.headers_mut().insert(X_REQUEST_ID, request_id);
        // In a drain, the client's pool reconnects, to another instance, before the
        // listener closes. HTTP/2 has GOAWAY for that.
        let closes = must_close || self.draining.load(Ordering::Relaxed);
        if version <= Version::HTTP_11 && closes {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        self.server_metrics.responded(answer.status());
        answer
    }

    async fn answer_request(
        &self,
        head: Parts,
        body: Incoming,
        client: &Client,
        request_id: &HeaderValue,
    ) -> Answered {
        let rest = RestOfBody::of(&head.headers);
        let opened = self.open(&head, client, request_id);
        // Nothing of the head is kept while the push waits.
        drop(head);
        let (in_flight, admitted) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let is_unread = rest.discard(body);
                return Answered {
                    answer: error.into_answer(),
                    must_close: is_unread || error.breaks_framing(),
                };
            }
        };
        let push = match admitted {
            Ok(push) => push,
            Err(refusal) => {
                in_flight.finish(Err(refusal));
                if refusal.is_of_gate() {
                    client.entry.refuse();
                }
                let is_unread = rest.discard(body);
                return Answered {
                    answer: refusal.into_answer(),
                    must_close: is_unread || refusal.is_of_gate(),
                };
            }
        };
        self.answer_push(push, body, rest, in_flight).await
    }

    /// Decides by the head whether a request is a push, and whether it passes the
    /// gate. A push is counted from here on.
    fn open(
        &self,
        head: &Parts,
        client: &Client,
        request_id: &HeaderValue,
    ) -> Result<(InFlightPush, Result<Push, Refusal>), RouteError> {
        check_framing(head)?;
        let path = paths::normalized(head.uri.path());
        let path = self.route(&path, &head.method)?;
        let mut in_flight = InFlightPush::start(Arc::clone(&self.push_metrics));
        let address = self.addresses.of_request(client.address, &head.headers);
        let admitted = self.authorize(head, path.token, address).and_then(|()| {
            client.entry.authorize();
            in_flight.authorize(Authorized {
                trail: Arc::clone(&self.trail),
                request_id: request_id.clone(),
                path: Arc::clone(path.name),
                span: self
                    .spans
                    .as_ref()
                    .and_then(|spans| spans.start(head, address)),
            });
            self.admit(head, path.name, address, request_id)
        });
        if let Err(refusal) = &admitted {
            log_refusal(request_id, address, *refusal);
        }
        Ok((in_flight, admitted))
    }

    fn route<'a>(
        &'a self,
        path: &'a str,
        method: &Method,
    ) -> Result<PathMatch<'a, 'a>, RouteError> {
        let path = self.paths.find(path).ok_or(RouteError::NotFound)?;
        if *method == Method::POST {
            Ok(path)
        } else {
            Err(RouteError::MethodNotAllowed)
        }
    }

    /// The gate.
    fn authorize(
        &self,
        head: &Parts,
        path_token: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let caller = Caller {
            address,
            headers: &head.headers,
            query: head.uri.query(),
            path_token,
        };
        let gate = self.gate.load();
        gate.authorize(&caller).map_err(|denied| {
            self.push_metrics.refused_by_gate(denied);
            match denied {
                Denied::Unauthorized => Refusal::Unauthorized {
                    challenge: gate.challenge(),
                },
                Denied::Forbidden => Refusal::Forbidden,
            }
        })
    }

    /// Takes from the head of an authorized push what is needed later.
    fn admit(
        &self,
        head: &Parts,
        path: &Arc<str>,
        address: Option<IpAddr>,
        request_id: &HeaderValue,
    ) -> Result<Push, Refusal> {
        if self.cancel_pending.is_cancelled() {
            return Err(Refusal::Draining);
        }
        let headers = &head.headers;
        Ok(Push {
            address,
            path: Arc::clone(path),
            request_id: request_id.clone(),
            encoding: body::encoding(headers)?,
            traceparent: traceparent(headers),
            content_type: content_type(headers),
        })
    }

    async fn answer_push(
        &self,
        push: Push,
        mut body: Incoming,
        rest: RestOfBody,
        in_flight: InFlightPush,
    ) -> Answered {
        let received = self.receive(&push, &mut body, in_flight.started()).await;
        let is_whole = received.is_ok();
        let record = received.and_then(|(body, reservation)| {
            let record = self.to_record(&push, &body)?;
            Ok((record, reservation))
        });
        let result = match record {
            Ok((record, reservation)) => {
                self.publisher.publish(record, in_flight, reservation).await
            }
            Err(refusal) => {
                in_flight.finish(Err(refusal));
                Err(refusal)
            }
        };
        // A chunked body does not know that it has been read to its end.
        let is_unread = !is_whole && rest.discard(body);
        let answer = match result {
            Ok(stored) => accept(&push.request_id, &stored),
            Err(refusal) => {
                log_refusal(&push.request_id, push.address, refusal);
                refusal.into_answer()
            }
        };
        Answered {
            answer,
            must_close: is_unread,
        }
    }

    /// Reads the whole body, within the limits of size, time and memory.
    async fn receive(
        &self,
        push: &Push,
        incoming: &mut Incoming,
        started: Instant,
    ) -> Result<(ReceivedBody, Reservation), Refusal> {
        let limit = self.max_body_bytes;
        if body::declared_too_large(incoming, limit) {
            return Err(Refusal::BodyTooLarge { limit });
        }
        let declared = incoming.size_hint().exact();
        let mut reservation = self.admission.reserve(declared).await?;
        let reading = body::read(incoming, push.encoding, limit, &mut reservation);
        let deadline = started + self.body_timeout;
        let body = tokio::select! {
            // Nearly every body has arrived with its head: then nothing else is waited for.
            biased;
            body = reading => body?,
            () = tokio::time::sleep_until(deadline.into()) => return Err(Refusal::BodyTimeout),
            // Answered, and not reset at the end of the drain.
            () = self.cancel_pending.cancelled() => return Err(Refusal::Draining),
        };
        Ok((body, reservation))
    }

    /// Makes the record of a body. An empty one is refused; one that cannot be read
    /// becomes a dead letter, or is refused if `http.unreadable` says so.
    fn to_record(&self, push: &Push, body: &ReceivedBody) -> Result<KeyedRecord, Refusal> {
        let bytes = &body.bytes;
        if bytes.is_empty() {
            return Err(Refusal::EmptyBody);
        }
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
                let content_type = push.content_type.as_deref();
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
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Push {
    fn arrival(&self) -> Arrival {
        Arrival {
            source: Bytes::copy_from_slice(self.path.as_bytes()),
            received_at: Utc::now(),
            traceparent: self.traceparent.clone(),
        }
    }
}

/// What becomes of a body that is not read to its end.
#[derive(Debug, Clone, Copy)]
enum RestOfBody {
    /// It is on its way, and read without being kept.
    Discarded,
    /// The client waits for a 100 before it sends it (RFC 9110, 10.1.1), and reading
    /// on would ask for it.
    NeverAskedFor,
}

impl RestOfBody {
    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(EXPECT) {
            Self::NeverAskedFor
        } else {
            Self::Discarded
        }
    }

    /// Returns whether there is a rest.
    fn discard(self, body: Incoming) -> bool {
        let is_unread = !body.is_end_stream();
        match self {
            Self::Discarded => body::discard_rest(body),
            Self::NeverAskedFor => drop(body),
        }
        is_unread
    }
}

/// Checks what HTTP/1.1 requires of a head and hyper accepts without (RFC 9112, 3.2
/// and 6.1).
fn check_framing(head: &Parts) -> Result<(), RouteError> {
    let all = |name| head.headers.get_all(name).iter();
    if head.version == Version::HTTP_11 && all(HOST).count() != 1 {
        return Err(RouteError::Host);
    }
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if all(TRANSFER_ENCODING).count() > 1 || !all(TRANSFER_ENCODING).all(is_chunked) {
        return Err(RouteError::TransferCoding);
    }
    Ok(())
}

/// The sender's content type, copied because it shares memory with the whole head.
fn content_type(headers: &HeaderMap) -> Option<Bytes> {
    const JSON: &[u8] = b"application/json";
    match headers.get(CONTENT_TYPE)?.as_bytes() {
        JSON => Some(Bytes::from_static(JSON)),
        other => (other.len() <= MAX_CONTENT_TYPE_BYTES).then(|| Bytes::copy_from_slice(other)),
    }
}

impl RequestIds {
    fn new() -> Self {
        Self::starting_with(fastrand::u64(..))
    }

    fn starting_with(start: u64) -> Self {
        Self {
            start: format!("{start:016x}-"),
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
        // Copied, because it shares memory with the whole head.
        let own = own.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
        own.unwrap_or_else(|| self.next())
    }

    fn next(&self) -> HeaderValue {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(self.start.len() + MAX_COUNT_DIGITS);
        id.push_str(&self.start);
        // Writing to a string does not fail.
        let _ = write!(id, "{count:x}");
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// Logs and answers a push that is stored.
fn accept(request_id: &HeaderValue, stored: &Stored) -> Answer {
    let request_id = request_id.to_str().unwrap_or("-");
    match stored {
        Stored::InKafka(delivery) => tracing::debug!(
            request_id,
            topic = delivery.topic().label(),
            partition = delivery.partition(),
            offset = delivery.offset(),
            "push stored"
        ),
        Stored::Spooled(spooled) => tracing::debug!(
            request_id,
            topic = spooled.slot().topic.label(),
            "push spooled"
        ),
    }
    answer::stored(stored)
}

/// Logs a refusal.
///
/// At `debug`: metrics tell operators how many there are, and a flood of
/// refused requests must not become a flood of log lines.
fn log_refusal(request_id: &HeaderValue, client: Option<IpAddr>, refusal: Refusal) {
    tracing::debug!(
        request_id = request_id.to_str().unwrap_or("-"),
        client = client.map(tracing::field::display),
        status = refusal.status().as_u16(),
        kind = refusal.kind(),
        "push refused"
    );
}

/// The request's `traceparent` if it has the form of version 00 (W3C Trace
/// Context); any other is dropped.
fn traceparent(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers.get(headers::TRACEPARENT)?.as_bytes();
    traceparent::is_well_formed(value).then(|| Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_printable_request_id_is_kept_and_any_other_is_replaced() {
        let ids = RequestIds::starting_with(0xabc);
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
