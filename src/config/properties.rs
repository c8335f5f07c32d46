//! The librdkafka properties that northbridge knows: which nobody may set and
//! why, which reach only some clients, and which of them are one property under
//! several names.
//!
//! A property that is not listed has one name and reaches every client; librdkafka
//! decides whether it exists. Knows nothing of how the clients are configured.

/// A property with all its names, or properties that are refused for one reason
/// (librdkafka, CONFIGURATION.md).
pub(super) struct Property {
    /// One that ends in `*` stands for all names that begin with what precedes it.
    /// A property that can be set is given to clients under its first name.
    pub(super) names: &'static [&'static str],
    pub(super) rule: Rule,
}

/// What an operator may do with a property.
pub(super) enum Rule {
    /// Nothing, for this reason.
    Refused(&'static str),
    /// Set it, for these clients.
    Passed(Clients),
    /// Set it for these clients to one of these values; the others are refused for
    /// this reason.
    Limited {
        clients: Clients,
        values: &'static [&'static str],
        reason: &'static str,
    },
}

/// The clients that a property reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    All,
    /// The ingress's producer and the transactional producers.
    Producers,
    /// The consumers of groups and the readers of topics.
    Consumers,
}

impl Property {
    /// The entry of the property with this name, if it has one.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        let is_named = |known: &&str| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *known == name,
        };
        let mut entries = PROPERTIES.iter();
        entries.find(|property| property.names.iter().any(is_named))
    }

    /// Returns whether an operator may set the property, so that its names are all
    /// names of one property.
    pub(super) fn is_settable(&self) -> bool {
        match self.rule {
            Rule::Passed(_) | Rule::Limited { .. } => true,
            Rule::Refused(_) => false,
        }
    }
}

/// The name under which clients are given a property that has several names.
pub(super) fn canonical(name: &str) -> &str {
    match Property::of(name) {
        Some(property) if property.is_settable() => property.names[0],
        Some(_) | None => name,
    }
}

/// The clients that a property reaches.
pub(super) fn clients(name: &str) -> Clients {
    match Property::of(name).map(|property| &property.rule) {
        Some(Rule::Passed(clients) | Rule::Limited { clients, .. }) => *clients,
        Some(Rule::Refused(_)) | None => Clients::All,
    }
}

/// The names of the properties here that can be set.
pub(super) fn settable() -> impl Iterator<Item = &'static str> {
    let settable = PROPERTIES.iter().filter(|property| property.is_settable());
    settable.flat_map(|property| property.names.iter().copied())
}

const fn refused(names: &'static [&'static str], why: &'static str) -> Property {
    Property {
        names,
        rule: Rule::Refused(why),
    }
}

const fn passed(clients: Clients, names: &'static [&'static str]) -> Property {
    Property {
        names,
        rule: Rule::Passed(clients),
    }
}

