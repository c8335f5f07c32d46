//! The topics that a stage needs: waiting for them, and noticing that they
//! change while it runs.
//!
//! A client sees no topic id, so a topic that was deleted and made again is
//! recognized by what it no longer has: partitions, or records at its end. An
//! unclean election that lost records looks the same, and is cured the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;

use super::StageContext;
use crate::kafka;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::{Failures, RequestError};
use crate::kafka::topic_check::{Finding, Severity, TopicCheck};
use crate::process::readiness::Condition;
use crate::streams::stop::Stop;
use crate::streams::stream::Stream;
use crate::topics::{Topic, TopicSpec};

/// The pause between two checks of the topics before the start.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait for the answer to a check. A cluster that does not show the
/// settings of its topics may never answer, and the group waits meanwhile.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two checks of the topics of a running stage.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How often the watch looks whether the process stops.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// The pause before lost records are believed.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(1);

/// The topics that a stage needs.
pub(super) struct StageTopics {
    stream: &'static str,
    specs: Vec<TopicSpec>,
    configured_servers: String,
    admin: TopicAdmin,
    runtime: Handle,
    condition: Condition,
    /// What has been logged, so that no warning is logged twice.
    warnings: Mutex<BTreeSet<String>>,
}

impl StageTopics {
    pub(super) fn of<S: Stream>(
        context: &StageContext<'_>,
        specs: &[TopicSpec],
        failures: &Failures,
    ) -> anyhow::Result<Self> {
        let spec = |topic: Topic| specs[topic.index()].clone();
        let topics = [S::INPUT, S::STATE, Topic::DeadLetter];
        let readiness = &context.admin.readiness;
        Ok(Self {
            stream: S::NAME,
            specs: topics.into_iter().chain(S::FORWARD).map(spec).collect(),
            configured_servers: context.settings.kafka.bootstrap_servers.clone(),
            admin: TopicAdmin::new(context.settings, failures)
                .context(kafka::CANNOT_CREATE_CLIENT)?,
            runtime: Handle::current(),
            condition: readiness
                .condition(S::TOPICS_CONDITION, "not checked yet")
                .explained_by(failures.clone()),
            warnings: Mutex::default(),
        })
    }

    /// Logs each warning the first time that a check finds it.
    fn log_warnings(&self, check: &TopicCheck) {
        let mut logged = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let findings = check.findings.iter();
        for finding in findings.filter(|finding| finding.severity == Severity::Warning) {
            if logged.insert(finding.to_string()) {
                tracing::warn!(
                    stream = self.stream,
                    topic = finding.topic,
                    finding = finding.text,
                    "a topic differs from its configuration"
                );
            }
        }
    }

    /// Blocks until all topics exist and the stage can process its input, or all
    /// of it but the partitions that its worker sets aside. Returns false if the
    /// process stops first.
    pub(super) fn await_ready(&self, stop: &Stop) -> bool {
        let mut logged = String::new();
        while !stop.is_set() {
            let Some(obstacle) = self.obstacle() else {
                return true;
            };
            self.condition.explain(&obstacle);
            if obstacle != logged {
                tracing::warn!(
                    stream = self.stream,
                    problem = obstacle,
                    "topics not ready; waiting"
                );
                logged = obstacle;
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
        false
    }

    /// Returns why the stage cannot start, if it cannot.
    fn obstacle(&self) -> Option<String> {
        match self.check() {
            Ok(check) => {
                let obstacle = check.first_obstacle().map(Finding::about_topic);
                if obstacle.is_none() {
                    self.show(&check);
                }
                obstacle
            }
            Err(RequestError::Failure(failure)) => Some(failure.to_string()),
            Err(RequestError::Kafka(error)) => Some(format!("Kafka is unreachable: {error}")),
        }
    }

    /// Returns the configured servers and those that the brokers advertise now, for
    /// clients that take the place of others: all brokers may have moved since
    /// `kafka.bootstrap_servers` was written. `None` if no broker answers.
    pub(super) fn current_servers(&self) -> Option<String> {
        let topic = self.specs.first().map_or("", |spec| &spec.name);
        let advertised = self.admin.advertised_servers(topic, CHECK_TIMEOUT).ok()?;
        Some(format!("{},{advertised}", self.configured_servers))
    }

    /// Watches the topics until the process stops: explains what is wrong with
    /// them, and lets the stage start again if one of them was made again.
    pub(super) fn watch(&self, stop: &Stop) {
        let mut ends = BTreeMap::new();
        let mut next = Instant::now();
        while !stop.is_process_stopping() {
            if Instant::now() >= next {
                self.explain();
                if let Some(topic) = self.made_again(&mut ends) {
                    tracing::warn!(
                        stream = self.stream,
                        error = format!("{topic} was made again, or lost records"),
                        "stream starts again, from its committed offsets and the states in its topic"
                    );
                    stop.start_again();
                }
                next = Instant::now() + WATCH_INTERVAL;
            }
            std::thread::sleep(WATCH_PAUSE);
        }
    }

    /// Shows what a check finds after the start. What is missing or cannot be
    /// asked now says nothing about the topics.
    fn explain(&self) {
        if let Ok(check) = self.check() {
            self.show(&check);
        }
    }

    /// Logs the warnings of a check, and sets the condition to its problem if it
    /// has one.
    fn show(&self, check: &TopicCheck) {
        self.log_warnings(check);
        let Some(problem) = check.first_problem().map(Finding::about_topic) else {
            self.condition
                .set(true, "all topics meet their requirements");
            return;
        };
        if self.condition.set(false, &problem) {
            tracing::warn!(
                stream = self.stream,
                problem,
                "a topic no longer meets its requirements; stream goes on as far as it can"
            );
        }
    }

    /// Returns a topic that no longer has what it had at the last call, which
    /// `ends` holds. Its records or partitions are gone, so neither the states in
    /// memory nor what librdkafka caches of it is right any more.
    fn made_again(&self, ends: &mut BTreeMap<String, Vec<i64>>) -> Option<String> {
        let mut changed = None;
        for spec in &self.specs {
            // A missing topic is compared when it is there again.
            let Some(now) = self.confirmed_ends(&spec.name, ends.get(&spec.name)) else {
                continue;
            };
            if ends
                .get(&spec.name)
                .is_some_and(|before| is_behind(&now, before))
            {
                changed = Some(spec.name.clone());
            }
            ends.insert(spec.name.clone(), now);
        }
        changed
    }

    /// Returns the end offset of each partition of a topic, if all are known. Asks
    /// twice before it returns any that is behind `before`: a broker that was
    /// frozen answers with what it knew.
    fn confirmed_ends(&self, topic: &str, before: Option<&Vec<i64>>) -> Option<Vec<i64>> {
        let ends = || self.admin.end_offsets(topic, CHECK_TIMEOUT).ok().flatten();
        let now = ends()?;
        if before.is_none_or(|before| !is_behind(&now, before)) {
            return Some(now);
        }
        std::thread::sleep(CONFIRMATION_PAUSE);
        ends()
    }

    fn check(&self) -> Result<TopicCheck, RequestError> {
        let check = self.admin.check(&self.specs, CHECK_TIMEOUT);
        self.runtime.block_on(check)
    }
}

/// Returns whether a partition is missing or ends earlier than before.
fn is_behind(now: &[i64], before: &[i64]) -> bool {
    now.len() < before.len() || now.iter().zip(before).any(|(now, before)| now < before)
}
