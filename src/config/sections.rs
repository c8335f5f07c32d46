//! The sections of the settings: their keys, types and built-in defaults.
//!
//! Knows nothing of layers, sources or the rules between keys.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::options::KafkaOptions;
use super::secret::Secret;
use crate::notification::{CommandKey, Validation};

/// A span of time in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// The listener for the platform's pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where pushes are received.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The paths that take pushes: each begins with `/`, none has a query, none stands
    /// twice, and a whole segment may be `{token}`. A trailing slash is the same path.
    pub paths: Vec<String>,
    /// The longest body, after decompression, in bytes.
    pub max_body_bytes: usize,
    /// The longest request head, in bytes.
    pub max_head_bytes: usize,
    /// How long the head of a request may take.
    pub header_timeout_ms: Millis,
    /// How long the body of a request may take.
    pub body_timeout_ms: Millis,
    /// How long an idle connection is kept.
    pub keep_alive_timeout_ms: Millis,
    /// When a push is answered at the latest, counted from the last byte of its head.
    pub answer_deadline_ms: Millis,
    /// The concurrent streams of one HTTP/2 connection.
    pub http2_max_streams: u32,
    /// What becomes of a body that is no notification.
    pub unreadable: Unreadable,
    /// How closely a notification must follow its published field table.
    pub validation: Validation,
}

/// What becomes of a body that is no notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreadable {
    /// It is stored in the dead-letter topic and answered 200.
    DeadLetter,
    /// It is answered 400 and not stored.
    Reject,
}

/// Encryption of the listener; off as long as there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM. Set exactly when `key_file` is.
    pub certificate_file: Option<PathBuf>,
    /// The private key of the certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities whose client certificates are demanded, PEM.
    pub client_ca_file: Option<PathBuf>,
    /// How long a handshake may take.
    pub handshake_timeout_ms: Millis,
    /// How often the files are looked at for a change.
    pub reload_interval_ms: Millis,
}

/// Who may push; everyone as long as nothing is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Basic credentials (RFC 7617).
    pub basic: Basic,
    /// The secret in the query (`token=`) or in the path's `{token}`: none, one, or two
    /// during a rotation.
    pub token: Vec<Secret>,
    /// The networks that may push; empty lets all in.
    #[serde(deserialize_with = "networks")]
    pub allowed_addresses: Vec<IpNet>,
    /// The proxies whose word on the client's address counts.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Where the client's address is taken from.
    pub client_address: ClientAddress,
}

/// Basic credentials; usernames and passwords are both there or both empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// None, one, or two during a rotation: one goes with every password, of two each with the
    /// password in its place.
    pub username: Vec<Secret>,
    /// None, one, or two during a rotation.
    pub password: Vec<Secret>,
}

/// Where the client's address is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// The other end of the connection.
    #[default]
    Connection,
    /// The `X-Forwarded-For` header, as far as trusted proxies wrote it.
    XForwardedFor,
    /// The PROXY protocol's header before the first byte of a trusted proxy's connection.
    ProxyProtocol,
}

/// What is refused rather than held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The open connections.
    pub max_connections: usize,
    /// The pushes between admission and answer.
    pub max_in_flight: usize,
    /// The bodies of all pushes in flight, in bytes; room for the longest body at least.
    pub max_in_flight_bytes: usize,
    /// How long a push waits for room before it is refused.
    pub admission_timeout_ms: Millis,
}

/// The way to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// The brokers asked first: `host:port`, separated by commas without blanks.
    #[serde(deserialize_with = "servers")]
    pub bootstrap_servers: String,
    /// Any other librdkafka property, except those that hold the promise.
    pub options: KafkaOptions,
}

/// The topics: names without their prefix, and what each must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// What stands before every name.
    pub prefix: String,
    /// The partitions of each topic.
    pub partitions: i32,
    /// The copies of each partition.
    pub replication_factor: i32,
    /// The copies that must have a record before it counts as written.
    pub min_insync_replicas: i32,
    /// Where `messageConfirm` pushes go.
    pub command_status: CommandStatusTopic,
    /// Where `swUpgradeResultNotify` pushes go.
    pub upgrade_result: RetainedTopic,
    /// Where every other push goes.
    pub notifications: RetainedTopic,
    /// Where goes what cannot be understood.
    pub dead_letter: RetainedTopic,
    /// The state of each command.
    pub command_state: RetainedTopic,
    /// The software of each device.
    pub device_software: CompactedTopic,
    /// The changed outcomes of devices, between two stages.
    pub upgrade_delta: RetainedTopic,
    /// The progress of each upgrade operation.
    pub upgrade_operation: CompactedTopic,
}

/// The topic of command confirmations, whose key can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStatusTopic {
    /// The name after the prefix.
    pub name: String,
    /// What its records are keyed by.
    pub key: CommandKey,
    /// How long its records are kept, in hours.
    pub retention_hours: u64,
}

/// A topic whose records are deleted after a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetainedTopic {
    /// The name after the prefix.
    pub name: String,
    /// How long its records are kept, in hours.
    pub retention_hours: u64,
}

/// A topic that keeps the newest record of each key for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactedTopic {
    /// The name after the prefix.
    pub name: String,
}

/// The listener for probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where probes and metrics are served.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
}

