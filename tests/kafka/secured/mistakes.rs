//! Each way to be wrong about the security of a cluster, and the reason that
//! every surface shows for it.

use std::net::TcpListener;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::installation::{Installation, Settings, Way, borrowed, set, start, user_with};
use crate::support::certificates::Certificates;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::secured;
use crate::support::northbridge::{Northbridge, run};

const SERVERS: &str = "kafka.bootstrap_servers";
const PROTOCOL: &str = "kafka.options.security.protocol";
const MECHANISM: &str = "kafka.options.sasl.mechanism";
const USERNAME: &str = "kafka.options.sasl.username";
const PASSWORD: &str = "kafka.options.sasl.password";
const AUTHORITY: &str = "kafka.options.ssl.ca.location";

const LOGGED: &str = "Kafka request or connection failed; retrying";
/// librdkafka's line about a connection that failed.
const FAILED: &str = "\"facility\":\"FAIL\"";
/// The longest time from the first report of a reason until it is shown. That
/// takes milliseconds on an idle machine, and a request times out after ten
/// seconds.
const AT_ONCE: TimeDelta = TimeDelta::seconds(5);
/// How many are tried side by side.
const AT_A_TIME: usize = 4;
/// A password that no user has.
const WRONG_PASSWORD: &str = "not-the-password";

