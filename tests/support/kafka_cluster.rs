//! A real Apache Kafka cluster: `KRaft` nodes on free loopback ports, or brokers
//! and their `ZooKeeper` if `NORTHBRIDGE_TEST_KAFKA_VERSION` is an old version.
//!
//! Timeouts keep Kafka's defaults because the fault tests depend on them: a dead
//! broker is fenced after nine seconds. `broker.rs` gives the reason for each
//! property that differs from the default.
//!
//! It must not know what tests do with the cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use tempfile::TempDir;

use super::eventually;
pub use broker::{Broker, Link};
use properties::Role;

mod broker;
mod class_data;
mod disk;
mod distribution;
mod ports;
mod properties;
mod requests;
pub mod secured;

/// The partitions of the topics in which brokers keep groups and transactions.
const INTERNAL_PARTITIONS: i32 = 6;

/// Clusters that tests of one process may own at the same time. Three nodes need most
/// of a gigabyte and, during startup, both cores of a small machine.
const OWNED_AT_ONCE: usize = 2;

/// The environment variable with the bootstrap servers of an external cluster,
/// which replaces the shared one.
const EXTERNAL: &str = "NORTHBRIDGE_TEST_KAFKA";

/// The topology and the properties of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub brokers: usize,
    /// Runs the controller as a separate node, as Apache Kafka recommends.
    /// Otherwise every broker is a controller too; if the active controller dies
    /// with its broker, the cluster first elects a new controller, which then
    /// grants the dead broker another full session: failover can take over 13 s.
    pub dedicated_controller: bool,
    /// Server properties that are added to the test support's own, or override
    /// them.
    pub properties: Vec<(String, String)>,
    /// How many zones of clients have their own links to the brokers, besides
    /// the direct listener: see [`Cluster::zone_bootstrap`].
    pub zones: usize,
    /// Further listeners, each with its own link, which follow those of the zones.
    /// Their security needs properties of its own.
    pub secured_listeners: Vec<Listener>,
    /// SCRAM credentials that exist from the start, in the format of the storage
    /// tool's `--add-scram`.
    pub scram: Vec<String>,
    /// The index of the broker whose log directory is a separate file system
    /// that a test can fill.
    pub dedicated_disk: Option<usize>,
}

/// A listener besides the one that the tests' own clients use.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in Kafka's properties.
    pub name: String,
    /// Its `security.protocol`.
    pub protocol: &'static str,
    /// The host that brokers advertise to its clients; they listen on 127.0.0.1.
    pub advertised_host: Ipv4Addr,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            brokers: 3,
            dedicated_controller: false,
            properties: Vec::new(),
            zones: 0,
            secured_listeners: Vec::new(),
            scram: Vec::new(),
            dedicated_disk: None,
        }
    }
}

impl ClusterOptions {
    fn listeners(&self) -> Vec<Listener> {
        let zone = |zone| Listener {
            name: format!("ZONE{zone}"),
            protocol: "PLAINTEXT",
            advertised_host: Ipv4Addr::LOCALHOST,
        };
        let zones = (0..self.zones).map(zone);
        zones.chain(self.secured_listeners.clone()).collect()
    }

    /// The role of each node; the one that is no broker comes last.
    fn roles(&self, needs_zookeeper: bool) -> Vec<Role> {
        let separate = if needs_zookeeper {
            Role::ZooKeeper
        } else if self.dedicated_controller {
            Role::Controller
        } else {
            return vec![Role::Combined; self.brokers];
        };
        let mut roles = vec![Role::Broker; self.brokers];
        roles.push(separate);
        roles
    }
}

/// A cluster that one test owns and may break; dropping it stops all nodes.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
    controller: Option<Broker>,
    directory: TempDir,
    _slot: Option<ClusterSlot>,
}

impl Cluster {
    /// Starts a cluster and waits until every broker knows all the others.
    ///
    /// Blocks while [`OWNED_AT_ONCE`] other tests in this process own a cluster.
    pub fn start(options: &ClusterOptions) -> Self {
        let slot = ClusterSlot::take();
        Self::start_now(options, Some(slot))
    }

    /// All brokers' addresses, in the format of `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// Like [`Cluster::bootstrap`], for the clients of one zone. The brokers
    /// advertise these addresses to clients that connect through them; a network
    /// proxy must listen there.
    pub fn zone_bootstrap(&self, zone: usize) -> String {
        let links = self.brokers.iter().map(|broker| broker.link(zone));
        let addresses: Vec<_> = links.map(|link| link.advertised.to_string()).collect();
        addresses.join(",")
    }

    pub fn broker(&self, index: usize) -> &Broker {
        &self.brokers[index]
    }

    /// The broker of this index, so that a test can move it.
    pub fn broker_mut(&mut self, index: usize) -> &mut Broker {
        &mut self.brokers[index]
    }

    /// All brokers, by index.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The dedicated controller, or the `ZooKeeper` of an old version.
    ///
    /// # Panics
    ///
    /// Panics if the cluster has none.
    pub fn controller(&self) -> &Broker {
        self.controller.as_ref().expect("a dedicated controller")
    }

    /// The dedicated controller or `ZooKeeper`, if there is one, and all brokers.
    pub fn nodes(&self) -> impl Iterator<Item = &Broker> {
        self.controller.iter().chain(&self.brokers)
    }

