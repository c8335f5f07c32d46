//! `northbridge dev`: everything in one process over an embedded broker.
//! Nothing to install, nothing kept.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;

use crate::config::{LogLevel, Millis, Settings};
use crate::ingress::Ingress;
use crate::ingress::publisher::KeyedRecordSummary;
use crate::kafka::embedded::EmbeddedBroker;
use crate::process::Exit;
use crate::process::signals::Signals;
use crate::topics::{Topic, plans};

/// What `dev` starts from: loopback alone, quiet logs, no load balancer to wait for.
pub fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
    // The embedded broker does not show its topics' settings; the warning would only worry.
    settings.log.level = LogLevel::Error;
    settings.shutdown.announce_ms = Millis(0);
    settings
}

/// Runs until a signal.
///
/// # Errors
///
/// Where an address is taken.
pub async fn run(mut settings: Settings) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    // One broker cannot hold more, and saying so would only worry a newcomer.
    settings.topics.replication_factor = 1;
    settings.topics.min_insync_replicas = 1;
    let broker = EmbeddedBroker::start(&plans(&settings)).context("the embedded broker")?;
    settings.kafka.bootstrap_servers = broker.bootstrap_servers();
    let ingress = Ingress::start(&settings, Some(show)).await?;
    greet(&settings, &ingress);
    signals.next().await;
    signals.stop_at_next();
    let exit = ingress.drain().await;
    println!("Stopped; the embedded broker and what it held are gone.");
    Ok(exit)
}

fn greet(settings: &Settings, ingress: &Ingress) {
    let scheme = if settings.tls.certificate_file.is_some() {
        "https"
    } else {
        "http"
    };
    let path = settings.http.paths.first().map_or("/", String::as_str);
    let url = format!("{scheme}://{}{path}", ingress.address);
    let broker = &settings.kafka.bootstrap_servers;
    let topic = settings
        .topics
        .full_name(&settings.topics.command_status.name);
    println!(
        "\
northbridge dev: an embedded broker in memory. Nothing is kept, nothing needs installing.

  pushes          {url}
  administration  http://{admin}/metrics  /livez  /readyz
  broker          {broker}

Push something:

  curl -i {url} -d '{{\"notifyType\":\"messageConfirm\",\"header\":{{\"requestId\":\"r-1\",\
\"from\":\"/devices/d-1/services/s-1\",\"to\":\"app\",\"status\":\"delivered\",\
\"timestamp\":\"20260101T000000Z\"}},\"body\":{{}}}}'

Read along:

  kcat -b {broker} -C -t {topic} -f '%k %s\\n'

Ctrl-C stops. Each push that is stored shows here:
",
        admin = ingress.admin_address,
    );
}

fn show(summary: &KeyedRecordSummary) {
    let delivery = &summary.delivery;
    let what = if delivery.topic() == Topic::DeadLetter {
        "dead letter"
    } else {
        "stored"
    };
    let reason = summary
        .reason
        .map(|reason| format!("  ({reason})"))
        .unwrap_or_default();
    println!(
        "{what}  {}  {} partition {} offset {}  key {}  {} ms{reason}",
        summary.notify_type.label(),
        delivery.topic().label(),
        delivery.partition(),
        delivery.offset(),
        summary
            .key
            .as_deref()
            .map_or_else(|| "-".to_owned(), printable),
        summary.took.as_millis(),
    );
}

/// A key comes from outside: on a terminal it must be neither long nor a control sequence.
fn printable(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
