//! What every surface says if a listener is not the Kafka that the settings
//! describe. The listeners of this file play a broker badly, and never well.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::support::certificates::Certificates;
use crate::support::eventually;
use crate::support::http::get;
use crate::support::northbridge::{Northbridge, run};

const ERRORS: &str = "northbridge_kafka_errors_total";
const BEGUN: &str = "Kafka request or connection failed; retrying";

/// A mistake, and what is said about it.
struct Mistake {
    servers: String,
    options: Vec<(&'static str, String)>,
    kind: &'static str,
    reason: &'static str,
}

impl Mistake {
    fn settings(&self) -> Vec<(&str, &str)> {
        let options = self.options.iter();
        let mut settings: Vec<_> = options.map(|(key, value)| (*key, value.as_str())).collect();
        settings.push(("kafka.bootstrap_servers", &self.servers));
        settings
    }
}

#[test]
fn each_mistake_has_its_reason_on_every_surface() {
    let certificates = Certificates::new();
    let stranger = Certificates::new();
    let tls = tls_listener(&certificates);
    let plaintext = listener(|mut stream| drop(stream.read(&mut [0; 4096])));
    let ca = |of: &Certificates| of.ca_file().display().to_string();
    let ssl = || ("kafka.options.security.protocol", "ssl".to_owned());
    let ca_of = |of: &Certificates| ("kafka.options.ssl.ca.location", ca(of));
    let mistakes = [
        Mistake {
            servers: tls.to_string(),
            options: vec![],
            kind: "tls",
            reason: "a TLS listener was spoken to in plaintext: set kafka.options.security.protocol to ssl",
        },
        Mistake {
            servers: plaintext.to_string(),
            options: vec![ssl(), ca_of(&certificates)],
            kind: "tls",
            reason: "a plaintext listener was spoken to in TLS: set kafka.options.security.protocol to plaintext",
        },
        Mistake {
            servers: tls.to_string(),
            options: vec![ssl()],
            kind: "tls",
            reason: "certificate verify failed: set kafka.options.ssl.ca.location to the CA that issued",
        },
        Mistake {
            servers: tls.to_string(),
            options: vec![ssl(), ca_of(&stranger)],
            kind: "tls",
            reason: "certificate verify failed: the CA in kafka.options.ssl.ca.location is not the issuer",
        },
        Mistake {
            servers: format!("127.0.0.2:{}", tls.port()),
            options: vec![ssl(), ca_of(&certificates)],
            kind: "tls",
            reason: "the certificate is not for 127.0.0.2, but for localhost",
        },
        Mistake {
            servers: "nonexistent.invalid:9092".to_owned(),
            options: vec![],
            kind: "resolve",
            reason: "cannot resolve nonexistent.invalid: ",
        },
        Mistake {
            servers: "127.0.0.1:1".to_owned(),
            options: vec![],
            kind: "connect",
            reason: "cannot connect to 127.0.0.1:1: Connection refused",
        },
    ];
    thread::scope(|scope| {
        for mistake in &mistakes {
            scope.spawn(|| ends_a_command(mistake));
            scope.spawn(|| is_shown_by_the_ingress(mistake));
            scope.spawn(|| is_shown_by_a_stream(mistake));
        }
    });
}

#[test]
fn a_command_says_at_once_what_it_waits_for() {
    let refused = [("kafka.bootstrap_servers", "127.0.0.1:1")];
    let verify = Northbridge::start(&["topics", "verify"], &refused);
    verify.wait_for_log(|line| {
        line.contains("Kafka request or connection failed; retrying")
            && line.contains("cannot connect to 127.0.0.1:1: Connection refused")
    });
    assert_eq!(verify.exit_code(), None);
}

fn ends_a_command(mistake: &Mistake) {
    let output = run(&["topics", "verify"], &mistake.settings());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    for part in [mistake.reason, &mistake.servers, "kafka.bootstrap_servers"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let is_error = |line: &&str| line.starts_with("error: ");
    let error = stderr.lines().find(is_error).expect("an error");
    assert_eq!(error.matches(mistake.reason).count(), 1, "{stderr}");
}

fn is_shown_by_the_ingress(mistake: &Mistake) {
    let northbridge = Northbridge::start(&["ingress"], &mistake.settings());
    await_shown(&northbridge, mistake, "ingress");
    let admin = northbridge.admin_address().to_string();
    let health = run(&["health", "--ready"], &[("admin.listen", &admin)]);
    let health = String::from_utf8_lossy(&health.stdout);
    assert!(health.contains(mistake.reason), "{health}");
    if mistake.kind == "connect" {
        northbridge.wait_for_log(|line| {
            line.contains("Kafka is unreachable") && line.contains(mistake.reason)
        });
    } else {
        northbridge.wait_for_log(|line| is_warning_of(line, mistake));
    }
    assert_warned_once(&northbridge, mistake);
}

fn is_shown_by_a_stream(mistake: &Mistake) {
    let northbridge = Northbridge::start(&["command-status"], &mistake.settings());
    // A stream's condition says of an outage only that Kafka is unreachable.
    if mistake.kind != "connect" {
        await_shown(&northbridge, mistake, "command-status");
        northbridge.wait_for_log(|line| is_warning_of(line, mistake));
        assert_warned_once(&northbridge, mistake);
    }
}

fn await_shown(northbridge: &Northbridge, mistake: &Mistake, client: &str) {
    eventually("the reason is in /readyz", || {
        let readyz = get(northbridge.admin_address(), "/readyz")?.text();
        readyz.contains(mistake.reason).then_some(())
    });
    let client = format!(r#"client="{client}""#);
    let kind = format!(r#"kind="{}""#, mistake.kind);
    assert!(
        northbridge.metric(ERRORS, &[&client, &kind]) > 0.0,
        "{kind}"
    );
}

fn is_warning_of(line: &str, mistake: &Mistake) -> bool {
    line.contains("WARN") && line.contains(BEGUN) && line.contains(mistake.reason)
}

fn assert_warned_once(northbridge: &Northbridge, mistake: &Mistake) {
    let log = northbridge.log();
    let begun = log.iter().filter(|line| line.contains(BEGUN)).count();
    let expected = usize::from(mistake.kind != "connect");
    assert_eq!(begun, expected, "{}", log.join("\n"));
}

#[test]
fn every_kind_of_error_is_a_series_at_zero_from_the_first_scrape() {
    let northbridge = Northbridge::start(&["dev"], &[("log.level", "info")]);
    let metrics = northbridge.metrics();
    let series = metrics
        .iter()
        .filter(|(series, _)| series.starts_with(ERRORS));
    let zero: Vec<_> = series
        .filter(|(_, value)| value.abs() < f64::EPSILON)
        .collect();
    assert_eq!(zero.len(), 4 * 7, "{zero:?}");
}

#[test]
fn debug_contexts_of_librdkafka_are_logged_if_they_and_the_level_are_set() {
    let debug = ("kafka.options.debug", "broker,security");
    let server = ("kafka.bootstrap_servers", "127.0.0.1:1");
    let level = ("log.level", "debug");
    let with = Northbridge::start(&["ingress"], &[debug, server, level]);
    with.wait_for_log(|line| line.contains(r#""facility":"CONNECT""#));
    let without = Northbridge::start(&["ingress"], &[server, level]);
    without.wait_for_log(|line| line.contains("Kafka is unreachable"));
    let lines = without.log();
    let connect = lines
        .iter()
        .filter(|line| line.contains(r#""facility":"CONNECT""#));
    assert_eq!(connect.count(), 0);
}

/// Shows a certificate to everybody; the whole of 127.0.0.0/8 leads to it.
fn tls_listener(certificates: &Certificates) -> SocketAddr {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    SocketAddr::from(([127, 0, 0, 1], certificates.show_at(any).port()))
}

/// Serves each connection on a thread of its own, until the tests end.
fn listener(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}
