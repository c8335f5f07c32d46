//! Compares what a topic is on the cluster with its [`TopicSpec`], and says in
//! words what differs.
//!
//! Pure: [`admin`](super::admin) asks the cluster.

mod settings;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

use super::cluster_size::{ClusterSize, Replication};
use super::failure::Denial;
use crate::topics::{Topic, TopicSpec};

/// The text of a finding about a topic that has just been created.
const CREATED: &str = "created";

/// The result of comparing topics with their specs.
#[derive(Debug, Clone)]
pub struct TopicCheck {
    /// At least one for each topic, as `topics verify` prints them.
    pub findings: Vec<Finding>,
    /// What the cluster reports of each topic that exists.
    pub observed: Vec<(Topic, ObservedTopic)>,
}

/// A difference between a topic and its spec, or the absence of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic's name on the cluster.
    pub topic: String,
    /// What the difference means for the promise that a 200 makes.
    pub severity: Severity,
    /// What is wrong, what is needed, and why or what to do.
    pub text: String,
}

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Ok,
    /// The topic differs from its spec and is safe to use.
    Warning,
    /// The records of some partitions of the topic's input cannot be processed;
    /// those of the others can.
    Partial,
    /// Acknowledged records can be lost, or records cannot be written.
    Problem,
}

/// What the cluster reports of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTopic {
    pub partitions: i32,
    /// The number of replicas of the partition that has the fewest.
    pub replication_factor: i32,
    /// Those that the cluster shows, by name.
    pub(super) settings: BTreeMap<String, String>,
}

/// What is wrong in one respect, if anything is.
type Difference = Option<(Severity, String)>;

impl TopicCheck {
    /// Returns a finding that must be fixed, if there is one.
    pub fn first_problem(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.severity.must_be_fixed())
    }

    /// Returns a finding because of which nothing may be processed, if there is
    /// one.
    pub(crate) fn first_obstacle(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.severity == Severity::Problem)
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings.filter(|it| it.severity == severity).count()
    }
}

impl Severity {
    pub(super) fn must_be_fixed(self) -> bool {
        matches!(self, Self::Partial | Self::Problem)
    }
}

impl Finding {
    /// Returns the topic and the text, as the reason for not being ready.
    pub fn about_topic(&self) -> String {
        format!("{}: {}", self.topic, self.text)
    }

    /// Returns whether it says more than that nothing is wrong.
    pub(crate) fn is_news(&self) -> bool {
        self.severity != Severity::Ok || self.text == CREATED
    }

    pub(super) fn new(spec: &TopicSpec, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            topic: spec.name.clone(),
            severity,
            text: text.into(),
        }
    }

    pub(super) fn created(spec: &TopicSpec) -> Self {
        Self::new(spec, Severity::Ok, CREATED)
    }

    pub(super) fn missing(spec: &TopicSpec) -> Self {
        let text = "does not exist; create it with 'northbridge topics create'";
        Self::new(spec, Severity::Problem, text)
    }

    pub(super) fn failed(
        spec: &TopicSpec,
        cause: RDKafkaErrorCode,
        denial: Option<&Denial>,
    ) -> Self {
        let text = match denial {
            Some(denial) => format!("could not be created: {denial}"),
            None => format!("could not be created: {cause}"),
        };
        Self::new(spec, Severity::Problem, text)
    }

    pub(super) fn not_created(spec: &TopicSpec, size: &ClusterSize) -> Self {
        let text = format!(
            "does not exist, and was not created with fewer replicas than the whole cluster can hold: {size}; start all brokers and try again, or create it with `northbridge topics create --allow-degraded`"
        );
        Self::new(spec, Severity::Problem, text)
    }

    pub(super) fn without_optional(spec: &TopicSpec, cause: RDKafkaErrorCode) -> Self {
        let settings = spec.optional_settings();
        let names: Vec<_> = settings.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        let text = format!("was created without {names}, which the cluster rejected: {cause}");
        Self::new(spec, Severity::Warning, text)
    }

    pub(super) fn hidden(topic: &str, denial: &Denial) -> Self {
        Self {
            topic: topic.to_owned(),
            severity: Severity::Problem,
            text: format!("{denial}, so whether it exists is unknown"),
        }
    }

    pub(super) fn settings_hidden(topic: &str, cause: &dyn fmt::Display) -> Self {
        Self {
            topic: topic.to_owned(),
            severity: Severity::Warning,
            text: format!(
                "the cluster does not show the settings, so they have not been checked: {cause}"
            ),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Partial | Severity::Problem => "problem",
        };
        write!(f, "{severity:<8} {}: {}", self.topic, self.text)
    }
}

