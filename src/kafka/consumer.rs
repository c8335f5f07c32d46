//! Membership in a stream's consumer group.
//!
//! Rebalances happen only inside [`GroupConsumer::poll`]. A newly assigned
//! partition is paused until its state has been restored: the poll records the
//! rebalance, and the worker applies it afterwards. Knows nothing of states.

mod assignment;
mod offsets;
mod resets;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::failure::{Denial, Operation, Resource};
use super::failures::Failures;
use super::group_consumer_config;
use super::metrics::KafkaClientMetrics;
use super::statistics::ClientStatistics;
use crate::config::Settings;
use resets::Resets;

/// The longest wait for the group's members, and for a topic's partitions. It
/// blocks the poll loop, and the caller repeats the request later anyway.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// The state of a group in which every member has its assignment.
const STABLE: &str = "Stable";

/// One member of a consumer group that is subscribed to one topic.
pub(crate) struct GroupConsumer {
    consumer: BaseConsumer<Context>,
    group: String,
    topic: String,
    /// Whether the group knows the member by a name, and keeps its partitions for a
    /// successor (KIP-345).
    is_static: bool,
}

/// What a cooperative rebalance changed for this member (KIP-429).
///
/// Every rebalance of the group ends with an [`Rebalance::Assigned`], which is
/// empty if this member received nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// This member received these partitions. They are paused.
    Assigned(Vec<i32>),
    /// These partitions belong to other members from now on.
    Revoked(Vec<i32>),
}

impl GroupConsumer {
    /// Subscribes to `topic` in `group`. Returns at once: librdkafka joins the
    /// group in the background, as soon as it reaches the cluster.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the configuration.
    pub(crate) fn join(
        settings: &Settings,
        group: &str,
        topic: &str,
        metrics: KafkaClientMetrics,
        failures: Failures,
    ) -> Result<Self, KafkaError> {
        let context = Context {
            rebalances: Mutex::new(Vec::new()),
            has_rebalanced: AtomicBool::new(false),
            resets: Resets::default(),
            end_offsets: Mutex::new(HashMap::new()),
            group: group.to_owned(),
            topic: topic.to_owned(),
            statistics: ClientStatistics::new(metrics),
            failures,
        };
        let consumer: BaseConsumer<Context> =
            group_consumer_config(settings, group).create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        Ok(Self {
            consumer,
            group: group.to_owned(),
            topic: topic.to_owned(),
            is_static: settings.streams.instance.is_some(),
        })
    }

    /// Subscribes again if the group is stable but no member has a partition of
    /// the topic. Returns whether it did.
    ///
    /// A group's leader learns from the coordinator which partitions exist. A
    /// broker whose metadata is stale, as after its start, may report none. The
    /// group then stays without assignments: the leader already knows the
    /// partitions from another broker, sees no change, and starts no rebalance.
    ///
    /// # Errors
    ///
    /// Returns an error if the coordinator does not describe the group, or if
    /// librdkafka rejects the subscription.
    pub(crate) fn rejoin_if_unassigned(&self) -> Result<bool, KafkaError> {
        let groups = self
            .consumer
            .fetch_group_list(Some(&self.group), METADATA_TIMEOUT)?;
        let mut stable = groups
            .groups()
            .iter()
            .filter(|group| group.state() == STABLE);
        let unassigned = stable.any(|group| !has_assignment(group, &self.topic));
        if unassigned {
            self.consumer.unsubscribe();
            self.consumer.subscribe(&[&self.topic])?;
        }
        Ok(unassigned)
    }

    /// Leaves the group for good, a static member too. Polls complete it: each
    /// may bring a [`Rebalance::Revoked`].
    pub(crate) fn leave(&self) {
        self.consumer.unsubscribe();
    }

    /// Ends the membership: a dynamic member leaves its group, so that others take
    /// over its partitions at once; a static one stays in it until its session
    /// expires, so that a successor keeps them. Returns whether that was complete
    /// within `timeout`.
    ///
    /// It has a thread of its own because it may block forever: librdkafka does not
    /// answer calls about a rebalance that it queued before the membership ended.
    pub(crate) fn close(self, timeout: Duration) -> bool {
        let (closed, is_closed) = mpsc::channel();
        thread::spawn(move || {
            if !self.is_static {
                // On its own, the drop would make no member leave that has no
                // partitions.
                self.consumer.unsubscribe();
            }
            // Polls until the revocation is served, and until the coordinator has
            // answered or is known to be away.
            drop(self.consumer);
            // Nobody receives it after the timeout.
            let _ = closed.send(());
        });
        is_closed.recv_timeout(timeout).is_ok()
    }

