//! The embedded broker of `northbridge dev`: librdkafka's mock cluster, in
//! memory, in this process. It keeps nothing and has no real transactions.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::topics::Plan;

/// A mock cluster of one broker on loopback. Ends when dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts the broker with these topics.
    ///
    /// # Errors
    ///
    /// Where librdkafka cannot listen.
    pub fn start(plans: &[Plan]) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        for plan in plans {
            cluster.create_topic(&plan.name, plan.partitions, 1)?;
        }
        Ok(Self { cluster })
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBroker").finish_non_exhaustive()
    }
}
