//! A process without one of its parts ends, so that a supervisor starts another.

use crate::support::http::get;
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

#[test]
fn a_panic_in_a_part_of_the_process_is_logged_and_ends_it_with_70() {
    let rows = [
        ("ingress", "11:1:PANIC", "listener"),
        ("ingress", "12:3:PANIC", "kafka-monitor"),
        ("ingress", "13:1:PANIC", "admin server"),
        ("command-status", "1:1:PANIC", "command-status"),
        ("upgrade-result", "1:1:PANIC", "upgrade-"),
    ];
    for (command, at, part) in rows {
        let mock = Mock::start();
        for topic in [
            "command-state",
            "device-software",
            "upgrade-delta",
            "upgrade-operation",
        ] {
            mock.create_topic(&format!("iot.{topic}"));
        }
        let bootstrap = mock.bootstrap();
        let settings = [
            ("kafka.bootstrap_servers", bootstrap.as_str()),
            ("log.format", "json"),
        ];
        let process = Northbridge::start_with_fail_point(&[command], &settings, at);
        if part == "admin server" {
            let _ = get(process.admin_address(), "/livez");
        }
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
