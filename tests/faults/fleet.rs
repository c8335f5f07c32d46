//! The processes of the product: two instances each of the ingress and of both
//! stream processes, one per zone. A process that exits is restarted, as an
//! orchestrator does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::journal::Journal;
use crate::support::balancer::{Balancer, Endpoints};
use crate::support::eventually;
use crate::support::northbridge::Northbridge;
use crate::support::supervised::{Poller, UNSETTLED};

/// The names of the network zones.
pub(crate) const ZONES: [&str; 2] = ["a", "b"];
/// More pushes than are normally in flight on a healthy instance.
const FEW_IN_FLIGHT: f64 = 20.0;
/// Longer than an acknowledgement takes on a healthy cluster.
const LONG_OUTAGE_S: f64 = 1.0;
/// How long an orchestrator takes to restart a killed process.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// What a stream process logs that ends because librdkafka does not return.
const STUCK_CALL: &str = "transactional call does not return";

/// All processes; dropping it kills them.
#[derive(Debug)]
pub(crate) struct Fleet {
    instances: Arc<Vec<Instance>>,
    /// The number of [`Unsupervised`] that exist.
    unsupervised: Arc<AtomicUsize>,
    poller: Option<Poller>,
}

/// The time in which nothing would restart a process.
#[derive(Debug)]
pub(crate) struct Unsupervised(Arc<AtomicUsize>);

impl Drop for Unsupervised {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One process and its successors after each restart.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The command and the zone: `ingress-a`.
    pub(crate) name: String,
    command: &'static str,
    zone: usize,
    settings: Vec<(String, String)>,
    /// Settings of the current phase.
    further: Mutex<Vec<(String, String)>>,
    process: Mutex<Option<Northbridge>>,
    balancer: Arc<Balancer>,
    journal: Arc<Journal>,
}

impl Fleet {
    /// Starts all processes, each with the bootstrap servers of its zone, and
    /// waits until they are ready.
    pub(crate) fn start(
        bootstraps: &[String; 2],
        prefix: &str,
        balancer: &Arc<Balancer>,
        journal: &Arc<Journal>,
    ) -> Self {
        let mut instances = Vec::new();
        for (zone, bootstrap) in bootstraps.iter().enumerate() {
            for command in ["ingress", "command-status", "upgrade-result"] {
                instances.push(Instance {
                    name: format!("{command}-{}", ZONES[zone]),
                    command,
                    zone,
                    settings: settings(bootstrap, prefix, ZONES[zone]),
                    further: Mutex::default(),
                    process: Mutex::new(None),
                    balancer: Arc::clone(balancer),
                    journal: Arc::clone(journal),
                });
            }
        }
        let instances = Arc::new(instances);
        instances.iter().for_each(Instance::launch);
        instances.iter().for_each(Instance::wait_until_ready);
        let unsupervised = Arc::new(AtomicUsize::new(0));
        let (shared, without) = (Arc::clone(&instances), Arc::clone(&unsupervised));
        let poller = Poller::start(move || {
            let is_supervised = without.load(Ordering::Relaxed) == 0;
            let instances = shared.iter();
            instances.for_each(|instance| instance.restart_if_exited(is_supervised));
        });
        Self {
            instances,
            unsupervised,
            poller: Some(poller),
        }
    }

    pub(crate) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub(crate) fn ingresses(&self) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(|instance| instance.is_ingress())
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(|instance| !instance.is_ingress())
    }

    /// Makes it a violation that a process ends by itself, until the returned value
    /// is dropped. It is restarted all the same, so that the run can go on.
    pub(crate) fn without_supervisor(&self) -> Unsupervised {
        self.unsupervised.fetch_add(1, Ordering::Relaxed);
        Unsupervised(Arc::clone(&self.unsupervised))
    }

    pub(crate) fn wait_until_ready(&self) {
        self.instances.iter().for_each(Instance::wait_until_ready);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.poller.take());
        for instance in self.instances.iter() {
            instance.end();
        }
    }
}

impl Instance {
    pub(crate) fn is_ingress(&self) -> bool {
        self.command == "ingress"
    }

    /// Sends SIGKILL and restarts it after a moment.
    pub(crate) fn kill(&self) {
        self.journal.fault("process killed", &self.name);
        let mut process = self.process();
        if let Some(process) = &*process {
            process.kill();
        }
        thread::sleep(RESTART_DELAY);
        self.restart(&mut process);
    }

    /// Sends SIGTERM, waits for the drain, and restarts it.
    pub(crate) fn terminate(&self) {
        self.journal.fault("process terminated", &self.name);
        let mut process = self.process();
        self.drain(process.as_ref());
        self.restart(&mut process);
    }

    /// Like [`Instance::terminate`], with these settings beside the usual ones from then
    /// on.
    pub(crate) fn terminate_and_set(&self, settings: Vec<(String, String)>) {
        *self.further.lock().expect("no panic") = settings;
        self.terminate();
    }

