//! Everything that takes part in a run: the brokers, the network, the balancer,
//! the product's processes, and the results of the loads so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fleet::{Fleet, ZONES};
use crate::journal::Journal;
use crate::plan::Plan;
use crate::simulation::{Load, Simulation, SimulationResult};
use crate::support::balancer::Balancer;
use crate::support::kafka_cluster::{Cluster, ClusterOptions, unique_prefix};
use crate::support::network::Network;
use crate::support::northbridge;

/// The broker whose disk the run fills up.
pub(crate) const FULL_DISK_BROKER: usize = 2;
/// The topic, without prefix, that the reference producer writes to. It is one of
/// the product's, so that its replicas have as much to catch up on. No stream
/// reads it, and verification ignores records of other senders.
const REFERENCE_TOPIC: &str = "notifications";
/// The most loads that a phase has.
const MAX_LOADS: u64 = 4;
/// The partitions of each of the product's topics.
pub(crate) const PARTITIONS: i32 = 6;

/// A running testbed; dropping it stops all processes.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) plan: Plan,
    pub(crate) journal: Arc<Journal>,
    /// The prefix of all topics.
    pub(crate) prefix: String,
    phases: AtomicU64,
    results: Mutex<Vec<(String, SimulationResult)>>,
    pub(crate) fleet: Fleet,
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) network: Network,
    pub(crate) cluster: Cluster,
}

impl Testbed {
    /// Starts everything and waits until it is ready.
    pub(crate) fn start(plan: Plan) -> Self {
        let journal = Arc::new(Journal::begin(&plan.directory));
        journal.print(&format!(
            "seed {}, {} pushes per second; results in {}",
            plan.seed,
            plan.rate,
            plan.directory.display()
        ));
        let cluster = Cluster::start(&ClusterOptions {
            zones: ZONES.len(),
            dedicated_disk: Some(FULL_DISK_BROKER),
            // The failure of one broker must not be that of the controller too.
            dedicated_controller: true,
            ..ClusterOptions::default()
        });
        let prefix = unique_prefix("faults");
        create_topics(&cluster.bootstrap(), &prefix);
        let network = Network::open(&cluster, ZONES.len());
        let balancer = Arc::new(Balancer::start(ZONES.len()));
        let bootstraps = [cluster.zone_bootstrap(0), cluster.zone_bootstrap(1)];
        Self {
            fleet: Fleet::start(&bootstraps, &prefix, &balancer, &journal),
            plan,
            journal,
            prefix,
            phases: AtomicU64::default(),
            results: Mutex::default(),
            balancer,
            network,
            cluster,
        }
    }

    /// The consumer group of a stage, as `streams.group_prefix` makes it by default.
    pub(crate) fn group(&self, stage: &str) -> String {
        format!("northbridge.{}{stage}", self.prefix)
    }

    /// Creates the topics that do not exist.
    pub(crate) fn create_topics(&self) {
        create_topics(&self.cluster.bootstrap(), &self.prefix);
    }

    pub(crate) fn reference_topic(&self) -> String {
        format!("{}{REFERENCE_TOPIC}", self.prefix)
    }

    /// Waits until all replicas are in sync and all processes are ready.
    pub(crate) fn wait_until_recovered(&self) {
        self.cluster.wait_until_in_sync();
        self.fleet.wait_until_ready();
    }

    /// Runs the loads until `act` has returned and the testbed has recovered, and
    /// checks the laws that must hold in every phase.
    pub(crate) fn run_under_load(
        &self,
        phase: &str,
        loads: &[Load],
        act: impl FnOnce(),
    ) -> Vec<SimulationResult> {
        self.journal.phase(phase);
        let refused_connections = self.balancer.refused_connections();
        // Distinct seeds, so no two loads send equal pushes.
        let seeds = self
            .plan
            .seed
            .wrapping_add(1 + MAX_LOADS * self.next_phase());
        let running: Vec<Simulation> = (seeds..)
            .zip(loads)
            .map(|(seed, load)| Simulation::start(self, *load, seed))
            .collect();
        act();
        self.wait_until_recovered();
        let stopped = running.into_iter().map(|pushes| pushes.stop(self));
        let results: Vec<SimulationResult> = stopped.collect();
        let refused_connections = self.balancer.refused_connections() - refused_connections;
        if refused_connections > 0 {
            self.journal.print(&format!(
                "no instance was ready for {refused_connections} connections"
            ));
        }
        for result in &results {
            self.record(phase, result);
        }
        let allowance = self.journal.stalls.allowance();
        self.journal
            .print(&format!("allowed for stalls of the machine: {allowance:?}"));
        results
    }

    /// Records the result of a load and checks the laws that must always hold.
    pub(crate) fn record(&self, phase: &str, result: &SimulationResult) {
        self.journal.print(&result.to_string());
        self.journal.keep(
            &format!("{phase}-{}.json", result.load.name).replace(' ', "-"),
            &format!("{:#}", result.summary),
        );
        crate::laws::acknowledged_pushes_are_stored(&self.journal, phase, result);
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((phase.to_owned(), result.clone()));
    }

    fn next_phase(&self) -> u64 {
        self.phases.fetch_add(1, Ordering::Relaxed)
    }

    /// The results of all loads so far, with their phases.
    pub(crate) fn results(&self) -> Vec<(String, SimulationResult)> {
        let results = self.results.lock();
        results.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn create_topics(bootstrap: &str, prefix: &str) {
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
    ];
    northbridge::create_topics(&settings);
}
