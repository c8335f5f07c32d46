//! The spans of batches, by the semantic conventions of messaging: one for each
//! transaction, with a link to the span that sent each record of it.
//!
//! A batch in which no record is traced has none. Each transaction of a batch that is
//! retried has its own.

use rdkafka::message::{BorrowedMessage, Message};

use super::batch::Batch;
use crate::headers;
use crate::kafka;
use crate::kafka::transactions::TransactionError;
use crate::telemetry::traceparent::SpanContext;
use crate::telemetry::{Attribute, EndedSpan, Link, MAX_LINKS, SpanKind, StartedSpan, Tracer};

/// Starts the spans of one stage.
#[derive(Debug, Clone)]
pub(in crate::streams) struct BatchSpans {
    pub(in crate::streams) tracer: Tracer,
    pub(in crate::streams) group: String,
    pub(in crate::streams) topic: String,
}

/// The span of a transaction, from its begin to its end.
#[derive(Debug)]
pub(super) struct BatchSpan<'s> {
    spans: &'s BatchSpans,
    span: StartedSpan,
    records: usize,
    /// If all records are of the same one.
    partition: Option<i32>,
    links: Vec<Link>,
}

impl BatchSpans {
    /// Starts the span of a transaction. `None` if no record of the batch is traced.
    pub(super) fn start(&self, batch: &Batch<'_>) -> Option<BatchSpan<'_>> {
        let links: Vec<Link> = batch
            .records
            .iter()
            .filter_map(link)
            .take(MAX_LINKS)
            .collect();
        let first = batch.records.first()?.partition();
        let mut partitions = batch.records.iter().map(Message::partition);
        (!links.is_empty()).then(|| BatchSpan {
            spans: self,
            span: self.tracer.start_trace(),
            records: batch.records.len(),
            partition: partitions
                .all(|partition| partition == first)
                .then_some(first),
            links,
        })
    }
}

impl BatchSpan<'_> {
    /// Ends the span with its transaction.
    pub(super) fn end(self, error: Option<&TransactionError>) {
        let BatchSpans { group, topic, .. } = self.spans;
        let mut attributes = vec![
            Attribute::text("messaging.system", "kafka"),
            Attribute::text("messaging.operation.name", "process"),
            Attribute::text("messaging.operation.type", "process"),
            Attribute::text("messaging.destination.name", topic.as_str()),
            Attribute::text("messaging.consumer.group.name", group.as_str()),
        ];
        attributes.extend(self.partition.map(partition));
        if let Ok(records) = i64::try_from(self.records) {
            attributes.push(Attribute::number("messaging.batch.message_count", records));
        }
        self.span.end(EndedSpan {
            name: format!("process {topic}"),
            kind: SpanKind::Consumer,
            attributes,
            links: self.links,
            error: error.map(error_type),
        });
    }
}

/// The link to the span that sent a record, if that is recorded.
fn link(record: &BorrowedMessage<'_>) -> Option<Link> {
    let traceparent = kafka::headers::first(record.headers(), headers::TRACEPARENT)?;
    let to = SpanContext::parse(traceparent).filter(SpanContext::is_sampled)?;
    Some(Link {
        to,
        attributes: vec![
            partition(record.partition()),
            Attribute::number("messaging.kafka.offset", record.offset()),
        ],
    })
}

fn partition(partition: i32) -> Attribute {
    Attribute::text("messaging.destination.partition.id", partition.to_string())
}

fn error_type(error: &TransactionError) -> &'static str {
    match error {
        TransactionError::Failed(_) => "failed",
        TransactionError::Unknown(_) => "unknown",
        TransactionError::Fenced(_) => "fenced",
        TransactionError::Denied(_) => "denied",
    }
}
