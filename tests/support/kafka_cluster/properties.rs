//! The role of each node, and the properties that follow from it.
//!
//! In a properties file the last of several equal keys wins, so a test's
//! properties come after those of the test support.

use std::path::Path;

use super::broker::Link;
use super::{ClusterOptions, Listener};

/// What a node of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Broker and controller in one process.
    Combined,
    Broker,
    /// A dedicated controller; clients never connect to it.
    Controller,
    /// What holds the metadata of a cluster of an old version.
    ZooKeeper,
}

/// The ID, the role and the ports of a node: that of the client listener, that of
/// the controller or `ZooKeeper`, and two for each link.
pub(super) type Node<'a> = (i32, Role, &'a [u16]);

/// All properties of a node but that of its data directory.
pub(super) fn of_node(
    node: Node<'_>,
    all: &[Node<'_>],
    options: &ClusterOptions,
    links: &[Link],
) -> Vec<String> {
    let (_, role, ports) = node;
    if role == Role::ZooKeeper {
        return vec![
            "clientPortAddress=127.0.0.1".to_owned(),
            format!("clientPort={}", ports[1]),
            "admin.enableServer=false".to_owned(),
        ];
    }
    let mut properties = own(options.brokers);
    properties.extend(membership(node, all));
    properties.extend(listeners(node, &options.listeners(), links));
    let of_test = options.properties.iter();
    properties.extend(of_test.map(|(key, value)| format!("{key}={value}")));
    properties
}

impl Role {
    pub(super) fn main_class(self) -> &'static str {
        match self {
            Self::Combined | Self::Broker | Self::Controller => "kafka.Kafka",
            Self::ZooKeeper => "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        }
    }

    pub(super) fn is_broker(self) -> bool {
        matches!(self, Self::Combined | Self::Broker)
    }

    /// Returns whether the log has the last line of the startup: a broker is
    /// registered and unfenced, and the others accept connections.
    pub(super) fn has_started(self, log: &str) -> bool {
        let is_last = |line: &str| match self {
            Self::ZooKeeper => line.contains("binding to port"),
            Self::Combined | Self::Broker | Self::Controller => {
                let with_zookeeper =
                    line.contains("[KafkaServer id=") && line.contains("] started");
                with_zookeeper || line.contains("Kafka Server started")
            }
        };
        log.lines().any(is_last)
    }

    pub(super) fn data_directory(self, path: &Path) -> String {
        let key = match self {
            Self::ZooKeeper => "dataDir",
            Self::Combined | Self::Broker | Self::Controller => "log.dirs",
        };
        format!("{key}={}", path.display())
    }

    /// The value of `process.roles`; `None` without `KRaft`.
    fn label(self) -> Option<&'static str> {
        match self {
            Self::Combined => Some("broker,controller"),
            Self::Broker => Some("broker"),
            Self::Controller => Some("controller"),
            Self::ZooKeeper => None,
        }
    }
}

/// Who a node is, and where the others are that hold the metadata.
fn membership((id, role, _): Node<'_>, all: &[Node<'_>]) -> Vec<String> {
    let zookeeper = all.iter().find(|(_, role, _)| *role == Role::ZooKeeper);
    if let Some((_, _, [_, port, ..])) = zookeeper {
        return vec![
            format!("broker.id={id}"),
            format!("zookeeper.connect=127.0.0.1:{port}"),
        ];
    }
    let voters: Vec<_> = all
        .iter()
        .filter(|(_, role, _)| *role != Role::Broker)
        .map(|(id, _, ports)| format!("{id}@127.0.0.1:{}", ports[1]))
        .collect();
    vec![
        format!("process.roles={}", role.label().unwrap_or_default()),
        format!("node.id={id}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("controller.quorum.voters={}", voters.join(",")),
    ]
}

fn listeners((_, role, ports): Node<'_>, listeners: &[Listener], links: &[Link]) -> Vec<String> {
    let (client, controller) = (ports[0], ports[1]);
    let to_quorum = format!("CONTROLLER://127.0.0.1:{controller}");
    if role == Role::Controller {
        return vec![format!("listeners={to_quorum}")];
    }
    let linked = || listeners.iter().zip(links);
    let listener = linked().map(|(it, link)| format!(",{}://{}", it.name, link.listener));
    let advertised = linked().map(|(it, link)| format!(",{}://{}", it.name, link.advertised));
    let protocols = linked().map(|(it, _)| format!(",{}:{}", it.name, it.protocol));
    let (mut listener, advertised): (String, String) = (listener.collect(), advertised.collect());
    if role == Role::Combined {
        listener = format!("{listener},{to_quorum}");
    }
    vec![
        "inter.broker.listener.name=PLAINTEXT".to_owned(),
        format!("listeners=PLAINTEXT://127.0.0.1:{client}{listener}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{client}{advertised}"),
        format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{}",
            protocols.collect::<String>()
        ),
    ]
}

/// What the test support sets on every broker and controller.
fn own(brokers: usize) -> Vec<String> {
    let replicas = brokers.min(3);
    let in_sync = replicas.min(2);
    vec![
        // Writing to a topic that no test created is a mistake that must fail.
        "auto.create.topics.enable=false".to_owned(),
        format!("offsets.topic.replication.factor={replicas}"),
        format!("transaction.state.log.replication.factor={replicas}"),
        format!("transaction.state.log.min.isr={in_sync}"),
        // The default is 50 each, which takes three nodes on two cores seconds.
        "offsets.topic.num.partitions=6".to_owned(),
        "transaction.state.log.num.partitions=6".to_owned(),
        // A test's consumers join one at a time; waiting for more only delays it.
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // The default is 128 MB, a third of the heap; this holds 600,000 keys.
        "log.cleaner.dedupe.buffer.size=16777216".to_owned(),
    ]
}
