//! One node: its properties, its process, and the faults that a test can inject.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal};

use super::disk::Disk;
use super::distribution::Distribution;
use super::properties::{self, Node, Role};
use super::{ClusterOptions, Listener, metadata_from, ports};
use crate::support::child::ChildGuard;
use crate::support::eventually;

/// An arbitrary valid ID; all nodes of a cluster must have the same one.
pub const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
/// The ID of the cluster that takes the place of the first one.
pub const OTHER_CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// One node of a cluster: a broker, or the dedicated controller.
#[derive(Debug)]
pub struct Broker {
    id: i32,
    role: Role,
    address: String,
    links: Vec<Link>,
    directory: PathBuf,
    disk: Option<Disk>,
    distribution: Distribution,
    state: Mutex<State>,
}

/// The link to one listener of one broker; a proxy between the two addresses can
/// cut it.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The address that the broker advertises to the listener's clients.
    pub advertised: SocketAddr,
    /// The address that the broker listens on for them.
    pub listener: SocketAddr,
}

#[derive(Debug, Default)]
struct State {
    process: Option<ChildGuard>,
    frozen: bool,
    launches: u32,
}

impl Broker {
    /// `node.id`: one more than the broker's index in the cluster.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The client listener, as `host:port`; a restart keeps it, and only
    /// [`Broker::move_to_another_port`] changes it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The link to one of its listeners besides the client listener, in the order
    /// of [`ClusterOptions::listeners`]: zones first.
    pub fn link(&self, listener: usize) -> Link {
        self.links[listener]
    }

    /// Fills its file system; the next start frees the space.
    ///
    /// # Panics
    ///
    /// Panics if the broker has no dedicated disk or is not running.
    pub fn fill_disk(&self) {
        let disk = self.disk.as_ref().expect("a dedicated disk");
        disk.fill(self.pid().expect("a running broker"));
    }

    /// Returns whether the process has exited without being told to.
    pub fn has_ended(&self) -> bool {
        let state = self.state();
        let process = state.process.as_ref();
        process.is_some_and(|process| process.exit_code().is_some())
    }

    /// The process ID; `None` while the node is down.
    pub fn pid(&self) -> Option<Pid> {
        self.state().process.as_ref().map(ChildGuard::pid)
    }

    /// Sends SIGKILL: nothing is flushed and nothing is announced. Works on a
    /// frozen broker as well.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Sends SIGTERM and waits: a controlled shutdown moves leadership first.
    pub fn stop_gracefully(&self) {
        self.end(Signal::TERM);
    }

