//! `northbridge dev`: everything in one process over an embedded broker, for
//! trying northbridge out. Starts the same parts as the other commands and adds
//! nothing to them.

mod events;
mod fields;
mod print;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;

use crate::config::{LogLevel, Millis, Settings};
use crate::ingress::{self, Ingress};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::metrics::KafkaClientFamilies;
use crate::process::Exit;
use crate::process::admin::AdminServer;
use crate::process::logging::Observer;
use crate::process::output;
use crate::process::reload::Reload;
use crate::process::signals::Signals;
use crate::streams::{self, Process, RunningStreams};
use crate::topics::specs;

/// The embedded broker answers a fetch from an empty partition only after all
/// of this time, even if a record arrives meanwhile. With librdkafka's default,
/// each of the two stages would show its states half a second late.
const FETCH_WAIT_MS: &str = "50";

/// The defaults of `dev`: loopback only, quiet logs, no load balancer to wait
/// for at shutdown, and small batches, so that states show at once.
pub fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
    // The embedded broker cannot describe topic settings; the warning about it
    // would only worry a newcomer.
    settings.log.level = LogLevel::Error;
    settings.shutdown.announce_ms = Millis(0);
    settings.shutdown.idle_ms = Millis(0);
    settings.streams.max_batch_wait_ms = Millis(5);
    settings
}

/// The layer that prints each stored push and each changed state.
pub fn observer() -> Observer {
    events::printer()
}

/// Runs until a signal, until nobody reads what it prints, or until a stream stops
/// on its own.
///
/// # Errors
///
/// Returns an error if the broker, the ingress or a stream cannot start, for
/// example because an address is in use.
pub async fn run(mut settings: Settings, reload: Reload) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let loaded = settings.clone();
    let reader_is_gone = output::reader_is_gone().context("cannot watch the output")?;
    // One broker cannot hold more replicas; the warning would only worry a newcomer.
    settings.topics.replication_factor = 1;
    settings.topics.min_insync_replicas = 1;
    let options = &mut settings.kafka.options;
    options.set_default("fetch.wait.max.ms", FETCH_WAIT_MS);
    // In a group of the classic protocol, the embedded broker waits three seconds for
    // further members before it assigns partitions.
    options.set_default("group.protocol", "consumer");
    let broker = EmbeddedBroker::start(&specs(&settings))
        .context("the embedded broker cannot be started")?;
    settings.kafka.bootstrap_servers = broker.bootstrap_servers();

    let admin = AdminServer::new();
    let clients = KafkaClientFamilies::register(&admin.metrics);
    let ingress = Ingress::start(&settings, &admin, &clients)?;
    reload.start(loaded, ingress.reloader())?;
    let processes = [Process::CommandStatus, Process::UpgradeResult];
    let mut streams = RunningStreams::start(&settings, &processes, &admin, &clients)?;
    let shown = [ingress::SHOWN_SETTINGS, streams::SHOWN_SETTINGS].concat();
    let admin_address = admin.start(&settings, "dev", &shown).await?;
    print::greeting(&settings, ingress.address, admin_address);

    let ended = tokio::select! {
        exit = streams.next_exit() => exit,
        _ = signals.next() => Exit::Done,
        _ = reader_is_gone => Exit::Done,
    };
    signals.stop_at_next();
    let within = settings.shutdown.deadline_ms.duration();
    let (drained, stopped) = tokio::join!(ingress.drain(), streams.stop(within));
    print::farewell();
    let exits = [ended, drained, stopped];
    let first = exits.into_iter().find(|exit| *exit != Exit::Done);
    Ok(first.unwrap_or(Exit::Done))
}
