//! One `northbridge simulate` through the balancer: it pushes until it is told
//! to stop, then proves what was stored.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::scene::Scene;
use crate::support::eventually;
use crate::support::northbridge::Northbridge;

/// How long the rest of a backlog, the catch-up and the proof may take.
const PROOF_WITHIN: Duration = Duration::from_secs(400);
/// A push waits for an answer for so long, so that many are under way at once.
const SENDER_PATIENCE_S: u32 = 15;
const STREAMS_PER_CONNECTION: u32 = 64;

/// What to push, and what to prove.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// What it is called in the outcome.
    pub(crate) name: &'static str,
    /// Pushes a second.
    pub(crate) rate: u32,
    /// `none`, `discard` or `retry`.
    pub(crate) policy: &'static str,
    /// HTTP/2 instead of 1.1.
    pub(crate) http2: bool,
    /// Whether the streams' output is compared with the model as well, and a
    /// page is made of the run.
    pub(crate) state: bool,
}

/// A simulation under way.
#[derive(Debug)]
pub(crate) struct Pushes {
    load: Load,
    process: Northbridge,
}

/// What a simulation came to.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// What it was.
    pub(crate) load: Load,
    /// As `--json` says it.
    pub(crate) summary: Value,
    /// Its exit code: 1 where something is not as it must be.
    pub(crate) code: i32,
}

impl Pushes {
    /// Starts to push.
    pub(crate) fn start(scene: &Scene, load: Load, seed: u64) -> Self {
        let url = format!("http://{}/notifications", scene.balancer.address());
        let waiting = load.rate * SENDER_PATIENCE_S;
        let connections = if load.http2 {
            waiting / STREAMS_PER_CONNECTION + 1
        } else {
            waiting
        };
        let (rate, connections) = (load.rate.to_string(), connections.to_string());
        let (seed, bootstrap) = (seed.to_string(), scene.cluster.bootstrap());
        let mut arguments = vec!["simulate", &url, "--duration", "24h", "--json"];
        arguments.extend(["--rate", &rate, "--connections", &connections]);
        arguments.extend(["--seed", &seed, "--policy", load.policy]);
        arguments.extend(["--probe-interval", "5s", "--verify", &bootstrap]);
        arguments.extend(["--topics-prefix", &scene.prefix]);
        if load.http2 {
            arguments.push("--http2");
        }
        let (marks, report) = (scene.plan.marks(), scene.plan.report());
        if load.state {
            arguments.extend(["--verify-state", "--catch-up", "3m"]);
            arguments.extend(["--marks", &marks, "--report", &report]);
        }
        let settings = [("streams.group_prefix", scene.prefix.as_str())];
        let process = Northbridge::start(&arguments, &settings);
        process.wait_for_log(|line| line.contains("in flight"));
        Self { load, process }
    }

    /// Pushes nothing new, waits for the answers and the proof.
    pub(crate) fn stop(self, scene: &Scene) -> Outcome {
        self.process.signal(Signal::TERM);
        let give_up = Instant::now() + PROOF_WITHIN;
        let code = loop {
            if let Some(code) = self.process.exit_code() {
                break code;
            }
            assert!(
                Instant::now() < give_up,
                "the simulation {} does not end:\n{}",
                self.load.name,
                self.process.log().join("\n"),
            );
            thread::sleep(Duration::from_millis(100));
        };
        scene.journal.keep_log(self.load.name, &self.process.log());
        let summary = eventually("the outcome of the simulation", || {
            serde_json::from_str(&self.process.output().join("\n")).ok()
        });
        Outcome {
            load: self.load,
            summary,
            code,
        }
    }
}

impl Outcome {
    /// A number of the summary, by its path: `verification.doubled`.
    pub(crate) fn number(&self, path: &str) -> f64 {
        let pointer = format!("/{}", path.replace('.', "/"));
        let found = self.summary.pointer(&pointer).and_then(Value::as_f64);
        found.unwrap_or_default()
    }

    /// How many answers of each kind, 200 apart.
    pub(crate) fn other_than_200(&self) -> Vec<(String, u64)> {
        let answers = self.summary["answers"].as_object().into_iter().flatten();
        let others = answers.filter(|(answer, _)| *answer != "200");
        others
            .map(|(answer, count)| (answer.clone(), count.as_u64().unwrap_or_default()))
            .collect()
    }

    /// Whether everything that was asked to be proved was.
    pub(crate) fn is_proved(&self) -> bool {
        let holds = |proof: &str| self.summary[proof]["holds"] == true;
        self.code == 0 && holds("verification") && (holds("states") || !self.load.state)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, HTTP/{}): {} pushes, {} answered 200, others {:?}, longest answer {} ms, \
             missing {}, doubled {}, blacklisted {}, lost by policy {}",
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
