//! `northbridge tap`: one line for each push, as it arrives in its topic.
//!
//! Joins no group and commits nothing, so nobody else notices. `filter` decides
//! which records are shown, `line` how.

pub mod filter;
mod line;

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};

use crate::config::Settings;
use crate::kafka::CANNOT_CREATE_CLIENT;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::{Isolation, LogReader, LogReaderConfig, Positions, ReadError};
use crate::process::output::OutputError;
use crate::process::signals::Signals;
use crate::process::{Exit, output};
use crate::topics::{TopicSpec, specs};
use filter::Filter;
use line::Line;

/// How often to look whether Kafka is available. An outage is said if it is seen
/// twice in a row.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(2);

/// The arguments of the command.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The records to show.
    pub filter: Filter,
    /// Begins with those written at or after this time; `None` begins now.
    pub since: Option<DateTime<Utc>>,
    /// How to show them.
    pub format: Format,
}

/// What the lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    /// A JSON object in each line.
    pub json: bool,
    /// With the values.
    pub values: bool,
}

/// Why a tap ends that nobody has stopped.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Prints until a signal, or until nobody reads what it prints.
///
/// # Errors
///
/// Returns an error if librdkafka rejects a setting, a topic does not exist, or the
/// output cannot be written.
pub async fn run(settings: &Settings, request: Request) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let reader_is_gone = output::reader_is_gone().context("cannot watch the output")?;
    tokio::select! {
        ended = follow(settings, request) => ended,
        // No line is lost that was printed: each is written at once.
        _ = signals.next() => Ok(Exit::Done),
        _ = reader_is_gone => Ok(Exit::Done),
    }
}

async fn follow(settings: &Settings, request: Request) -> anyhow::Result<Exit> {
    let topics = match existing_topics(settings, &request.filter).await? {
        Ok(topics) => topics,
        Err(exit) => return Ok(exit),
    };
    let failures = Failures::unlogged(settings);
    let reader = LogReaderConfig::new(settings, &failures)
        .following(settings)
        .create()
        .context(CANNOT_CREATE_CLIENT)?;
    let following = tokio::task::spawn_blocking(move || print_all(&reader, &topics, &request));
    let ended = tokio::select! {
        ended = following => ended.context("the reading panicked")?,
        never = report_outages(settings, &failures) => match never {},
    };
    match ended {
        Err(Ended::Read(error)) => Ok(super::unavailable(settings, &failures, &error)),
        Err(Ended::Output(error)) => Err(error.into()),
    }
}

/// Returns the names of the topics to follow, or how the command ends if Kafka cannot
/// be used.
async fn existing_topics(
    settings: &Settings,
    filter: &Filter,
) -> anyhow::Result<Result<Vec<String>, Exit>> {
    let failures = Failures::of_command(settings);
    let admin = TopicAdmin::new(settings, &failures).context(CANNOT_CREATE_CLIENT)?;
    let is_followed = |spec: &TopicSpec| filter.topics().contains(&spec.topic);
    let specs: Vec<TopicSpec> = specs(settings).into_iter().filter(is_followed).collect();
    let existing = match admin.existing(&specs).await {
        Ok(existing) => existing,
        Err(error) => return Ok(Err(super::unavailable(settings, &failures, &error))),
    };
    if let Some(missing) = specs.iter().find(|spec| !existing.contains(&spec.topic)) {
        return Err(super::missing_topic(settings, missing.topic));
    }
    Ok(Ok(specs.into_iter().map(|spec| spec.name).collect()))
}

/// Says once that an outage has begun, and once that it is over. A connection that
/// fails and is opened again at once is no outage.
async fn report_outages(settings: &Settings, failures: &Failures) -> Infallible {
    let (mut is_seen, mut is_said) = (false, false);
    loop {
        tokio::time::sleep(OUTAGE_INTERVAL).await;
        let symptom = failures.symptom();
        if let Some(failure) = symptom.as_ref().filter(|_| is_seen && !is_said) {
            let servers = &settings.kafka.bootstrap_servers;
            output::note(format_args!(
                "Kafka at {servers} is unavailable, or a part of it; waiting: {failure}"
            ));
            is_said = true;
        } else if symptom.is_none() && is_said {
            output::note("Kafka is available again");
            is_said = false;
        }
        is_seen = symptom.is_some();
    }
}

fn print_all(
    reader: &LogReader,
    topics: &[String],
    request: &Request,
) -> Result<Infallible, Ended> {
    let Request {
        filter,
        since,
        format,
    } = request;
    let begin = |topic: &String| {
        let offsets = match since {
            Some(since) => reader.offsets_since(topic, *since)?,
            None => reader.end_offsets(topic, Isolation::Committed)?,
        };
        Ok((topic.clone(), offsets))
    };
    let positions = topics
        .iter()
        .map(begin)
        .collect::<Result<Positions, ReadError>>()?;
    output::note(format_args!("following {}", topics.join(", ")));
    reader.follow(positions, |record| {
        let is_recent = |line: &Line<'_>| since.is_none_or(|since| line.written_at >= since);
        let line = Line::of(record).filter(|line| is_recent(line) && filter.matches(line));
        if let Some(line) = line {
            output::print_line(line.show(*format))?;
        }
        Ok(())
    })
}
