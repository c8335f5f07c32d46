//! What `northbridge dev` says at its start and at its end.

use std::net::SocketAddr;

use chrono::Utc;

use super::kafka::Cluster;
use crate::config::{PathTemplate, Settings};
use crate::topics::{Topic, name};

const UPGRADE: &str = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-1","appId":"app","operationId":"op-1","subOperationId":"sub-1","curVersion":"1.5","targetVersion":"1.5","sourceVersion":"1.0","swUpgradeResult":"SUCCESS","upgradeTime":"183","resultDesc":"done","errorCode":"0","description":""}"#;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Addresses {
    /// The URL to push to.
    push_url: String,
    admin: SocketAddr,
    servers: String,
    state_topic: String,
}

impl Addresses {
    /// `listener` and `admin` are bound, and have their real ports.
    pub(super) fn new(settings: &Settings, listener: SocketAddr, admin: SocketAddr) -> Self {
        let scheme = if settings.tls.certificate_file.is_some() {
            "https"
        } else {
            "http"
        };
        let path = settings.http.paths.first();
        let path = path.map_or("/", PathTemplate::as_str);
        Self {
            push_url: format!("{scheme}://{listener}{path}"),
            admin,
            servers: settings.kafka.bootstrap_servers.clone(),
            state_topic: name(settings, Topic::CommandState),
        }
    }

    /// One line for each.
    pub(super) fn lines(&self, cluster: &Cluster) -> Vec<String> {
        let Self {
            push_url,
            admin,
            servers,
            ..
        } = self;
        let kafka = match cluster {
            Cluster::Embedded { .. } => "broker",
            Cluster::Real => "Kafka",
        };
        vec![
            format!("  pushes          {push_url}"),
            format!("  status page     http://{admin}/"),
            format!("  administration  http://{admin}/metrics  /livez  /readyz"),
            format!("  {kafka:<14}  {servers}"),
        ]
    }
}

/// Returns a command that pushes.
pub(super) fn hint(addresses: &Addresses) -> String {
    let url = &addresses.push_url;
    format!("Nothing is stored yet; to try it: northbridge simulate {url} --count 20")
}

/// Returns what runs, where, and commands to try.
pub(super) fn greeting(cluster: &Cluster, addresses: &Addresses) -> String {
    let Addresses {
        push_url,
        servers,
        state_topic,
        ..
    } = addresses;
    format!(
        "\
northbridge dev: ingress and both streams over {about}

{addresses}

Confirm a command, and report the result of a software upgrade:

  curl -i {push_url} -d '{confirm}'

  curl -i {push_url} -d '{UPGRADE}'

Follow the states:

  kcat -b {servers} -C -t {state_topic} -f '%k %s\\n'

Ctrl-C stops. Each push that is stored is shown here, and each state that it changes{delay}:
",
        about = about(cluster, servers),
        addresses = addresses.lines(cluster).join("\n"),
        confirm = confirm(),
        delay = match cluster {
            Cluster::Embedded { .. } => "",
            Cluster::Real => {
                "\n(with its default settings, Kafka gives the streams their partitions after three seconds)"
            }
        },
    )
}

/// Returns what is left when it has stopped.
pub(super) fn farewell(cluster: &Cluster) -> &'static str {
    match cluster {
        Cluster::Embedded { .. } => "Stopped; the embedded broker and all its records are gone.",
        Cluster::Real => "Stopped; the topics and the states stay in Kafka.",
    }
}

fn about(cluster: &Cluster, servers: &str) -> String {
    match cluster {
        Cluster::Embedded { unused_servers, .. } => {
            let hint = unused_servers.as_ref().map_or_else(String::new, |unused| {
                format!(
                    "\nkafka.bootstrap_servers is set but not used; to use that Kafka: northbridge dev --kafka {unused}"
                )
            });
            format!(
                "an embedded in-memory broker.
Nothing is kept, nothing needs installing. The embedded broker has no real transactions:
exactly-once behaviour needs a real Kafka.{hint}"
            )
        }
        Cluster::Real => format!(
            "the Kafka at {servers}.
The topics, and all that is stored in them, stay there."
        ),
    }
}

/// A confirmation with the current time: an old one would count as overdue.
fn confirm() -> String {
    let now = Utc::now().format("%Y%m%dT%H%M%SZ");
    format!(
        r#"{{"notifyType":"messageConfirm","header":{{"requestId":"r-1","from":"/devices/d-1/services/s-1","to":"app","status":"delivered","timestamp":"{now}"}},"body":{{}}}}"#
    )
}
