//! The embedded broker of `northbridge dev`: librdkafka's mock cluster, in
//! memory, in this process. It keeps nothing and has no real transactions.

use std::fmt;
use std::thread;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::topics::TopicSpec;

/// The pause before each topic is created. The mock cluster's thread loses a wake-up
/// that arrives while it handles the one before, and then looks for work only after a
/// second.
const CREATION_PAUSE: Duration = Duration::from_millis(2);

/// A cluster of one broker on the loopback address, until it is dropped.
pub(crate) struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts the broker and creates the topics.
    ///
    /// # Errors
    ///
    /// Returns librdkafka's error if the broker cannot listen.
    pub(crate) fn start(specs: &[TopicSpec]) -> Result<Self, KafkaError> {
        let broker = Self {
            cluster: MockCluster::new(1)?,
        };
        broker.create(specs)?;
        Ok(broker)
    }

    /// Creates topics.
    ///
    /// # Errors
    ///
    /// Returns librdkafka's error if one exists.
    pub(crate) fn create(&self, specs: &[TopicSpec]) -> Result<(), KafkaError> {
        let mut specs = specs.iter();
        specs.try_for_each(|spec| {
            thread::sleep(CREATION_PAUSE);
            self.cluster.create_topic(&spec.name, spec.partitions, 1)
        })
    }

    /// Returns the broker's address, `127.0.0.1:PORT`.
    pub(crate) fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").finish_non_exhaustive()
    }
}