    /// The directory of the nodes' properties, logs and data; deleted with the
    /// cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends SIGKILL to all nodes.
    pub fn kill_all(&self) {
        self.nodes().for_each(Broker::kill);
    }

    /// Starts all nodes that are down, on the same ports and data, and waits
    /// until they are up.
    pub fn restart_all(&self) {
        self.nodes().for_each(Broker::launch);
        self.nodes().for_each(Broker::wait_until_up);
        self.wait_until_complete();
    }

    /// Puts an empty cluster with another ID in the place of this one, on the
    /// same addresses.
    ///
    /// # Panics
    ///
    /// Panics if the cluster has a dedicated controller.
    pub fn replace_with_another(&self) {
        assert!(self.controller.is_none(), "it would keep the old ID");
        self.kill_all();
        self.brokers.iter().for_each(Broker::erase);
        broker::format_all(&self.brokers, broker::OTHER_CLUSTER_ID, &[]);
        self.restart_all();
    }

    /// The index of the broker that leads the partition, according to the
    /// brokers that respond. The metadata can be nine seconds stale after a
    /// broker was killed.
    ///
    /// Blocks while the partition has no leader.
    pub fn leader_of(&self, topic: &str, partition: i32) -> usize {
        eventually("the partition has a leader", || {
            let metadata = self.metadata(Some(topic))?;
            let partitions = metadata.topics().first()?.partitions();
            let found = partitions.iter().find(|found| found.id() == partition)?;
            self.index_of(found.leader())
        })
    }

    /// The index of the broker that coordinates a group, which must have met once.
    pub fn group_coordinator(&self, group: &str) -> usize {
        self.leader_of("__consumer_offsets", internal_partition(group))
    }

    /// The index of the broker that coordinates the transactions of an id.
    pub fn transaction_coordinator(&self, id: &str) -> usize {
        self.leader_of("__transaction_state", internal_partition(id))
    }

    /// Waits until every replica of every partition is in sync, so that the next
    /// fault hits a healthy cluster.
    ///
    /// All brokers that respond must agree, and name the same leaders: a broker
    /// that was frozen still believes that it leads the partitions that it led.
    pub fn wait_until_in_sync(&self) {
        eventually("every replica is in sync", || {
            let running = self.brokers.iter().filter(|broker| broker.is_answering());
            let views: Option<Vec<_>> = running
                .map(|broker| leaders_in_sync(&metadata_from(broker.address(), None).ok()?))
                .collect();
            let mut views = views?.into_iter();
            let first = views.next()?;
            views.all(|leaders| leaders == first).then_some(())
        });
    }

    fn start_now(options: &ClusterOptions, slot: Option<ClusterSlot>) -> Self {
        let distribution = class_data::distribution();
        let directory = data_directory();
        let mut brokers = broker::configure(distribution, directory.path(), options);
        broker::format_all(&brokers, broker::CLUSTER_ID, &options.scram);
        let controller = (brokers.len() > options.brokers)
            .then(|| brokers.pop())
            .flatten();
        let cluster = Self {
            brokers,
            controller,
            directory,
            _slot: slot,
        };
        cluster.restart_all();
        cluster
    }

    fn wait_until_complete(&self) {
        for broker in &self.brokers {
            eventually("every broker knows all the others", || {
                let metadata = metadata_from(broker.address(), None).ok()?;
                (metadata.brokers().len() == self.brokers.len()).then_some(())
            });
        }
    }

    /// Metadata from the first broker that is running and not frozen.
    fn metadata(&self, topic: Option<&str>) -> Option<Metadata> {
        let mut running = self.brokers.iter().filter(|broker| broker.is_answering());
        running.find_map(|broker| metadata_from(broker.address(), topic).ok())
    }

    fn index_of(&self, id: i32) -> Option<usize> {
        self.brokers.iter().position(|broker| broker.id() == id)
    }
}

/// The cluster that all tests of a binary share; no test may break it.
#[derive(Debug)]
pub struct SharedCluster {
    bootstrap: String,
    _cluster: Option<Cluster>,
}

impl SharedCluster {
    /// The addresses, in the format of `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

/// The shared cluster: the one that `NORTHBRIDGE_TEST_KAFKA` names, else three
/// brokers that the first call starts.
///
/// [`unique_prefix`] isolates tests from each other.
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

/// A prefix for topics, groups and transactional IDs that no other test uses,
/// and no earlier run on the same cluster.
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

/// The leader of each partition; `None` if any replica is out of sync.
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

/// Permission to own a cluster.
#[derive(Debug)]
struct ClusterSlot;

static FREE_SLOTS: Mutex<usize> = Mutex::new(OWNED_AT_ONCE);
static SLOT_FREED: Condvar = Condvar::new();

impl ClusterSlot {
    fn take() -> Self {
        let free = FREE_SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = SLOT_FREED
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self
    }
}

impl Drop for ClusterSlot {
    fn drop(&mut self) {
        *FREE_SLOTS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        SLOT_FREED.notify_one();
    }
}

/// The partition of an internal topic that holds a group or a transactional id:
/// Java's `String.hashCode` modulo their number. Its leader is the coordinator.
fn internal_partition(name: &str) -> i32 {
    let hash = name.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    });
    (hash & i32::MAX) % INTERNAL_PARTITIONS
}
