//! A real Apache Kafka for tests: `KRaft` nodes on free loopback ports.
//!
//! Time-outs are Kafka's own, because the faults that tests make are about
//! them: a broker that vanished is given up after nine seconds. What differs
//! from stock is written down in `broker.rs`, with its reason.
//!
//! It must not know what tests do with the cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use tempfile::TempDir;

use super::eventually;
use broker::Role;
pub use broker::{Broker, Way};

mod broker;
mod class_data;
mod disk;
mod distribution;
mod ports;

/// The variable that names a cluster to use in place of the shared one.
const EXTERNAL: &str = "NORTHBRIDGE_TEST_KAFKA";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many brokers.
    pub brokers: usize,
    /// Whether the controller is a node of its own, as Apache Kafka recommends
    /// it; else every broker is one of the controllers. With a broker that is
    /// the active one, a new controller has to be elected first, and gives the
    /// dead broker another whole session: over 13 s can pass.
    pub controller_apart: bool,
    /// Server properties on top of, or in place of, the test support's own.
    pub properties: Vec<(String, String)>,
    /// How many zones of clients reach the brokers through ways of their own,
    /// besides the direct one: see [`Cluster::zone_bootstrap`].
    pub zones: usize,
    /// The index of the broker that has a file system of its own, to be filled.
    pub own_disk: Option<usize>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            brokers: 3,
            controller_apart: false,
            properties: Vec::new(),
            zones: 0,
            own_disk: None,
        }
    }
}

impl ClusterOptions {
    fn roles(&self) -> Vec<Role> {
        if self.controller_apart {
            let mut roles = vec![Role::Broker; self.brokers];
            roles.push(Role::Controller);
            roles
        } else {
            vec![Role::Combined; self.brokers]
        }
    }
}

/// A cluster of this test's own, to be broken at will; dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
    controller: Option<Broker>,
    directory: TempDir,
    _turn: Option<Turn>,
}

impl Cluster {
    /// Starts a cluster and returns when every broker knows every other.
    ///
    /// Waits while another test of this process has a cluster of its own.
    pub fn start(options: &ClusterOptions) -> Self {
        let turn = Turn::take();
        Self::start_now(options, Some(turn))
    }

    /// All brokers' addresses, as `bootstrap.servers` wants them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// As [`Cluster::bootstrap`], for the clients of one zone. Nobody listens
    /// there before a network forwards it: every broker names these addresses
    /// to whoever comes by them.
    pub fn zone_bootstrap(&self, zone: usize) -> String {
        let ways = self.brokers.iter().map(|broker| broker.way(zone));
        let addresses: Vec<_> = ways.map(|way| way.advertised.to_string()).collect();
        addresses.join(",")
    }

    /// One broker, counted from 0.
    pub fn broker(&self, index: usize) -> &Broker {
        &self.brokers[index]
    }

    /// All brokers, in the order of their index.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The controller.
    ///
    /// Panics where it is no node of its own.
    pub fn controller(&self) -> &Broker {
        self.controller.as_ref().expect("a controller apart")
    }

    /// The controller, where it is a node of its own, and all brokers.
    pub fn nodes(&self) -> impl Iterator<Item = &Broker> {
        self.controller.iter().chain(&self.brokers)
    }

    /// Where the nodes keep their properties, logs and data; deleted with the
    /// cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// SIGKILL to all nodes.
    pub fn kill_all(&self) {
        self.nodes().for_each(Broker::kill);
    }

    /// Starts all that do not run, on the same ports and data, and waits until
    /// they are up.
    pub fn restart_all(&self) {
        self.nodes().for_each(Broker::launch);
        self.nodes().for_each(Broker::wait_until_up);
        self.wait_until_complete();
    }

    /// The index of the broker that leads the partition, as far as the brokers
    /// that answer know: up to nine seconds late after one was killed.
    ///
    /// Waits while the partition has no leader.
    pub fn leader_of(&self, topic: &str, partition: i32) -> usize {
        eventually("the partition has a leader", || {
            let metadata = self.metadata(Some(topic))?;
            let partitions = metadata.topics().first()?.partitions();
            let found = partitions.iter().find(|found| found.id() == partition)?;
            self.index_of(found.leader())
        })
    }

