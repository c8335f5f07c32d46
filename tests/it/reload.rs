//! Settings that change while a process runs, by SIGHUP or because their files
//! change.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::protected_listener::{PATH, push};
use crate::support::eventually;
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

#[test]
fn a_secret_in_a_file_is_rotated_without_a_restart() {
    let (mock, files) = (Mock::start(), Files::new());
    let token = files.write("token", "old");
    let northbridge = mock.ready_ingress(&[
        ("auth.token_file", token.to_str().unwrap()),
        ("tls.reload_interval_ms", "100"),
    ]);
    assert_eq!(status(&northbridge, "old"), 200);
    files.write("token", "old\nnew");
    wait_for_status(&northbridge, "new", 200);
    assert_eq!(status(&northbridge, "old"), 200);
    files.write("token", "new");
    wait_for_status(&northbridge, "old", 401);
    assert_eq!(status(&northbridge, "new"), 200);
    let reloaded = northbridge.wait_for_message("settings reloaded");
    assert_eq!(reloaded["keys"], "auth.token");

    // An empty secret would protect nothing, and none would open the listener.
    files.write("token", "");
    northbridge.wait_for_log(|line| {
        line.contains("keeping the previous ones") && line.contains("auth.token")
    });
    assert_eq!(status(&northbridge, ""), 401);
    assert_eq!(status(&northbridge, "new"), 200);
}

#[test]
fn a_reload_does_not_remove_the_last_protection() {
    let (mock, files) = (Mock::start(), Files::new());
    let config = files.write("config.toml", "[auth]\ntoken = \"s3cret\"\n");
    let northbridge = with_config(&mock, &config);
    northbridge.wait_until_ready();
    assert_eq!(status(&northbridge, "s3cret"), 200);
    files.write("config.toml", "");
    northbridge.signal(Signal::HUP);
    northbridge.wait_for_log(|line| line.contains("a restart is needed for that"));
    assert_eq!(status(&northbridge, ""), 401);
}

#[test]
fn sighup_changes_the_log_level_and_names_what_needs_a_restart() {
    let (mock, files) = (Mock::start(), Files::new());
    let config = files.write("config.toml", "[log]\nlevel = \"info\"\n");
    for command in ["ingress", "command-status"] {
        files.write("config.toml", "[log]\nlevel = \"info\"\n");
        let process = start(&mock, &config, command);
        let _listening = process.admin_address();
        process.signal(Signal::HUP);
        process.wait_for_message("settings reloaded");
        files.write(
            "config.toml",
            "[log]\nlevel = \"debug\"\n[topics]\npartitions = 7\n",
        );
        process.signal(Signal::HUP);
        process
            .wait_for_log(|line| line.contains("settings reloaded") && line.contains("log.level"));
        process.wait_for_log(|line| {
            line.contains("only after a restart") && line.contains("topics.partitions")
        });
        if command == "ingress" {
            process.wait_until_ready();
            push(process.address(), PATH, &[]);
            process.wait_for_message("push stored");
        }
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0, "{command}");
    }
}

/// The files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn with_config(mock: &Mock, config: &std::path::Path) -> Northbridge {
    start(mock, config, "ingress")
}

fn start(mock: &Mock, config: &std::path::Path, command: &str) -> Northbridge {
    let bootstrap = mock.bootstrap();
    Northbridge::start(
        &[command, "--config", config.to_str().unwrap()],
        &[
            ("kafka.bootstrap_servers", &bootstrap),
            ("tls.reload_interval_ms", "60000"),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ],
    )
}

fn status(northbridge: &Northbridge, token: &str) -> u16 {
    let path = format!("{PATH}?token={token}");
    push(northbridge.address(), &path, &[]).status
}

fn wait_for_status(northbridge: &Northbridge, token: &str, expected: u16) {
    eventually(&format!("{token} is answered {expected}"), || {
        (status(northbridge, token) == expected).then_some(())
    });
}
