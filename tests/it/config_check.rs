//! What `northbridge config check` finds: whatever a start would refuse, short of
//! binding ports and reaching Kafka.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::child;
use crate::support::northbridge::run;

/// Where the samples of the providers look for their files.
const SAMPLE_DIRECTORY: &str = "/etc/northbridge/";

/// No file has this path.
const NOWHERE: &str = "/nowhere/file.pem";

/// A private key whose password is `right`.
const ENCRYPTED_KEY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhwdE/L1fUm8AICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEGRLKYghIWw5Fi7+L7bBdksEgZDD
vMG52Hz9IG2cky2Tg7o6CAs3r4Wk/OkEcoAZRBcmZU/ayYDOUVhqwlO4QwvbOPF1
yGXAzP60D3DiQ6HH+wL1cxZz7Zn7UE4FNMSK1cQRor3C0RlZZaqFyfqha8TfQajj
xVFDhpGf2J7H2MWHAMncdwxJqllXszIOK6/NdySlmjS2aV76Iy0AESDrK8Ng550=
-----END ENCRYPTED PRIVATE KEY-----
";

#[test]
fn every_configuration_of_a_provider_passes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka-providers.md");
    let page = fs::read_to_string(page).unwrap();
    let files = sample_files();
    let directory = format!("{}/", files.path().display());
    let mut count = 0;
    for section in page.split("\n## ").skip(2) {
        let (title, text) = section.split_once('\n').unwrap();
        let samples: Vec<&str> = text.split("```toml\n").skip(1).collect();
        assert!(!samples.is_empty(), "{title} has no configuration");
        for sample in samples {
            let (sample, _) = sample.split_once("```").unwrap();
            let file = files.path().join("northbridge.toml");
            fs::write(&file, sample.replace(SAMPLE_DIRECTORY, &directory)).unwrap();
            let password = ("kafka.options.sasl.password", "from-a-secret");
            let secrets = if sample.contains("sasl.username") {
                &[password][..]
            } else {
                &[]
            };
            let config = file.display().to_string();
            let output = run(&["config", "check", "--config", &config], secrets);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{title}: {}",
                errors(&output)
            );
            count += 1;
        }
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn the_settings_are_tried_on_every_kind_of_client() {
    for (option, expected) in [
        // Of producers, of transactional producers, of consumers, and of all.
        (("linger.ms", "200000"), "message.timeout.ms"),
        (("linger.ms", "60000"), "message.timeout.ms"),
        (
            ("socket.timeout.ms", "60000"),
            "streams.transaction_timeout_ms",
        ),
        (
            ("max.poll.interval.ms", "9000"),
            "streams.session_timeout_ms",
        ),
        (("fetch.max.bytes", "10"), "message.max.bytes"),
        (("fetch.wait.max.ms", "2500"), "socket.timeout.ms"),
        (("reconnect.backoff.ms", "5000"), "reconnect.backoff.max.ms"),
        (("retry.backoff.ms", "5000"), "retry.backoff.max.ms"),
        (("broker.version.fallback", "0.9.0"), "deprecated"),
    ] {
        let (name, value) = option;
        let key = format!("kafka.options.{name}");
        for command in [&["config", "check"][..], &["command-status"]] {
            let output = run(command, &[(&key, value)]);
            let found = errors(&output);
            assert_eq!(output.status.code(), Some(64), "{key}: {found}");
            let variable = format!("NORTHBRIDGE__{}", key.replace('.', "__").to_uppercase());
            let source = format!("{key} = \"{value}\" (environment variable {variable}): ");
            assert!(
                found.contains(&source) && found.contains(expected),
                "{found}"
            );
        }
    }
}

