//! `northbridge simulate`: plays the platform against a URL, and proves that
//! what was answered 200 is stored.
//!
//! ```text
//! world ── push number n ──┐
//!                          ├─ run ── client ── the listener
//! platform ── rules ───────┘    │
//!                               ├─ tally ── summary
//!                               └─ ledger ── judge ─┬─ proof ── verify ── Kafka
//!                                                   └─ model ── states ── Kafka
//! ```
//!
//! It knows the listener by its URL alone, and the topics by their contract.

pub mod arguments;
pub mod client;
pub mod index;
pub mod judge;
pub mod ledger;
pub mod marks;
pub mod model;
pub mod platform;
pub mod progress;
pub mod proof;
pub mod report;
pub mod run;
pub mod states;
pub mod summary;
pub mod tally;
pub mod target;
pub mod trust;
mod undone;
pub mod verify;
pub mod world;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rdkafka::error::KafkaError;

use crate::config::Settings;
use crate::notification::Rules;
use crate::process::Exit;
use crate::process::signals::Signals;

use arguments::{PolicyName, SimulateArgs};
use client::Connector;
use judge::{Judge, Judgement, Pushed};
use marks::Mark;
use platform::{Platform, Policy};
use progress::Progress;
use report::Report;
use run::{Outcome, Plan};
use summary::Summary;
use target::Target;
use undone::Undone;
use world::World;

/// Plays the platform, says how it went, and proves what was asked to be proved.
///
/// # Errors
///
/// Where a flag cannot be used.
pub async fn run(settings: &Settings, arguments: &SimulateArgs) -> anyhow::Result<Exit> {
    let settings = with_flags(settings, arguments);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let plan = plan(&settings, arguments, seed);
    let target = Target::new(arguments)?;
    let connector = connector(target, arguments)?;
    let page = arguments.report.as_deref().map(page).transpose()?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let prepared = tokio::select! {
        prepared = prepared(&settings, arguments, &connector) => prepared,
        _ = signals.next() => Err(Undone::Stopped),
    };
    let judge = match prepared {
        Ok(judge) => judge,
        Err(undone) => return Ok(undone.told("nothing was pushed")),
    };
    let platform = Platform::new(policy(arguments), arguments.probe_interval);
    let mut progress = Progress::new(plan.pushes);
    let mut outcome = run::run(plan, platform, &connector, &mut progress, &mut signals).await;
    progress.end();
    let mut summary = Summary::new(seed, &outcome);
    let mut exit = ended(&outcome, &connector);
    if let Some(judge) = judge {
        let pushed = Pushed {
            world: plan.world,
            pushes: outcome.pushes,
            answered: std::mem::take(&mut outcome.answered),
        };
        let judged = tokio::select! {
            judged = judged(&settings, judge, pushed, arguments.catch_up) => judged?,
            _ = signals.next() => Err(Undone::Stopped),
        };
        match judged {
            Ok(judgement) => {
                summary = summary.with(&judgement);
                if !judgement.holds() {
                    exit = Exit::Findings;
                }
            }
            Err(undone) => exit = undone.told("nothing is proved"),
        }
    }
    say(&summary, arguments)?;
    if let Some(page) = page {
        draw(page, arguments, &connector.authority(), &outcome, &summary)?;
    }
    Ok(exit)
}

/// The flags of the proof are short for settings.
fn with_flags(settings: &Settings, arguments: &SimulateArgs) -> Settings {
    let mut settings = settings.clone();
    if let Some(bootstrap) = &arguments.verify {
        settings.kafka.bootstrap_servers.clone_from(bootstrap);
    }
    if let Some(prefix) = &arguments.topics_prefix {
        settings.topics.prefix.clone_from(prefix);
    }
    settings
}

/// Says on standard error what the figures alone do not tell.
fn ended(outcome: &Outcome, connector: &Connector) -> Exit {
    if let Some(why) = connector.first_failure() {
        eprintln!("the first connection that could not be opened: {why}");
    }
    if outcome.unanswered == 0 {
        return Exit::Done;
    }
    let unanswered = outcome.unanswered;
    eprintln!("error: stopped by a signal before {unanswered} pushes were answered");
    Exit::Unsettled
}

/// Before the run, so that it is not in vain.
fn page(file: &Path) -> anyhow::Result<File> {
    File::create(file).with_context(|| format!("--report {}", file.display()))
}

fn draw(
    mut page: File,
    arguments: &SimulateArgs,
    target: &str,
    outcome: &Outcome,
    summary: &Summary,
) -> anyhow::Result<()> {
    let report = Report {
        target,
        started_at: outcome.started_at,
        policy: arguments.policy.label(),
        rate: arguments.rate,
        summary,
        tally: &outcome.tally,
        marks: &marks(arguments, outcome),
    };
    write!(page, "{report}").context("--report")
}

/// A page without its marks is better than none.
fn marks(arguments: &SimulateArgs, outcome: &Outcome) -> Vec<Mark> {
    let Some(file) = &arguments.marks else {
        return Vec::new();
    };
    let marks = marks::read(file, outcome.started_at, outcome.lasted);
    marks.unwrap_or_else(|error| {
        eprintln!("--marks {}: {error}", file.display());
        Vec::new()
    })
}

fn plan(settings: &Settings, arguments: &SimulateArgs, seed: u64) -> Plan {
    let rules = Rules {
        command_key: settings.topics.command_status.key,
        validation: settings.http.validation,
    };
    Plan {
        world: World::new(seed, arguments.devices.into(), arguments.shares(), rules),
        pushes: arguments.pushes(),
        rate: arguments.rate,
        connections: arguments.connections,
        http2: arguments.http2,
    }
}

fn connector(target: Target, arguments: &SimulateArgs) -> anyhow::Result<Connector> {
    let tls = if target.tls {
        Some(trust::connector(arguments)?)
    } else {
        None
    };
    Ok(Connector::new(target, tls, arguments.http2))
}

fn policy(arguments: &SimulateArgs) -> Policy {
    match arguments.policy {
        PolicyName::None => Policy::None,
        PolicyName::Discard => Policy::Discard,
        PolicyName::Retry => Policy::Retry {
            after: arguments.retry_interval,
        },
    }
}

/// Nothing is pushed before it is known that somebody listens, and that the
/// proof can be made.
async fn prepared(
    settings: &Settings,
    arguments: &SimulateArgs,
    connector: &Connector,
) -> Result<Option<Judge>, Undone> {
    let probed = connector.probe().await;
    probed.map_err(|source| Undone::NoListener {
        at: connector.authority(),
        source,
    })?;
    if arguments.verify.is_none() {
        return Ok(None);
    }
    let (own, with_states) = (settings.clone(), arguments.verify_state);
    let noted = tokio::task::spawn_blocking(move || Judge::from_now(&own, with_states)).await;
    let noted = noted.unwrap_or(Err(KafkaError::Canceled));
    noted
        .map(Some)
        .map_err(|error| Undone::of_kafka(settings, error))
}

async fn judged(
    settings: &Settings,
    judge: Judge,
    pushed: Pushed,
    catch_up: Duration,
) -> anyhow::Result<Result<Judgement, Undone>> {
    let judged = tokio::task::spawn_blocking(move || judge.judge(&pushed, catch_up));
    let judged = judged.await.context("the proof ended early")?;
    Ok(judged.map_err(|error| Undone::of_kafka(settings, error)))
}

fn say(summary: &Summary, arguments: &SimulateArgs) -> anyhow::Result<()> {
    if arguments.json {
        println!("{}", summary.to_json()?);
    } else {
        print!("{summary}");
    }
    Ok(())
}
