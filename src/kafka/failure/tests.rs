//! The texts are librdkafka's own, as it logs them.

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::config::{Settings, Sources};
use Certainty::{Certain, Guess, MayHeal};
use FailureKind::{Authentication, Connect, Other, Resolve, Timeout, Tls};

const PLAINTEXT: &[(&str, &str)] = &[];
const TLS: &[(&str, &str)] = &[("security.protocol", "SSL")];
const SASL: &[(&str, &str)] = &[
    ("security.protocol", "sasl_ssl"),
    ("sasl.mechanism", "PLAIN"),
    ("sasl.username", "x"),
    ("sasl.password", "s3cret"),
];

fn account(options: &[(&str, &str)]) -> Account {
    let sources = Sources {
        overrides: options
            .iter()
            .map(|(name, value)| format!("kafka.options.{name}={value}"))
            .collect(),
        ..Sources::default()
    };
    Account::of(&Settings::load_over(&Settings::default(), &sources).unwrap())
}

fn classify(line: &str, options: &[(&str, &str)]) -> Failure {
    let failed = ConnectionFailure::parse(line).expect("a failure");
    failed.classify(&account(options))
}

/// A line, the options of the client, the kind, and a part of the reason.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    FailureKind,
    Certainty,
    &'static str,
);

const ROWS: &[Row] = &[
    (
        "[thrd:nonexistent.invalid:9092/bootstrap]: nonexistent.invalid:9092/bootstrap: Failed to resolve 'nonexistent.invalid:9092': Name or service not known (after 3ms in state CONNECT)",
        PLAINTEXT,
        Resolve,
        Certain,
        "cannot resolve nonexistent.invalid: Name or service not known; check kafka.bootstrap_servers",
    ),
    (
        "[thrd:kafka:9092/1]: kafka:9092/1: Failed to resolve 'kafka:9092': Temporary failure in name resolution (after 3ms in state CONNECT)",
        PLAINTEXT,
        Resolve,
        MayHeal,
        "correct its advertised.listeners",
    ),
    (
        "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT, 4 identical error(s) suppressed)",
        PLAINTEXT,
        Connect,
        MayHeal,
        "cannot connect to 127.0.0.1:1: Connection refused",
    ),
    (
        "[thrd:GroupCoordinator]: GroupCoordinator: 127.0.0.1:9092: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
        PLAINTEXT,
        Connect,
        MayHeal,
        "cannot connect to 127.0.0.1:9092",
    ),
    (
        "[thrd:10.0.0.1:9092/bootstrap]: 10.0.0.1:9092/bootstrap: Connection setup timed out in state CONNECT (after 3001ms in state CONNECT)",
        PLAINTEXT,
        Timeout,
        MayHeal,
        "cannot connect to 10.0.0.1:9092: timed out",
    ),
    (
        "[thrd:h:9092/bootstrap]: h:9092/bootstrap: Connection setup timed out in state APIVERSION_QUERY (after 3001ms in state APIVERSION_QUERY)",
        PLAINTEXT,
        Timeout,
        MayHeal,
        "h:9092 accepts connections but does not answer",
    ),
    (
        "[thrd:h:9093/bootstrap]: h:9093/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 2ms in state APIVERSION_QUERY)",
        PLAINTEXT,
        Tls,
        Guess,
        "a TLS listener was spoken to in plaintext: set kafka.options.security.protocol to ssl",
    ),
    (
        "[thrd:h:9093/bootstrap]: h:9093/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes (after 2ms in state APIVERSION_QUERY)",
        PLAINTEXT,
        Tls,
        Certain,
        "a TLS listener was spoken to in plaintext",
    ),
    (
        "[thrd:h:80/bootstrap]: h:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes (after 2ms in state APIVERSION_QUERY)",
        PLAINTEXT,
        Other,
        Certain,
        "h:80 answers in HTTP",
    ),
    (
        "[thrd:h:9092/bootstrap]: h:9092/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 1ms in state UP)",
        TLS,
        Authentication,
        Guess,
        "the listener requires SASL: set kafka.options.security.protocol to sasl_ssl",
    ),
    (
        "[thrd:h:9092/1]: h:9092/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 60000ms in state UP)",
        TLS,
        Connect,
        MayHeal,
        "h:9092 closed the connection",
    ),
    (
        "[thrd:ssl://h:9092/bootstrap]: ssl://h:9092/bootstrap: SSL handshake failed: Disconnected: connection closed by peer: connecting to a PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)",
        TLS,
        Tls,
        Guess,
        "a plaintext listener was spoken to in TLS: set kafka.options.security.protocol to plaintext",
    ),
    (
        "[thrd:ssl://h:9092/bootstrap]: ssl://h:9092/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number (after 3ms in state SSL_HANDSHAKE)",
        TLS,
        Tls,
        Certain,
        "a plaintext listener was spoken to in TLS",
    ),
    (
        "[thrd:ssl://h:9093/bootstrap]: ssl://h:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates are installed (install ca-certificates package) (after 3ms in state SSL_HANDSHAKE)",
        TLS,
        Tls,
        Certain,
        "certificate verify failed: set kafka.options.ssl.ca.location",
    ),
    (
        "[thrd:ssl://h:9093/bootstrap]: ssl://h:9093/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116 (after 1ms in state APIVERSION_QUERY)",
        TLS,
        Tls,
        Certain,
        "the listener requires a client certificate",
    ),
    (
        "[thrd:sasl_ssl://h:9094/bootstrap]: sasl_ssl://h:9094/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 201ms in state AUTH_REQ)",
        SASL,
        Authentication,
        Certain,
        "SASL authentication failed as user `x`",
    ),
    (
        "[thrd:sasl_ssl://h:9094/bootstrap]: sasl_ssl://h:9094/bootstrap: SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure (after 201ms in state AUTH_REQ)",
        SASL,
        Connect,
        MayHeal,
        "the connection failed during SASL authentication",
    ),
    (
        "[thrd:sasl_ssl://h:9094/bootstrap]: sasl_ssl://h:9094/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512 (after 2ms in state AUTH_HANDSHAKE)",
        SASL,
        Authentication,
        Certain,
        "does not offer SASL mechanism PLAIN: set kafka.options.sasl.mechanism to one of SCRAM-SHA-512",
    ),
    (
        "[thrd:sasl_ssl://h:9094/bootstrap]: sasl_ssl://h:9094/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 2ms in state AUTH_HANDSHAKE)",
        SASL,
        Authentication,
        Certain,
        "the listener does not use SASL: set kafka.options.security.protocol to ssl",
    ),
    (
        "[thrd:h:9092/1]: h:9092/1: Something new (after 2ms in state UP)",
        PLAINTEXT,
        Other,
        MayHeal,
        "h:9092: Something new",
    ),
];

