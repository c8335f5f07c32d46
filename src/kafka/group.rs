//! Membership in a stream's consumer group.
//!
//! Rebalances happen only inside [`Member::poll`]. Partitions that come are
//! paused until their state was restored; what came and went is told after the
//! poll, and applied outside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Buf;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::member_config;
use super::statistics::ClientStatistics;
use crate::config::Settings;
use crate::metrics::KafkaClientMetrics;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(5);
/// How long the question who has partitions may take, for which nothing hurries.
const ASK_BY_THE_WAY: Duration = Duration::from_secs(2);
/// A group's state where all its members know what they have.
const STABLE: &str = "Stable";

/// One member of a group that consumes one topic.
pub struct Member {
    consumer: BaseConsumer<Context>,
    group: String,
    topic: String,
}

/// What a rebalance did to the partitions of the topic.
///
/// Every rebalance of the group ends with a [`Moved::Came`], which names no
/// partition where none came to this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// These came, paused.
    Came(Vec<i32>),
    /// These went.
    Went(Vec<i32>),
}

impl Member {
    /// Joins the group as soon as there is a cluster.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn join(
        settings: &Settings,
        group: &str,
        topic: &str,
        client: &'static str,
        metrics: KafkaClientMetrics,
    ) -> Result<Self, KafkaError> {
        let context = Context {
            moved: Mutex::new(Vec::new()),
            has_moved: AtomicBool::new(false),
            ends: Mutex::new(HashMap::new()),
            topic: topic.to_owned(),
            statistics: ClientStatistics::new(client, metrics),
        };
        let consumer: BaseConsumer<Context> =
            member_config(settings, group).create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        Ok(Self {
            consumer,
            group: group.to_owned(),
            topic: topic.to_owned(),
        })
    }

    /// Joins the group anew where it has come to rest without giving a partition
    /// to anybody. Whether it had.
    ///
    /// A group's leader asks the coordinator which partitions there are. A broker
    /// that is behind with the cluster's metadata, as after its start, may
    /// answer that there are none; so it is for good, as the leader itself heard
    /// of them from another broker and sees nothing change.
    ///
    /// # Errors
    ///
    /// Where the cluster does not tell what members the group has, or librdkafka
    /// does not subscribe anew.
    pub fn claim(&self) -> Result<bool, KafkaError> {
        let found = self
            .consumer
            .fetch_group_list(Some(&self.group), ASK_BY_THE_WAY)?;
        let mut stable = found
            .groups()
            .iter()
            .filter(|group| group.state() == STABLE);
        let neglected = stable.any(|group| {
            let mut assignments = group
                .members()
                .iter()
                .filter_map(GroupMemberInfo::assignment);
            !assignments.any(|assignment| gives(assignment, &self.topic))
        });
        if neglected {
            self.consumer.unsubscribe();
            self.consumer.subscribe(&[&self.topic])?;
        }
        Ok(neglected)
    }

    /// The next record, if one comes in time.
    ///
    /// # Errors
    ///
    /// Only those that end the membership; what passes is logged here.
    pub fn poll(&self, within: Duration) -> Result<Option<BorrowedMessage<'_>>, KafkaError> {
        let (mut left, mut until) = (within, None);
        loop {
            match self.consumer.poll(left) {
                None => return Ok(None),
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(error)) if ends_membership(&error) => return Err(error),
                // While brokers are away these come by the thousand, and what
                // matters waits behind them.
                Some(Err(error)) => tracing::debug!(%error, "a poll failed"),
            }
            // The clock is asked only now, and not for each record.
            let now = Instant::now();
            left = until
                .get_or_insert(now + left)
                .saturating_duration_since(now);
        }
    }

    /// Whether the group has given this member up, and the next polls will say so.
    pub fn is_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    /// Whether [`Member::moved`] has something to tell.
    pub fn has_moved(&self) -> bool {
        self.consumer.context().has_moved.load(Ordering::Relaxed)
    }

    /// What rebalances did since the last call, in their order.
    pub fn moved(&self) -> Vec<Moved> {
        let context = self.consumer.context();
        context.has_moved.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&context.moved))
    }

    /// The committed offsets of partitions, 0 where there is none; asked for
    /// until they are settled, that is, until no transaction on them is open.
    /// So long, a predecessor's last commit may still be on its way.
    ///
    /// # Errors
    ///
    /// Where they are not settled in time, or the cluster does not answer.
    pub fn settled(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, KafkaError> {
        // A read_committed member asks for stable offsets (KIP-447), and the
        // brokers refuse while there are none.
        let list = self
            .consumer
            .committed_offsets(self.list(partitions), ASK)?;
        let settled = |element: &TopicPartitionListElem<'_>| {
            element.error()?;
            // Where none is committed, the raw offset is negative.
            let offset = element.offset().to_raw().unwrap_or(0).max(0);
            Ok((element.partition(), offset))
        };
        list.elements().iter().map(settled).collect()
    }

    /// Makes these offsets the next that come, of partitions that came.
    ///
    /// # Errors
    ///
    /// Where one has not started yet, or is not this member's.
    pub fn seek(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), KafkaError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.offsets(offsets.iter().map(|(partition, next)| (*partition, *next)))?;
        let sought = self.consumer.seek_partitions(list, ASK)?;
        sought
            .elements()
            .iter()
            .try_for_each(TopicPartitionListElem::error)
    }

    /// Holds the records of these partitions back, also those that are fetched
    /// already.
    ///
    /// # Errors
    ///
    /// Where librdkafka cannot.
    pub fn pause(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        self.consumer.pause(&self.list(partitions))
    }

    /// Lets records of these partitions come.
    ///
    /// # Errors
    ///
    /// Where they are not this member's.
    pub fn resume(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        self.consumer.resume(&self.list(partitions))
    }

    /// This member's proof of membership, for a transaction's offsets; `None`
    /// while its partitions are lost.
    ///
    /// Brokers take a transaction's offsets unexamined where neither member id
    /// nor generation is told (they are optional since KIP-447), and refuse them
    /// where one of the two is out of date. librdkafka drops the generation when
    /// the group says that it is over, and the member id when the group does not
    /// know it or the session has ended: a member to which both happen has
    /// neither until it has joined again. librdkafka marks the partitions as
    /// lost before it answers with such a proof: so the mark is looked at last.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let metadata = self.consumer.group_metadata();
        metadata.filter(|_| !self.is_lost())
    }

    /// The offset after the last record that came, by partition; it includes
    /// the markers of transactions.
    pub fn positions(&self) -> BTreeMap<i32, i64> {
        let positions = self.consumer.position().ok();
        let elements = positions.iter().flat_map(TopicPartitionList::elements);
        elements
            .filter_map(|element| match element.offset() {
                Offset::Offset(next) => Some((element.partition(), next)),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => None,
            })
            .collect()
    }

    /// The offsets to commit: the next one of each partition.
    ///
    /// # Errors
    ///
    /// Where an offset is none.
    pub fn offsets(
        &self,
        next: impl IntoIterator<Item = (i32, i64)>,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(list)
    }

    /// The end of a partition for this reader, as librdkafka last saw it.
    pub fn end_of(&self, partition: i32) -> Option<i64> {
        lock(&self.consumer.context().ends).get(&partition).copied()
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Whether an assignment has partitions of this topic, or cannot be read.
fn gives(assignment: &[u8], topic: &str) -> bool {
    !assignment.is_empty() && has_partitions(assignment, topic).unwrap_or(true)
}

/// Reads a `ConsumerProtocolAssignment`: its version, then the topics, each with
/// its name and its partitions. `None` where it is something else.
fn has_partitions(mut assignment: &[u8], topic: &str) -> Option<bool> {
    assignment.try_get_i16().ok()?;
    for _ in 0..assignment.try_get_i32().ok()? {
        let length = usize::try_from(assignment.try_get_i16().ok()?).ok()?;
        let (name, rest) = assignment.split_at_checked(length)?;
        assignment = rest;
        let partitions = usize::try_from(assignment.try_get_i32().ok()?).ok()?;
        assignment = assignment.get(partitions.checked_mul(size_of::<i32>())?..)?;
        if name == topic.as_bytes() && partitions > 0 {
            return Some(true);
        }
    }
    Some(false)
}

/// Fenced by another member with the same instance name, or fatal otherwise.
fn ends_membership(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId)
        )
}

