//! A process without one of its parts ends, so that a supervisor starts another.

use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

#[test]
fn a_panic_in_any_part_of_the_process_is_logged_and_ends_it_with_70() {
    let mock = Mock::start();
    for topic in [
        "command-state",
        "device-software",
        "upgrade-delta",
        "upgrade-operation",
    ] {
        mock.create_topic(&format!("iot.{topic}"));
    }
    let certificates = Certificates::new();
    let [certificate, key] = [certificates.certificate_file(), certificates.key_file()]
        .map(|file| file.display().to_string());
    let bootstrap = mock.bootstrap();
    let spool = TempDir::new().unwrap();
    let settings = [
        ("spool.directory", spool.path().to_str().unwrap()),
        ("kafka.bootstrap_servers", bootstrap.as_str()),
        ("log.format", "json"),
        ("tls.certificate_file", &certificate),
        ("tls.key_file", &key),
    ];
    let rows = [
        ("ingress", "listener"),
        ("ingress", "kafka-monitor"),
        ("ingress", "admin server"),
        ("ingress", "status page"),
        ("ingress", "reload of TLS files"),
        ("ingress", "reload of settings"),
        ("ingress", "spool"),
        ("ingress", "delivery from the spool"),
        ("command-status", "command-status"),
        ("command-status", "topic-watch"),
        ("upgrade-result", "upgrade-result"),
        ("upgrade-result", "upgrade-operation"),
    ];
    for (command, part) in rows {
        let at = format!("panic:{part}");
        let process = Northbridge::start_with_fail_point(&[command], &settings, &at);
        assert_eq!(process.wait(), 70, "{part}");
        let log = process.log();
        let has = |message: &str| {
            log.iter()
                .any(|line| line.contains(message) && line.contains(r#""level":"ERROR""#))
        };
        assert!(has("panic, which is a bug"), "{log:?}");
        assert!(has(&format!(r#""part":"{part}"#)), "{log:?}");
    }
}
