//! `northbridge simulate`: plays the platform against a URL, and proves that
//! what was answered 200 is stored.
//!
//! ```text
//! world ── push number n ──┐
//!                          ├─ run ── client ── the listener
//! platform ── rules ───────┘    │
//!                               ├─ tally ── summary
//!                               └─ ledger ── proof ── verify ── Kafka
//! ```
//!
//! It knows the listener by its URL alone, and the topics by their contract.

pub mod arguments;
pub mod client;
pub mod ledger;
pub mod platform;
pub mod progress;
pub mod proof;
pub mod run;
pub mod summary;
pub mod tally;
pub mod target;
pub mod trust;
pub mod verify;
pub mod world;

use anyhow::Context;

use crate::config::Settings;
use crate::notification::Rules;
use crate::process::Exit;
use crate::process::signals::Signals;

use arguments::{PolicyName, SimulateArgs};
use client::Connector;
use platform::{Platform, Policy};
use progress::Progress;
use proof::{Proof, Verdict};
use run::{Outcome, Plan};
use summary::Summary;
use target::Target;
use verify::Stored;
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
    let connector = connector(arguments)?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    if let Err(error) = connector.probe().await {
        return Ok(unavailable(&format!("{}: {error}", arguments.url)));
    }
    let stored = match before(&settings, arguments).await {
        Ok(stored) => stored,
        Err(error) => return Ok(no_kafka(&settings, &error)),
    };
    let platform = Platform::new(policy(arguments), arguments.probe_interval);
    let mut progress = Progress::new(plan.pushes);
    let outcome = run::run(plan, platform, &connector, &mut progress, &mut signals).await;
    progress.end();
    let mut summary = Summary::new(seed, &outcome);
    let mut exit = Exit::Done;
    if let Some(stored) = stored {
        match prove(stored, plan.world, outcome).await? {
            Ok(verdict) => {
                summary = summary.with(&verdict);
                if !verdict.holds() {
                    exit = Exit::Findings;
                }
            }
            Err(error) => exit = no_kafka(&settings, &error),
        }
    }
    say(&summary, arguments)?;
    Ok(exit)
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

fn connector(arguments: &SimulateArgs) -> anyhow::Result<Connector> {
    let target = Target::new(arguments)?;
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

async fn before(settings: &Settings, arguments: &SimulateArgs) -> KafkaResult<Option<Stored>> {
    if arguments.verify.is_none() {
        return Ok(None);
    }
    let settings = settings.clone();
    let noted = tokio::task::spawn_blocking(move || Stored::from_now(&settings)).await;
    noted.map_or(Err(rdkafka::error::KafkaError::Canceled), |noted| {
        noted.map(Some)
    })
}

async fn prove(
    stored: Stored,
    world: World,
    outcome: Outcome,
) -> anyhow::Result<KafkaResult<Verdict>> {
    let proved = tokio::task::spawn_blocking(move || {
        stored.prove(Proof::new(&world, outcome.pushes, &outcome.answered))
    });
    proved.await.context("the proof ended early")
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