struct Context {
    moved: Mutex<Vec<Moved>>,
    /// Asked after each record, which a lock would be too dear for.
    has_moved: AtomicBool,
    ends: Mutex<HashMap<i32, i64>>,
    topic: String,
    statistics: ClientStatistics,
}

impl Context {
    fn push(&self, moved: Moved) {
        lock(&self.moved).push(moved);
        self.has_moved.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.statistics.record(&statistics);
        if let Some(topic) = statistics.topics.get(&self.topic) {
            let mut ends = lock(&self.ends);
            for partition in topic
                .partitions
                .values()
                .filter(|known| known.ls_offset >= 0)
            {
                ends.insert(partition.partition, partition.ls_offset);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
    }
}

impl ConsumerContext for Context {
    /// As librdkafka's own for cooperative groups, but for where partitions
    /// start.
    ///
    /// Left to itself, librdkafka asks for the committed offsets. Where an error
    /// answers, it tells of it once and never starts the partition; and where
    /// partitions come or go while a transaction on the offsets is open, it
    /// starts at the first record that there is. So partitions start at once,
    /// at any offset and paused, and [`Member::seek`] says the right one.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = partitions(list);
        let (done, moved) = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (assign(consumer, list), Moved::Came(partitions))
        } else {
            (consumer.incremental_unassign(list), Moved::Went(partitions))
        };
        if let Err(error) = done {
            tracing::warn!(%error, ?moved, "a rebalance could not be followed");
        }
        self.push(moved);
    }
}

