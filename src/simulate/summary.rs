//! The summary of a run, for people as a table and for programs as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::load::LoadResult;
use super::verify::{StatesVerification, StoredVerification, Verification};

/// A run and its verification; the JSON object of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    /// New pushes; their retries are counted apart.
    pub(crate) pushes: u32,
    /// The duration of the run, without verification.
    pub(crate) seconds: f64,
    /// By status code; `timeout` and `no-connection` count pushes without one.
    pub(crate) answers: BTreeMap<String, u64>,
    /// From the intended send time.
    pub(crate) latency_ms: LatencyMs,
    /// The longest time from the actual send time to a complete response.
    pub(crate) longest_answer_ms: f64,
    #[serde(flatten)]
    pub(crate) policy: PolicySummary,
    /// Absent unless `--verify` was given and completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verification: Option<StoredSummary>,
    /// Absent unless `--verify-state` was given and completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) states: Option<StatesSummary>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct LatencyMs {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// The consequences of the delivery rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicySummary {
    pub(crate) blacklistings: u64,
    pub(crate) lost_by_policy: u64,
    pub(crate) retries: u64,
    pub(crate) probes: u64,
    pub(crate) backlog_at_end: usize,
}

/// [`StoredVerification`] under the names of the JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredSummary {
    pub(crate) holds: bool,
    pub(crate) answered200: u64,
    pub(crate) stored: u64,
    pub(crate) missing: u64,
    pub(crate) misplaced: u64,
    pub(crate) doubled: u64,
    pub(crate) stored_unanswered: u64,
    pub(crate) others: u64,
    pub(crate) faults: Vec<String>,
}

/// [`StatesVerification`] under the names of the JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatesSummary {
    pub(crate) holds: bool,
    pub(crate) commands: u64,
    pub(crate) devices: u64,
    pub(crate) operations: u64,
    pub(crate) differing: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) behind: Option<String>,
    pub(crate) faults: Vec<String>,
}

impl Summary {
    /// Summarizes a run that has not been verified.
    pub(crate) fn new(seed: u64, result: &LoadResult) -> Self {
        let latency = result.statistics.latency();
        let answers = result.statistics.answers().iter();
        Self {
            seed,
            pushes: result.pushes,
            seconds: result.duration.as_secs_f64(),
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
            longest_answer_ms: millis(result.statistics.longest_answer()),
            policy: PolicySummary {
                blacklistings: result.delivery.blacklistings,
                lost_by_policy: result.delivery.lost,
                retries: result.delivery.retries,
                probes: result.delivery.probes,
                backlog_at_end: result.backlog,
            },
            verification: None,
            states: None,
        }
    }

    #[must_use]
    pub(crate) fn with_verification(mut self, verification: &Verification) -> Self {
        self.verification = Some(StoredSummary::from(&verification.stored));
        self.states = verification.states.as_ref().map(StatesSummary::from);
        self
    }

    /// # Errors
    ///
    /// Never in practice: numbers and strings can always be serialized.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl From<&StoredVerification> for StoredSummary {
    fn from(verification: &StoredVerification) -> Self {
        Self {
            holds: verification.holds(),
            answered200: verification.acknowledged,
            stored: verification.stored,
            missing: verification.missing,
            misplaced: verification.misplaced,
            doubled: verification.duplicates,
            stored_unanswered: verification.unacknowledged,
            others: verification.foreign,
            faults: verification
                .faults
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

impl From<&StatesVerification> for StatesSummary {
    fn from(verification: &StatesVerification) -> Self {
        Self {
            holds: verification.holds(),
            commands: verification.commands,
            devices: verification.devices,
            operations: verification.operations,
            differing: verification.differing,
            behind: verification.behind.clone(),
            faults: verification
                .faults
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_row(f, "seed", &self.seed)?;
        write_row(f, "pushes", &self.pushes)?;
        write_row(f, "duration", &format_args!("{:.1} s", self.seconds))?;
        for (answer, count) in &self.answers {
            let is_code = answer.starts_with(|first: char| first.is_ascii_digit());
            let prefix = if is_code { "answered " } else { "" };
            write_row(f, &format!("{prefix}{answer}"), count)?;
        }
        let latency = &self.latency_ms;
        for (name, ms) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            write_row(f, &format!("latency {name}"), &format_args!("{ms:.1} ms"))?;
        }
        let longest = self.longest_answer_ms;
        write_row(f, "longest answer", &format_args!("{longest:.1} ms"))?;
        write_row(f, "blacklistings", &self.policy.blacklistings)?;
        write_row(f, "lost by policy", &self.policy.lost_by_policy)?;
        write_row(f, "retries", &self.policy.retries)?;
        write_row(f, "backlog at end", &self.policy.backlog_at_end)?;
        if let Some(verification) = &self.verification {
            verification.fmt(f)?;
        }
        if let Some(states) = &self.states {
            states.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for StoredSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        write_row(f, "answered 200", &self.answered200)?;
        write_row(f, "stored", &self.stored)?;
        write_row(f, "missing", &self.missing)?;
        write_row(f, "misplaced", &self.misplaced)?;
        write_row(f, "doubled", &self.doubled)?;
        write_row(f, "stored without 200", &self.stored_unanswered)?;
        write_row(f, "other records", &self.others)?;
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
                "NOT VERIFIED: a push answered 200 is not stored as it was sent"
            )
        }
    }
}

impl fmt::Display for StatesSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        write_row(f, "commands", &self.commands)?;
        write_row(f, "devices", &self.devices)?;
        write_row(f, "upgrade operations", &self.operations)?;
        write_row(f, "differing states", &self.differing)?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        if let Some(behind) = &self.behind {
            writeln!(f, "the streams did not catch up: {behind}")?;
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

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<20} {:>14}", value.to_string())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
