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
pub mod verify;
pub mod world;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

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
use world::World;

/// Plays the platform, says how it went, and proves what was asked to be proved.
///
/// # Errors
///
/// Where a flag cannot be used.
pub async fn run(settings: &Settings, arguments: &SimulateArgs) -> anyhow::Result<Exit> {
    let mut settings = settings.clone();
    if let Some(bootstrap) = &arguments.verify {
        settings.kafka.bootstrap_servers.clone_from(bootstrap);
    }
    if let Some(prefix) = &arguments.topics_prefix {
        settings.topics.prefix.clone_from(prefix);
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let plan = plan(&settings, arguments, seed);
    let target = Target::new(arguments)?;
    let authority = target.authority();
    let connector = connector(target, arguments)?;
    let page = arguments.report.as_deref().map(page).transpose()?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    if let Err(error) = connector.probe().await {
        return Ok(unavailable(&format!("{authority}: {error}")));
    }
    let judge = match judge(&settings, arguments).await {
        Ok(judge) => judge,
        Err(error) => return Ok(no_kafka(&settings, &error)),
    };
    let platform = Platform::new(policy(arguments), arguments.probe_interval);
    let mut progress = Progress::new(plan.pushes);
    let mut outcome = run::run(plan, platform, &connector, &mut progress, &mut signals).await;
    progress.end();
    let mut summary = Summary::new(seed, &outcome);
    let mut exit = Exit::Done;
    if let Some(judge) = judge {
        let pushed = Pushed {
            world: plan.world,
            pushes: outcome.pushes,
            answered: std::mem::take(&mut outcome.answered),
        };
        match judged(judge, pushed, arguments.catch_up).await? {
            Ok(judgement) => {
                summary = summary.with(&judgement);
                if !judgement.holds() {
                    exit = Exit::Findings;
                }
            }
            Err(error) => exit = no_kafka(&settings, &error),
        }
    }
    say(&summary, arguments)?;
    if let Some(mut page) = page {
        let marks = marks(arguments, &outcome);
        let report = Report {
            target: &authority,
            started_at: outcome.started_at,
            policy: arguments.policy.label(),
            rate: plan.rate,
            summary: &summary,
            tally: &outcome.tally,
            marks: &marks,
        };
        write!(page, "{report}").context("--report")?;
    }
    Ok(exit)
}

/// Before the run, so that it is not in vain.
fn page(file: &Path) -> anyhow::Result<File> {
    File::create(file).with_context(|| format!("--report {}", file.display()))
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

type KafkaResult<T> = Result<T, rdkafka::error::KafkaError>;

async fn judge(settings: &Settings, arguments: &SimulateArgs) -> KafkaResult<Option<Judge>> {
    if arguments.verify.is_none() {
        return Ok(None);
    }
    let (settings, with_states) = (settings.clone(), arguments.verify_state);
    let noted = tokio::task::spawn_blocking(move || Judge::from_now(&settings, with_states)).await;
    noted.map_or(Err(rdkafka::error::KafkaError::Canceled), |noted| {
        noted.map(Some)
    })
}

async fn judged(
    judge: Judge,
    pushed: Pushed,
    catch_up: Duration,
) -> anyhow::Result<KafkaResult<Judgement>> {
    let judged = tokio::task::spawn_blocking(move || judge.judge(&pushed, catch_up));
    judged.await.context("the proof ended early")
}

fn say(summary: &Summary, arguments: &SimulateArgs) -> anyhow::Result<()> {
    if arguments.json {
        println!("{}", summary.to_json()?);
    } else {
        print!("{summary}");
    }
    Ok(())
}

fn no_kafka(settings: &Settings, error: &rdkafka::error::KafkaError) -> Exit {
    unavailable(&format!(
        "Kafka at {}: {error}",
        settings.kafka.bootstrap_servers
    ))
}

fn unavailable(what: &str) -> Exit {
    eprintln!("error: not available: {what}");
    Exit::Unavailable
}
