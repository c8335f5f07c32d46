//! The sections of the settings: their keys, types and built-in defaults.
//!
//! Knows nothing of layers, sources or the rules between keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::options::KafkaOptions;
use super::secret::Secret;
use super::telemetry::{Endpoint, Ratio, SecretHeader};
use super::values::{self, Millis, PathTemplate};
use crate::notification::{CommandKey, Validation};

/// The listener for the platform's pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The address that receives pushes.
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// The paths for pushes: at least one, none of them twice. A trailing slash is the
    /// same path.
    #[serde(deserialize_with = "values::paths")]
    pub(crate) paths: Vec<PathTemplate>,
    /// The largest body, counted after decompression, in bytes.
    pub(crate) max_body_bytes: usize,
    /// The largest request head, in bytes.
    pub(crate) max_head_bytes: usize,
    /// How long the head of a request may take.
    pub(crate) header_timeout_ms: Millis,
    /// How long the body of a request may take.
    pub(crate) body_timeout_ms: Millis,
    /// How long an idle connection is kept.
    pub(crate) keep_alive_timeout_ms: Millis,
    /// The latest time at which a push is answered, counted from the last byte of its
    /// head.
    pub answer_deadline_ms: Millis,
    /// The concurrent streams of an HTTP/2 connection.
    pub(crate) http2_max_streams: u32,
    /// What happens to a body that is not a notification.
    pub(crate) unreadable: UnreadablePolicy,
    /// How closely a notification must follow its published field table.
    pub(crate) validation: Validation,
}

/// What happens to a body that is not a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnreadablePolicy {
    /// It is stored in the dead-letter topic and answered 200.
    DeadLetter,
    /// It is answered 400 and not stored.
    Reject,
}

/// Encryption of the listener; off without a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The certificate chain, PEM. Set if, and only if, `key_file` is.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The private key of the certificate, PEM.
    pub(crate) key_file: Option<PathBuf>,
    /// The authorities, PEM, for client certificates, which are then required.
    pub(crate) client_ca_file: Option<PathBuf>,
    /// The names of the clients whose certificates count; all do if it is empty.
    pub(crate) client_allowed_names: Vec<String>,
    /// The revoked certificates, PEM, of every authority of client certificates.
    pub(crate) client_crl_file: Option<PathBuf>,
    /// How long a handshake may take.
    pub(crate) handshake_timeout_ms: Millis,
    /// How often the files are checked for changes.
    pub(crate) reload_interval_ms: Millis,
}

/// Who may push. A push must satisfy every protection that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    /// Basic credentials (RFC 7617).
    pub(crate) basic: Basic,
    /// The secret in the query (`token=`) or in the path's `{token}`: none, one, or two
    /// during a rotation.
    #[serde(deserialize_with = "values::secrets")]
    pub(crate) token: Vec<Secret>,
    /// The networks that may push; all may if it is empty.
    #[serde(deserialize_with = "values::networks")]
    pub(crate) allowed_addresses: Vec<IpNet>,
    /// The proxies that are trusted to report the client's address.
    #[serde(deserialize_with = "values::networks")]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The source of the client's address.
    pub(crate) client_address: ClientAddress,
}

/// Basic credentials. Usernames and passwords are both set or both empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    /// None, one for all passwords, or as many as there are passwords; without a colon.
    #[serde(deserialize_with = "values::usernames")]
    pub(crate) username: Vec<Secret>,
    /// None, one, or two during a rotation.
    #[serde(deserialize_with = "values::secrets")]
    pub(crate) password: Vec<Secret>,
}

/// The source of the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAddress {
    /// The other end of the connection.
    #[default]
    Connection,
    /// The `X-Forwarded-For` header, as far as trusted proxies wrote it.
    XForwardedFor,
    /// The PROXY protocol's header before the first byte of a trusted proxy's connection.
    ProxyProtocol,
}

