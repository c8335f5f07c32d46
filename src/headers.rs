//! The header contract: the name of every record header that northbridge
//! writes or reads.
//!
//! Consumers depend on these names. Knows nothing of HTTP or of a broker;
//! [`kafka::headers`](crate::kafka::headers) reads and writes the headers of
//! librdkafka's records.

/// The version of `CloudEvents`, always `1.0`. All `ce_` names are those of
/// `CloudEvents`' Kafka protocol binding, binary content mode.
pub(crate) const CE_SPECVERSION: &str = "ce_specversion";
/// A hash of the push's body; equal exactly for a repeated push.
pub(crate) const CE_ID: &str = "ce_id";
/// The configured path that received the push, without a token.
pub(crate) const CE_SOURCE: &str = "ce_source";
/// The push's `notifyType`.
pub(crate) const CE_TYPE: &str = "ce_type";
/// The device id; absent if it is unknown.
pub(crate) const CE_SUBJECT: &str = "ce_subject";
/// When the push was received: RFC 3339, UTC, milliseconds.
pub(crate) const CE_TIME: &str = "ce_time";

/// The media type of the value.
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// The span to continue (W3C Trace Context): of a push that is traced, the one that sent
/// the record, otherwise that of the request; absent if there is neither.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// On a dead letter: why it is one, from a closed list.
pub(crate) const REASON: &str = "northbridge-reason";
/// On a dead letter: the reason in detail, for people.
pub(crate) const DETAIL: &str = "northbridge-detail";
/// On a stream's dead letter: the topic of the original record.
pub(crate) const TOPIC: &str = "northbridge-topic";
/// On a stream's dead letter: the partition of the original record.
pub(crate) const PARTITION: &str = "northbridge-partition";
/// On a stream's dead letter: the offset of the original record.
pub(crate) const OFFSET: &str = "northbridge-offset";

/// On a state: the version of its format, and what it needs beyond the fields of
/// its value; JSON.
pub(crate) const STATE: &str = "northbridge-state";

/// On a replay marker: the dead letter that was replayed, as `partition/offset`.
pub(crate) const REPLAYED: &str = "northbridge-replayed";
/// On a replay marker: the topic that the dead letter was sent to.
pub(crate) const REPLAYED_TO: &str = "northbridge-replayed-to";
/// On a replayed record: the dead letter that it was made from, as
/// `partition/offset`.
pub(crate) const REPLAYED_FROM: &str = "northbridge-replayed-from";

/// Returns whether northbridge itself adds headers of this name to dead
/// letters and replayed records. All others belong to the original record and
/// are kept when it is copied.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with("northbridge-")
}