#[test]
fn each_text_of_librdkafka_has_a_kind_and_a_reason() {
    for (line, options, kind, certainty, reason) in ROWS {
        let failure = classify(line, options);
        assert_eq!(failure.kind, *kind, "{line}: {failure}");
        assert_eq!(failure.certainty, *certainty, "{line}: {failure}");
        assert!(failure.reason.contains(reason), "{line}: {failure}");
    }
}

#[test]
fn a_secret_in_the_answer_of_a_broker_is_masked() {
    let line = "sasl_ssl://h:9094/bootstrap: SASL authentication error: no user x with password s3cret (after 201ms in state AUTH_REQ)";
    let failure = classify(line, SASL);
    assert!(failure.reason.contains("with password ***"), "{failure}");
    assert!(!format!("{failure:?} {:?}", account(SASL)).contains("s3cret"));
}

#[test]
fn a_password_that_got_more_than_itself_from_its_source_is_pointed_out() {
    let line =
        "sasl_ssl://a:1/bootstrap: SASL authentication error: bad (after 1ms in state AUTH_REQ)";
    for (password, is_suspicious) in [("'s3cret'", true), ("s3cret\n", true), ("s3 cret", false)] {
        let mut options = SASL.to_vec();
        options[3].1 = password;
        let reason = classify(line, &options).reason;
        assert_eq!(reason.contains("quote or white space"), is_suspicious);
        assert!(!reason.contains("s3"), "{reason}");
    }
}

