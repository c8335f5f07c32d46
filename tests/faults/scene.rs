//! Everything that takes part in a run: three brokers, the network, the
//! balancer, the product's processes; and what has come of the loads so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fleet::{Fleet, ZONES};
use crate::journal::Journal;
use crate::plan::Plan;
use crate::pushes::{Load, Outcome, Pushes};
use crate::support::balancer::Balancer;
use crate::support::kafka_cluster::{Cluster, ClusterOptions, unique_prefix};
use crate::support::network::Network;
use crate::support::northbridge::run;

/// The broker that has a disk of its own.
pub(crate) const OWN_DISK: usize = 2;
/// The topic that the witness writes to, after the prefix: one of the product's,
/// so that it has as much to catch up with; no stream reads it, and the proofs
/// pass over records of others.
const WITNESS: &str = "notifications";
/// No phase has more.
const LOADS: u64 = 4;
/// As many partitions as the product's topics have.
pub(crate) const PARTITIONS: i32 = 6;

/// The scene of a run; its processes end with it.
#[derive(Debug)]
pub(crate) struct Scene {
    /// What is run.
    pub(crate) plan: Plan,
    /// What happened.
    pub(crate) journal: Arc<Journal>,
    /// Before the names of all topics and groups.
    pub(crate) prefix: String,
    phases: AtomicU64,
    outcomes: Mutex<Vec<(String, Outcome)>>,
    /// The product.
    pub(crate) fleet: Fleet,
    /// Before the two ingress instances.
    pub(crate) balancer: Arc<Balancer>,
    /// Between the product and the brokers.
    pub(crate) network: Network,
    /// The brokers.
    pub(crate) cluster: Cluster,
}

impl Scene {
    /// Starts everything and waits until it is ready.
    pub(crate) fn set(plan: Plan) -> Self {
        let journal = Arc::new(Journal::begin(&plan.directory));
        journal.say(&format!(
            "seed {}, {} pushes a second; the run leaves its traces in {}",
            plan.seed,
            plan.rate,
            plan.directory.display()
        ));
        let cluster = Cluster::start(&ClusterOptions {
            zones: ZONES.len(),
            own_disk: Some(OWN_DISK),
            // One broker of three gone is to be that alone.
            controller_apart: true,
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
            outcomes: Mutex::default(),
            balancer,
            network,
            cluster,
        }
    }

    /// The name of the topic that the witness writes to.
    pub(crate) fn witness_topic(&self) -> String {
        format!("{}{WITNESS}", self.prefix)
    }

    /// Waits until nothing is left of a fault.
    pub(crate) fn settle(&self) {
        self.cluster.wait_until_in_sync();
        self.fleet.await_ready();
    }

    /// Pushes these loads while `act` goes on and until its traces are gone,
    /// and holds against each what must always hold.
    pub(crate) fn under(&self, phase: &str, loads: &[Load], act: impl FnOnce()) -> Vec<Outcome> {
        self.journal.mark(&format!("phase: {phase}"));
        let turned_away = self.balancer.turned_away();
        // No two loads push the same.
        let seeds = self.plan.seed.wrapping_add(1 + LOADS * self.played());
        let running: Vec<Pushes> = (seeds..)
            .zip(loads)
            .map(|(seed, load)| Pushes::start(self, *load, seed))
            .collect();
        act();
        self.settle();
        let stopped = running.into_iter().map(|pushes| pushes.stop(self));
        let outcomes: Vec<Outcome> = stopped.collect();
        let turned_away = self.balancer.turned_away() - turned_away;
        if turned_away > 0 {
            self.journal.say(&format!(
                "no instance was ready for {turned_away} connections"
            ));
        }
        for outcome in &outcomes {
            self.take(phase, outcome);
        }
        outcomes
    }

    /// Keeps what a load came to, and checks what must always hold.
    pub(crate) fn take(&self, phase: &str, outcome: &Outcome) {
        self.journal.say(&outcome.to_string());
        self.journal.keep(
            &format!("{phase}-{}.json", outcome.load.name).replace(' ', "-"),
            &format!("{:#}", outcome.summary),
        );
        crate::laws::acknowledged_is_stored(&self.journal, phase, outcome);
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((phase.to_owned(), outcome.clone()));
    }

    fn played(&self) -> u64 {
        self.phases.fetch_add(1, Ordering::Relaxed)
    }

    /// What all loads so far came to, with their phases.
    pub(crate) fn outcomes(&self) -> Vec<(String, Outcome)> {
        let outcomes = self.outcomes.lock();
        outcomes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn create_topics(bootstrap: &str, prefix: &str) {
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
    ];
    let created = run(&["topics", "create"], &settings);
    assert!(created.status.success(), "{created:?}");
}
