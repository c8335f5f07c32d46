//! Decides when librdkafka's producer must be replaced.
//!
//! librdkafka caches what it learns of a topic and ignores a leader whose epoch
//! is lower than the cached one (its issue #4898), so it may never find the
//! leaders of a topic that was deleted and made again, or of another cluster.
//! It shows neither epochs nor topic ids. What remains visible is that
//! partitions or records are missing, or that a partition which the metadata
//! shows as available takes nothing; a new producer cures all of these.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::Producer;
use super::delivery_error::TopicPartition;
use crate::topics::Topic;

/// How long the metadata must show fewer partitions. A broker that was frozen
/// or is starting may answer with what it knew long ago.
const LOST_PARTITIONS_GRACE: Duration = Duration::from_secs(2);
/// How long an available partition may acknowledge nothing. A frozen broker
/// stays the leader in the metadata for its session, by default nine seconds,
/// and for the election after it; a new producer would not help then.
const STALL_LIMIT: Duration = Duration::from_secs(15);
/// The limit doubles with each replacement that does not help, up to this.
const MAX_STALL_LIMIT: Duration = Duration::from_secs(300);
/// The pause between two replacements because of fatal errors. It doubles with
/// each, as long as they follow one another.
const FATAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_FATAL_PAUSE: Duration = Duration::from_secs(30);
/// How long after a pause a fatal error is the first again.
const FATAL_MEMORY: Duration = Duration::from_secs(60);

/// Why the producer must be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// librdkafka reported a fatal error, with this code and text.
    FatalError(RDKafkaErrorCode, String),
    /// The topic has fewer partitions than before.
    PartitionsLost(Topic),
    /// The partition ends before a record that it acknowledged.
    RecordsLost(TopicPartition),
    /// A partition is available but has acknowledged nothing for this long.
    Stalled(Duration),
    /// The cluster has another id than before.
    OtherCluster,
}

/// What has been observed since the last replacement.
#[derive(Debug)]
pub(super) struct Replacement {
    /// What another check has found.
    reported: Option<Reason>,
    partitions_lost_since: Option<Instant>,
    stall_limit: Duration,
    last_stall: Option<Instant>,
    fatal_pause: Duration,
    last_fatal: Option<Instant>,
}

impl Replacement {
    pub(super) fn new() -> Self {
        Self {
            reported: None,
            partitions_lost_since: None,
            stall_limit: STALL_LIMIT,
            last_stall: None,
            fatal_pause: FATAL_PAUSE,
            last_fatal: None,
        }
    }

    /// Makes the producer due for replacement.
    pub(super) fn report(&mut self, reason: Reason) {
        self.reported.get_or_insert(reason);
    }

    /// Returns why the producer must be replaced now, if it must.
    pub(super) fn due(&mut self, producer: &Producer) -> Option<Reason> {
        if let Some((code, text)) = producer.fatal_error() {
            let is_due = self.is_fatal_due(Instant::now());
            return is_due.then_some(Reason::FatalError(code, text));
        }
        let reported = self.reported.take();
        reported
            .or_else(|| self.lost_partitions(producer, Instant::now()))
            .or_else(|| self.stall(producer.longest_stall(), Instant::now()))
    }

    fn is_fatal_due(&mut self, now: Instant) -> bool {
        if let Some(last) = self.last_fatal {
            let elapsed = now.saturating_duration_since(last);
            if elapsed < self.fatal_pause {
                return false;
            }
            self.fatal_pause = if elapsed < self.fatal_pause + FATAL_MEMORY {
                (self.fatal_pause * 2).min(MAX_FATAL_PAUSE)
            } else {
                FATAL_PAUSE
            };
        }
        self.last_fatal = Some(now);
        true
    }

    fn lost_partitions(&mut self, producer: &Producer, now: Instant) -> Option<Reason> {
        let Some(topic) = producer.topics_with_lost_partitions().next() else {
            self.partitions_lost_since = None;
            return None;
        };
        let since = *self.partitions_lost_since.get_or_insert(now);
        let is_certain = now.saturating_duration_since(since) >= LOST_PARTITIONS_GRACE;
        is_certain.then_some(Reason::PartitionsLost(topic))
    }

    fn stall(&mut self, stalled_for: Duration, now: Instant) -> Option<Reason> {
        let is_over = |last| now.saturating_duration_since(last) > self.stall_limit * 4;
        if self.last_stall.is_some_and(is_over) {
            (self.stall_limit, self.last_stall) = (STALL_LIMIT, None);
        }
        if stalled_for < self.stall_limit {
            return None;
        }
        self.last_stall = Some(now);
        self.stall_limit = (self.stall_limit * 2).min(MAX_STALL_LIMIT);
        Some(Reason::Stalled(stalled_for))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FatalError(_, text) => write!(f, "it hit a fatal error: {text}"),
            Self::PartitionsLost(topic) => write!(
                f,
                "the topic {} has fewer partitions than before: it was deleted and made again",
                topic.label()
            ),
            Self::RecordsLost(partition) => write!(
                f,
                "{partition} no longer has every record that it acknowledged: the topic was deleted and made again, or an unclean election lost records"
            ),
            Self::Stalled(stalled_for) => write!(
                f,
                "a partition that the metadata shows as available has acknowledged nothing for {} s",
                stalled_for.as_secs()
            ),
            Self::OtherCluster => {
                f.write_str("another cluster has taken the place of the last one")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_that_outlasts_replacements_causes_them_less_and_less_often() {
        let (mut replacement, start) = (Replacement::new(), Instant::now());
        let mut due = Vec::new();
        let mut replaced_at = 0;
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            let stalled_for = Duration::from_secs(second - replaced_at);
            if replacement.stall(stalled_for, now).is_some() {
                replaced_at = second;
                due.push(second);
            }
        }
        assert_eq!(due, [15, 45, 105, 225, 465, 765]);
    }

    #[test]
    fn fatal_errors_that_follow_one_another_cause_replacements_less_and_less_often() {
        let (mut replacement, start) = (Replacement::new(), Instant::now());
        let mut is_due = |second| replacement.is_fatal_due(start + Duration::from_secs(second));
        let due: Vec<u64> = (0..100).filter(|second| is_due(*second)).collect();
        assert_eq!(due, [0, 1, 3, 7, 15, 31, 61, 91]);
        assert!(is_due(1_000), "the first again");
        assert!(is_due(1_001));
    }

    #[test]
    fn a_stall_long_after_the_last_one_is_the_first_again() {
        let (mut replacement, start) = (Replacement::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(replacement.stall(STALL_LIMIT, at(0)).is_some());
        assert!(replacement.stall(STALL_LIMIT, at(60)).is_none());
        assert!(replacement.stall(STALL_LIMIT, at(121)).is_some());
    }
}
