//! The job of `command-status`, done by Kafka Streams: `benches/kafka_streams`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::child::ChildGuard;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/kafka_streams/pom.xml");
const BUILT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/kafka-streams");

/// A running process; dropping it kills it.
pub(crate) struct KafkaStreams {
    child: ChildGuard,
    _states: TempDir,
}

impl KafkaStreams {
    /// Builds the program and starts it on the topics with this prefix; it has its
    /// partitions when this returns.
    pub(crate) fn start(bootstrap: &str, prefix: &str) -> Self {
        build();
        let states = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut program = Command::new("java");
        program.arg("-cp");
        program.arg(format!("{BUILT}/classes:{BUILT}/lib/*"));
        program.args(["CommandStates", bootstrap, prefix]);
        program.arg(states.path());
        let mut child = ChildGuard::spawn(&program, Stdio::inherit());
        let output = child.take_stdout().expect("its output");
        wait_until_running(output);
        Self {
            child,
            _states: states,
        }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.pid().to_string()
    }
}

fn build() {
    let built = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file", PROJECT])
        .arg(format!("-Doutput={BUILT}"))
        .arg("package")
        .status();
    assert!(built.expect("mvn runs").success(), "mvn cannot build it");
    assert!(Path::new(BUILT).exists());
}

fn wait_until_running(output: BufReader<impl std::io::Read>) {
    let mut lines = output.lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "running"), "it ended");
}
