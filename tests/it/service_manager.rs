//! What systemd is told, by the protocol of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::TIMEOUT;
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

#[test]
fn a_start_without_kafka_ends_with_ready_and_the_status_says_why_it_is_not() {
    for command in ["ingress", "command-status", "upgrade-result"] {
        let manager = Manager::listen();
        let unreachable = [("kafka.bootstrap_servers", "127.0.0.1:1")];
        let process = manager.start(&[command], &unreachable);
        manager.wait_for("READY=1");
        assert!(!process.is_ready());
        manager.wait_for("STATUS=not ready: ");
        manager.wait_for("WATCHDOG=1");
    }
}

#[test]
fn a_reload_and_a_drain_are_announced() {
    let (mock, manager) = (Mock::start(), Manager::listen());
    let servers = mock.bootstrap();
    let settings = [
        ("kafka.bootstrap_servers", servers.as_str()),
        ("shutdown.announce_ms", "0"),
        ("shutdown.deadline_ms", "40000"),
    ];
    let ingress = manager.start(&["ingress"], &settings);
    manager.wait_for("STATUS=ready");
    ingress.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    ingress.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1");
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=45000000"),
        "{stopping}"
    );
    assert_eq!(ingress.wait(), 0);
}

/// The side of the protocol that is systemd's.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn listen() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self { socket, directory }
    }

    fn start(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Northbridge {
        Northbridge::start_notifying(&self.directory.path().join("notify"), arguments, settings)
    }

    /// Returns the next notification that begins with `text`; drops those before it.
    fn wait_for(&self, text: &str) -> String {
        let mut buffer = [0; 4096];
        let end = std::time::Instant::now() + TIMEOUT;
        while std::time::Instant::now() < end {
            // The watchdog is fed every second, so a silence is a failure.
            let length = self.socket.recv(&mut buffer).unwrap();
            let notification = String::from_utf8_lossy(&buffer[..length]);
            if notification.starts_with(text) {
                return notification.into_owned();
            }
        }
        panic!("no notification {text:?}");
    }
}