/// How much the ingress holds before it refuses more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// The open connections at a time.
    pub(crate) max_connections: usize,
    /// The open connections of one address at a time; 0 is no limit.
    pub(crate) max_connections_per_address: usize,
    /// How long a connection may take to bring its first authorized push.
    pub(crate) first_push_timeout_ms: Millis,
    /// The pushes between admission and answer.
    pub(crate) max_in_flight: usize,
    /// The bodies of all pushes in flight together, in bytes; at least the largest body.
    pub(crate) max_in_flight_bytes: usize,
    /// How long a push waits for capacity before it is answered 503.
    pub(crate) admission_timeout_ms: Millis,
}

/// The store on this host's disk for pushes whose partition takes nothing; off without a
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spool {
    /// Where it is; made if it is missing.
    pub(crate) directory: Option<PathBuf>,
    /// How long a partition must have taken nothing before pushes for it are spooled.
    pub(crate) after_ms: Millis,
    /// The most bytes of pushes that it holds.
    pub(crate) max_bytes: u64,
    /// The size at which a file of it is not continued.
    pub(crate) segment_bytes: u64,
}

/// How Kafka's clients connect, and their options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// The brokers contacted first: `host:port`, separated by commas without blanks.
    #[serde(deserialize_with = "values::servers")]
    pub bootstrap_servers: String,
    /// Any librdkafka property except those that northbridge's guarantees depend on.
    pub(crate) options: KafkaOptions,
}

/// The topics: their names without the prefix, and the settings of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// The prefix of every name.
    pub prefix: String,
    /// The partitions of each topic.
    pub partitions: i32,
    /// The replicas of each partition.
    pub(crate) replication_factor: i32,
    /// The replicas that must have a record before it is acknowledged.
    pub(crate) min_insync_replicas: i32,
    /// The topic of `messageConfirm` pushes.
    pub(crate) command_status: CommandStatusTopic,
    /// The topic of `swUpgradeResultNotify` pushes.
    pub(crate) upgrade_result: RetainedTopic,
    /// The topic of every other push.
    pub(crate) notifications: RetainedTopic,
    /// The topic of pushes that cannot be understood.
    pub(crate) dead_letter: RetainedTopic,
    /// The state of each command.
    pub(crate) command_state: RetainedTopic,
    /// The software of each device.
    pub(crate) device_software: CompactedTopic,
    /// The changed outcomes of devices: the topic between two stages.
    pub(crate) upgrade_delta: RetainedTopic,
    /// The progress of each upgrade operation.
    pub(crate) upgrade_operation: CompactedTopic,
}

/// The topic of command confirmations, the only one with a choice of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandStatusTopic {
    /// The name after the prefix.
    pub(crate) name: String,
    /// The key of its records.
    pub(crate) key: CommandKey,
    /// How long its records are kept, in hours.
    pub(crate) retention_hours: u64,
}

/// A topic whose records are deleted after a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetainedTopic {
    /// The name after the prefix.
    pub(crate) name: String,
    /// How long its records are kept, in hours.
    pub(crate) retention_hours: u64,
}

/// A topic that keeps the newest record of each key forever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompactedTopic {
    /// The name after the prefix.
    pub(crate) name: String,
}

/// The listener for probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// The address that serves probes and metrics.
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
}

/// Traces, which are sent to a collector; off without an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// The collector.
    pub(crate) otlp_endpoint: Option<Endpoint>,
    /// The share of pushes that are traced if their request does not say it.
    pub(crate) sampling_ratio: Ratio,
    /// What the collector wants in each request, such as a credential.
    pub(crate) headers: Vec<SecretHeader>,
}

/// The log that the process writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The format of log lines.
    pub(crate) format: LogFormat,
    /// The least severe level that is written.
    pub(crate) level: LogLevel,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

/// The severity of a log line, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// A person must act.
    Error,
    /// Something is wrong, and the process copes.
    Warn,
    /// What the process does as a whole.
    Info,
    /// What happens to single pushes.
    Debug,
    /// Everything.
    Trace,
}

