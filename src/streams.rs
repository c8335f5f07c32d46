//! The streams half: raw pushes in, the state of commands, devices and upgrade
//! operations out.
//!
//! The three states are pure: each module holds what a record means (the
//! event), what is kept of it (the state, as written to its topic) and the
//! merge of one into the other. None of them knows Kafka, a clock or a metric;
//! what an `apply` returns says what to write and what to count.
//!
//! [`transaction`] carries records and states between Kafka and them, on one
//! thread for each stage; this file wires a process. Nothing here knows
//! `ingress`.

pub mod command_state;
pub mod device_software;
pub mod push;
pub mod store;
pub mod stream;
pub mod texts;
pub mod time;
pub mod transaction;
pub mod upgrade_operation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

use stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};
use transaction::{Changed, WorkPlan, Worker};

use crate::config::Settings;
use crate::kafka;
use crate::kafka::admin::{Admin, Survey};
use crate::kafka::group::Member;
use crate::kafka::restore::Restore;
use crate::kafka::transactions::{Pulse, Transactions};
use crate::metrics::{KafkaClientMetrics, Metrics, StreamFamilies, StreamMetrics};
use crate::process::Exit;
use crate::process::admin::Administration;
use crate::process::health::{Condition, Readiness};
use crate::process::signals::Signals;
use crate::topics::{Plan, Topic, plans};

/// The pause before the cluster is asked again whether its topics are fit.
const SURVEY_PAUSE: Duration = Duration::from_secs(1);
/// How long a question about them may take. A cluster that does not show their
/// settings may never answer it, and the group waits meanwhile.
const SURVEY: Duration = Duration::from_secs(2);

/// How often a stage's thread is looked at.
const PULSE: Duration = Duration::from_secs(1);

/// Which process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `northbridge command-status`.
    CommandStatus,
    /// `northbridge upgrade-result`, with both of its stages.
    UpgradeResult,
}

/// The running stages of one or more processes.
#[derive(Debug)]
pub struct Streams {
    stop: Arc<AtomicBool>,
    ended: mpsc::UnboundedReceiver<Exit>,
    running: usize,
}

/// `northbridge command-status` and `northbridge upgrade-result`: runs until a
/// signal, or until another instance takes its place.
///
/// # Errors
///
/// Where it cannot start; the message says what to do.
pub async fn run(settings: &Settings, process: Process) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let administration = Administration::new();
    let mut streams = Streams::start(settings, &[process], &administration, None)?;
    administration.start(settings.admin.listen).await?;
    tokio::select! {
        exit = streams.ended() => return Ok(exit),
        signal = signals.next() => {
            tracing::info!(signal, "finishing the open transaction; another signal stops at once");
        }
    }
    signals.stop_at_next();
    Ok(streams.stop(settings.shutdown.deadline_ms.duration()).await)
}

impl Streams {
    /// Starts the stages of these processes, each on a thread of its own.
    /// They report to `administration`. Kafka need not be there.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option, or a thread cannot start.
    pub fn start(
        settings: &Settings,
        processes: &[Process],
        administration: &Administration,
        changed: Option<Changed>,
    ) -> anyhow::Result<Self> {
        let Administration { metrics, readiness } = administration;
        let (send, ended) = mpsc::unbounded_channel();
        let mut start = Start {
            settings,
            families: StreamFamilies::register(metrics),
            metrics,
            readiness,
            changed,
            stop: Arc::new(AtomicBool::new(false)),
            ended: send,
            running: 0,
        };
        for process in processes {
            match process {
                Process::CommandStatus => {
                    let metrics = start.families.commands(CommandStatus::NAME);
                    let limit = settings.streams.command_status.max_entries;
                    start.stage::<CommandStatus>(metrics, limit)?;
                }
                Process::UpgradeResult => {
                    let limit = settings.streams.upgrade_result.max_entries;
                    let metrics = start.families.upgrades(UpgradeResults::NAME);
                    start.stage::<UpgradeResults>(metrics, limit)?;
                    let metrics = start.families.stream(UpgradeOperations::NAME);
                    start.stage::<UpgradeOperations>(metrics, limit)?;
                }
            }
        }
        Ok(Self {
            stop: start.stop,
            ended,
            running: start.running,
        })
    }

    /// Waits until one of the stages ends by itself, and tells how.
    pub async fn ended(&mut self) -> Exit {
        self.ended.recv().await.unwrap_or(Exit::Bug)
    }

    /// Lets every stage finish its transaction and leave its group.
    pub async fn stop(mut self, within: Duration) -> Exit {
        self.stop.store(true, Ordering::Relaxed);
        let all = async {
            let mut exit = Exit::Done;
            for _ in 0..self.running {
                let ended = self.ended().await;
                if ended != Exit::Done {
                    exit = ended;
                }
            }
            exit
        };
        tokio::time::timeout(within, all)
            .await
            .unwrap_or(Exit::Unsettled)
    }
}

struct Start<'a> {
    settings: &'a Settings,
    families: StreamFamilies,
    metrics: &'a Metrics,
    readiness: &'a Readiness,
    changed: Option<Changed>,
    stop: Arc<AtomicBool>,
    ended: mpsc::UnboundedSender<Exit>,
    running: usize,
}