    /// Sends SIGSTOP: its connections stay open but nothing responds.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        self.state().frozen = true;
    }

    /// Sends SIGCONT: it resumes as if no time had passed.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
        self.state().frozen = false;
    }

    /// Kills it if it is running, starts it on the same port and data, and waits
    /// until it is up.
    pub fn restart(&self) {
        self.kill();
        self.launch();
        self.wait_until_up();
    }

    /// The command that runs one of Kafka's tools, such as
    /// `kafka.admin.ConfigCommand`.
    pub fn tool(&self, class: &str) -> Command {
        self.distribution.java(class)
    }

    /// Stops it gracefully and starts it with the same data on another port, as
    /// an orchestrator does that gives it another address.
    pub fn move_to_another_port(&mut self) {
        self.stop_gracefully();
        let port = ports::free(1)[0];
        let address = format!("127.0.0.1:{port}");
        let file = self.directory.join("server.properties");
        let properties = fs::read_to_string(&file).expect("server.properties");
        let properties = properties.replace(&self.address, &address);
        fs::write(file, properties).expect("server.properties");
        self.address = address;
        self.launch();
        self.wait_until_up();
    }

    /// Deletes all data of a broker that is down.
    pub(super) fn erase(&self) {
        let data = self.directory.join("data").join("log");
        fs::remove_dir_all(data).expect("the node's data");
    }

    /// The log since the last start.
    pub fn log(&self) -> String {
        let path = self.log_path(self.state().launches);
        fs::read_to_string(path).unwrap_or_default()
    }

    pub(super) fn is_answering(&self) -> bool {
        let state = self.state();
        state.process.is_some() && !state.frozen
    }

    /// Starts it if it is down, without waiting: a controller quorum forms only
    /// once a majority of its voters is up.
    pub(super) fn launch(&self) {
        let mut state = self.state();
        if state.process.is_some() {
            return;
        }
        state.launches += 1;
        let log = File::create(self.log_path(state.launches)).expect("the broker's log file");
        let java = self.command(self.role.main_class(), &[]);
        let mut process =
            ChildGuard::spawn_with_leftovers(&java, Stdio::from(log), self.directory.parent());
        // Kafka logs to standard error; nothing would read this pipe.
        drop(process.take_stdout());
        state.process = Some(process);
        state.frozen = false;
    }

    pub(super) fn wait_until_up(&self) {
        eventually("the broker is up", || {
            self.panic_if_ended();
            if !self.role.has_started(&self.log()) {
                return None;
            }
            if !self.role.is_broker() {
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
        let ended = self
            .state()
            .process
            .as_ref()
            .and_then(ChildGuard::exit_code);
        assert!(
            ended.is_none(),
            "broker {} exited unexpectedly:\n{}",
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

/// Gives each node a directory, ports and properties, without starting it. The
/// last node is the dedicated controller, if there is one.
pub fn configure(
    distribution: &Distribution,
    parent: &Path,
    options: &ClusterOptions,
) -> Vec<Broker> {
    let roles = options.roles(distribution.needs_zookeeper());
    let each = 2 + 2 * options.listeners().len();
    let ports = ports::free(each * roles.len());
    let nodes: Vec<Node<'_>> = (1..)
        .zip(roles)
        .zip(ports.chunks(each))
        .map(|((id, role), ports)| (id, role, ports))
        .collect();
    nodes
        .iter()
        .enumerate()
        .map(|(index, &(id, role, ports))| {
            let directory = parent.join(format!("node-{id}"));
            let data = directory.join("data");
            fs::create_dir_all(&data).expect("the node's directory");
            let listeners = options.listeners();
            let ports_of_links = ports[2..].chunks(2);
            let links: Vec<Link> = listeners.iter().zip(ports_of_links).map(Link::of).collect();
            let mut properties = properties::of_node((id, role, ports), &nodes, options, &links);
            // The root of a file system has a `lost+found`, which Kafka rejects.
            properties.push(role.data_directory(&data.join("log")));
            fs::write(directory.join("server.properties"), properties.join("\n"))
                .expect("server.properties");
            Broker {
                id,
                role,
                address: format!("127.0.0.1:{}", ports[0]),
                links,
                disk: (options.dedicated_disk == Some(index)).then(|| Disk::create(&data)),
                directory,
                distribution: distribution.clone(),
                state: Mutex::default(),
            }
        })
        .collect()
}

impl Link {
    fn of((listener, ports): (&Listener, &[u16])) -> Self {
        Self {
            advertised: SocketAddr::from((listener.advertised_host, ports[0])),
            listener: SocketAddr::from((Ipv4Addr::LOCALHOST, ports[1])),
        }
    }
}

/// Formats the storage of all nodes in parallel.
///
/// `scram` holds credentials in the format of the storage tool's `--add-scram`.
pub fn format_all(brokers: &[Broker], cluster_id: &str, scram: &[String]) {
    let credentials = scram.iter().flat_map(|it| ["--add-scram", it]);
    let format = ["format", "--cluster-id", cluster_id];
    let format: Vec<&str> = format
        .into_iter()
        .chain(credentials)
        .chain(["--config"])
        .collect();
    let needing_format = brokers
        .iter()
        .filter(|broker| !broker.distribution.needs_zookeeper());
    let running: Vec<_> = needing_format
        .map(|broker| {
            let mut java = broker.command("kafka.tools.StorageTool", &format);
            java.stdout(Stdio::piped()).stderr(Stdio::piped());
            java.spawn().expect("java runs")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("the storage tool runs");
        assert!(
            output.status.success(),
            "formatting the storage failed: {output:?}"
        );
    }
}