/// A client that is given a property of another kind of client, such as a consumer
/// that is given one of producers, warns about it, which fails the check.
#[test]
fn no_client_is_given_a_property_that_it_does_not_know() {
    let keys = DEFAULTS
        .iter()
        .map(|(name, _)| format!("kafka.options.{name}"));
    let keys: Vec<String> = keys.collect();
    let values = DEFAULTS.iter().map(|(_, value)| *value);
    let settings: Vec<_> = keys.iter().map(String::as_str).zip(values).collect();
    let output = run(&["config", "check"], &settings);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn the_authorities_of_kafka_clients_are_loaded() {
    let certificates = Certificates::new();
    let ca = certificates.ca_file();
    let marked = certificates.ca_file().with_file_name("marked.pem");
    let mark = b"\xef\xbb\xbf";
    fs::write(&marked, [mark, &fs::read(&ca).unwrap()[..]].concat()).unwrap();
    accepts(&[("ca.location", &ca)]);
    rejects(
        &[("ca.location", Path::new(NOWHERE))],
        &["ssl.ca.location = \"/nowhere/file.pem\"", "No such file"],
    );
    let key = certificates.key_file();
    rejects(
        &[("ca.location", &key)],
        &["ssl.ca.location", "contains no CERTIFICATE, but a "],
    );
    rejects(
        &[("ca.location", &marked)],
        &["ssl.ca.location", "byte order mark"],
    );
}

#[test]
fn the_certificates_and_keys_of_kafka_clients_are_loaded() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (certificate, key) = (ours.client_certificate_file(), ours.client_key_file());
    let (nowhere, other) = (Path::new(NOWHERE), others.client_key_file());
    let pair = |certificate, key| [("certificate.location", certificate), ("key.location", key)];
    accepts(&pair(&*certificate, &*key));
    let expected = ["ssl.certificate.location", "No such file"];
    rejects(&pair(nowhere, &key), &expected);
    rejects(
        &pair(&certificate, nowhere),
        &["ssl.key.location", "No such file"],
    );
    rejects(
        &pair(&key, &key),
        &[
            "ssl.certificate.location",
            "contains no CERTIFICATE, but a ",
        ],
    );
    rejects(
        &pair(&certificate, &other),
        &[
            "ssl.key.location",
            "key values mismatch; it is not the key of the certificate",
        ],
    );
    let [certificate, key] = pair(&certificate, &key);
    rejects(&[certificate], &["requires kafka.options.ssl.key.location"]);
    rejects(&[key], &["requires kafka.options.ssl.certificate.location"]);
}

#[test]
fn the_password_of_an_encrypted_key_is_tried() {
    let certificates = Certificates::new();
    let certificate = certificates.client_certificate_file();
    let key = certificate.with_file_name("encrypted.key");
    fs::write(&key, ENCRYPTED_KEY).unwrap();
    let pair = [
        ("certificate.location", &*certificate),
        ("key.location", &key),
    ];
    let with = |password| [pair[0], pair[1], ("key.password", Path::new(password))];
    let expected = ["ssl.key.location", "kafka.options.ssl.key.password must be"];
    rejects(&pair, &expected);
    let found = rejects(&with("wr0ng"), &expected);
    assert!(!found.contains("wr0ng"), "{found}");
    // With the right one, the key is read, and is not that of the certificate.
    rejects(&with("right"), &["ssl.key.location", "mismatch"]);
}

#[test]
fn the_files_of_the_listener_are_loaded() {
    let certificates = Certificates::new();
    let certificate = certificates.certificate_file();
    let marked = [b"\xef\xbb\xbf", &fs::read(&certificate).unwrap()[..]].concat();
    let check = |key: &Path| {
        let pair = [
            ("tls.certificate_file", certificate.to_str().unwrap()),
            ("tls.key_file", key.to_str().unwrap()),
        ];
        run(&["config", "check"], &pair)
    };
    let output = check(&certificates.client_key_file());
    assert_eq!(output.status.code(), Some(64));
    let found = errors(&output);
    assert!(
        found.contains("tls.key_file") && found.contains("does not match"),
        "{found}"
    );
    let output = check(Path::new("/nowhere/key"));
    assert_eq!(output.status.code(), Some(64));
    assert!(errors(&output).contains("cannot read /nowhere/key"));
    fs::write(&certificate, marked).unwrap();
    let output = check(&certificates.key_file());
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn a_variable_that_is_not_utf_8_is_found() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_northbridge"));
    program.env_clear().args(["config", "check"]);
    program.env(
        "NORTHBRIDGE__AUTH__TOKEN",
        OsString::from_vec(b"s3cret\xff".to_vec()),
    );
    let output = child::run(&mut program).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        errors(&output).trim(),
        "error: NORTHBRIDGE__AUTH__TOKEN (environment): must be UTF-8"
    );
}

#[test]
fn a_collector_whose_certificate_nothing_could_verify_is_found() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_northbridge"));
    program.env_clear().args(["config", "check"]);
    program.args(["--set", "telemetry.otlp_endpoint=https://collector"]);
    program.env("SSL_CERT_FILE", empty.path());
    let output = child::run(&mut program).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        errors(&output).trim(),
        "error: telemetry.otlp_endpoint: this host trusts no certificate authority; install \
         them, or set SSL_CERT_FILE to a file of them"
    );
}

