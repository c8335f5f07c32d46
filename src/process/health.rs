//! Readiness: named conditions, each with since when and why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::metrics::ReadinessMetrics;

/// The conditions of one process. Ready means that all are met.
#[derive(Debug, Clone)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<State>>>,
    metrics: ReadinessMetrics,
}

/// One condition, held by whoever decides on it.
#[derive(Debug, Clone)]
pub struct Condition {
    position: usize,
    readiness: Readiness,
}

/// What `/readyz` shows.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every condition is met.
    pub ready: bool,
    /// Each condition, in the order in which they were named.
    pub conditions: Vec<ConditionReport>,
}

/// One condition of a [`Report`].
#[derive(Debug, Clone, Serialize)]
pub struct ConditionReport {
    /// Its name, from a closed list.
    pub name: &'static str,
    /// Whether it is met.
    pub met: bool,
    /// Since when, in RFC 3339.
    pub since: String,
    /// Why it is not met, or what it means that it is.
    pub why: String,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    met: bool,
    since: DateTime<Utc>,
    why: String,
}

impl Readiness {
    /// No conditions yet.
    pub fn new(metrics: ReadinessMetrics) -> Self {
        Self {
            conditions: Arc::default(),
            metrics,
        }
    }

    /// Adds a condition that is not met until its holder says so.
    pub fn condition(&self, name: &'static str, why: &str) -> Condition {
        let mut conditions = self.lock();
        conditions.push(State {
            name,
            met: false,
            since: Utc::now(),
            why: why.to_owned(),
        });
        self.metrics.conditions.with_label_values(&[name]).set(0);
        Condition {
            position: conditions.len() - 1,
            readiness: self.clone(),
        }
    }

    /// Every condition as it stands.
    pub fn report(&self) -> Report {
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

impl Condition {
    /// Says whether the condition is met, and why or why not. Whether that is a change.
    pub fn set(&self, met: bool, why: &str) -> bool {
        let mut conditions = self.readiness.lock();
        let Some(state) = conditions.get_mut(self.position) else {
            return false;
        };
        let changed = state.met != met;
        if changed {
            state.met = met;
            state.since = Utc::now();
        }
        if state.why != why {
            why.clone_into(&mut state.why);
        }
        self.readiness
            .metrics
            .conditions
            .with_label_values(&[state.name])
            .set(i64::from(met));
        changed
    }
}

impl Condition {
    /// Changes the reason and leaves the condition as it is.
    pub fn explain(&self, why: &str) {
        let mut conditions = self.readiness.lock();
        if let Some(state) = conditions
            .get_mut(self.position)
            .filter(|state| state.why != why)
        {
            why.clone_into(&mut state.why);
        }
    }
}

impl State {
    fn report(&self) -> ConditionReport {
        ConditionReport {
            name: self.name,
            met: self.met,
            since: self.since.to_rfc3339_opts(SecondsFormat::Millis, true),
            why: self.why.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn ready_means_that_every_condition_is_met() {
        let readiness = Readiness::new(ReadinessMetrics::register(&Metrics::new()));
        let kafka = readiness.condition("kafka", "not asked yet");
        let topics = readiness.condition("topics", "not asked yet");
        assert!(kafka.set(true, "answers"));
        assert!(!readiness.report().ready);
        assert!(topics.set(true, "fit"));
        assert!(readiness.report().ready);
        assert!(kafka.set(false, "no broker answers"));
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions[0].why, "no broker answers");
        assert!(report.conditions[1].met);
    }

    #[test]
    fn since_moves_only_when_the_condition_turns() {
        let readiness = Readiness::new(ReadinessMetrics::register(&Metrics::new()));
        let kafka = readiness.condition("kafka", "not asked yet");
        kafka.set(true, "answers");
        let since = readiness.report().conditions[0].since.clone();
        assert!(!kafka.set(true, "answers again"));
        let report = readiness.report();
        assert_eq!(report.conditions[0].since, since);
        assert_eq!(report.conditions[0].why, "answers again");
    }
}