#[test]
fn a_denial_names_the_operation_the_resource_and_the_user() {
    use rdkafka::error::RDKafkaErrorCode as Code;
    let on_topic = |operation| Denial::on_topic(operation, "iot.command-status");
    let group = Resource::Group("g".to_owned());
    let id = Resource::TransactionalId("t".to_owned());
    let rows = [
        (
            Code::TopicAuthorizationFailed,
            on_topic(Operation::Describe),
            "not authorized: `Describe` on topic iot.command-status; grant it to user `x`",
        ),
        (
            Code::GroupAuthorizationFailed,
            Denial::new(Operation::Read, group),
            "not authorized: `Read` on group g; grant it to user `x`",
        ),
        (
            Code::TransactionalIdAuthorizationFailed,
            Denial::new(Operation::Write, id),
            "not authorized: `Write` on transactional id t; grant it to user `x`",
        ),
        (
            Code::ClusterAuthorizationFailed,
            on_topic(Operation::Create),
            "not authorized: `Create` on the cluster; grant it to user `x`",
        ),
    ];
    for (code, attempt, reason) in rows {
        let denial = Denial::of(code, attempt).expect("a denial");
        let failure = denial.failure(&account(SASL));
        assert_eq!(
            (failure.kind, failure.reason.as_str()),
            (FailureKind::Authorization, reason)
        );
    }
    let attempt = on_topic(Operation::Describe);
    assert_eq!(
        Denial::of(Code::UnknownTopicOrPartition, attempt.clone()),
        None
    );
    assert_eq!(Denial::of(Code::GroupAuthorizationFailed, attempt), None);
}

#[test]
fn the_log_names_the_topic_that_a_transaction_may_not_write_to() {
    let line = |error: &str| {
        format!(
            "[thrd:main]: TxnCoordinator: 127.0.0.1:9094: Failed to add partition \"iot.command-state\" [1] to transaction: Broker: {error}"
        )
    };
    let denied = line("Topic authorization failed");
    let write = Denial::on_topic(Operation::Write, "iot.command-state");
    assert_eq!(Denial::of_log("ADDPARTS", &denied), Some(write));
    assert_eq!(Denial::of_log("TXNERR", &denied), None);
    let skipped = line("Operation not attempted");
    assert_eq!(Denial::of_log("ADDPARTS", &skipped), None);
}

fn certificate() -> RejectedCertificate {
    let now: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
    RejectedCertificate {
        host: "127.0.0.2".to_owned(),
        is_named: true,
        names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        issuer: "CN=ca".to_owned(),
        not_before: now - TimeDelta::days(1),
        not_after: now + TimeDelta::days(1),
        now,
    }
}

#[test]
fn a_rejected_certificate_is_outdated_or_misnamed_or_untrusted() {
    let later = certificate().now + TimeDelta::days(2);
    let expired = RejectedCertificate {
        now: later,
        ..certificate()
    };
    let early = RejectedCertificate {
        not_before: later,
        ..certificate()
    };
    let misnamed = RejectedCertificate {
        is_named: false,
        ..certificate()
    };
    let unnamed = &[TLS[0], ("ssl.endpoint.identification.algorithm", "none")];
    let rows: [(_, &[_], _); 6] = [
        (
            expired,
            TLS,
            "the certificate of 127.0.0.2 expired at 2026-01-03T03:04:05Z",
        ),
        (early, TLS, "is valid from 2026-01-04T03:04:05Z"),
        (
            misnamed.clone(),
            TLS,
            "the certificate is not for 127.0.0.2, but for localhost, 127.0.0.1",
        ),
        (
            misnamed,
            unnamed,
            "certificate verify failed: set kafka.options.ssl.ca.location",
        ),
        (
            certificate(),
            TLS,
            "certificate verify failed: set kafka.options.ssl.ca.location",
        ),
        (
            certificate(),
            &[TLS[0], ("ssl.ca.pem", "pem")],
            "certificate verify failed: the CA in kafka.options.ssl.ca.location is not the issuer",
        ),
    ];
    for (certificate, options, reason) in rows {
        let failure = certificate.failure(&account(options));
        assert_eq!(failure.kind, FailureKind::Tls);
        assert!(failure.reason.contains(reason), "{failure}");
    }
}
