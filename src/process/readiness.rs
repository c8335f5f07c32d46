//! Readiness: named conditions that must all be met.
//!
//! Each condition is decided by the component that holds it; this file keeps
//! what they decided, for `/readyz` and the metric `ready`.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use prometheus::{IntGauge, IntGaugeVec};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// The conditions of one process, which is ready when all of them are met.
/// Clones share them.
#[derive(Debug, Clone)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<State>>>,
    gauges: IntGaugeVec,
}

/// Knows the reason behind an unmet condition better than its holder.
pub(crate) trait Explanation: std::fmt::Debug + Send + Sync {
    /// Returns the reason as it is now, if there is one.
    fn reason(&self) -> Option<String>;
}

/// Takes the place of what a condition is about while the condition is not met.
pub trait Fallback: std::fmt::Debug + Send + Sync {
    /// Returns what it does instead, if it can at the moment.
    fn instead(&self) -> Option<String>;
}

/// One condition, in the hands of the component that decides it.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    position: usize,
    readiness: Readiness,
}

/// The JSON body of `/readyz`. Displays the unmet conditions and their reasons on one
/// line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    /// In the order in which they were added.
    pub(crate) conditions: Vec<ConditionReport>,
}

/// One condition of a [`Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConditionReport {
    pub(crate) name: Cow<'static, str>,
    pub(crate) met: bool,
    /// When it last changed between met and not met: RFC 3339, UTC.
    pub(crate) since: String,
    pub(crate) why: String,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    met: bool,
    since: DateTime<Utc>,
    why: String,
    /// Replaces `why` while the condition is not met.
    explanation: Option<Arc<dyn Explanation>>,
    fallback: Option<Arc<dyn Fallback>>,
    gauge: IntGauge,
}

impl Readiness {
    /// Registers the metric `ready`; there are no conditions yet.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            conditions: Arc::default(),
            gauges: metrics.gauges(
                "ready",
                "1 if the condition for readiness is met.",
                &["condition"],
            ),
        }
    }

    /// Adds a condition, not met until its holder sets it.
    pub(crate) fn condition(&self, name: &'static str, why: &str) -> Condition {
        let gauge = self.gauges.with_label_values(&[name]);
        let mut conditions = self.lock();
        conditions.push(State {
            name,
            met: false,
            since: Utc::now(),
            why: why.to_owned(),
            explanation: None,
            fallback: None,
            gauge,
        });
        Condition {
            position: conditions.len() - 1,
            readiness: self.clone(),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let conditions: Vec<_> = self.lock().iter().map(State::report).collect();
        Report {
            ready: conditions.iter().all(|condition| condition.met),
            conditions,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ready {
            return f.write_str("ready");
        }
        let unmet = self.conditions.iter().filter(|condition| !condition.met);
        let reasons: Vec<_> = unmet
            .map(|condition| format!("{}: {}", condition.name, condition.why))
            .collect();
        let line = reasons.join("; ").replace(['\r', '\n'], " ");
        write!(f, "not ready: {line}")
    }
}

impl Condition {
    /// Lets `explanation` give the reason for as long as the condition is not
    /// met and it has one.
    pub(crate) fn explained_by(self, explanation: impl Explanation + 'static) -> Self {
        if let Some(state) = self.readiness.lock().get_mut(self.position) {
            state.explanation = Some(Arc::new(explanation));
        }
        self
    }

    /// Lets the condition count as met while `fallback` takes its place.
    pub(crate) fn or(self, fallback: Arc<dyn Fallback>) -> Self {
        if let Some(state) = self.readiness.lock().get_mut(self.position) {
            state.fallback = Some(fallback);
        }
        self
    }

    /// Sets whether the condition is met, and the reason. Returns whether it
    /// changed between met and not met.
    pub(crate) fn set(&self, met: bool, why: &str) -> bool {
        let mut conditions = self.readiness.lock();
        let Some(state) = conditions.get_mut(self.position) else {
            return false;
        };
        let changed = state.met != met;
        if changed {
            state.met = met;
            state.since = Utc::now();
            state.gauge.set(i64::from(met));
        }
        state.explain(why);
        changed
    }

    /// Updates the reason without changing whether the condition is met.
    pub(crate) fn explain(&self, why: &str) {
        let mut conditions = self.readiness.lock();
        if let Some(state) = conditions.get_mut(self.position) {
            state.explain(why);
        }
    }
}

impl State {
    fn explain(&mut self, why: &str) {
        if self.why != why {
            why.clone_into(&mut self.why);
        }
    }

    fn report(&self) -> ConditionReport {
        let why = self.reason().unwrap_or_else(|| self.why.clone());
        let fallback = self.fallback.as_ref().filter(|_| !self.met);
        let instead = fallback.and_then(|fallback| fallback.instead());
        ConditionReport {
            name: self.name.into(),
            met: self.met || instead.is_some(),
            since: self.since.to_rfc3339_opts(SecondsFormat::Millis, true),
            why: instead.map_or_else(|| why.clone(), |instead| format!("{why}; {instead}")),
        }
    }

    fn reason(&self) -> Option<String> {
        let explanation = self.explanation.as_ref().filter(|_| !self.met);
        explanation?.reason()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_only_if_every_condition_is_met() {
        let readiness = Readiness::new(&Metrics::new());
        let kafka = readiness.condition("kafka", "not checked yet");
        let topics = readiness.condition("topics", "not checked yet");
        assert!(kafka.set(true, "every partition has a leader"));
        assert!(!readiness.report().ready);
        assert!(topics.set(true, "all topics meet their requirements"));
        assert!(readiness.report().ready);
        assert!(kafka.set(false, "no broker is reachable"));
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions[0].why, "no broker is reachable");
        assert!(report.conditions[1].met);
    }

    #[derive(Debug)]
    struct WrongPassword;

    impl Explanation for WrongPassword {
        fn reason(&self) -> Option<String> {
            Some("SASL authentication failed".to_owned())
        }
    }

    #[test]
    fn an_explanation_is_the_reason_of_an_unmet_condition_only() {
        let readiness = Readiness::new(&Metrics::new());
        let kafka = readiness.condition("kafka", "no broker is reachable");
        let kafka = kafka.explained_by(WrongPassword);
        let why = || readiness.report().conditions[0].why.clone();
        assert_eq!(why(), "SASL authentication failed");
        kafka.set(true, "every partition has a leader");
        assert_eq!(why(), "every partition has a leader");
    }

    #[test]
    fn since_changes_only_between_met_and_not_met() {
        let readiness = Readiness::new(&Metrics::new());
        let kafka = readiness.condition("kafka", "not checked yet");
        kafka.set(true, "every partition has a leader");
        let since = readiness.report().conditions[0].since.clone();
        assert!(!kafka.set(true, "some partitions have no leader"));
        let report = readiness.report();
        assert_eq!(report.conditions[0].since, since);
        assert_eq!(report.conditions[0].why, "some partitions have no leader");
    }
}
