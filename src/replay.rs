//! `northbridge replay`: dead letters back to where they belong, each exactly
//! once.
//!
//! A dead letter and its mark are written in one transaction, and the mark
//! stands in the dead-letter topic itself: what was replayed is known to every
//! later run and to every reader. `work` has the steps, `route` decides where
//! a dead letter belongs, `selection` which are meant.
//!
//! It asks the streams what they would read, by their pure part, and knows
//! nothing of how they run; of the ingress it knows nothing.

mod dead_letter;
mod report;
mod route;
pub mod selection;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};

use crate::config::Settings;
use crate::kafka::NOT_TAKEN;
use crate::kafka::admin::{ASK, Admin};
use crate::kafka::reader::Reader;
use crate::kafka::transactions::Transactions;
use crate::process::Exit;
use crate::process::signals::Signals;
use crate::topics::{Plan, Topic, plans};
use report::Report;
use route::{Router, TARGETS};
use selection::Selection;
use work::{Interrupted, Sink, Work};

/// What an operator asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which dead letters are meant.
    pub selection: Selection,
    /// At most so many are sent.
    pub limit: Option<u64>,
    /// Sends also what would not be understood today either.
    pub as_is: bool,
    /// Shows what would be done, and writes nothing.
    pub dry_run: bool,
}

/// Replays what is asked for, prints what became of it, and ends.
///
/// # Errors
///
/// Where the request or the settings cannot be followed; the message says what
/// to change.
pub async fn run(settings: &Settings, request: &Request) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    request.selection.check()?;
    let there = match topics_there(settings).await? {
        Ok(there) => there,
        Err(error) => return Ok(unavailable(settings, "did not answer", &error.to_string())),
    };
    let mut work = work(settings, request, &there)?;
    let stop = Arc::clone(&work.sink.stop);
    let mut working = tokio::task::spawn_blocking(move || {
        let ended = work.run();
        (work.sink.report, ended)
    });
    let ended = tokio::select! {
        ended = &mut working => ended,
        signal = signals.next() => {
            tracing::info!(signal, "finishing the open transaction; another signal stops at once");
            stop.store(true, Ordering::Relaxed);
            signals.stop_at_next();
            working.await
        }
    };
    let (report, ended) = ended.context("the replay broke off")?;
    conclude(settings, request, &report, ended)
}

/// The topics that are on the cluster, of those that matter here.
async fn topics_there(
    settings: &Settings,
) -> anyhow::Result<Result<HashSet<Topic>, rdkafka::error::KafkaError>> {
    let matter = |plan: &Plan| plan.topic == Topic::DeadLetter || TARGETS.contains(&plan.topic);
    let plans: Vec<Plan> = plans(settings).into_iter().filter(matter).collect();
    let admin = Admin::new(settings).context(NOT_TAKEN)?;
    let survey = admin.survey(&plans, ASK).await;
    let there = |(topic, _): (Topic, _)| topic;
    Ok(survey.map(|survey| survey.observed.into_iter().map(there).collect()))
}

fn work(settings: &Settings, request: &Request, there: &HashSet<Topic>) -> anyhow::Result<Work> {
    let dead_letter_topic = crate::topics::name(settings, Topic::DeadLetter);
    if !there.contains(&Topic::DeadLetter) {
        bail!(
            "there is no topic {dead_letter_topic} (topics.prefix and topics.dead_letter.name): mend its name, or make it with `northbridge topics create`"
        );
    }
    let transactions = if request.dry_run {
        None
    } else {
        // One for each dead-letter topic, whoever replays it with whatever settings.
        let id = format!("northbridge-replay.{dead_letter_topic}");
        Some(Transactions::new(settings, &id).context(NOT_TAKEN)?)
    };
    Ok(Work {
        reader: Reader::new(settings, &dead_letter_topic).context(NOT_TAKEN)?,
        router: Router::new(settings, request.as_is, there),
        selection: request.selection.clone(),
        limit: request.limit.unwrap_or(u64::MAX),
        max_batch_records: settings.streams.max_batch_records,
        sink: Sink {
            transactions,
            dead_letter_topic,
            stop: Arc::new(AtomicBool::new(false)),
            report: Report::default(),
        },
    })
}

fn conclude(
    settings: &Settings,
    request: &Request,
    report: &Report,
    ended: Result<(), Interrupted>,
) -> anyhow::Result<Exit> {
    if let Err(Interrupted::Selection(error)) = ended {
        return Err(error.into());
    }
    print!("{report}");
    println!("{}", report.summary(request.dry_run));
    let Err(interrupted) = ended else {
        return Ok(Exit::Done);
    };
    let exit = match &interrupted {
        Interrupted::Unavailable(why) => unavailable(settings, "broke off", why),
        Interrupted::TakenOver | Interrupted::Stopped | Interrupted::Selection(_) => {
            eprintln!("error: {interrupted}");
            Exit::Unsettled
        }
    };
    eprintln!("Not all that is selected was looked at; the same command goes on from there.");
    Ok(exit)
}

fn unavailable(settings: &Settings, what: &str, why: &str) -> Exit {
    eprintln!(
        "error: Kafka {what} at {} (kafka.bootstrap_servers): {why}",
        settings.kafka.bootstrap_servers,
    );
    Exit::Unavailable
}