/// What the process writes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

/// How important a log line is, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What the process does as a whole.
    Info,
    /// What happens to single pushes.
    Debug,
    /// Everything.
    Trace,
}

/// The two streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// This instance's lasting name, among the instances of one stream: it makes its
    /// membership in the group static and names its transactions. Without one, the
    /// host's name names its transactions, and it joins and leaves the group.
    pub instance: Option<String>,
    /// What the names of the consumer groups and transactions start with.
    pub group_prefix: String,
    /// The most records of one transaction.
    pub max_batch_records: usize,
    /// How long a transaction waits for more records after its first one.
    pub max_batch_wait_ms: Millis,
    /// How long a transaction may take before the brokers abort it.
    pub transaction_timeout_ms: Millis,
    /// How long an instance may be silent before others take over its partitions.
    pub session_timeout_ms: Millis,
    /// The stream of command confirmations.
    pub command_status: CommandStatusStream,
    /// The stream of upgrade results.
    pub upgrade_result: UpgradeResultStream,
}

/// What is peculiar to the stream of command confirmations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStatusStream {
    /// After how many seconds without being executed a command is overdue.
    pub overdue_after_s: u64,
    /// Above so many commands in memory, a warning and a metric say so.
    pub max_entries: usize,
}

/// What is peculiar to the stream of upgrade results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeResultStream {
    /// Above so many devices, or operations, in memory, a warning and a metric say so.
    pub max_entries: usize,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long the process goes on accepting after it has said that it is not ready, so
    /// that load balancers notice.
    pub announce_ms: Millis,
    /// For how long after that an idle connection of HTTP/1 is left open for one
    /// more push, which may be on its way.
    pub idle_ms: Millis,
    /// When the process ends at the latest, whatever is still open.
    pub deadline_ms: Millis,
}

impl Millis {
    /// The same span as the standard library counts it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ms", self.0)
    }
}

impl Topics {
    /// The topic's full name: `name` after the prefix.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: any_address(8080),
            paths: vec!["/notifications".to_owned()],
            max_body_bytes: 1024 * 1024,
            max_head_bytes: 16 * 1024,
            header_timeout_ms: Millis(5_000),
            body_timeout_ms: Millis(5_000),
            keep_alive_timeout_ms: Millis(75_000),
            answer_deadline_ms: Millis(13_000),
            http2_max_streams: 128,
            unreadable: Unreadable::DeadLetter,
            validation: Validation::Tolerant,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            handshake_timeout_ms: Millis(5_000),
            reload_interval_ms: Millis(5_000),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            basic: Basic {
                username: Vec::new(),
                password: Vec::new(),
            },
            token: Vec::new(),
            allowed_addresses: Vec::new(),
            trusted_proxies: Vec::new(),
            client_address: ClientAddress::Connection,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_in_flight: 10_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            admission_timeout_ms: Millis(500),
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            options: KafkaOptions::default(),
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            prefix: "iot.".to_owned(),
            partitions: 6,
            replication_factor: 3,
            min_insync_replicas: 2,
            command_status: CommandStatusTopic {
                name: "command-status".to_owned(),
                key: CommandKey::RequestId,
                retention_hours: 7 * 24,
            },
            upgrade_result: retained("upgrade-result", 30),
            notifications: retained("notifications", 7),
            dead_letter: retained("dead-letter", 30),
            command_state: retained("command-state", 30),
            device_software: compacted("device-software"),
            upgrade_delta: retained("upgrade-delta", 7),
            upgrade_operation: compacted("upgrade-operation"),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: any_address(8081),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: LogLevel::Info,
        }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            instance: None,
            group_prefix: "northbridge.".to_owned(),
            max_batch_records: 2_000,
            max_batch_wait_ms: Millis(50),
            transaction_timeout_ms: Millis(30_000),
            session_timeout_ms: Millis(15_000),
            command_status: CommandStatusStream {
                overdue_after_s: 3_600,
                max_entries: 5_000_000,
            },
            upgrade_result: UpgradeResultStream {
                max_entries: 5_000_000,
            },
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            announce_ms: Millis(5_000),
            idle_ms: Millis(15_000),
            deadline_ms: Millis(25_000),
        }
    }
}

const fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn retained(name: &str, days: u64) -> RetainedTopic {
    RetainedTopic {
        name: name.to_owned(),
        retention_hours: days * 24,
    }
}

fn compacted(name: &str) -> CompactedTopic {
    CompactedTopic {
        name: name.to_owned(),
    }
}

/// Reads networks; a single address is the network of that one address.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let networks = texts.iter().map(|text| network(text.trim()));
    networks.collect::<Option<_>>().ok_or_else(|| {
        de::Error::custom(
            "must hold addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32",
        )
    })
}

fn network(text: &str) -> Option<IpNet> {
    let net = text.parse().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Reads an address with its port.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        de::Error::custom("must be an address with a port, such as 0.0.0.0:8080 or [::]:8080")
    })
}

/// Reads brokers separated by commas; keeps them without blanks.
fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    if servers.iter().all(|server| is_server(server)) {
        return Ok(servers.join(","));
    }
    Err(de::Error::custom(
        "must be host:port, or several of them separated by commas",
    ))
}

fn is_server(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
