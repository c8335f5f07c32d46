//! The spans of a push: that of its request, and within it that of its record, by the
//! semantic conventions of HTTP and of messaging.
//!
//! A push that is not traced has none, and costs nothing for it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Version;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use super::answer::Refusal;
use crate::config::Settings;
use crate::headers;
use crate::record::KeyedRecord;
use crate::spool::Stored;
use crate::telemetry::{Attribute, EndedSpan, SpanKind, StartedSpan, Tracer};
use crate::topics::{Topic, TopicSpec, specs};

/// Starts the spans of pushes.
#[derive(Debug)]
pub(crate) struct PushSpans {
    tracer: Tracer,
    /// Of the listener.
    scheme: &'static str,
    topics: [TopicSpec; Topic::ALL.len()],
}

/// The span of a push that the gate has let pass, from then until its answer is known.
#[derive(Debug)]
pub(crate) struct ServerSpan {
    span: StartedSpan,
    spans: Arc<PushSpans>,
    version: Version,
    client: Option<IpAddr>,
}

/// The span of a record, from when it is given to the storage until it is settled, which
/// may be after the answer.
#[derive(Debug)]
pub(crate) struct SendSpan {
    span: StartedSpan,
    spans: Arc<PushSpans>,
    topic: Topic,
    key: Option<Bytes>,
    body_bytes: usize,
}

impl PushSpans {
    pub(crate) fn new(settings: &Settings, tracer: Tracer) -> Self {
        let has_tls = settings.tls.certificate_file.is_some();
        Self {
            tracer,
            scheme: if has_tls { "https" } else { "http" },
            topics: specs(settings),
        }
    }

    /// Starts the span of a push. `None` if it is not traced.
    pub(crate) fn start(
        self: &Arc<Self>,
        head: &Parts,
        client: Option<IpAddr>,
    ) -> Option<Box<ServerSpan>> {
        let parent = head.headers.get(headers::TRACEPARENT);
        let span = self
            .tracer
            .continue_trace(parent.map(HeaderValue::as_bytes))?;
        Some(Box::new(ServerSpan {
            span,
            spans: Arc::clone(self),
            version: head.version,
            client,
        }))
    }
}

impl ServerSpan {
    /// Starts the span of the push's record.
    pub(crate) fn send(&self, record: &KeyedRecord) -> Box<SendSpan> {
        Box::new(SendSpan {
            span: self.span.child(),
            spans: Arc::clone(&self.spans),
            topic: record.topic(),
            key: record.key_bytes(),
            body_bytes: record.value().len(),
        })
    }

    /// Ends the span with the outcome of the push. `route` is the path as configured,
    /// without a token.
    pub(crate) fn end(
        &self,
        route: &str,
        request_id: &HeaderValue,
        result: Result<&Stored, Refusal>,
    ) {
        let refusal = result.err();
        let mut attributes = vec![
            Attribute::text("http.request.method", "POST"),
            Attribute::text("http.route", route),
            // Not as it was sent: it may contain the token.
            Attribute::text("url.path", route),
            Attribute::text("url.scheme", self.spans.scheme),
            Attribute::text("network.protocol.version", version(self.version)),
        ];
        if let Some(client) = self.client {
            attributes.push(Attribute::text("client.address", client.to_string()));
        }
        if let Ok(id) = request_id.to_str() {
            attributes.push(Attribute::texts("http.response.header.x-request-id", id));
        }
        attributes.extend(spooled(result));
        let status = refusal.map_or(200, |refusal| refusal.status().as_u16());
        // A client that is gone has no answer.
        if refusal != Some(Refusal::Disconnected) {
            attributes.push(Attribute::number("http.response.status_code", status));
        }
        self.span.end(EndedSpan {
            name: format!("POST {route}"),
            kind: SpanKind::Server,
            attributes,
            links: Vec::new(),
            error: refusal
                .filter(|refusal| is_error(*refusal))
                .map(Refusal::kind),
        });
    }
}

impl SendSpan {
    /// The value of the record's `traceparent`.
    pub(crate) fn traceparent(&self) -> Bytes {
        self.span.context().header()
    }

    /// Ends the span: the record is settled.
    pub(crate) fn end(self, result: Result<&Stored, Refusal>) {
        let topic = &self.spans.topics[self.topic.index()].name;
        let mut attributes = vec![
            Attribute::text("messaging.system", "kafka"),
            Attribute::text("messaging.operation.name", "send"),
            Attribute::text("messaging.operation.type", "send"),
            Attribute::text("messaging.destination.name", topic.as_str()),
        ];
        if let Ok(bytes) = i64::try_from(self.body_bytes) {
            attributes.push(Attribute::number("messaging.message.body.size", bytes));
        }
        let key = self.key.as_deref().map(std::str::from_utf8);
        if let Some(Ok(key)) = key {
            attributes.push(Attribute::text("messaging.kafka.message.key", key));
        }
        if let Ok(Stored::InKafka(delivery)) = result {
            let partition = delivery.partition().to_string();
            attributes.extend([
                Attribute::text("messaging.destination.partition.id", partition),
                Attribute::number("messaging.kafka.offset", delivery.offset()),
            ]);
        }
        attributes.extend(spooled(result));
        self.span.end(EndedSpan {
            name: format!("send {topic}"),
            kind: SpanKind::Producer,
            attributes,
            links: Vec::new(),
            error: result.err().map(Refusal::kind),
        });
    }
}

/// What says that a push is on this host's disk, and not in Kafka yet.
fn spooled(result: Result<&Stored, Refusal>) -> Option<Attribute> {
    matches!(result, Ok(Stored::Spooled(_))).then(|| Attribute::text("northbridge.stored", "spool"))
}

/// Returns whether a refusal is the server's fault, or nobody has received it.
fn is_error(refusal: Refusal) -> bool {
    refusal.status().is_server_error() || refusal == Refusal::Disconnected
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
