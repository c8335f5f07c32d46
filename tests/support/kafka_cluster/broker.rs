//! One node: its properties, its process, and the faults that can befall it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal};

use super::disk::Disk;
use super::distribution::Distribution;
use super::{ClusterOptions, metadata_from, ports};
use crate::support::eventually;
use crate::support::guarded::Guarded;

/// Any valid id: the nodes of one cluster must agree on it.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
/// The last line of a broker's start: it is registered and no longer fenced.
const STARTED: &str = "Kafka Server started";

/// One node of a cluster: a broker, unless it is the controller alone.
#[derive(Debug)]
pub struct Broker {
    id: i32,
    role: Role,
    address: String,
    ways: Vec<Way>,
    directory: PathBuf,
    disk: Option<Disk>,
    distribution: Distribution,
    state: Mutex<State>,
}

/// A zone's way to one broker: what stands between the two addresses can be cut.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Where the zone's clients are told to connect.
    pub advertised: SocketAddr,
    /// Where the broker listens for them.
    pub inner: SocketAddr,
}

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Broker and controller at once.
    Combined,
    /// A broker alone.
    Broker,
    /// The controller alone; no client ever speaks with it.
    Controller,
}

#[derive(Debug, Default)]
struct State {
    process: Option<Guarded>,
    frozen: bool,
    launches: u32,
}

impl Broker {
    /// `node.id`: one more than the broker's index in the cluster.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Where it listens, as `host:port`; the same after a restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The way of one zone's clients.
    pub fn way(&self, zone: usize) -> Way {
        self.ways[zone]
    }

    /// Takes all room on its file system; the next start gives it back.
    ///
    /// Panics where it has none of its own, or does not run.
    pub fn fill_disk(&self) {
        let disk = self.disk.as_ref().expect("a disk of its own");
        disk.fill(self.pid().expect("a running broker"));
    }

    /// Whether it ended by itself.
    pub fn has_ended(&self) -> bool {
        let state = self.state();
        let process = state.process.as_ref();
        process.is_some_and(|process| process.exit_code().is_some())
    }

    /// The process that runs it; `None` while it is down.
    pub fn pid(&self) -> Option<Pid> {
        self.state().process.as_ref().map(Guarded::pid)
    }

    /// SIGKILL: nothing is flushed, nobody is told. It may be frozen.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// SIGTERM, and waits: the broker hands its leaderships over first.
    pub fn stop_gracefully(&self) {
        self.end(Signal::TERM);
    }