/// Partitions start paused: not one record before the state is restored.
fn assign(
    consumer: &BaseConsumer<Context>,
    list: &mut TopicPartitionList,
) -> Result<(), KafkaError> {
    list.set_all_offsets(Offset::Offset(0))?;
    consumer.incremental_assign(list)?;
    consumer.pause(list)
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(TopicPartitionListElem::partition)
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 0, topics with their partitions, no user data.
    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (name, partitions) in topics {
            bytes.extend(i16::try_from(name.len()).unwrap().to_be_bytes());
            bytes.extend(name.bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            for partition in *partitions {
                bytes.extend(partition.to_be_bytes());
            }
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_gives_a_topic_where_it_names_partitions_of_it() {
        assert!(gives(&assignment(&[("a", &[0, 5])]), "a"));
        assert!(gives(&assignment(&[("b", &[1, 2, 3]), ("a", &[0])]), "a"));
        assert!(!gives(&assignment(&[("a", &[])]), "a"));
        assert!(!gives(&assignment(&[("b", &[1, 2, 3])]), "a"));
        assert!(!gives(&assignment(&[]), "a"));
        assert!(!gives(&[], "a"));
    }

    #[test]
    fn what_is_no_assignment_is_not_taken_for_none() {
        let whole = assignment(&[("b", &[1, 2, 3]), ("c", &[0])]);
        // Without the user data, which is not looked at.
        let read = whole.len() - 4;
        for length in 1..read {
            assert!(gives(&whole[..length], "a"), "{length} of {read} bytes");
        }
        assert!(gives(&[0, 0, 0, 0, 0, 1, 0xff, 0xff], "a"));
        assert!(gives(
            &[0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "a"
        ));
        assert!(gives(
            &[0, 0, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff],
            "a"
        ));
    }
}