impl ObservedTopic {
    /// Returns `min.insync.replicas`, if the cluster shows it.
    pub fn min_insync_replicas(&self) -> Option<i32> {
        self.number("min.insync.replicas")?.try_into().ok()
    }

    fn text(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(String::as_str)
    }

    fn number(&self, setting: &str) -> Option<i64> {
        self.text(setting)?.parse().ok()
    }
}

impl fmt::Display for ObservedTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} partitions, replication factor {}",
            self.partitions, self.replication_factor
        )?;
        for name in settings::SHOWN {
            write!(f, ", {name} {}", self.text(name).unwrap_or("unknown"))?;
        }
        Ok(())
    }
}

/// Returns every difference between topics and their specs, and one
/// [`Severity::Ok`] finding for each topic that has none. `topics` is in the order
/// of the specs, with `None` for a topic that does not exist.
pub(super) fn compare(
    specs: &[TopicSpec],
    topics: &[Option<ObservedTopic>],
    size: &ClusterSize,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (spec, observed) in specs.iter().zip(topics) {
        let Some(observed) = observed else {
            findings.push(Finding::missing(spec));
            continue;
        };
        let mut differences = differences(spec, observed, size);
        differences.extend(state_partitions(spec, observed, specs, topics));
        if differences.is_empty() {
            differences.push((Severity::Ok, observed.to_string()));
        }
        let finding = |(severity, text)| Finding::new(spec, severity, text);
        findings.extend(differences.into_iter().map(finding));
    }
    findings
}

fn differences(
    spec: &TopicSpec,
    observed: &ObservedTopic,
    size: &ClusterSize,
) -> Vec<(Severity, String)> {
    let attainable = Replication::attainable(spec, size.certain);
    let mut differences: Vec<_> = [
        partitions(spec, observed),
        replication_factor(spec, observed, attainable, size),
    ]
    .into_iter()
    .flatten()
    .collect();
    differences.extend(settings::differences(spec, observed, attainable));
    differences
}

fn partitions(spec: &TopicSpec, observed: &ObservedTopic) -> Difference {
    let (have, want) = (observed.partitions, spec.partitions);
    (have != want).then(|| {
        let text = format!(
            "has {have} partitions but topics.partitions is {want}: set topics.partitions to {have}, or add partitions, which moves keys between partitions"
        );
        (Severity::Warning, text)
    })
}

fn replication_factor(
    spec: &TopicSpec,
    observed: &ObservedTopic,
    attainable: Replication,
    size: &ClusterSize,
) -> Difference {
    let (have, need) = (observed.replication_factor, attainable.factor);
    if have < need {
        let text = format!(
            "replication factor is {have}, must be at least {need} ({size}): the loss of one broker could lose acknowledged pushes; raise it with kafka-reassign-partitions"
        );
        return Some((Severity::Problem, text));
    }
    let want = spec.replication_factor;
    (have < want).then(|| {
        let text =
            format!("replication factor is {have} but topics.replication_factor is {want}: {size}");
        (Severity::Warning, text)
    })
}

/// Compares the partitions of a state topic with those of its input.
fn state_partitions(
    spec: &TopicSpec,
    observed: &ObservedTopic,
    specs: &[TopicSpec],
    topics: &[Option<ObservedTopic>],
) -> Difference {
    let input = spec.topic.input()?;
    let mut all = specs.iter().zip(topics);
    let (input, of_input) = all.find(|(spec, _)| spec.topic == input)?;
    let (have, need) = (observed.partitions, of_input.as_ref()?.partitions);
    let name = &input.name;
    let rule = format!(
        "has {have} partitions and its input {name} has {need}: they must be equal, since a state is written to the partition number of its records"
    );
    match have.cmp(&need) {
        Ordering::Equal => None,
        Ordering::Less => {
            let text = format!("{rule}; add partitions to {}", spec.name);
            Some((Severity::Partial, text))
        }
        Ordering::Greater => {
            let text = format!("{rule}; consumers that compute the partition of a key miss states");
            Some((Severity::Warning, text))
        }
    }
}
