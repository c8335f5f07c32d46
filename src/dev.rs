//! `northbridge dev`: everything in one process over an embedded broker.
//! Nothing to install, nothing kept.

mod lines;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;

use crate::config::{LogLevel, Millis, Settings};
use crate::ingress::Ingress;
use crate::kafka::embedded::EmbeddedBroker;
use crate::process::Exit;
use crate::process::admin::Administration;
use crate::process::signals::Signals;
use crate::streams::{Process, Streams};
use crate::topics::plans;

/// The embedded broker answers a fetch of an empty partition only after all of
/// this, whatever arrives meanwhile; librdkafka's default would show states
/// half a second late, and twice that after two stages.
const FETCH_WAIT_MS: &str = "50";

/// What `dev` starts from: loopback alone, quiet logs, no load balancer to
/// wait for, states shown at once.
pub fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
    // The embedded broker does not show its topics' settings; the warning would only worry.
    settings.log.level = LogLevel::Error;
    settings.shutdown.announce_ms = Millis(0);
    settings.shutdown.idle_ms = Millis(0);
    settings.streams.max_batch_wait_ms = Millis(5);
    settings
}

/// Runs until a signal, or until a stream ends by itself.
///
/// # Errors
///
/// Where an address is taken.
pub async fn run(mut settings: Settings) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    // One broker cannot hold more, and saying so would only worry a newcomer.
    settings.topics.replication_factor = 1;
    settings.topics.min_insync_replicas = 1;
    settings
        .kafka
        .options
        .set_default("fetch.wait.max.ms", FETCH_WAIT_MS);
    let broker = EmbeddedBroker::start(&plans(&settings)).context("the embedded broker")?;
    settings.kafka.bootstrap_servers = broker.bootstrap_servers();

    let administration = Administration::new();
    let ingress = Ingress::start(&settings, &administration, Some(lines::stored))?;
    let processes = [Process::CommandStatus, Process::UpgradeResult];
    let mut streams = Streams::start(&settings, &processes, &administration, Some(lines::changed))?;
    let admin_address = administration.start(settings.admin.listen).await?;
    lines::greet(&settings, ingress.address, admin_address);

    let ended = tokio::select! {
        exit = streams.ended() => exit,
        _ = signals.next() => Exit::Done,
    };
    signals.stop_at_next();
    let within = settings.shutdown.deadline_ms.duration();
    let (drained, stopped) = tokio::join!(ingress.drain(), streams.stop(within));
    println!("Stopped; the embedded broker and what it held are gone.");
    let exits = [ended, drained, stopped];
    let first = exits.into_iter().find(|exit| *exit != Exit::Done);
    Ok(first.unwrap_or(Exit::Done))
}
