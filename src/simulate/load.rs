//! The open-loop run: sends pushes at their intended times, whatever the
//! answers are.
//!
//! One task holds the plan, the delivery rules and the statistics; the workers
//! of each connection derive, send and report single pushes. A late answer
//! delays no other push as long as a worker is idle, and a push that has to
//! wait for a worker counts its latency from its intended send time (no
//! coordinated omission).

pub(super) mod answer;
pub(super) mod client;
pub(super) mod delivery_rules;
pub(super) mod progress;
pub(super) mod statistics;
pub(super) mod target;
pub(super) mod tls;
mod workers;

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::pushes::{PushGenerator, PushSet};
use crate::process::signals::Signals;

use answer::Answer;
use client::Connector;
use delivery_rules::{Action, DeliveryCounts, DeliveryRules, PendingPush};
use progress::{ProgressDisplay, Snapshot};
use statistics::Statistics;
use workers::{FinishedPush, PushJob, Workers};

/// The run sleeps no longer than this at a time.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// What to push, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadPlan {
    pub(crate) generator: PushGenerator,
    /// The number of new pushes.
    pub(crate) pushes: u32,
    /// New pushes per second, whatever the answers are.
    pub(crate) rate: f64,
    pub(crate) connections: u16,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct LoadResult {
    /// New pushes that became due; fewer than planned after a signal.
    pub(crate) pushes: u32,
    /// The pushes that were answered 200.
    pub(crate) acknowledged: PushSet,
    pub(crate) statistics: Statistics,
    pub(crate) delivery: DeliveryCounts,
    /// Pushes that the delivery rules still held back at the end.
    pub(crate) backlog: usize,
    /// Pushes that were in flight when a second signal ended the run.
    pub(crate) unanswered: usize,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) duration: Duration,
}

/// Pushes until the plan is complete and every push is answered.
///
/// After the last new push, a backlog is flushed, and a blacklisted host gets
/// one more probe. The first signal ends new pushes, the second ends the run.
pub(crate) async fn run(
    plan: LoadPlan,
    rules: DeliveryRules,
    connector: &Connector,
    progress: &mut ProgressDisplay,
    signals: &mut Signals,
) -> LoadResult {
    let workers = Workers::spawn(plan.connections, connector, plan.generator);
    let (started_at, start) = (Utc::now(), Instant::now());
    let mut run = LoadRun {
        plan,
        rules,
        start,
        workers,
        pushes: plan.pushes,
        offered: 0,
        in_flight: 0,
        acknowledged: PushSet::default(),
        statistics: Statistics::new(),
        probes_at_last_push: None,
    };
    let mut seconds = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    run.push_until_over(&mut seconds, progress, signals).await;
    run.close_second(progress);
    LoadResult {
        pushes: run.offered,
        acknowledged: run.acknowledged,
        delivery: run.rules.counts(),
        backlog: run.rules.backlog(),
        unanswered: run.in_flight,
        statistics: run.statistics,
        started_at,
        duration: start.elapsed(),
    }
}

struct LoadRun {
    plan: LoadPlan,
    rules: DeliveryRules,
    start: Instant,
    workers: Workers,
    /// As planned, or as many as were offered before a signal.
    pushes: u32,
    offered: u32,
    in_flight: usize,
    acknowledged: PushSet,
    statistics: Statistics,
    /// The number of probes when the last new push had been answered.
    probes_at_last_push: Option<u64>,
}

impl LoadRun {
    async fn push_until_over(
        &mut self,
        seconds: &mut Interval,
        progress: &mut ProgressDisplay,
        signals: &mut Signals,
    ) {
        loop {
            let wake_at = self.send_due_pushes();
            if self.is_over() {
                return;
            }
            tokio::select! {
                Some(result) = self.workers.next_result() => self.on_result(result),
                () = sleep_until(wake_at) => {}
                _ = seconds.tick() => self.close_second(progress),
                _ = signals.next() => {
                    if self.pushes == self.offered {
                        return;
                    }
                    self.pushes = self.offered;
                }
            }
            while let Some(result) = self.workers.try_next_result() {
                self.on_result(result);
            }
        }
    }

    /// Sends everything that is due. Returns when to call it again, if no
    /// answer arrives before.
    fn send_due_pushes(&mut self) -> Instant {
        let now = self.start.elapsed();
        while self.offered < self.pushes && self.due(self.offered) <= now {
            self.offer_next();
        }
        let mut wake_at = now + MAX_SLEEP;
        loop {
            match self.rules.next_action(now) {
                Action::Send { push, due } => self.send(push, due),
                Action::Wait(until) => {
                    wake_at = wake_at.min(until);
                    break;
                }
                Action::Idle => break,
            }
        }
        if self.offered < self.pushes {
            wake_at = wake_at.min(self.due(self.offered));
        }
        self.start + wake_at
    }

    fn offer_next(&mut self) {
        let (number, due) = (self.offered, self.due(self.offered));
        let joins_backlog = self.rules.is_blacklisted() || self.rules.backlog() > 0;
        // The workers derive the body, so here it is derived for its length only.
        let bytes = if joins_backlog {
            let body = self.plan.generator.push(number.into()).body;
            u32::try_from(body.len()).unwrap_or(u32::MAX)
        } else {
            0
        };
        let push = PendingPush {
            number,
            bytes,
            since: due,
        };
        self.offered += 1;
        if let Some(push) = self.rules.offer(push) {
            self.send(push, due);
        }
    }

    fn send(&mut self, push: PendingPush, due: Duration) {
        self.in_flight += 1;
        self.workers.send(PushJob {
            push,
            due,
            is_probe: self.rules.is_blacklisted(),
        });
    }

    fn on_result(&mut self, result: FinishedPush) {
        let FinishedPush {
            job,
            answer,
            answered_at,
            service_time,
        } = result;
        self.in_flight -= 1;
        let Some(answer) = answer else {
            self.rules.return_unsent(job.push);
            return;
        };
        let answered_at = answered_at.saturating_duration_since(self.start);
        let latency = answered_at.saturating_sub(job.due);
        self.statistics.record(answer, latency, service_time);
        if answer == Answer::Status(200) {
            self.acknowledged.insert(job.push.number);
        }
        self.rules.on_answer(job.push, answer, self.start.elapsed());
        self.workers.hold_back(self.rules.is_blacklisted());
    }

    fn is_over(&mut self) -> bool {
        if self.offered < self.pushes || self.in_flight > 0 {
            return false;
        }
        let probes = self.rules.counts().probes;
        let probes_before = *self.probes_at_last_push.get_or_insert(probes);
        self.rules.backlog() == 0 || (self.rules.is_blacklisted() && probes > probes_before)
    }

    fn close_second(&mut self, progress: &mut ProgressDisplay) {
        let end = self.start.elapsed();
        let blacklisted = self.rules.is_blacklisted();
        let second = self
            .statistics
            .close_second(end, self.in_flight, blacklisted)
            .clone();
        progress.show(&Snapshot {
            second: &second,
            answers: self.statistics.answers(),
            offered: self.offered,
            pushes: self.pushes,
            backlog: self.rules.backlog(),
        });
    }

    /// The intended send time of a new push, since the start of the run.
    fn due(&self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / self.plan.rate)
    }
}
