//! librdkafka's mock cluster as the broker: started in a moment, and broken at
//! will.
//!
//! It has no durability, no election and no real transactions; what is about
//! those is tested on a real Kafka.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::northbridge::Northbridge;
use super::records::{Record, read_topic};

/// The topics that the ingress writes, under their default names.
pub const TOPICS: [&str; 4] = [
    "iot.command-status",
    "iot.upgrade-result",
    "iot.notifications",
    "iot.dead-letter",
];

/// Fewer than by default, so that all leaders are known sooner.
pub const PARTITIONS: i32 = 2;

/// A mock cluster of three brokers; ends when dropped.
pub struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Mock {
    /// Starts a cluster that has the ingress's topics.
    pub fn start() -> Self {
        let mock = Self::without_topics();
        for topic in TOPICS {
            mock.create(topic);
        }
        mock
    }

    /// Starts a cluster that has no topics.
    pub fn without_topics() -> Self {
        let cluster = MockCluster::new(3).expect("a mock cluster on loopback");
        Self { cluster }
    }

    /// Starts `northbridge ingress` on this cluster, with these settings.
    pub fn ingress(&self, settings: &[(&str, &str)]) -> Northbridge {
        let bootstrap = self.bootstrap();
        let mut all = vec![
            ("kafka.bootstrap_servers", bootstrap.as_str()),
            ("topics.partitions", "2"),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ];
        all.extend(settings);
        Northbridge::start(&["ingress"], &all)
    }

    /// As [`Mock::ingress`], and waits until it is ready.
    pub fn ready_ingress(&self, settings: &[(&str, &str)]) -> Northbridge {
        let northbridge = self.ingress(settings);
        northbridge.ready();
        northbridge
    }

    /// Creates a topic.
    pub fn create(&self, topic: &str) {
        self.cluster.create_topic(topic, PARTITIONS, 3).unwrap();
    }

    /// The addresses that clients connect to first.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Every answer of a broker comes so much later.
    pub fn round_trip(&self, delay: Duration) {
        self.cluster.broker_round_trip_time(-1, delay).unwrap();
    }

    /// Closes all connections, and every new one at its first request.
    ///
    /// The mock's own way of being down gives its ports up, and ends the whole
    /// process when one of them was taken by the time it is to come up again;
    /// so it is down only for the moment that it takes to close connections.
    pub fn go_away(&self) {
        let closed = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 100_000];
        self.fail(RDKafkaApiKey::ApiVersion, &closed);
        for broker in 1..=3 {
            self.cluster.broker_down(broker).unwrap();
            self.cluster.broker_up(broker).unwrap();
        }
    }

    /// Takes connections again.
    pub fn come_back(&self) {
        self.cluster.clear_request_errors(RDKafkaApiKey::ApiVersion);
    }

    /// A partition has this leader, or none.
    pub fn lead(&self, topic: &str, partition: i32, broker: Option<i32>) {
        self.cluster
            .partition_leader(topic, partition, broker)
            .unwrap();
    }

    /// The next requests of this kind fail with these errors, one each.
    pub fn fail(&self, requests: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(requests, errors);
    }

    /// All records of a topic.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        read_topic(&self.bootstrap(), topic)
    }

    /// The records of all the ingress's topics, each with its topic.
    pub fn all_records(&self) -> Vec<(&'static str, Record)> {
        let of = |topic| {
            self.records(topic)
                .into_iter()
                .map(move |record| (topic, record))
        };
        TOPICS.into_iter().flat_map(of).collect()
    }
}