/// A key and its value; `None` removes it.
type Setting = (&'static str, Option<String>);

/// One mistake in an otherwise correct configuration.
struct Mistake {
    /// What is set instead of what is correct.
    settings: Vec<Setting>,
    /// Part of the reason.
    reason: String,
    /// The label `kind` of the metric.
    kind: &'static str,
    /// Whether nothing else looks like it. A listener that closes a connection may
    /// also be one that stops.
    is_certain: bool,
}

#[test]
fn every_mistake_has_its_reason_on_every_surface() {
    let another = Certificates::new();
    let installation = Installation::with_topics("mistakes", Way::Scram512);
    let mut rights = installation.rights("topics verify");
    rights.extend(installation.rights("ingress"));
    let user = user_with(&rights);
    let correct = installation.settings(&user);
    let mistakes = mistakes(&another, &user.name);
    std::thread::scope(|scope| {
        for some in mistakes.chunks(mistakes.len().div_ceil(AT_A_TIME)) {
            let (correct, password) = (&correct, user.password.as_str());
            scope.spawn(move || {
                for mistake in some {
                    has_its_reason(mistake, &mistake.made_in(correct), password);
                }
            });
        }
    });
}

#[test]
fn every_process_says_at_once_that_a_certificate_is_wrong_only_where_a_broker_advertises() {
    let installation = Installation::with_topics("advertised", Way::Plain);
    let correct = installation.settings(&secured::cluster().user());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/notifications", listener.local_addr().unwrap());
    for mistake in wrong_where_advertised() {
        let (settings, reason) = (mistake.made_in(&correct), &mistake.reason);
        wait_until_shown(&start("command-status", &settings), reason);
        let servers = mistake.settings[0].1.as_deref().unwrap();
        let simulate = ["simulate", &url, "--count=1", "--verify", servers];
        let commands: [&[&str]; 3] = [&["replay"], &["replay", "--dry-run"], &simulate];
        for command in commands {
            end(command, &settings, &mistake);
        }
    }
}

impl Mistake {
    fn made_in(&self, correct: &Settings) -> Settings {
        let mut settings = correct.clone();
        for (key, value) in &self.settings {
            settings.retain(|(found, _)| found != key);
            if let Some(value) = value {
                set(&mut settings, key, value);
            }
        }
        settings
    }
}

fn has_its_reason(mistake: &Mistake, settings: &Settings, password: &str) {
    let Mistake { reason, kind, .. } = mistake;
    let ingress = start("ingress", settings);
    let (readiness, line) = wait_until_shown(&ingress, reason);
    let mut all = end(&["topics", "verify"], settings, mistake);

    let health = health(&ingress, settings);
    assert!(health.contains(reason), "{reason}: {health}");
    let label = format!("kind=\"{kind}\"");
    assert!(line.contains(kind), "{line}");
    let counted = ingress.metric("northbridge_kafka_errors_total", &[&label]);
    assert!(counted > 0.0, "{reason}: {kind} is not counted");

    all += &(readiness + &health + &ingress.log().join("\n"));
    for secret in [password, WRONG_PASSWORD] {
        assert!(
            !all.contains(secret),
            "{reason}: a password is shown: {all}"
        );
    }
}

/// Waits until `/readyz` says the reason, which must be soon after it is logged,
/// and returns the answer and the line of the log.
fn wait_until_shown(process: &Northbridge, reason: &str) -> (String, String) {
    let readiness = eventually(&format!("/readyz says: {reason}"), || {
        let answer = http::get(process.admin_address(), "/readyz")?.text();
        answer.contains(reason).then_some(answer)
    });
    let shown = Utc::now();
    let line = process.wait_for_log(|line| line.contains(LOGGED) && line.contains(reason));
    let late = shown - time_of(&line);
    assert!(late < AT_ONCE, "{reason}: {late}");
    (readiness, line)
}

/// Runs a command that must end because of a mistake, and soon after that is
/// certain. Returns what it prints.
fn end(command: &[&str], settings: &Settings, mistake: &Mistake) -> String {
    let Mistake { reason, .. } = mistake;
    let mut settings = settings.clone();
    set(&mut settings, "log.level", "debug");
    let output = run(command, &borrowed(&settings));
    let ended = Utc::now();
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all += &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{reason}: {all}");
    let printed = all.lines().filter(|line| !line.starts_with('{'));
    let count = printed.filter(|line| line.contains(reason)).count();
    assert_eq!(count, 1, "{reason}: {all}");
    if mistake.is_certain {
        let first = all.lines().find(|line| line.contains(FAILED));
        let late = ended - time_of(first.unwrap_or_else(|| panic!("{reason}: {all}")));
        assert!(late < AT_ONCE, "{command:?}: {reason}: {late}: {all}");
    }
    all
}

fn time_of(line: &str) -> DateTime<Utc> {
    let line: Value = serde_json::from_str(line).expect("JSON");
    serde_json::from_value(line["timestamp"].clone()).expect("a timestamp")
}

/// What `northbridge health --ready` prints, which must not be success.
fn health(ingress: &Northbridge, settings: &Settings) -> String {
    let mut settings = settings.clone();
    set(
        &mut settings,
        "admin.listen",
        &ingress.admin_address().to_string(),
    );
    let output = run(&["health", "--ready"], &borrowed(&settings));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn mistakes(another: &Certificates, user: &str) -> Vec<Mistake> {
    let cluster = secured::cluster();
    let mut mistakes = vec![
        mistake(
            &[is(PASSWORD, WRONG_PASSWORD)],
            "authentication",
            &format!("SASL authentication failed as user `{user}`"),
        ),
        mistake(
            &[is(USERNAME, "stranger")],
            "authentication",
            "SASL authentication failed as user `stranger`",
        ),
        mistake(
            &[is(AUTHORITY, &another.ca_file().display().to_string())],
            "tls",
            "certificate verify failed: the CA in kafka.options.ssl.ca.location",
        ),
        mistake(
            &[(AUTHORITY, None)],
            "tls",
            "certificate verify failed: set kafka.options.ssl.ca.location",
        ),
        mistake(
            &[is(SERVERS, &cluster.sasl_by_another_name())],
            "tls",
            "the certificate is not for 127.0.0.2",
        ),
        guess(
            &[is(PROTOCOL, "sasl_plaintext"), (AUTHORITY, None)],
            "tls",
            "a TLS listener was spoken to in plaintext: set kafka.options.security.protocol to sasl_ssl",
        ),
        guess(
            &[is(SERVERS, &cluster.clear())],
            "tls",
            "a plaintext listener was spoken to in TLS: set kafka.options.security.protocol to sasl_plaintext",
        ),
        mistake(
            &[
                is(SERVERS, &cluster.clear()),
                is(PROTOCOL, "sasl_plaintext"),
                is(MECHANISM, "PLAIN"),
                (AUTHORITY, None),
            ],
            "authentication",
            "SCRAM-SHA-512",
        ),
        mistake(
            &[
                is(SERVERS, &cluster.bootstrap()),
                is(PROTOCOL, "sasl_plaintext"),
                (AUTHORITY, None),
            ],
            "authentication",
            "the listener does not use SASL: set kafka.options.security.protocol to plaintext",
        ),
        mistake(
            &[is(SERVERS, &cluster.encrypted())],
            "authentication",
            "the listener does not use SASL: set kafka.options.security.protocol to ssl",
        ),
        guess(
            &as_anonymous(&cluster.sasl()),
            "authentication",
            "the listener requires SASL: set kafka.options.security.protocol to sasl_ssl",
        ),
        mistake(
            &as_anonymous(&cluster.certificates()),
            "tls",
            "the listener requires a client certificate: set kafka.options.ssl.certificate.location",
        ),
        mistake(
            &[is(SERVERS, "no-such-host.invalid:9092")],
            "resolve",
            "cannot resolve no-such-host.invalid",
        ),
    ];
    mistakes.extend(wrong_where_advertised());
    mistakes
}

/// A certificate that is right at the bootstrap server, and wrong at the address
/// of the same broker that it advertises.
fn wrong_where_advertised() -> [Mistake; 2] {
    let cluster = secured::cluster();
    let wrong = [
        (cluster.misnamed(), "the certificate is not for 127.0.0.2"),
        (cluster.foreign(), "certificate verify failed: the CA in"),
    ];
    wrong.map(|([server, advertised], reason)| {
        let reason = format!("at {advertised}, which a broker advertises: {reason}");
        mistake(&as_anonymous(&server), "tls", &reason)
    })
}

fn mistake(settings: &[Setting], kind: &'static str, reason: &str) -> Mistake {
    Mistake {
        settings: settings.to_vec(),
        reason: reason.to_owned(),
        kind,
        is_certain: true,
    }
}

fn guess(settings: &[Setting], kind: &'static str, reason: &str) -> Mistake {
    Mistake {
        is_certain: false,
        ..mistake(settings, kind, reason)
    }
}

fn is(key: &'static str, value: &str) -> Setting {
    (key, Some(value.to_owned()))
}

/// TLS without SASL.
fn as_anonymous(servers: &str) -> Vec<Setting> {
    let protocol = is(PROTOCOL, "ssl");
    let none = [MECHANISM, USERNAME, PASSWORD].map(|key| (key, None));
    [&[is(SERVERS, servers), protocol], &none[..]].concat()
}