    /// The address that its current process listens on.
    pub(crate) fn push_address(&self) -> SocketAddr {
        let process = self.process();
        process.as_ref().expect("a running process").address()
    }

    /// Sends SIGTERM and waits for the drain. Nothing restarts it before
    /// [`Instance::launch`].
    pub(crate) fn stop(&self) {
        let mut process = self.process();
        self.drain(process.as_ref());
        if let Some(ended) = process.take() {
            self.journal.keep_log(&self.name, &ended.log());
        }
    }

    fn drain(&self, process: Option<&Northbridge>) {
        if let Some(process) = process {
            // A process that is still starting has no signal handler yet.
            let _listening = process.admin_address();
            let signalled = Instant::now();
            process.signal(Signal::TERM);
            let code = process.wait();
            let took = signalled.elapsed().as_secs_f64();
            self.journal.annotate(&format!(
                "{} exited with {code} after {took:.1} s",
                self.name
            ));
            if code != 0 && code != UNSETTLED {
                self.journal
                    .violation(format!("{} exited with {code} after SIGTERM", self.name));
            }
        }
    }

    /// Sends SIGSTOP and, after `time`, SIGCONT. An ingress is frozen only while
    /// the pushes in flight are few and young, because a frozen process answers
    /// none of them.
    pub(crate) fn freeze_for(&self, time: Duration) {
        if self.is_ingress() {
            self.wait_until_few_in_flight();
            self.wait_until_prompt();
        }
        self.journal.fault("process frozen", &self.name);
        self.signal(Signal::STOP);
        thread::sleep(time);
        self.signal(Signal::CONT);
        self.journal.annotate(&format!("{} resumed", self.name));
    }

    /// Waits until it is ready; for an ingress, until the balancer has noticed.
    pub(crate) fn wait_until_ready(&self) {
        eventually(&format!("{} is ready", self.name), || {
            let ready = if self.is_ingress() {
                self.balancer.is_ready(self.zone)
            } else {
                self.process().as_ref().is_some_and(Northbridge::is_ready)
            };
            ready.then_some(())
        });
    }

    /// Waits until few pushes are in flight. Pushes that arrived while it was frozen
    /// are answered late, because their deadlines start when it reads them.
    pub(crate) fn wait_until_few_in_flight(&self) {
        eventually("few pushes are in flight", || {
            (self.metric("northbridge_pushes_in_flight", &[]) < FEW_IN_FLIGHT).then_some(())
        });
    }

    /// Waits until no partition has owed an acknowledgement for long: pushes that
    /// have waited for one would be answered late after a freeze.
    fn wait_until_prompt(&self) {
        eventually("every partition acknowledges", || {
            let outage_s = self.metric("northbridge_kafka_outage_seconds", &[]);
            (outage_s < LONG_OUTAGE_S).then_some(())
        });
    }

    /// A metric of the current process.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let process = self.process();
        process
            .as_ref()
            .map_or(0.0, |process| process.metric(name, labels))
    }

    pub(crate) fn launch(&self) {
        self.restart(&mut self.process());
    }

    fn restart(&self, process: &mut Option<Northbridge>) {
        if let Some(ended) = process.take() {
            self.journal.keep_log(&self.name, &ended.log());
        }
        let further = self.further.lock().expect("no panic");
        let settings: Vec<(&str, &str)> = (self.settings.iter())
            .chain(&*further)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let started = Northbridge::start(&[self.command], &settings);
        if self.is_ingress() {
            let endpoints = Endpoints {
                push: started.address(),
                admin: started.admin_address(),
            };
            self.balancer.set_endpoints(self.zone, endpoints);
        }
        *process = Some(started);
    }

    /// Restarts the process if it exited by itself. Only a stream process may, with
    /// [`UNSETTLED`]; without a supervisor only because of [`STUCK_CALL`].
    fn restart_if_exited(&self, is_supervised: bool) {
        // The holder of the lock is restarting it already.
        let Ok(mut process) = self.process.try_lock() else {
            return;
        };
        let exited = process
            .as_ref()
            .and_then(|process| Some((process.exit_code()?, process.last_error())));
        let Some((code, error)) = exited else {
            return;
        };
        let cause = error.unwrap_or_else(|| format!("exit code {code}"));
        let is_stuck = cause.starts_with(STUCK_CALL);
        let expected = code == UNSETTLED && !self.is_ingress() && (is_supervised || is_stuck);
        let text = format!("{} exited by itself with {code}: {cause}", self.name);
        self.journal.count_ended(cause);
        if expected {
            self.journal.annotate(&text);
        } else {
            self.journal.violation(text);
        }
        self.restart(&mut process);
    }

    fn end(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
            self.journal.keep_log(&self.name, &process.log());
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &*self.process() {
            process.signal(signal);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Northbridge>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settings(bootstrap: &str, prefix: &str, zone: &str) -> Vec<(String, String)> {
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
        ("streams.instance", zone),
        ("log.format", "json"),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    settings.into_iter().map(owned).collect()
}
