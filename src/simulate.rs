//! `northbridge simulate`: pushes to a URL as the platform does, and verifies
//! that what was answered 200 is stored.
//!
//! ```text
//! arguments ── plan, policy
//!                  │
//! pushes ── push n ┴─► load ◄──────► the listener
//!                      │  │ client
//!           statistics │  │ pushes answered 200
//!                      │  ▼
//!                      │  verify ─┬─ stored ◄── ingress topics
//!                      │  │       └─ states ◄── state topics, model
//!                      ▼  ▼
//!                     summary ──► report
//! ```
//!
//! Knows the listener by its URL alone, and the topics by their contract.

pub mod arguments;
mod error;
mod load;
pub mod pushes;
mod report;
mod summary;
pub mod verify;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rdkafka::error::KafkaError;

use crate::config::Settings;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::Failures;
use crate::notification::Rules;
use crate::process::signals::Signals;
use crate::process::{Exit, output};
use crate::topics::{Topic, specs};

use arguments::{PolicyName, SimulateArgs};
use error::SimulateError;
use load::client::Connector;
use load::delivery_rules::{DeliveryRules, Policy};
use load::progress::ProgressDisplay;
use load::target::PushTarget;
use load::{LoadPlan, LoadResult, tls};
use pushes::PushGenerator;
use report::HtmlReport;
use report::annotations::{self, Annotation};
use summary::Summary;
use verify::{PushedRun, Verification, Verifier};

/// Pushes as planned, verifies what the flags ask for, and prints the summary.
///
/// # Errors
///
/// Returns an error if a flag cannot be used.
pub async fn run(settings: &Settings, arguments: &SimulateArgs) -> anyhow::Result<Exit> {
    let settings = with_flags(settings, arguments);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let plan = plan(&settings, arguments, seed);
    let connector = connector(arguments)?;
    let report_file = arguments.report.as_deref().map(create_report);
    let report_file = report_file.transpose()?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let prepared = tokio::select! {
        prepared = prepare(&settings, arguments, &connector) => prepared,
        _ = signals.next() => Err(SimulateError::Stopped),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Ok(error.report("nothing was pushed")),
    };
    let rules = DeliveryRules::new(policy(arguments), arguments.probe_interval);
    let mut progress = ProgressDisplay::new(plan.pushes);
    let mut result = load::run(plan, rules, &connector, &mut progress, &mut signals).await;
    progress.end();
    let mut summary = Summary::new(seed, &result);
    let mut exit = report_problems(&result, &connector);
    if exit == Exit::Done && arguments.require_200 && !result.statistics.is_all_200() {
        exit = Exit::Findings;
    }
    if let Some((verifier, failures)) = prepared {
        let run = PushedRun {
            generator: plan.generator,
            pushes: result.pushes,
            acknowledged: std::mem::take(&mut result.acknowledged),
        };
        let verification = tokio::select! {
            result = verify(&settings, &failures, verifier, run, arguments.catch_up) => result?,
            _ = signals.next() => Err(SimulateError::Stopped),
        };
        match verification {
            Ok(verification) => {
                summary = summary.with_verification(&verification);
                if !verification.holds() {
                    exit = Exit::Findings;
                }
            }
            Err(error) => exit = error.report("nothing was verified"),
        }
    }
    print(&summary, arguments)?;
    if let Some(file) = report_file {
        write_report(file, arguments, &connector.authority(), &result, &summary)?;
    }
    Ok(exit)
}

/// `--verify` and `--topics-prefix` are short for settings.
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

