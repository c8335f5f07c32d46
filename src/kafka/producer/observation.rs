//! What the [`monitor`](crate::kafka::monitor) asks of a producer and tells it:
//! metadata, pings, and which partitions are available.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer as _;

use super::Producer;
use crate::kafka::delivery_error::TopicPartition;
use crate::topics::{Topic, TopicSpec};

impl Producer {
    /// Fetches the metadata of the topic called `name`; blocks the thread.
    pub(in crate::kafka) fn metadata(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Metadata, KafkaError> {
        let handle = self.0.handle()?;
        handle.client().fetch_metadata(Some(name), timeout)
    }

    /// Returns the id of the cluster that answered last, or `None` if none did
    /// within `timeout` or it has no id; blocks the thread.
    ///
    /// Not for frequent use: rdkafka leaks the memory of each id.
    pub(in crate::kafka) fn cluster_id(&self, timeout: Duration) -> Option<String> {
        let handle = self.0.handle().ok()?;
        handle.client().fetch_cluster_id(timeout)
    }

    /// Sends a small request to a partition's leader and waits for the
    /// response; blocks the thread. Returns whether the partition still has
    /// every record that it acknowledged to this producer.
    ///
    /// It has not if the topic was deleted and made again, or if an unclean
    /// election lost records.
    pub(in crate::kafka) fn ping_leader(
        &self,
        TopicPartition(topic, partition): TopicPartition,
        timeout: Duration,
    ) -> Result<bool, KafkaError> {
        // Read before the request: its answer may be older than an
        // acknowledgement that arrives meanwhile.
        let acknowledged = self.0.lanes[topic.index()].acknowledged(partition);
        let name = &self.0.specs[topic.index()].name;
        let handle = self.0.handle()?;
        let client = handle.client();
        let (_, end) = client.fetch_watermarks(name, partition, timeout)?;
        Ok(acknowledged.is_none_or(|offset| offset < end))
    }

    /// Returns the specs of [`Topic::INGRESS`], in its order.
    pub(in crate::kafka) fn specs(&self) -> &[TopicSpec] {
        &self.0.specs
    }

    pub(in crate::kafka) fn partition_count(&self, topic: Topic) -> usize {
        self.0.lanes[topic.index()].partition_count()
    }

    /// Applies a topic's metadata: the leader of each partition that is available. An
    /// empty slice means that the topic was not found.
    pub(in crate::kafka) fn update_metadata(&self, topic: Topic, leaders: &[Option<i32>]) {
        let lanes = &self.0.lanes[topic.index()];
        let was_known = lanes.partition_count() > 0;
        let available: Vec<bool> = leaders.iter().map(Option::is_some).collect();
        lanes.update_metadata(&available);
        for (lane, leader) in lanes.all().iter().zip(leaders) {
            let turns = leader.map(|leader| self.0.brokers.at(leader));
            if turns.is_some_and(|turns| lane.move_to(&turns)) {
                self.0.request_turn(Arc::clone(lane));
            }
        }
        if !was_known && lanes.partition_count() > 0 {
            let unplaced = std::slice::from_ref(lanes.unplaced());
            self.0.move_records(unplaced, &lanes.all());
        }
    }

    /// Gives those that wait the turns of partitions that acknowledge nothing, whose end
    /// no record tells.
    pub(in crate::kafka) fn give_turns(&self) {
        for turns in self.0.brokers.all() {
            self.0.give(&turns, Instant::now());
        }
    }

    /// Marks every partition as unavailable, because no broker is reachable.
    pub(in crate::kafka) fn mark_unavailable(&self) {
        for topic in &self.0.lanes {
            topic.mark_unavailable();
        }
    }

    /// Returns the longest time that any partition has been unacknowledged, and
    /// sets the metric `kafka_outage_seconds` to it.
    pub(in crate::kafka) fn longest_unacknowledged(&self) -> Duration {
        let now = Instant::now();
        let lanes = self.0.lanes.iter();
        let of_topics = lanes.map(|topic| topic.longest_unacknowledged(now));
        let longest = of_topics.max().unwrap_or_default();
        self.0.metrics.outage_seconds.set(longest.as_secs_f64());
        longest
    }

    /// Returns whether every push fails at once, since no partition has acknowledged
    /// anything for the answer deadline or become available within it.
    pub(in crate::kafka) fn is_down(&self) -> bool {
        let (limit, now) = (self.0.answer_deadline, Instant::now());
        self.0.lanes.iter().all(|topic| topic.is_down(limit, now))
    }

    /// Returns the shortest time that any partition has been unacknowledged.
    pub(in crate::kafka) fn shortest_unacknowledged(&self) -> Duration {
        let now = Instant::now();
        let lanes = self.0.lanes.iter();
        let of_topics = lanes.map(|topic| topic.shortest_unacknowledged(now));
        of_topics.min().unwrap_or_default()
    }

    /// Returns the fatal error of the current librdkafka producer, if it has hit
    /// one.
    pub(in crate::kafka) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.handle().ok()?.client().fatal_error()
    }

    /// Returns the topics of which the metadata has fewer partitions than
    /// before: another topic has taken the name.
    pub(in crate::kafka) fn topics_with_lost_partitions(&self) -> impl Iterator<Item = Topic> {
        let topics = self.0.specs.iter().map(|spec| spec.topic);
        topics.filter(|topic| self.0.lanes[topic.index()].has_lost_partitions())
    }

    /// Returns the longest time that any partition has acknowledged nothing
    /// although the metadata shows it as available.
    pub(in crate::kafka) fn longest_stall(&self) -> Duration {
        let now = Instant::now();
        let lanes = self.0.lanes.iter();
        let of_topics = lanes.map(|topic| topic.longest_stall(now));
        of_topics.max().unwrap_or_default()
    }
}
