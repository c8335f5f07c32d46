//! `northbridge replay`: sends dead letters to the topics that they belong to,
//! each exactly once.
//!
//! The record that is sent and a marker for its dead letter are written in one
//! transaction. The marker is in the dead-letter topic itself, so every later
//! run and every consumer of that topic sees what has been replayed. `selection`
//! decides which dead letters are replayed, `route` to which topic each is sent,
//! and `run` holds the steps.
//!
//! Checks a record as the streams would, by their pure functions. Knows nothing
//! of how they run, and nothing of the ingress.

mod dead_letter;
#[cfg(fuzzing)]
pub mod fuzz;
mod report;
mod route;
mod run;
pub mod selection;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Settings;
use crate::kafka::CANNOT_CREATE_CLIENT;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::{Failures, RequestError};
use crate::kafka::log_reader::LogReaderConfig;
use crate::kafka::transactions::Transactions;
use crate::process::signals::Signals;
use crate::process::{Exit, output};
use crate::topics::{Topic, TopicSpec, specs};
use anyhow::Context;
use report::Report;
use route::{Router, TARGETS};
use run::{Interrupted, ReplayRun, Sender};
use selection::Selection;

/// How long a reading waits for a record or for an open transaction to end.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The arguments of the command.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The dead letters to replay.
    pub selection: Selection,
    /// The most dead letters to replay; `None` replays all.
    pub limit: Option<u64>,
    /// Sends dead letters also if they would be rejected again.
    pub as_is: bool,
    /// Prints what would be done and writes nothing.
    pub dry_run: bool,
}

/// Replays the selected dead letters and prints a report.
///
/// # Errors
///
/// Returns an error if the request or the settings are not valid; the message
/// says what to change.
pub async fn run(settings: &Settings, request: &Request) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    request.selection.check()?;
    let failures = Failures::of_command(settings);
    let existing = match existing_topics(settings, &failures).await? {
        Ok(existing) => existing,
        Err(error) => return Ok(super::unavailable(settings, &failures, &error)),
    };
    let mut run = prepare(settings, request, &existing, &failures)?;
    let stop = Arc::clone(&run.sender.stop);
    let mut running = tokio::task::spawn_blocking(move || {
        let result = run.run();
        (run.sender.report, result)
    });
    let ended = tokio::select! {
        ended = &mut running => ended,
        signal = signals.next() => {
            tracing::info!(signal, "finishing the open transaction; another signal stops at once");
            stop.store(true, Ordering::Relaxed);
            signals.stop_at_next();
            running.await
        }
    };
    let (report, result) = ended.context("the replay panicked")?;
    conclude(settings, &failures, request, &report, result)
}

/// Returns those topics of a replay that exist on the cluster.
async fn existing_topics(
    settings: &Settings,
    failures: &Failures,
) -> anyhow::Result<Result<HashSet<Topic>, RequestError>> {
    let is_used =
        |spec: &TopicSpec| spec.topic == Topic::DeadLetter || TARGETS.contains(&spec.topic);
    let specs: Vec<TopicSpec> = specs(settings).into_iter().filter(is_used).collect();
    let admin = TopicAdmin::new(settings, failures).context(CANNOT_CREATE_CLIENT)?;
    Ok(admin.existing(&specs).await)
}

fn prepare(
    settings: &Settings,
    request: &Request,
    existing: &HashSet<Topic>,
    failures: &Failures,
) -> anyhow::Result<ReplayRun> {
    if !existing.contains(&Topic::DeadLetter) {
        return Err(super::missing_topic(settings, Topic::DeadLetter));
    }
    let dead_letter_topic = crate::topics::name(settings, Topic::DeadLetter);
    let transactions = if request.dry_run {
        None
    } else {
        // The id depends on the topic alone: replays that share markers fence
        // each other, whatever their other settings are.
        let id = format!("northbridge-replay.{dead_letter_topic}");
        let transactions = Transactions::new(settings, &id, failures.clone(), Box::new(|| None));
        Some(transactions.context(CANNOT_CREATE_CLIENT)?)
    };
    Ok(ReplayRun {
        reader: LogReaderConfig::new(settings, failures)
            .stall_timeout(STALL_TIMEOUT)
            .create()
            .context(CANNOT_CREATE_CLIENT)?,
        router: Router::new(settings, request.as_is, existing),
        selection: request.selection.clone(),
        limit: request.limit.unwrap_or(u64::MAX),
        max_batch_records: settings.streams.max_batch_records,
        max_batch_bytes: settings.streams.max_batch_bytes,
        sender: Sender {
            transactions,
            dead_letter_topic,
            stop: Arc::new(AtomicBool::new(false)),
            report: Report::default(),
        },
    })
}

fn conclude(
    settings: &Settings,
    failures: &Failures,
    request: &Request,
    report: &Report,
    result: Result<(), Interrupted>,
) -> anyhow::Result<Exit> {
    if let Err(Interrupted::Selection(error)) = result {
        return Err(error.into());
    }
    // Of a replay that could not begin it is unknown what there is.
    if result.is_ok() || !report.is_empty() {
        output::print(report)?;
        output::print_line(report.summary(request.dry_run))?;
    }
    let Err(interrupted) = result else {
        return Ok(Exit::Done);
    };
    let exit = match &interrupted {
        Interrupted::Read(_)
        | Interrupted::Transaction(_)
        | Interrupted::Unknown(_)
        | Interrupted::NoCoordinator => super::unavailable(settings, failures, &interrupted),
        Interrupted::Fenced | Interrupted::Stopped | Interrupted::Selection(_) => {
            output::note(format_args!("error: {interrupted}"));
            Exit::Unsettled
        }
    };
    output::note("The replay is incomplete: run the same command again to continue it.");
    Ok(exit)
}