    /// Returns the next record, or `None` if none arrives in time.
    ///
    /// # Errors
    ///
    /// Returns an error only if the membership has ended: another member has the
    /// same `group.instance.id`, or librdkafka reports a fatal error. librdkafka
    /// retries after all others.
    pub(crate) fn poll(
        &self,
        timeout: Duration,
    ) -> Result<Option<BorrowedMessage<'_>>, KafkaError> {
        let (mut remaining, mut deadline) = (timeout, None);
        loop {
            match self.consumer.poll(in_whole_ms(remaining)) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    let context = self.consumer.context();
                    context
                        .failures
                        .allowed(|| Denial::on_topic(Operation::Read, &self.topic));
                    return Ok(Some(message));
                }
                Some(Err(error)) if ends_membership(&error) => return Err(error),
                // While brokers are away these arrive by the thousand, queued in
                // front of rebalances and records: take them off the queue.
                Some(Err(error)) => tracing::debug!(%error, "poll failed; librdkafka retries"),
            }
            // Read the clock only after an error, not for every record.
            let now = Instant::now();
            remaining = deadline
                .get_or_insert(now + remaining)
                .saturating_duration_since(now);
        }
    }

    /// Returns how many partitions a topic has, 0 if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(crate) fn partition_count(&self, topic: &str) -> Result<usize, KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
        let topic = metadata.topics().first();
        Ok(topic.map_or(0, |topic| topic.partitions().len()))
    }

    /// Returns whether the group has expelled this member or its session has
    /// expired. Others may own its partitions before [`Rebalance::Revoked`]
    /// arrives.
    pub(crate) fn is_assignment_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    /// Returns whether [`GroupConsumer::take_rebalances`] has anything to return.
    pub(crate) fn has_rebalanced(&self) -> bool {
        self.consumer
            .context()
            .has_rebalanced
            .load(Ordering::Relaxed)
    }

    /// Takes the rebalances since the last call, oldest first.
    pub(crate) fn take_rebalances(&self) -> Vec<Rebalance> {
        let context = self.consumer.context();
        context.has_rebalanced.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&context.rebalances))
    }

    /// Returns whether librdkafka found the next offset of this partition gone
    /// since the last call, and went on at the first one there is.
    pub(crate) fn take_reset(&self, partition: i32) -> bool {
        self.consumer.context().resets.take(partition)
    }

    /// Stops the delivery of records of these partitions, prefetched ones
    /// included. Skips partitions that are not assigned.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the call.
    pub(crate) fn pause(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        self.consumer.pause(&self.partition_list(partitions))
    }

    /// Resumes the delivery of records of these partitions. Skips partitions
    /// that are not assigned.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the call.
    pub(crate) fn resume(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        self.consumer.resume(&self.partition_list(partitions))
    }

    /// Returns the member id and generation that fence a transaction's offsets
    /// (KIP-447), or `None` if the assignment is lost.
    ///
    /// Brokers check the two only if at least one is present: without both, they
    /// accept the offsets of any producer. librdkafka drops the generation when
    /// a rebalance ends it, and the member id when the coordinator no longer
    /// knows it or the session expires. A member to which both happen has
    /// neither until it rejoins, and its offsets would pass unfenced. librdkafka
    /// marks the assignment as lost before it returns such metadata, so the mark
    /// is read after the metadata.
    pub(crate) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        let metadata = self.consumer.group_metadata();
        metadata.filter(|_| !self.is_assignment_lost())
    }

    fn partition_list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.group)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// rdkafka spins for the part of a time-out that is less than a millisecond.
fn in_whole_ms(timeout: Duration) -> Duration {
    let ms = timeout.as_micros().div_ceil(1_000);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Returns whether any member of the group has a partition of the topic.
fn has_assignment(group: &GroupInfo, topic: &str) -> bool {
    let members = group.members().iter();
    let mut assignments = members.filter_map(GroupMemberInfo::assignment);
    assignments.any(|bytes| assignment::may_include(bytes, topic))
}

/// Returns whether an error of [`GroupConsumer::poll`] means that the group has
/// fenced this member, or that its consumer is of no use any more.
pub(crate) fn ends_membership(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId)
        )
}

struct Context {
    rebalances: Mutex<Vec<Rebalance>>,
    /// Read after every record, too hot for a lock.
    has_rebalanced: AtomicBool,
    resets: Resets,
    end_offsets: Mutex<HashMap<i32, i64>>,
    group: String,
    topic: String,
    statistics: ClientStatistics,
    failures: Failures,
}

impl Context {
    /// Returns what an authorization error is about: the topic or the group.
    fn resource(&self, error: &KafkaError) -> Resource {
        let group = Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        if error.rdkafka_error_code() == group {
            Resource::Group(self.group.clone())
        } else {
            Resource::Topic(self.topic.clone())
        }
    }

    fn push(&self, rebalance: Rebalance) {
        lock(&self.rebalances).push(rebalance);
        self.has_rebalanced.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.resets.observe_log(level, facility, message);
        super::log(&self.failures, level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.failures.observe_statistics(&statistics);
        self.statistics.record(&statistics);
        if let Some(topic) = statistics.topics.get(&self.topic) {
            let mut end_offsets = lock(&self.end_offsets);
            for partition in topic
                .partitions
                .values()
                .filter(|known| known.ls_offset >= 0)
            {
                end_offsets.insert(partition.partition, partition.ls_offset);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let attempt = Denial::new(Operation::Read, self.resource(&error));
        self.failures.observe_error(&error, reason, Some(attempt));
    }
}

impl ConsumerContext for Context {
    /// Replaces librdkafka's handler for cooperative groups, from which it
    /// differs only in where an assigned partition starts.
    ///
    /// librdkafka's own fetches the committed offsets. If that fails, it reports
    /// the error once and never starts the partition; if a transaction on the
    /// offsets is open during the rebalance, it starts at the first record. So
    /// partitions start here at once, paused and at an arbitrary offset, and
    /// [`GroupConsumer::seek`] sets the right one.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = partitions(list);
        let (result, rebalance) = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (
                assign_paused(consumer, list),
                Rebalance::Assigned(partitions),
            )
        } else {
            (
                consumer.incremental_unassign(list),
                Rebalance::Revoked(partitions),
            )
        };
        if let Err(error) = result {
            tracing::warn!(%error, ?rebalance, "librdkafka did not apply a rebalance");
        }
        self.push(rebalance);
    }
}

/// Assigns partitions so that none delivers a record before its state has been
/// restored.
fn assign_paused(
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