/// Every property that has more than one name or does not reach every client.
pub(super) const PROPERTIES: &[Property] = &[
    refused(
        &["acks", "request.required.acks"],
        "a 200 promises that all in-sync replicas have the record",
    ),
    refused(
        &["enable.idempotence"],
        "without it, a retry can store a push twice or out of order",
    ),
    refused(
        &["enable.gapless.guarantee"],
        "one lost record would stop the producer for all others",
    ),
    refused(
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        "the order of records and their latency depend on it",
    ),
    refused(
        &["retries", "message.send.max.retries"],
        "a record is retried for as long as its push waits for the answer",
    ),
    refused(
        &["message.timeout.ms", "delivery.timeout.ms"],
        "it outlasts every answer, so that a refused push can still be stored",
    ),
    refused(
        &["queuing.strategy"],
        "records of one key would overtake each other",
    ),
    refused(
        &["queue.buffering.backpressure.threshold"],
        "idempotence requires librdkafka's own value",
    ),
    refused(
        &["partitioner"],
        "a key's partition must be the one that Java clients choose",
    ),
    refused(
        &["message.max.bytes"],
        "it is derived from http.max_body_bytes, with room for key and headers",
    ),
    refused(
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "it is derived from limits.max_in_flight and limits.max_in_flight_bytes",
    ),
    refused(
        &["log.connection.close"],
        "these lines show why a connection failed, and which transactions need a new producer",
    ),
    refused(
        &["delivery.report.only.error"],
        "a 200 requires the report of a successful delivery",
    ),
    refused(
        &["produce.offset.report"],
        "a 200 requires the complete delivery report",
    ),
    refused(
        &["transactional.id"],
        "it is derived from the instance, so that a restart fences the previous process",
    ),
    refused(
        &["transaction.timeout.ms"],
        "set streams.transaction_timeout_ms instead",
    ),
    refused(
        &["isolation.level"],
        "records of aborted transactions would be processed",
    ),
    refused(
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
        ],
        "offsets are committed in the transaction that contains their results",
    ),
    refused(
        &[
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "offsets are committed in the transaction that contains their results",
    ),
    refused(
        &["auto.offset.reset"],
        "records from before the first start would be skipped",
    ),
    refused(
        &["group.id", "group.instance.id"],
        "it is derived from streams.group_prefix, topics.prefix and streams.instance",
    ),
    refused(
        &["session.timeout.ms"],
        "set streams.session_timeout_ms instead",
    ),
    refused(
        &["heartbeat.interval.ms"],
        "an instance that leaves is noticed with the next heartbeat of the others, within a second",
    ),
    refused(
        &["partition.assignment.strategy"],
        "a rebalance would stop every instance instead of moving single partitions",
    ),
    refused(
        &["group.remote.assignor"],
        "it works only with group.protocol=consumer, which the streams cannot use",
    ),
    refused(
        &["enable.partition.eof"],
        "each client is given the value that it needs",
    ),
    refused(
        &["consume.callback.max.messages"],
        "northbridge consumes without callbacks",
    ),
    refused(
        &["bootstrap.servers", "metadata.broker.list"],
        "set kafka.bootstrap_servers instead",
    ),
    refused(
        &["allow.auto.create.topics"],
        "an auto-created topic would have the wrong partitions, replicas and settings",
    ),
    refused(
        &["api.version.request"],
        "idempotence, transactions and record headers need the versions that the brokers report",
    ),
    refused(&["topic.blacklist"], "a hidden topic could not be written"),
    refused(
        &["statistics.interval.ms"],
        "metrics and readiness are derived from the statistics",
    ),
    refused(
        &["log_level"],
        "librdkafka logs what kafka.options.debug selects, such as broker,security; log.level=debug shows it",
    ),
    refused(&["log.queue"], "the log lines of librdkafka would be lost"),
    refused(
        &["sasl.kerberos.*"],
        "GSSAPI (Kerberos) is not built in; use SCRAM, PLAIN or a client certificate",
    ),
    refused(
        &[
            "sasl.oauthbearer.*",
            "enable.sasl.oauthbearer.unsecure.jwt",
            "https.ca.*",
        ],
        "OAUTHBEARER is not built in; use SCRAM, PLAIN or a client certificate",
    ),
    refused(
        &["sasl.jaas.config"],
        "it is a property of Java clients; set sasl.username and sasl.password instead",
    ),
    refused(
        &["ssl.truststore.*"],
        "it is a property of Java clients; set ssl.ca.location to a PEM file instead",
    ),
    refused(&["test.*"], "it replaces Kafka with a mock cluster"),
    refused(
        &["builtin.features"],
        "the features of librdkafka are those that it was built with",
    ),
    refused(
        &["internal.termination.signal"],
        "signals belong to the process",
    ),
    refused(
        &[
            "topic.metadata.refresh.fast.cnt",
            "socket.blocking.max.ms",
            "reconnect.backoff.jitter.ms",
        ],
        "librdkafka no longer uses it",
    ),
    Property {
        names: &["sasl.mechanism", "sasl.mechanisms"],
        rule: Rule::Limited {
            clients: Clients::All,
            values: &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
            reason: "GSSAPI (Kerberos) and OAUTHBEARER are not built in; instead of them, use SCRAM-SHA-512, PLAIN, or a client certificate with security.protocol=SSL",
        },
    },
    Property {
        names: &["group.protocol"],
        rule: Rule::Limited {
            clients: Clients::Consumers,
            values: &["classic"],
            reason: "the protocol `consumer` (KIP-848) takes neither streams.session_timeout_ms nor the assignment strategy of the streams",
        },
    },
    Property {
        names: &["group.protocol.type"],
        rule: Rule::Limited {
            clients: Clients::Consumers,
            values: &["consumer"],
            reason: "brokers know no other type of group",
        },
    },
    passed(Clients::Producers, &["linger.ms", "queue.buffering.max.ms"]),
    passed(
        Clients::Producers,
        &["compression.type", "compression.codec"],
    ),
    passed(Clients::Producers, &["compression.level"]),
    passed(Clients::Producers, &["batch.size"]),
    passed(Clients::Producers, &["batch.num.messages"]),
    passed(Clients::Producers, &["request.timeout.ms"]),
    passed(Clients::Producers, &["sticky.partitioning.linger.ms"]),
    passed(
        Clients::Consumers,
        &["max.partition.fetch.bytes", "fetch.message.max.bytes"],
    ),
    passed(Clients::Consumers, &["fetch.max.bytes"]),
    passed(Clients::Consumers, &["fetch.min.bytes"]),
    passed(Clients::Consumers, &["fetch.wait.max.ms"]),
    passed(Clients::Consumers, &["fetch.error.backoff.ms"]),
    passed(Clients::Consumers, &["fetch.queue.backoff.ms"]),
    passed(Clients::Consumers, &["queued.min.messages"]),
    passed(Clients::Consumers, &["queued.max.messages.kbytes"]),
    passed(Clients::Consumers, &["max.poll.interval.ms"]),
    passed(Clients::Consumers, &["coordinator.query.interval.ms"]),
    passed(Clients::Consumers, &["check.crcs"]),
];
