//! The streams half: consumes the pushes that the ingress stored, and keeps the
//! states of commands, devices and upgrade operations in Kafka.
//!
//! This file starts and stops the stages of a process. `stage` builds a stage,
//! and `worker` is its loop, which carries records and states between Kafka and
//! a [`stream`]. The [`states`] are pure: each module holds what a record means
//! (the event), what is kept of it (the state) and the merge of one into the
//! other, and knows neither Kafka nor a clock nor a metric. Nothing here knows
//! `ingress`.

pub mod draft;
#[cfg(fuzzing)]
pub mod fuzz;
pub(crate) mod ids;
mod metrics;
mod stage;
pub mod states;
mod stop;
pub mod store;
pub mod stream;
mod worker;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;

use crate::config::Settings;
use crate::kafka::metrics::KafkaClientFamilies;
use crate::process::admin::AdminServer;
use crate::process::reload::Reload;
use crate::process::signals::Signals;
use crate::process::{Exit, service_manager};
use crate::telemetry::{Telemetry, Tracer};
use metrics::StreamFamilies;
use stage::StageContext;
use stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};

/// The settings of the streams that their status pages show.
pub(crate) const SHOWN_SETTINGS: &[&str] = &[
    "streams.instance",
    "streams.group_prefix",
    "streams.max_batch_records",
    "streams.max_state_bytes",
    "streams.command_status.overdue_after_s",
];

/// A process of the streams half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `northbridge command-status`.
    CommandStatus,
    /// `northbridge upgrade-result`, which has two stages.
    UpgradeResult,
}

/// The running stages of one or more processes.
#[derive(Debug)]
pub(crate) struct RunningStreams {
    /// The deadline of the process, once it stops.
    stop: Arc<OnceLock<Instant>>,
    exits: mpsc::UnboundedReceiver<Exit>,
    stages: usize,
}

/// `northbridge command-status` and `northbridge upgrade-result`: runs until a
/// signal, or until a stage cannot go on, as when another instance fences it.
///
/// # Errors
///
/// Returns an error if the process cannot start; its message says what to do.
pub async fn run(settings: &Settings, process: Process, reload: Reload) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    // Nothing of a stream changes while it runs, but its log.
    reload.start(settings.clone(), Box::new(|_| Ok(())))?;
    let admin = AdminServer::new();
    let clients = KafkaClientFamilies::register(&admin.metrics);
    let telemetry = Telemetry::start(settings, process.name(), &admin.metrics)?;
    let tracer = telemetry.tracer();
    let mut streams = RunningStreams::start(settings, &[process], &admin, &clients, tracer)?;
    let readiness = admin.readiness.clone();
    admin
        .start(settings, process.name(), SHOWN_SETTINGS)
        .await?;
    service_manager::started(readiness);
    let deadline = settings.shutdown.deadline_ms.duration();
    tokio::select! {
        exit = streams.next_exit() => {
            telemetry.stop(Instant::now() + deadline).await;
            return Ok(exit);
        }
        signal = signals.next() => {
            tracing::info!(signal, "finishing the open transaction; another signal stops at once");
        }
    }
    signals.stop_at_next();
    service_manager::stopping(deadline);
    let end = Instant::now() + deadline;
    let exit = streams.stop(deadline).await;
    telemetry.stop(end).await;
    Ok(exit)
}

impl RunningStreams {
    /// Starts the stages of these processes, each on a thread of its own. They
    /// report to `admin`. Kafka need not be reachable. Batches are traced if there is
    /// a tracer.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects an option, or if a thread cannot
    /// be started.
    pub(crate) fn start(
        settings: &Settings,
        processes: &[Process],
        admin: &AdminServer,
        clients: &KafkaClientFamilies,
        tracer: Option<Tracer>,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(OnceLock::new());
        let (sender, exits) = mpsc::unbounded_channel();
        let context = StageContext {
            settings,
            admin,
            clients,
            tracer,
            stop: Arc::clone(&stop),
            exits: sender,
        };
        let families = StreamFamilies::register(&admin.metrics);
        let mut stages = 0;
        for process in processes {
            stages += process.start_stages(&context, &families)?;
        }
        Ok(Self {
            stop,
            exits,
            stages,
        })
    }

    /// Waits until a stage ends. Returns its exit code.
    pub(crate) async fn next_exit(&mut self) -> Exit {
        // Without a sender every stage has ended, and one has panicked.
        self.exits.recv().await.unwrap_or(Exit::Bug)
    }

    /// Lets every stage finish its transaction and leave its group. Returns
    /// [`Exit::Unsettled`] if that takes longer than `timeout`.
    pub(crate) async fn stop(mut self, timeout: Duration) -> Exit {
        self.stop.get_or_init(|| Instant::now() + timeout);
        let all_stages = async {
            let mut exit = Exit::Done;
            for _ in 0..self.stages {
                let of_stage = self.next_exit().await;
                if of_stage != Exit::Done {
                    exit = of_stage;
                }
            }
            exit
        };
        tokio::time::timeout(timeout, all_stages)
            .await
            .unwrap_or(Exit::Unsettled)
    }
}

impl Process {
    /// The name of its command.
    const fn name(self) -> &'static str {
        match self {
            Self::CommandStatus => "command-status",
            Self::UpgradeResult => "upgrade-result",
        }
    }

    /// Starts the stages of this process. Returns how many there are.
    fn start_stages(
        self,
        context: &StageContext<'_>,
        families: &StreamFamilies,
    ) -> anyhow::Result<usize> {
        let settings = &context.settings.streams;
        match self {
            Self::CommandStatus => {
                let max_entries = settings.command_status.max_entries;
                let metrics = families.of_commands(CommandStatus::NAME);
                stage::start::<CommandStatus>(context, metrics, max_entries)?;
                Ok(1)
            }
            Self::UpgradeResult => {
                let max_entries = settings.upgrade_result.max_entries;
                let metrics = families.of_upgrades(UpgradeResults::NAME);
                stage::start::<UpgradeResults>(context, metrics, max_entries)?;
                let metrics = families.of_stream(UpgradeOperations::NAME);
                stage::start::<UpgradeOperations>(context, metrics, max_entries)?;
                Ok(2)
            }
        }
    }
}

#[cfg(test)]
mod tests;
