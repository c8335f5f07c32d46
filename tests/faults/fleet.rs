//! The processes of the product: two ingress instances and two of each
//! consumer, one of each pair in either zone. What ends is started again, as an
//! orchestrator does it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::journal::Journal;
use crate::support::balancer::{Balancer, Place};
use crate::support::eventually;
use crate::support::northbridge::Northbridge;
use crate::support::supervised::{Supervisor, UNSETTLED};

/// The zones of the network, by their names.
pub(crate) const ZONES: [&str; 2] = ["a", "b"];
/// So many pushes are in flight while nothing is wrong.
const CALM: f64 = 20.0;
/// An orchestrator takes a moment to start again what was killed.
const BEFORE_THE_NEXT_LIFE: Duration = Duration::from_secs(1);

/// All processes; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Arc<Vec<Member>>,
    supervisor: Option<Supervisor>,
}

/// One process, in all its lives.
#[derive(Debug)]
pub(crate) struct Member {
    /// The command and the zone: `ingress-a`.
    pub(crate) name: String,
    command: &'static str,
    zone: usize,
    settings: Vec<(String, String)>,
    process: Mutex<Option<Northbridge>>,
    balancer: Arc<Balancer>,
    journal: Arc<Journal>,
}

impl Fleet {
    /// Starts all on the addresses of their zone, and waits until they are ready.
    pub(crate) fn start(
        bootstraps: &[String; 2],
        prefix: &str,
        balancer: &Arc<Balancer>,
        journal: &Arc<Journal>,
    ) -> Self {
        let mut members = Vec::new();
        for (zone, bootstrap) in bootstraps.iter().enumerate() {
            for command in ["ingress", "command-status", "upgrade-result"] {
                members.push(Member {
                    name: format!("{command}-{}", ZONES[zone]),
                    command,
                    zone,
                    settings: settings(bootstrap, prefix, ZONES[zone]),
                    process: Mutex::new(None),
                    balancer: Arc::clone(balancer),
                    journal: Arc::clone(journal),
                });
            }
        }
        let members = Arc::new(members);
        members.iter().for_each(Member::launch);
        members.iter().for_each(Member::await_ready);
        let looked_after = Arc::clone(&members);
        let supervisor =
            Supervisor::start(move || looked_after.iter().for_each(Member::look_after));
        Self {
            members,
            supervisor: Some(supervisor),
        }
    }

    /// All of them.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The two that take pushes.
    pub(crate) fn ingresses(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_ingress())
    }

    /// Waits until every process is ready.
    pub(crate) fn await_ready(&self) {
        self.members.iter().for_each(Member::await_ready);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.supervisor.take());
        for member in self.members.iter() {
            member.end();
        }
    }
}

impl Member {
    /// Whether it takes pushes.
    pub(crate) fn is_ingress(&self) -> bool {
        self.command == "ingress"
    }

    /// SIGKILL, and its next life after a moment.
    pub(crate) fn kill(&self) {
        self.journal.fault("process killed", &self.name);
        let mut process = self.process();
        if let Some(process) = &*process {
            process.kill();
        }
        thread::sleep(BEFORE_THE_NEXT_LIFE);
        self.renew(&mut process);
    }

    /// SIGTERM, its drain, and its next life.
    pub(crate) fn terminate(&self) {
        self.journal.fault("process terminated", &self.name);
        let mut process = self.process();
        if let Some(process) = &*process {
            // Before that, a new life has nothing to drain, and no ears yet.
            let _listening = process.admin_address();
            let asked = Instant::now();
            process.signal(Signal::TERM);
            let code = process.wait();
            let took = asked.elapsed().as_secs_f64();
            self.journal.mark(&format!(
                "{} ended with {code} after {took:.1} s",
                self.name
            ));
            if code != 0 && code != UNSETTLED {
                self.journal
                    .problem(format!("{} ended with {code} after SIGTERM", self.name));
            }
        }
        self.renew(&mut process);
    }

    /// SIGSTOP for so long, then SIGCONT; of an ingress once no push has waited
    /// for long, for a frozen process answers none.
    pub(crate) fn freeze_for(&self, time: Duration) {
        if self.is_ingress() {
            self.await_calm();
        }
        self.journal.fault("process frozen", &self.name);
        self.signal(Signal::STOP);
        thread::sleep(time);
        self.signal(Signal::CONT);
        self.journal.mark(&format!("{} goes on", self.name));
    }

    /// Waits until it is ready, and for an ingress until pushes go to it.
    pub(crate) fn await_ready(&self) {
        eventually(&format!("{} is ready", self.name), || {
            let ready = if self.is_ingress() {
                self.balancer.is_ready(self.zone)
            } else {
                self.process().as_ref().is_some_and(Northbridge::is_ready)
            };
            ready.then_some(())
        });
    }

    /// Waits until few pushes are in flight, such as those that reached it while
    /// it was frozen: it can count the time of a push only from when it reads it.
    pub(crate) fn await_calm(&self) {
        eventually("what waited is answered", || {
            (self.metric("northbridge_pushes_in_flight", &[]) < CALM).then_some(())
        });
    }

    /// A metric of its present life.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let process = self.process();
        process
            .as_ref()
            .map_or(0.0, |process| process.metric(name, labels))
    }

    fn launch(&self) {
        self.renew(&mut self.process());
    }

    fn renew(&self, process: &mut Option<Northbridge>) {
        if let Some(ended) = process.take() {
            self.journal.keep_log(&self.name, &ended.log());
        }
        let settings: Vec<(&str, &str)> = self
            .settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let started = Northbridge::start(&[self.command], &settings);
        if self.is_ingress() {
            let place = Place {
                push: started.address(),
                admin: started.admin_address(),
            };
            self.balancer.place(self.zone, place);
        }
        *process = Some(started);
    }

    /// Starts again what has ended by itself.
    fn look_after(&self) {
        // Whoever holds it is about to start it again.
        let Ok(mut process) = self.process.try_lock() else {
            return;
        };
        let Some(code) = process.as_ref().and_then(Northbridge::exit_code) else {
            return;
        };
        let expected = code == UNSETTLED && !self.is_ingress();
        let text = format!("{} ended by itself with {code}", self.name);
        if expected {
            self.journal.mark(&text);
        } else {
            self.journal.problem(text);
        }
        self.renew(&mut process);
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
        ("streams.group_prefix", prefix),
        ("streams.instance", zone),
        ("log.format", "json"),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    settings.into_iter().map(owned).collect()
}
