//! The outcome of a run, for people as a table and for programs as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::judge::Judgement;
use super::proof;
use super::run::Outcome;
use super::states;

/// Everything that is said at the end.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// What the pushes follow from.
    pub seed: u64,
    /// New pushes.
    pub pushes: u32,
    /// How long the run took.
    pub seconds: f64,
    /// How many answers of each kind; `timeout` and `no-connection` are none.
    pub answers: BTreeMap<String, u64>,
    /// From the intended send time, in milliseconds.
    pub latency_ms: LatencyMs,
    /// The longest that an answer took once its push had gone out.
    pub longest_answer_ms: f64,
    /// What the delivery rules led to.
    #[serde(flatten)]
    pub policy: PolicyCounts,
    /// What the proof came to, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What the comparison of the states came to, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<StatesVerification>,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Half of all answers took no longer.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// Ninety-nine in a hundred.
    pub p99: f64,
    /// 999 in a thousand.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What the delivery rules led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCounts {
    /// How often the host was blacklisted.
    pub blacklistings: u64,
    /// Pushes that the platform gave up.
    pub lost_by_policy: u64,
    /// Pushes after the first of the same message.
    pub retries: u64,
    /// Probes of a blacklisted host.
    pub probes: u64,
    /// What was still waiting at the end.
    pub backlog_at_end: usize,
}

/// What the proof came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whether the promise held.
    pub holds: bool,
    /// Pushes answered 200.
    pub answered200: u64,
    /// Of these, those that are stored as they must be.
    pub stored: u64,
    /// Of these, those that are not.
    pub missing: u64,
    /// Records of pushes in a topic or under a key that is not theirs.
    pub misplaced: u64,
    /// Records beyond one for each push.
    pub doubled: u64,
    /// Records of pushes that were not answered 200.
    pub stored_unanswered: u64,
    /// Records that are of no push of the run.
    pub others: u64,
    /// The first faults.
    pub faults: Vec<String>,
}

/// What the comparison of the states came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatesVerification {
    /// Whether all states are the model's.
    pub holds: bool,
    /// Commands that were compared.
    pub commands: u64,
    /// Devices that were compared.
    pub devices: u64,
    /// Upgrade operations that were compared.
    pub operations: u64,
    /// States that are not the model's.
    pub differing: u64,
    /// What the streams had not done when the time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// The first differences.
    pub faults: Vec<String>,
}

impl Summary {
    /// Sums up a run.
    pub fn new(seed: u64, outcome: &Outcome) -> Self {
        let latency = outcome.tally.latency();
        let answers = outcome.tally.answers().iter();
        Self {
            seed,
            pushes: outcome.pushes,
            seconds: outcome.lasted.as_secs_f64(),
            answers: answers
                .map(|(answer, count)| (answer.to_string(), *count))
                .collect(),
            latency_ms: LatencyMs {
                p50: millis(latency.p50),
                p90: millis(latency.p90),
                p99: millis(latency.p99),
                p999: millis(latency.p999),
                max: millis(latency.max),
            },
            longest_answer_ms: millis(outcome.tally.longest_answer()),
            policy: PolicyCounts {
                blacklistings: outcome.counts.blacklistings,
                lost_by_policy: outcome.counts.lost,
                retries: outcome.counts.retries,
                probes: outcome.counts.probes,
                backlog_at_end: outcome.backlog,
            },
            verification: None,
            states: None,
        }
    }

    /// Adds what the proofs came to.
    #[must_use]
    pub fn with(mut self, judgement: &Judgement) -> Self {
        self.verification = Some(Verification::from(&judgement.stored));
        self.states = judgement.states.as_ref().map(StatesVerification::from);
        self
    }

    /// The outcome as one JSON object.
    ///
    /// # Errors
    ///
    /// Never in practice: numbers and texts always make JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl From<&proof::Verdict> for Verification {
    fn from(verdict: &proof::Verdict) -> Self {
        Self {
            holds: verdict.holds(),
            answered200: verdict.answered,
            stored: verdict.stored,
            missing: verdict.missing,
            misplaced: verdict.misplaced,
            doubled: verdict.doubled,
            stored_unanswered: verdict.unanswered,
            others: verdict.others,
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&states::Verdict> for StatesVerification {
    fn from(verdict: &states::Verdict) -> Self {
        Self {
            holds: verdict.holds(),
            commands: verdict.commands,
            devices: verdict.devices,
            operations: verdict.operations,
            differing: verdict.differing,
            behind: verdict.behind.clone(),
            faults: verdict.faults.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "seed", &self.seed)?;
        row(f, "pushes", &self.pushes)?;
        row(f, "took", &format_args!("{:.1} s", self.seconds))?;
        for (answer, count) in &self.answers {
            let is_code = answer.starts_with(|first: char| first.is_ascii_digit());
            let prefix = if is_code { "answered " } else { "" };
            row(f, &format!("{prefix}{answer}"), count)?;
        }
        let latency = &self.latency_ms;
        for (name, ms) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            row(f, &format!("latency {name}"), &format_args!("{ms:.1} ms"))?;
        }
        let longest = self.longest_answer_ms;
        row(f, "longest answer", &format_args!("{longest:.1} ms"))?;
        row(f, "blacklistings", &self.policy.blacklistings)?;
        row(f, "lost by policy", &self.policy.lost_by_policy)?;
        row(f, "pushed again", &self.policy.retries)?;
        row(f, "left in backlog", &self.policy.backlog_at_end)?;
        if let Some(verification) = &self.verification {
            verification.fmt(f)?;
        }
        if let Some(states) = &self.states {
            states.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        row(f, "answered 200", &self.answered200)?;
        row(f, "of these stored", &self.stored)?;
        row(f, "missing", &self.missing)?;
        row(f, "misplaced", &self.misplaced)?;
        row(f, "doubled", &self.doubled)?;
        row(f, "stored without 200", &self.stored_unanswered)?;
        row(f, "other records", &self.others)?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        if self.holds {
            writeln!(
                f,
                "verified: every push answered 200 is stored as it was sent"
            )
        } else {
            writeln!(
                f,
                "NOT VERIFIED: something answered 200 is not stored as it was sent"
            )
        }
    }
}

impl fmt::Display for StatesVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        row(f, "commands", &self.commands)?;
        row(f, "devices", &self.devices)?;
        row(f, "upgrade operations", &self.operations)?;
        row(f, "differing states", &self.differing)?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        if let Some(behind) = &self.behind {
            writeln!(f, "the streams had not caught up: {behind}")?;
        }
        if self.holds {
            writeln!(f, "verified: the states follow from what is stored")
        } else {
            writeln!(
                f,
                "NOT VERIFIED: a state does not follow from what is stored"
            )
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<20} {:>14}", value.to_string())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
