//! A span from its start to its end.

use std::num::NonZero;
use std::time::{Duration, Instant, SystemTime};

use super::otlp;
use super::traceparent::SpanContext;
use super::tracer::Tracer;

/// The most links of a span; OpenTelemetry's own default.
pub(crate) const MAX_LINKS: usize = 128;

/// A span that is recorded and has not ended. It is sent to the collector only if
/// [`StartedSpan::end`] is called, once.
#[derive(Debug)]
pub(crate) struct StartedSpan {
    tracer: Tracer,
    context: SpanContext,
    parent: Option<NonZero<u64>>,
    started_at: SystemTime,
    started: Instant,
}

/// What is known of a span when it ends.
pub(crate) struct EndedSpan {
    /// With a closed set of values: no id, no text of a client.
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: Vec<Attribute>,
    /// At most [`MAX_LINKS`].
    pub(crate) links: Vec<Link>,
    /// The value of `error.type`, from a closed set, if the operation failed.
    pub(crate) error: Option<&'static str>,
}

/// The role of a span in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// It handles a request.
    Server,
    /// It sends a record.
    Producer,
    /// It processes records.
    Consumer,
}

/// A name of OpenTelemetry's semantic conventions, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attribute(otlp::KeyValue);

/// Another span that caused this one, besides its parent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) to: SpanContext,
    pub(crate) attributes: Vec<Attribute>,
}

impl StartedSpan {
    /// Starts the first span of a trace.
    pub(super) fn root(tracer: Tracer) -> Self {
        Self::new(tracer, SpanContext::root(), None)
    }

    /// Starts a span of the same trace as `parent`.
    pub(super) fn child_of(parent: &SpanContext, tracer: Tracer) -> Self {
        Self::new(tracer, parent.child(), Some(parent.span_id))
    }

    /// Starts a span within this one; it may end later.
    pub(crate) fn child(&self) -> Self {
        Self::child_of(&self.context, self.tracer.clone())
    }

    fn new(tracer: Tracer, context: SpanContext, parent: Option<NonZero<u64>>) -> Self {
        Self {
            tracer,
            context,
            parent,
            started_at: SystemTime::now(),
            started: Instant::now(),
        }
    }

    pub(crate) fn context(&self) -> &SpanContext {
        &self.context
    }

    /// Ends the span now.
    pub(crate) fn end(&self, ended: EndedSpan) {
        let EndedSpan {
            name,
            kind,
            mut attributes,
            links,
            error,
        } = ended;
        if let Some(error) = error {
            attributes.push(Attribute::text("error.type", error));
        }
        // A clock that is set meanwhile does not change how long the span took.
        let ended_at = self.started_at + self.started.elapsed();
        self.tracer.export(otlp::Span {
            trace_id: trace_id(&self.context),
            span_id: span_id(self.context.span_id),
            parent_span_id: self.parent.map(span_id).unwrap_or_default(),
            name,
            kind: kind.code(),
            start_time_unix_nano: nanoseconds(self.started_at),
            end_time_unix_nano: nanoseconds(ended_at),
            attributes: key_values(attributes),
            links: links.into_iter().map(Link::into_message).collect(),
            status: error.map(|_| otlp::Status::ERROR),
        });
    }
}

impl SpanKind {
    const fn code(self) -> i32 {
        match self {
            Self::Server => 2,
            Self::Producer => 4,
            Self::Consumer => 5,
        }
    }
}

impl Attribute {
    pub(crate) fn text(name: &'static str, value: impl Into<String>) -> Self {
        Self(otlp::KeyValue::new(name, otlp::Value::Text(value.into())))
    }

    pub(crate) fn number(name: &'static str, value: impl Into<i64>) -> Self {
        Self(otlp::KeyValue::new(name, otlp::Value::Number(value.into())))
    }

    /// A list of one text: how the conventions have the values of a header.
    pub(crate) fn texts(name: &'static str, value: impl Into<String>) -> Self {
        Self(otlp::KeyValue::new(name, otlp::Value::one(value.into())))
    }
}

impl Link {
    fn into_message(self) -> otlp::Link {
        otlp::Link {
            trace_id: trace_id(&self.to),
            span_id: span_id(self.to.span_id),
            attributes: key_values(self.attributes),
        }
    }
}

pub(super) fn key_values(attributes: Vec<Attribute>) -> Vec<otlp::KeyValue> {
    attributes
        .into_iter()
        .map(|attribute| attribute.0)
        .collect()
}

fn trace_id(context: &SpanContext) -> Vec<u8> {
    context.trace_id.get().to_be_bytes().to_vec()
}

fn span_id(id: NonZero<u64>) -> Vec<u8> {
    id.get().to_be_bytes().to_vec()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since: Duration = since.unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
