//! One `northbridge simulate` process: it pushes through the balancer until it is
//! stopped, then verifies what was stored.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::eventually;
use crate::support::northbridge::Northbridge;
use crate::testbed::Testbed;

/// How long flushing the backlog, catch-up and verification may take together.
const VERIFICATION_TIMEOUT: Duration = Duration::from_secs(400);
/// The sender waits this long for an answer, which determines how many pushes can
/// be in flight.
const SENDER_TIMEOUT_S: u32 = 15;
const STREAMS_PER_CONNECTION: u32 = 64;

/// What to push and what to verify.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Its name in the results.
    pub(crate) name: &'static str,
    /// Pushes per second.
    pub(crate) rate: u32,
    /// `none`, `discard` or `retry`.
    pub(crate) policy: &'static str,
    /// HTTP/2 instead of HTTP/1.1.
    pub(crate) http2: bool,
    /// Also verifies the states, and writes the report.
    pub(crate) state: bool,
}

/// A running simulation.
#[derive(Debug)]
pub(crate) struct Simulation {
    load: Load,
    process: Northbridge,
}

/// The result of a simulation.
#[derive(Debug, Clone)]
pub(crate) struct SimulationResult {
    pub(crate) load: Load,
    /// The output of `--json`.
    pub(crate) summary: Value,
    /// The exit code: 1 if the verification found faults.
    pub(crate) code: i32,
}

impl Simulation {
    pub(crate) fn start(testbed: &Testbed, load: Load, seed: u64) -> Self {
        let url = format!("http://{}/notifications", testbed.balancer.address());
        let waiting = load.rate * SENDER_TIMEOUT_S;
        let connections = if load.http2 {
            waiting / STREAMS_PER_CONNECTION + 1
        } else {
            waiting
        };
        let (rate, connections) = (load.rate.to_string(), connections.to_string());
        let (seed, bootstrap) = (seed.to_string(), testbed.cluster.bootstrap());
        let mut arguments = vec!["simulate", &url, "--duration", "24h", "--json"];
        arguments.extend(["--rate", &rate, "--connections", &connections]);
        arguments.extend(["--seed", &seed, "--policy", load.policy]);
        arguments.extend(["--probe-interval", "5s", "--verify", &bootstrap]);
        arguments.extend(["--topics-prefix", &testbed.prefix]);
        if load.http2 {
            arguments.push("--http2");
        }
        let (annotations, report) = (testbed.plan.annotations(), testbed.plan.report());
        if load.state {
            arguments.extend(["--verify-state", "--catch-up", "3m"]);
            arguments.extend(["--annotations", &annotations, "--report", &report]);
        }
        let process = Northbridge::start(&arguments, &[]);
        process.wait_for_log(|line| line.contains("in flight"));
        Self { load, process }
    }

    /// Stops sending new pushes, and waits for answers and verification.
    pub(crate) fn stop(self, testbed: &Testbed) -> SimulationResult {
        self.process.signal(Signal::TERM);
        let deadline = Instant::now() + VERIFICATION_TIMEOUT;
        let code = loop {
            if let Some(code) = self.process.exit_code() {
                break code;
            }
            assert!(
                Instant::now() < deadline,
                "timed out waiting for the simulation {}:\n{}",
                self.load.name,
                self.process.log().join("\n"),
            );
            thread::sleep(Duration::from_millis(100));
        };
        testbed
            .journal
            .keep_log(self.load.name, &self.process.log());
        let summary = eventually("the simulation has printed its result", || {
            serde_json::from_str(&self.process.output().join("\n")).ok()
        });
        SimulationResult {
            load: self.load,
            summary,
            code,
        }
    }
}

impl SimulationResult {
    /// A number of the summary, by its path: `verification.doubled`.
    pub(crate) fn number(&self, path: &str) -> f64 {
        let pointer = format!("/{}", path.replace('.', "/"));
        let found = self.summary.pointer(&pointer).and_then(Value::as_f64);
        found.unwrap_or_default()
    }

    /// The number of answers of each kind except 200.
    pub(crate) fn other_than_200(&self) -> Vec<(String, u64)> {
        let answers = self.summary["answers"].as_object().into_iter().flatten();
        let others = answers.filter(|(answer, _)| *answer != "200");
        others
            .map(|(answer, count)| (answer.clone(), count.as_u64().unwrap_or_default()))
            .collect()
    }

    /// Returns whether everything that was to be verified was verified.
    pub(crate) fn is_verified(&self) -> bool {
        let holds = |part: &str| self.summary[part]["holds"] == true;
        self.code == 0 && holds("verification") && (holds("states") || !self.load.state)
    }
}

impl fmt::Display for SimulationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, HTTP/{}): {} pushes, {} answered 200, others {:?}, longest answer {} ms, \
             missing {}, duplicates {}, blacklisted {}, lost by policy {}",
            self.load.name,
            self.load.policy,
            if self.load.http2 { "2" } else { "1.1" },
            self.number("pushes"),
            self.number("answers.200"),
            self.other_than_200(),
            self.number("longestAnswerMs"),
            self.number("verification.missing"),
            self.number("verification.doubled"),
            self.number("blacklistings"),
            self.number("lostByPolicy"),
        )
    }
}