impl Start<'_> {
    fn stage<S: Stream>(
        &mut self,
        metrics: StreamMetrics,
        max_entries: usize,
    ) -> anyhow::Result<()> {
        let settings = self.settings;
        let all = plans(settings);
        let plan = |topic: Topic| &all[topic.index()];
        let prefix = &settings.streams.group_prefix;
        let group = format!("{prefix}{}", S::NAME);
        let transactional_id = format!("{group}.{}", instance(settings));
        let client_metrics = KafkaClientMetrics::register(self.metrics, S::NAME);
        let input = &plan(S::INPUT).name;
        let member = Member::join(settings, &group, input, S::NAME, client_metrics)
            .context(kafka::NOT_TAKEN)?;
        let transactions =
            Transactions::new(settings, &transactional_id).context(kafka::NOT_TAKEN)?;
        let restore = Restore::new(settings, &plan(S::STATE).name);
        let restored = self.readiness.condition(S::NAME, "no partitions yet");
        let changed = self.changed;
        let work = WorkPlan {
            input_topic: input.clone(),
            state_topic: plan(S::STATE).name.clone(),
            forward_topic: S::FORWARDS.map(|topic| plan(topic).name.clone()),
            dead_letter_topic: plan(Topic::DeadLetter).name.clone(),
            max_batch_records: settings.streams.max_batch_records,
            max_batch_wait: settings.streams.max_batch_wait_ms.duration(),
            retention: plan(S::STATE)
                .retention_hours
                .map(|hours| Duration::from_secs(hours * 3_600)),
            max_entries,
            overdue_after: Duration::from_secs(settings.streams.command_status.overdue_after_s),
            max_record_bytes: plan(S::STATE).max_message_bytes,
        };
        let topics = Topics {
            input: plan(S::INPUT).clone(),
            state: plan(S::STATE).clone(),
            others: std::iter::once(Topic::DeadLetter)
                .chain(S::FORWARDS)
                .map(|topic| plan(topic).clone())
                .collect(),
            admin: Admin::new(settings).context(kafka::NOT_TAKEN)?,
            condition: self
                .readiness
                .condition(S::TOPICS_CONDITION, "not compared yet"),
        };
        let (stop, ended) = (Arc::clone(&self.stop), self.ended.clone());
        let runtime = tokio::runtime::Handle::current();
        runtime.spawn(watch(S::NAME, transactions.pulse(), self.ended.clone()));
        std::thread::Builder::new()
            .name(S::NAME.to_owned())
            .spawn(move || {
                let worker = Worker::<S> {
                    member: &member,
                    transactions,
                    restore,
                    plan: work,
                    metrics: Arc::new(metrics),
                    restored,
                    changed,
                    stores: BTreeMap::new(),
                };
                let exit = if topics.await_fit(&runtime, &stop) {
                    worker.run(&stop)
                } else {
                    Exit::Done
                };
                // Nobody listens only if the process is ending already.
                let _ = ended.send(exit);
            })
            .with_context(|| format!("the thread of {} cannot be started", S::NAME))?;
        self.running += 1;
        Ok(())
    }
}

/// Says that a stage has ended when its thread is stuck in a transaction.
async fn watch(stream: &'static str, pulse: Pulse, ended: mpsc::UnboundedSender<Exit>) {
    while !pulse.is_over() {
        if pulse.is_stuck() {
            tracing::error!(
                stream,
                "the stream ends, for a call into librdkafka does not return; a restart continues where it stopped"
            );
            // Nobody listens only if the process is ending already.
            let _ = ended.send(Exit::Unsettled);
            return;
        }
        tokio::time::sleep(PULSE).await;
    }
}

/// The topics of one stage.
struct Topics {
    input: Plan,
    state: Plan,
    others: Vec<Plan>,
    admin: Admin,
    condition: Condition,
}

impl Topics {
    /// Waits until all are there and fit. Whether they are, or a stop came.
    fn await_fit(&self, runtime: &tokio::runtime::Handle, stop: &AtomicBool) -> bool {
        let all: Vec<Plan> = [&self.input, &self.state]
            .into_iter()
            .chain(&self.others)
            .cloned()
            .collect();
        let mut said = String::new();
        while !stop.load(Ordering::Relaxed) {
            let unfit = match runtime.block_on(self.admin.survey(&all, SURVEY)) {
                Ok(survey) => self.unfit(&survey),
                Err(error) => Some(format!("Kafka does not answer: {error}")),
            };
            let Some(why) = unfit else {
                self.condition.set(true, "all are there and fit");
                return true;
            };
            if why != said {
                tracing::warn!(
                    stream = self.input.topic.label(),
                    why,
                    "waiting for the topics"
                );
                said.clone_from(&why);
            }
            self.condition.explain(&why);
            std::thread::sleep(SURVEY_PAUSE);
        }
        false
    }

    fn unfit(&self, survey: &Survey) -> Option<String> {
        if let Some(problem) = survey.problem() {
            return Some(format!("{}: {}", problem.topic, problem.text));
        }
        let partitions = |plan: &Plan| {
            let of = survey
                .observed
                .iter()
                .find(|(topic, _)| *topic == plan.topic);
            of.map_or(0, |(_, observed)| observed.partitions)
        };
        let (input, state) = (partitions(&self.input), partitions(&self.state));
        (state < input).then(|| {
            format!(
                "{} has {state} partitions and {} has {input}: each state goes to the partition number of its records, so add partitions to {}",
                self.state.name, self.input.name, self.state.name,
            )
        })
    }
}

/// What names this instance's transactions: its own name, else the host's.
fn instance(settings: &Settings) -> String {
    let host = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    settings.streams.instance.clone().unwrap_or_else(host)
}

#[cfg(test)]
mod campaigns;
#[cfg(test)]
use crate::simulate::model;
#[cfg(test)]
mod schemas;