fn plan(settings: &Settings, arguments: &SimulateArgs, seed: u64) -> LoadPlan {
    let rules = Rules {
        command_key: settings.topics.command_status.key,
        validation: settings.http.validation,
    };
    let (devices, mix) = (arguments.devices.into(), arguments.traffic_mix());
    LoadPlan {
        generator: PushGenerator::new(seed, devices, mix, rules),
        pushes: arguments.pushes(),
        rate: arguments.rate,
        connections: arguments.connections,
    }
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

fn connector(arguments: &SimulateArgs) -> anyhow::Result<Connector> {
    let target = PushTarget::new(arguments)?;
    let tls = if target.tls {
        Some(tls::connector(arguments)?)
    } else {
        None
    };
    Ok(Connector::new(target, tls, arguments.http2))
}

/// Called before the run, so that a wrong path does not waste it.
fn create_report(file: &Path) -> anyhow::Result<File> {
    File::create(file).with_context(|| format!("cannot create --report {}", file.display()))
}

/// Makes sure that the listener accepts connections, and that the run can be
/// verified, before anything is pushed.
async fn prepare(
    settings: &Settings,
    arguments: &SimulateArgs,
    connector: &Connector,
) -> Result<Option<(Verifier, Failures)>, SimulateError> {
    let reachable = connector.check_reachable().await;
    reachable.map_err(|source| SimulateError::ListenerUnreachable {
        address: connector.authority(),
        source,
    })?;
    if arguments.verify.is_none() {
        return Ok(None);
    }
    let failures = Failures::of_command(settings);
    reach_kafka(settings, &failures).await?;
    let (owned, of_verifier) = (settings.clone(), failures.clone());
    let verify_states = arguments.verify_state;
    let task = tokio::task::spawn_blocking(move || {
        Verifier::at_current_ends(&owned, &of_verifier, verify_states)
    });
    let verifier = task.await.unwrap_or(Err(KafkaError::Canceled.into()));
    let verifier =
        verifier.map_err(|error| SimulateError::from_read(settings, &failures, &error))?;
    Ok(Some((verifier, failures)))
}

/// Makes sure that the cluster answers, or knows the reason why it does not: a
/// reader learns the reason only after its request has timed out.
async fn reach_kafka(settings: &Settings, failures: &Failures) -> Result<(), SimulateError> {
    let unavailable =
        |error: &dyn std::error::Error| SimulateError::from_kafka(settings, failures, error);
    let admin = TopicAdmin::new(settings, failures).map_err(|error| unavailable(&error))?;
    let reached = admin
        .existing(&specs(settings)[..Topic::INGRESS.len()])
        .await;
    reached.map(drop).map_err(|error| unavailable(&error))
}

async fn verify(
    settings: &Settings,
    failures: &Failures,
    verifier: Verifier,
    run: PushedRun,
    catch_up: Duration,
) -> anyhow::Result<Result<Verification, SimulateError>> {
    let task = tokio::task::spawn_blocking(move || verifier.verify(&run, catch_up));
    let verification = task.await.context("the verification ended early")?;
    Ok(verification.map_err(|error| SimulateError::from_read(settings, failures, &error)))
}

/// Prints to standard error what the summary does not contain.
fn report_problems(result: &LoadResult, connector: &Connector) -> Exit {
    if let Some(error) = connector.first_connect_error() {
        output::note(format_args!(
            "opening a connection failed; the first error: {error}"
        ));
    }
    if result.unanswered == 0 {
        return Exit::Done;
    }
    let unanswered = result.unanswered;
    output::note(format_args!(
        "error: stopped by a signal before {unanswered} pushes were answered"
    ));
    Exit::Unsettled
}

fn print(summary: &Summary, arguments: &SimulateArgs) -> anyhow::Result<()> {
    if arguments.json {
        output::print_line(summary.to_json()?)?;
    } else {
        output::print(summary)?;
    }
    Ok(())
}

fn write_report(
    mut file: File,
    arguments: &SimulateArgs,
    target: &str,
    result: &LoadResult,
    summary: &Summary,
) -> anyhow::Result<()> {
    let report = HtmlReport {
        target,
        started_at: result.started_at,
        policy: arguments.policy.label(),
        rate: arguments.rate,
        summary,
        statistics: &result.statistics,
        annotations: &annotations(arguments, result),
    };
    write!(file, "{report}").context("cannot write --report")
}

/// An unreadable file must not cost the report of a finished run.
fn annotations(arguments: &SimulateArgs, result: &LoadResult) -> Vec<Annotation> {
    let Some(file) = &arguments.annotations else {
        return Vec::new();
    };
    annotations::read(file, result.started_at, result.duration).unwrap_or_else(|error| {
        let file = file.display();
        output::note(format_args!("cannot read --annotations {file}: {error}"));
        Vec::new()
    })
}