    /// SIGSTOP: its connections stay open and nothing answers on them.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        self.state().frozen = true;
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
        self.state().frozen = false;
    }

    /// Starts it on the same port and data, after a kill if it runs, and waits
    /// until it is up.
    pub fn restart(&self) {
        self.kill();
        self.launch();
        self.wait_until_up();
    }

    /// What the broker logged since its last start.
    pub fn log(&self) -> String {
        let path = self.log_path(self.state().launches);
        fs::read_to_string(path).unwrap_or_default()
    }

    pub(super) fn is_answering(&self) -> bool {
        let state = self.state();
        state.process.is_some() && !state.frozen
    }

    /// Starts it unless it runs, and does not wait: a quorum of controllers
    /// must come up together.
    pub(super) fn launch(&self) {
        let mut state = self.state();
        if state.process.is_some() {
            return;
        }
        state.launches += 1;
        let log = File::create(self.log_path(state.launches)).expect("the broker's log file");
        let java = self.command("kafka.Kafka", &[]);
        let mut guarded = Guarded::spawn_over(&java, Stdio::from(log), self.directory.parent());
        // Kafka logs to standard error; nobody would read the other pipe.
        drop(guarded.take_stdout());
        state.process = Some(guarded);
        state.frozen = false;
    }

    pub(super) fn wait_until_up(&self) {
        eventually("the broker is up", || {
            self.panic_if_ended();
            if !self.log().contains(STARTED) {
                return None;
            }
            if self.role == Role::Controller {
                return Some(());
            }
            let metadata = metadata_from(&self.address, None).ok()?;
            let knows_itself = metadata.brokers().iter().any(|known| known.id() == self.id);
            knows_itself.then_some(())
        });
    }

    fn command(&self, class: &str, arguments: &[&str]) -> Command {
        let mut java = self.distribution.java(class);
        java.args(arguments)
            .arg(self.directory.join("server.properties"));
        java.current_dir(&self.directory);
        match &self.disk {
            Some(disk) => disk.mounted_for(&java),
            None => java,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.state().process {
            process.signal(signal);
        }
    }

    fn end(&self, signal: Signal) {
        let mut state = self.state();
        state.frozen = false;
        if let Some(process) = state.process.take() {
            process.signal(signal);
            process.wait();
        }
    }

    fn panic_if_ended(&self) {
        let ended = self.state().process.as_ref().and_then(Guarded::exit_code);
        assert!(
            ended.is_none(),
            "broker {} ended by itself:\n{}",
            self.id,
            self.log()
        );
    }

    fn log_path(&self, launch: u32) -> PathBuf {
        self.directory.join(format!("launch-{launch}.log"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each node a directory, ports and properties; starts nothing. The
/// controller comes last, where it is a node of its own.
pub fn configure(
    distribution: &Distribution,
    parent: &Path,
    options: &ClusterOptions,
) -> Vec<Broker> {
    let roles = options.roles();
    let each = 2 + 2 * options.zones;
    let ports = ports::free(each * roles.len());
    let nodes: Vec<(i32, Role, &[u16])> = (1..)
        .zip(roles)
        .zip(ports.chunks(each))
        .map(|((id, role), ports)| (id, role, ports))
        .collect();
    let voters = voters(&nodes);
    nodes
        .iter()
        .enumerate()
        .map(|(index, &(id, role, ports))| {
            let directory = parent.join(format!("node-{id}"));
            let data = directory.join("data");
            fs::create_dir_all(&data).expect("the node's directory");
            let ways: Vec<Way> = ports[2..].chunks(2).map(Way::between).collect();
            let mut lines = properties(id, role, options.brokers);
            lines.push(format!("controller.quorum.voters={voters}"));
            lines.extend(role.listeners(ports[0], ports[1], &ways));
            lines.extend(
                options
                    .properties
                    .iter()
                    .map(|(key, value)| format!("{key}={value}")),
            );
            // A file system has entries of its own in its root.
            lines.push(format!("log.dirs={}", data.join("log").display()));
            fs::write(directory.join("server.properties"), lines.join("\n"))
                .expect("server.properties");
            Broker {
                id,
                role,
                address: format!("127.0.0.1:{}", ports[0]),
                ways,
                disk: (options.own_disk == Some(index)).then(|| Disk::create(&data)),
                directory,
                distribution: distribution.clone(),
                state: Mutex::default(),
            }
        })
        .collect()
}

impl Way {
    fn between(ports: &[u16]) -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            advertised: at(ports[0]),
            inner: at(ports[1]),
        }
    }
}

/// Prepares each node's empty storage, all at the same time.
pub fn format_all(brokers: &[Broker]) {
    let format = ["format", "--cluster-id", CLUSTER_ID, "--config"];
    let running: Vec<_> = brokers
        .iter()
        .map(|broker| {
            let mut java = broker.command("kafka.tools.StorageTool", &format);
            java.stdout(Stdio::piped()).stderr(Stdio::piped());
            java.spawn().expect("java runs")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("the storage tool ends");
        assert!(
            output.status.success(),
            "storage was not formatted: {output:?}"
        );
    }
}

fn voters(nodes: &[(i32, Role, &[u16])]) -> String {
    let voters: Vec<_> = nodes
        .iter()
        .filter(|(_, role, _)| *role != Role::Broker)
        .map(|(id, _, ports)| format!("{id}@127.0.0.1:{}", ports[1]))
        .collect();
    voters.join(",")
}

impl Role {
    /// As `process.roles` names it.
    fn label(self) -> &'static str {
        match self {
            Self::Combined => "broker,controller",
            Self::Broker => "broker",
            Self::Controller => "controller",
        }
    }

    fn listeners(self, client: u16, controller: u16, ways: &[Way]) -> Vec<String> {
        let to_quorum = format!("CONTROLLER://127.0.0.1:{controller}");
        if self == Self::Controller {
            return vec![format!("listeners={to_quorum}")];
        }
        let zones = || ways.iter().enumerate();
        let inner = zones().map(|(zone, way)| format!(",ZONE{zone}://{}", way.inner));
        let advertised = zones().map(|(zone, way)| format!(",ZONE{zone}://{}", way.advertised));
        let protocols = zones().map(|(zone, _)| format!(",ZONE{zone}:PLAINTEXT"));
        let (mut inner, advertised): (String, String) = (inner.collect(), advertised.collect());
        if self == Self::Combined {
            inner = format!("{inner},{to_quorum}");
        }
        vec![
            "inter.broker.listener.name=PLAINTEXT".to_owned(),
            format!("listeners=PLAINTEXT://127.0.0.1:{client}{inner}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{client}{advertised}"),
            format!(
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{}",
                protocols.collect::<String>()
            ),
        ]
    }
}

/// In a properties file the last of equal keys holds, so a test's own
/// properties follow these.
fn properties(id: i32, role: Role, brokers: usize) -> Vec<String> {
    let replicas = brokers.min(3);
    let in_sync = replicas.min(2);
    vec![
        format!("process.roles={}", role.label()),
        format!("node.id={id}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        // A topic that nobody created is a mistake that must show.
        "auto.create.topics.enable=false".to_owned(),
        format!("offsets.topic.replication.factor={replicas}"),
        format!("transaction.state.log.replication.factor={replicas}"),
        format!("transaction.state.log.min.isr={in_sync}"),
        // Stock is 50 each, which three nodes on two cores take seconds over.
        "offsets.topic.num.partitions=6".to_owned(),
        "transaction.state.log.num.partitions=6".to_owned(),
        // Consumers of a test come one at a time; nobody is worth waiting for.
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // Stock is 128 MB, a third of the heap; this is enough for 600,000 keys.
        "log.cleaner.dedupe.buffer.size=16777216".to_owned(),
    ]
}