/// The streams `command-status` and `upgrade-result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Streams {
    /// The stable name of this instance, unique among the instances of a stream. It
    /// makes group membership static and names the transactions. Without it, the host
    /// name names the transactions, and membership is dynamic.
    pub(crate) instance: Option<String>,
    /// The start of consumer groups and transactional ids, before `topics.prefix`.
    pub(crate) group_prefix: String,
    /// The maximum number of records per transaction.
    pub(crate) max_batch_records: usize,
    /// The bytes of keys and values at which a batch takes no further record.
    pub(crate) max_batch_bytes: usize,
    /// How long a batch waits for more records after its first one.
    pub(crate) max_batch_wait_ms: Millis,
    /// The largest state, with its key and header; at least `http.max_body_bytes`.
    pub(crate) max_state_bytes: usize,
    /// How long a transaction may take before the brokers abort it.
    pub(crate) transaction_timeout_ms: Millis,
    /// How long an instance may be silent before its partitions are reassigned.
    pub(crate) session_timeout_ms: Millis,
    /// The stream of command confirmations.
    pub(crate) command_status: CommandStatusStream,
    /// The stream of upgrade results.
    pub(crate) upgrade_result: UpgradeResultStream,
}

/// Settings of the stream of command confirmations alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandStatusStream {
    /// The age in seconds at which a command that is not executed is overdue.
    pub(crate) overdue_after_s: u64,
    /// If more commands are in memory, a warning is logged and a metric is set.
    pub(crate) max_entries: usize,
}

/// Settings of the stream of upgrade results alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpgradeResultStream {
    /// If more devices, or operations, are in memory, a warning is logged and a metric
    /// is set.
    pub(crate) max_entries: usize,
}

/// The timing of a shutdown, counted from the first signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the fields are the keys")]
pub(crate) struct Shutdown {
    /// How long the process keeps accepting after it became unready, so that load
    /// balancers notice.
    pub(crate) announce_ms: Millis,
    /// How long after that an idle HTTP/1 connection stays open for one more push,
    /// which may be on its way.
    pub(crate) idle_ms: Millis,
    /// The latest time at which the process ends, whatever is still open.
    pub(crate) deadline_ms: Millis,
}

impl Basic {
    /// Returns whether Basic credentials are required.
    pub(crate) fn is_set(&self) -> bool {
        !self.username.is_empty() || !self.password.is_empty()
    }

    /// Each username with its password: one username goes with every password,
    /// several go with the password in the same position.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Secret, &Secret)> {
        self.username.iter().cycle().zip(&self.password)
    }
}

impl Topics {
    /// A topic's name on the cluster: `name` after the prefix.
    pub(crate) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: any_address(8080),
            paths: vec![PathTemplate::notifications()],
            max_body_bytes: 1024 * 1024,
            max_head_bytes: 16 * 1024,
            header_timeout_ms: Millis(5_000),
            body_timeout_ms: Millis(5_000),
            keep_alive_timeout_ms: Millis(75_000),
            answer_deadline_ms: Millis(13_000),
            http2_max_streams: 128,
            unreadable: UnreadablePolicy::DeadLetter,
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
            client_allowed_names: Vec::new(),
            client_crl_file: None,
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
            max_connections_per_address: 0,
            first_push_timeout_ms: Millis(10_000),
            max_in_flight: 10_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            admission_timeout_ms: Millis(500),
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            directory: None,
            after_ms: Millis(3_000),
            max_bytes: 1 << 30,
            segment_bytes: 16 << 20,
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

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sampling_ratio: Ratio::TENTH,
            headers: Vec::new(),
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
            max_batch_records: 10_000,
            max_batch_bytes: 16 * 1024 * 1024,
            max_batch_wait_ms: Millis(5),
            max_state_bytes: 1024 * 1024,
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
