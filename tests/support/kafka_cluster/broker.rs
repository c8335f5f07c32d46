//! One node: its properties, its process, and the faults that can befall it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal};

use super::distribution::Distribution;
use super::{ClusterOptions, metadata_from, ports};
use crate::support::eventually;
use crate::support::guarded::Guarded;

/// Any valid id: the nodes of one cluster must agree on it.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
/// The last line of a broker's start: it is registered and no longer fenced.
const STARTED: &str = "Kafka Server started";

/// One broker of a cluster.
#[derive(Debug)]
pub struct Broker {
    id: i32,
    address: String,
    directory: PathBuf,
    distribution: Distribution,
    state: Mutex<State>,
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
        java
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

/// Gives each node a directory, ports and properties; starts nothing.
pub fn configure(
    distribution: &Distribution,
    parent: &Path,
    options: &ClusterOptions,
) -> Vec<Broker> {
    let ports = ports::free(2 * options.brokers);
    let (client_ports, controller_ports) = ports.split_at(options.brokers);
    let voters = voters(controller_ports);
    let nodes = (1..).zip(client_ports.iter().zip(controller_ports));
    nodes
        .map(|(id, (client, controller))| {
            let directory = parent.join(format!("node-{id}"));
            fs::create_dir_all(&directory).expect("the node's directory");
            let mut lines = properties(id, *client, *controller, &voters, options.brokers);
            lines.extend(
                options
                    .properties
                    .iter()
                    .map(|(key, value)| format!("{key}={value}")),
            );
            lines.push(format!("log.dirs={}", directory.join("data").display()));
            fs::write(directory.join("server.properties"), lines.join("\n"))
                .expect("server.properties");
            Broker {
                id,
                address: format!("127.0.0.1:{client}"),
                directory,
                distribution: distribution.clone(),
                state: Mutex::default(),
            }
        })
        .collect()
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

fn voters(controller_ports: &[u16]) -> String {
    let voters: Vec<_> = (1..)
        .zip(controller_ports)
        .map(|(id, port): (u16, _)| format!("{id}@127.0.0.1:{port}"))
        .collect();
    voters.join(",")
}

/// In a properties file the last of equal keys holds, so a test's own
/// properties follow these.
fn properties(id: i32, client: u16, controller: u16, voters: &str, brokers: usize) -> Vec<String> {
    let replicas = brokers.min(3);
    let in_sync = replicas.min(2);
    vec![
        "process.roles=broker,controller".to_owned(),
        format!("node.id={id}"),
        format!("controller.quorum.voters={voters}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{client}"),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        "inter.broker.listener.name=PLAINTEXT".to_owned(),
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