    /// Waits until every replica of every partition is in sync again, so that
    /// the next fault meets a whole cluster.
    ///
    /// All brokers that answer must say so and name the same leaders: one that
    /// was frozen still takes itself for the leader that it was.
    pub fn wait_until_in_sync(&self) {
        eventually("every replica is in sync", || {
            let running = self.brokers.iter().filter(|broker| broker.is_answering());
            let told: Option<Vec<_>> = running
                .map(|broker| leaders_in_sync(&metadata_from(broker.address(), None).ok()?))
                .collect();
            let mut told = told?.into_iter();
            let first = told.next()?;
            told.all(|leaders| leaders == first).then_some(())
        });
    }

    fn start_now(options: &ClusterOptions, turn: Option<Turn>) -> Self {
        let distribution = class_data::distribution();
        let directory = data_directory();
        let mut brokers = broker::configure(distribution, directory.path(), options);
        broker::format_all(&brokers);
        let controller = options.controller_apart.then(|| brokers.pop()).flatten();
        let cluster = Self {
            brokers,
            controller,
            directory,
            _turn: turn,
        };
        cluster.restart_all();
        cluster
    }

    fn wait_until_complete(&self) {
        for broker in &self.brokers {
            eventually("every broker knows every other", || {
                let metadata = metadata_from(broker.address(), None).ok()?;
                (metadata.brokers().len() == self.brokers.len()).then_some(())
            });
        }
    }

    /// From the first broker that answers; a frozen one does not.
    fn metadata(&self, topic: Option<&str>) -> Option<Metadata> {
        let mut running = self.brokers.iter().filter(|broker| broker.is_answering());
        running.find_map(|broker| metadata_from(broker.address(), topic).ok())
    }

    fn index_of(&self, id: i32) -> Option<usize> {
        self.brokers.iter().position(|broker| broker.id() == id)
    }
}

/// The cluster that all tests of a binary share, and nobody may break.
#[derive(Debug)]
pub struct SharedCluster {
    bootstrap: String,
    _cluster: Option<Cluster>,
}

impl SharedCluster {
    /// The addresses, as `bootstrap.servers` wants them.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

/// The shared cluster, started by the first test that asks: three brokers, or
/// the one that `NORTHBRIDGE_TEST_KAFKA` names.
///
/// Tests keep out of each other's way by [`unique_prefix`].
pub fn shared() -> &'static SharedCluster {
    static SHARED: LazyLock<SharedCluster> = LazyLock::new(|| match std::env::var(EXTERNAL) {
        Ok(bootstrap) => SharedCluster {
            bootstrap,
            _cluster: None,
        },
        Err(_) => started_shared(),
    });
    &SHARED
}

/// A prefix for topics, groups and transactional ids that no other test has,
/// nor an earlier run on the same cluster.
pub fn unique_prefix(test: &str) -> String {
    format!("{test}-{:08x}.", fastrand::u32(..))
}

fn started_shared() -> SharedCluster {
    let cluster = Cluster::start_now(&ClusterOptions::default(), None);
    SharedCluster {
        bootstrap: cluster.bootstrap(),
        _cluster: Some(cluster),
    }
}

fn metadata_from(address: &str, topic: Option<&str>) -> KafkaResult<Metadata> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .create()?;
    client.fetch_metadata(topic, Duration::from_secs(2))
}

/// The leader of each partition, where all replicas are in sync.
fn leaders_in_sync(metadata: &Metadata) -> Option<BTreeMap<(String, i32), i32>> {
    let partitions = metadata.topics().iter().flat_map(|topic| {
        let name = topic.name();
        topic
            .partitions()
            .iter()
            .map(move |partition| (name, partition))
    });
    partitions
        .map(|(topic, partition)| {
            let in_sync = partition.isr().len() == partition.replicas().len();
            in_sync.then(|| ((topic.to_owned(), partition.id()), partition.leader()))
        })
        .collect()
}

fn data_directory() -> TempDir {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(parent).expect("cargo's directory for tests");
    tempfile::Builder::new()
        .prefix("kafka-")
        .tempdir_in(parent)
        .expect("a directory for the cluster")
}

/// The right to have a cluster of one's own: three nodes take most of a
/// gigabyte and, while they start, both cores of a small machine.
#[derive(Debug)]
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREE
            .wait_while(taken, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        *taken = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}
