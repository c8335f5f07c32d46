//! `northbridge spool status` and `spool drain`: what the spool of this host holds, and
//! delivering it without a listener.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat};

use crate::config::Settings;
use crate::ingress::backend::Backend;
use crate::kafka::metrics::KafkaClientFamilies;
use crate::process::admin::AdminServer;
use crate::process::signals::Signals;
use crate::process::{Exit, output};
use crate::spool;

/// How long Kafka may take nothing until a drain ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a drain looks at what is left.
const INTERVAL: Duration = Duration::from_millis(100);

/// Prints how many pushes are spooled, by topic and partition.
///
/// # Errors
///
/// Returns an error if no spool is set, or it cannot be read.
pub fn status(settings: &Settings) -> anyhow::Result<Exit> {
    let directory = directory(settings)?;
    let contents = spool::inspect(directory)?;
    let shown = directory.display();
    let records: u64 = contents.waiting.values().map(|waiting| waiting.count).sum();
    let bytes = contents.bytes;
    output::print_line(format_args!("{shown}: {records} pushes, {bytes} bytes"))?;
    for (slot, waiting) in &contents.waiting {
        output::print_line(format_args!(
            "{} partition {}: {} pushes, the oldest of {}",
            slot.topic.label(),
            slot.partition,
            waiting.count,
            time(waiting.oldest_ms),
        ))?;
    }
    if contents.set_aside > 0 {
        output::print_line(format_args!(
            "{} files of what was damaged or rejected",
            contents.set_aside
        ))?;
    }
    Ok(Exit::Done)
}

/// Delivers everything in the spool to Kafka.
///
/// # Errors
///
/// Returns an error if no spool is set, if it cannot be used, or if librdkafka rejects a
/// setting.
pub async fn drain(settings: &Settings) -> anyhow::Result<Exit> {
    let directory = directory(settings)?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let admin = AdminServer::new();
    let clients = KafkaClientFamilies::register(&admin.metrics);
    let backend = Backend::start(settings, &admin, &clients.client("spool"))?;
    let Some(deliveries) = &backend.deliveries else {
        return Ok(Exit::Done);
    };
    let all = deliveries.left();
    let (mut least, mut since) = (all, Instant::now());
    loop {
        let left = deliveries.left();
        if left == 0 {
            output::print_line(format_args!("{all} pushes delivered"))?;
            return Ok(Exit::Done);
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        let ended = tokio::select! {
            _ = signals.next() => Some(Exit::Unsettled),
            () = tokio::time::sleep(INTERVAL) => None,
        };
        let is_stuck = since.elapsed() >= PATIENCE;
        if let Some(exit) = ended.or(is_stuck.then_some(Exit::Unavailable)) {
            let why = backend.why_unavailable();
            output::note(format_args!(
                "error: {left} of {all} pushes are left in {}: {why}",
                directory.display()
            ));
            return Ok(exit);
        }
    }
}

fn directory(settings: &Settings) -> anyhow::Result<&Path> {
    let directory = settings.spool.directory.as_deref();
    directory.context("spool.directory is not set, so there is no spool; set it with --set spool.directory=PATH or in the file that the ingress uses")
}

fn time(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp_millis(milliseconds).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
