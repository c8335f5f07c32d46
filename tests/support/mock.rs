//! librdkafka's mock cluster: it starts in milliseconds and can be made to fail.
//!
//! It has no durability, no leader election and no real transactions; tests of
//! those use a real Kafka.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::child;
use super::northbridge::Northbridge;
use super::records::{Record, read_topic};

/// The topics that the ingress writes to, by their default names.
pub const TOPICS: [&str; 4] = [
    "iot.command-status",
    "iot.upgrade-result",
    "iot.notifications",
    "iot.dead-letter",
];

/// Fewer than the default, so that all leaders are known sooner.
pub const PARTITIONS: i32 = 2;

/// A mock cluster of three brokers; dropping it stops them.
pub struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Mock {
    /// Starts a cluster with the ingress's topics.
    pub fn start() -> Self {
        let mock = Self::without_topics();
        for topic in TOPICS {
            mock.create_topic(topic);
        }
        mock
    }

    /// Starts a cluster without any topics.
    pub fn without_topics() -> Self {
        let cluster = MockCluster::new(3).expect("a mock cluster on loopback");
        Self { cluster }
    }

    /// Starts `northbridge ingress` on this cluster, with these settings.
    pub fn ingress(&self, settings: &[(&str, &str)]) -> Northbridge {
        self.with_own_settings(settings, |all| Northbridge::start(&["ingress"], all))
    }

    /// Like [`Mock::ingress`], with a fail point of debug builds.
    pub fn ingress_with_fail_point(&self, settings: &[(&str, &str)], at: &str) -> Northbridge {
        self.with_own_settings(settings, |all| {
            Northbridge::start_with_fail_point(&["ingress"], all, at)
        })
    }

    /// Like [`Mock::ingress`], with environment variables.
    pub fn ingress_in_environment(
        &self,
        settings: &[(&str, &str)],
        variables: &[(&str, String)],
    ) -> Northbridge {
        self.with_own_settings(settings, |all| {
            Northbridge::start_in_environment(&["ingress"], all, variables)
        })
    }

    fn with_own_settings<T>(
        &self,
        settings: &[(&str, &str)],
        start: impl FnOnce(&[(&str, &str)]) -> T,
    ) -> T {
        let bootstrap = self.bootstrap();
        let mut all = vec![
            ("kafka.bootstrap_servers", bootstrap.as_str()),
            ("topics.partitions", "2"),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ];
        all.extend(settings);
        start(&all)
    }

    /// Like [`Mock::ingress`], and waits until it is ready.
    pub fn ready_ingress(&self, settings: &[(&str, &str)]) -> Northbridge {
        let northbridge = self.ingress(settings);
        northbridge.wait_until_ready();
        northbridge
    }

    pub fn create_topic(&self, topic: &str) {
        self.cluster.create_topic(topic, PARTITIONS, 3).unwrap();
    }

    /// The bootstrap servers.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Delays every response of every broker.
    pub fn set_round_trip(&self, delay: Duration) {
        self.cluster.broker_round_trip_time(-1, delay).unwrap();
    }

    /// Simulates an outage: closes all connections, and each new one at its first
    /// request.
    ///
    /// The mock's own `broker_down` releases the port, and `broker_up` aborts the
    /// process if the port has been taken meanwhile. So the brokers are down only
    /// for the moment it takes to close their connections. `broker_down` itself aborts it
    /// if a process that is starting still has the socket.
    pub fn go_down(&self) {
        let closed = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 100_000];
        self.fail_requests(RDKafkaApiKey::ApiVersion, &closed);
        child::while_none_starts(|| {
            for broker in 1..=3 {
                self.cluster.broker_down(broker).unwrap();
                self.cluster.broker_up(broker).unwrap();
            }
        });
    }

    /// Ends the outage of [`Mock::go_down`].
    pub fn come_back(&self) {
        self.stop_failing(RDKafkaApiKey::ApiVersion);
    }

    /// Sets the leader of a partition; `None` leaves it without one.
    pub fn set_leader(&self, topic: &str, partition: i32, broker: Option<i32>) {
        self.cluster
            .partition_leader(topic, partition, broker)
            .unwrap();
    }

    /// Makes the next requests of this type fail with these errors, one each.
    pub fn fail_requests(&self, requests: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(requests, errors);
    }

    /// Ends the effect of [`Mock::fail_requests`].
    pub fn stop_failing(&self, requests: RDKafkaApiKey) {
        self.cluster.clear_request_errors(requests);
    }

    pub fn records(&self, topic: &str) -> Vec<Record> {
        read_topic(&self.bootstrap(), topic)
    }

    /// All records of the ingress's topics, each with its topic.
    pub fn all_records(&self) -> Vec<(&'static str, Record)> {
        let of = |topic| {
            self.records(topic)
                .into_iter()
                .map(move |record| (topic, record))
        };
        TOPICS.into_iter().flat_map(of).collect()
    }
}