/// Asserts that the settings pass with these TLS options of Kafka clients.
fn accepts(options: &[(&str, &Path)]) {
    let output = check_tls(options);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

/// Asserts that the settings are rejected, and returns the message, which contains
/// all of `expected`.
fn rejects(options: &[(&str, &Path)], expected: &[&str]) -> String {
    let output = check_tls(options);
    let found = errors(&output);
    assert_eq!(output.status.code(), Some(64), "{options:?}: {found}");
    let has_all = expected.iter().all(|part| found.contains(part));
    assert!(has_all, "{options:?}: {found}");
    found
}

fn check_tls(options: &[(&str, &Path)]) -> Output {
    let keys = options
        .iter()
        .map(|(name, _)| format!("kafka.options.ssl.{name}"));
    let keys: Vec<String> = keys.collect();
    let values = options.iter().map(|(_, value)| value.to_str().unwrap());
    let mut settings: Vec<_> = keys.iter().map(String::as_str).zip(values).collect();
    settings.push(("kafka.options.security.protocol", "SSL"));
    run(&["config", "check"], &settings)
}

/// The properties of librdkafka that can be set, except those of TLS and SASL, with
/// librdkafka's own defaults.
const DEFAULTS: &[(&str, &str)] = &[
    ("api.version.request.timeout.ms", "10000"),
    ("batch.num.messages", "10000"),
    ("batch.size", "1000000"),
    ("broker.address.family", "any"),
    ("broker.address.ttl", "1000"),
    ("check.crcs", "false"),
    ("client.dns.lookup", "use_all_dns_ips"),
    ("client.rack", "x"),
    ("compression.level", "-1"),
    ("compression.type", "none"),
    ("connections.max.idle.ms", "0"),
    ("coordinator.query.interval.ms", "600000"),
    ("enable.metrics.push", "true"),
    ("enable.random.seed", "true"),
    ("fetch.error.backoff.ms", "500"),
    ("fetch.max.bytes", "52428800"),
    ("fetch.min.bytes", "1"),
    ("fetch.queue.backoff.ms", "1000"),
    ("fetch.wait.max.ms", "500"),
    ("group.protocol", "classic"),
    ("group.protocol.type", "consumer"),
    ("linger.ms", "5"),
    ("log.thread.name", "true"),
    ("max.partition.fetch.bytes", "1048576"),
    ("max.poll.interval.ms", "300000"),
    ("message.copy.max.bytes", "65535"),
    ("metadata.max.age.ms", "900000"),
    ("metadata.recovery.rebootstrap.trigger.ms", "300000"),
    ("metadata.recovery.strategy", "rebootstrap"),
    ("queued.max.messages.kbytes", "65536"),
    ("queued.min.messages", "100000"),
    ("receive.message.max.bytes", "100000000"),
    ("reconnect.backoff.max.ms", "10000"),
    ("reconnect.backoff.ms", "100"),
    ("request.timeout.ms", "30000"),
    ("retry.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "100"),
    ("security.protocol", "plaintext"),
    ("socket.connection.setup.timeout.ms", "30000"),
    ("socket.keepalive.enable", "false"),
    ("socket.max.fails", "1"),
    ("socket.nagle.disable", "true"),
    ("socket.receive.buffer.bytes", "0"),
    ("socket.send.buffer.bytes", "0"),
    ("sticky.partitioning.linger.ms", "10"),
    ("topic.metadata.propagation.max.ms", "30000"),
    ("topic.metadata.refresh.fast.interval.ms", "100"),
    ("topic.metadata.refresh.interval.ms", "300000"),
    ("topic.metadata.refresh.sparse", "true"),
];

/// A directory with every file that the samples name.
fn sample_files() -> TempDir {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    for (name, source) in [
        ("kafka-ca.pem", certificates.ca_file()),
        ("phy_ca.crt", certificates.ca_file()),
        ("ca.crt", certificates.ca_file()),
        ("client.pem", certificates.client_certificate_file()),
        ("user.crt", certificates.client_certificate_file()),
        ("client.key", certificates.client_key_file()),
        ("user.key", certificates.client_key_file()),
    ] {
        fs::copy(source, directory.path().join(name)).unwrap();
    }
    directory
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
