//! What the topics on a cluster are, compared with what they must be; and the
//! creation of those that are missing. Never deletes, never shrinks.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::{Quiet, client_config, with_options};
use crate::config::Settings;
use crate::topics::{Plan, Topic};

/// How long one question to the cluster may take, where a person waits for the answer.
pub const ASK: Duration = Duration::from_secs(10);

/// Asks and tells a cluster about topics.
pub struct Admin {
    client: AdminClient<Quiet>,
}

/// One thing that is to be said about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic's name on the cluster.
    pub topic: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is, what should be, and what to do.
    pub text: String,
}

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be, or made so now.
    Fine,
    /// Works, and is worth knowing.
    Warning,
    /// The promise does not hold on such a topic.
    Problem,
}

/// What a topic is on the cluster; `None` where the cluster did not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Partitions.
    pub partitions: i32,
    /// The fewest replicas that any partition has.
    pub replication_factor: i32,
    /// `cleanup.policy`.
    pub cleanup: Option<String>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: Option<i32>,
    /// `max.message.bytes`.
    pub max_message_bytes: Option<u64>,
}

/// The findings about some topics, and what the cluster told of each.
#[derive(Debug, Clone)]
pub struct Survey {
    /// One line each.
    pub findings: Vec<Finding>,
    /// By topic; those that are missing are not there.
    pub observed: Vec<(Topic, Observed)>,
}

impl Finding {
    fn new(plan: &Plan, severity: Severity, text: String) -> Self {
        Self {
            topic: plan.name.clone(),
            severity,
            text,
        }
    }

    fn not_shown(topic: &str, why: &dyn fmt::Display) -> Self {
        Self {
            topic: topic.to_owned(),
            severity: Severity::Warning,
            text: format!(
                "the cluster does not show the settings, which must be right without being compared: {why}"
            ),
        }
    }
}

impl Observed {
    fn take(&mut self, settings: &ConfigResource) {
        let number = |name| setting(settings, name).and_then(|value| value.parse().ok());
        self.cleanup = setting(settings, "cleanup.policy");
        self.min_insync_replicas =
            number("min.insync.replicas").and_then(|value| i32::try_from(value).ok());
        self.max_message_bytes = number("max.message.bytes");
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Fine => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        };
        write!(f, "{severity:<8} {}: {}", self.topic, self.text)
    }
}

impl Survey {
    /// The first problem, if there is one.
    pub fn problem(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.severity == Severity::Problem)
    }
}

impl Admin {
    /// An administration client under these settings.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let mut config = client_config(settings);
        with_options(&mut config, settings);
        Ok(Self {
            client: config.create_with_context(Quiet)?,
        })
    }

    /// Compares topics with their plans; no question takes longer than `ask`.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer. A missing topic is a finding, and so
    /// are settings that the cluster does not show to this client.
    pub async fn survey(&self, plans: &[Plan], ask: Duration) -> Result<Survey, KafkaError> {
        let (brokers, mut metadata) = self.metadata(plans, ask)?;
        let mut findings = self.describe(plans, &mut metadata, ask).await;
        let mut present = Vec::new();
        for (plan, observed) in plans.iter().zip(metadata) {
            if let Some(observed) = observed {
                findings.extend(compare(plan, &observed, brokers));
                present.push((plan.topic, observed));
            } else {
                let text = "does not exist: create it with 'northbridge topics create'".to_owned();
                findings.push(Finding::new(plan, Severity::Problem, text));
            }
        }
        Ok(Survey {
            findings,
            observed: present,
        })
    }

    /// Creates the topics that are missing, then compares all of them.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer.
    pub async fn create(&self, plans: &[Plan]) -> Result<Survey, KafkaError> {
        let (brokers, metadata) = self.metadata(plans, ASK)?;
        let missing = plans
            .iter()
            .zip(&metadata)
            .filter(|(_, observed)| observed.is_none());
        let mut created = Vec::new();
        let mut refused = Vec::new();
        for (plan, _) in missing {
            match self.create_one(plan, brokers).await? {
                Ok(()) => created.push(Finding::new(plan, Severity::Fine, "created".to_owned())),
                Err(code) => {
                    let text = format!("could not be created: {code}");
                    refused.push(Finding::new(plan, Severity::Problem, text));
                }
            }
        }
        let mut survey = self.survey_when_known(plans, &created).await?;
        survey.findings.retain(|finding| {
            let of = |others: &[Finding]| others.iter().any(|other| other.topic == finding.topic);
            let said = of(&refused) || (finding.severity == Severity::Fine && of(&created));
            !said
        });
        survey
            .findings
            .splice(0..0, created.into_iter().chain(refused));
        Ok(survey)
    }

    /// Compares as soon as every broker that is asked knows the topics that
    /// were just created: brokers learn of them one after the other.
    async fn survey_when_known(
        &self,
        plans: &[Plan],
        created: &[Finding],
    ) -> Result<Survey, KafkaError> {
        let give_up_at = Instant::now() + ASK;
        loop {
            let survey = self.survey(plans, ASK).await?;
            let unknown = |new: &Finding| {
                let plan = plans.iter().find(|plan| plan.name == new.topic);
                let known =
                    |(topic, _): &(Topic, Observed)| plan.is_some_and(|plan| plan.topic == *topic);
                !survey.observed.iter().any(known)
            };
            if !created.iter().any(unknown) || Instant::now() >= give_up_at {
                return Ok(survey);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn metadata(
        &self,
        plans: &[Plan],
        ask: Duration,
    ) -> Result<(i32, Vec<Option<Observed>>), KafkaError> {
        let mut brokers = 0;
        let mut topics = Vec::new();
        for plan in plans {
            let metadata = self.client.inner().fetch_metadata(Some(&plan.name), ask)?;
            brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
            topics.push(metadata.topics().first().and_then(existing));
        }
        Ok((brokers, topics))
    }

    /// Asks for the settings of all topics at once, and writes them down. What
    /// the cluster does not show is a warning: a broker may not know the
    /// question, and a client may have no right to ask it.
    async fn describe(
        &self,
        plans: &[Plan],
        metadata: &mut [Option<Observed>],
        ask: Duration,
    ) -> Vec<Finding> {
        let present: Vec<_> = plans
            .iter()
            .zip(metadata)
            .filter_map(|(plan, observed)| observed.as_mut().map(|observed| (plan, observed)))
            .collect();
        let resources: Vec<_> = present
            .iter()
            .map(|(plan, _)| ResourceSpecifier::Topic(&plan.name))
            .collect();
        if resources.is_empty() {
            return Vec::new();
        }
        let options = AdminOptions::new().request_timeout(Some(ask));
        let described = match self.client.describe_configs(&resources, &options).await {
            Ok(described) => described,
            Err(why) => return vec![Finding::not_shown("all topics", &why)],
        };
        // librdkafka gives the answers in the order of the questions.
        let mut findings = Vec::new();
        for ((plan, observed), described) in present.into_iter().zip(described) {
            match described {
                Ok(resource) => observed.take(&resource),
                Err(code) => findings.push(Finding::not_shown(&plan.name, &code)),
            }
        }
        findings
    }

    async fn create_one(
        &self,
        plan: &Plan,
        brokers: i32,
    ) -> Result<Result<(), RDKafkaErrorCode>, KafkaError> {
        let target = Target::on(plan, brokers);
        let min_insync_replicas = target.min_insync_replicas.to_string();
        let max_message_bytes = plan.max_message_bytes.to_string();
        let retention_ms = plan
            .retention_hours
            .map(|hours| (hours * 3_600_000).to_string());
        let replication = TopicReplication::Fixed(target.replication_factor);
        let mut topic = NewTopic::new(&plan.name, plan.partitions, replication)
            .set("cleanup.policy", plan.cleanup.as_str())
            .set("min.insync.replicas", &min_insync_replicas)
            .set("max.message.bytes", &max_message_bytes);
        if let Some(retention_ms) = &retention_ms {
            topic = topic.set("retention.ms", retention_ms);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(ASK))
            .operation_timeout(Some(ASK));
        let results = self.client.create_topics([&topic], &options).await?;
        Ok(match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(code),
            Some(Err(_) | Ok(_)) | None => Ok(()),
        })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// What a plan can be on a cluster of so many brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    replication_factor: i32,
    min_insync_replicas: i32,
}

impl Target {
    fn on(plan: &Plan, brokers: i32) -> Self {
        let replication_factor = plan.replication_factor.min(brokers.max(1));
        let min_insync_replicas = if replication_factor == plan.replication_factor {
            plan.min_insync_replicas
        } else {
            // One broker may still go without stopping all.
            plan.min_insync_replicas
                .min((replication_factor - 1).max(1))
        };
        Self {
            replication_factor,
            min_insync_replicas,
        }
    }
}

fn existing(topic: &MetadataTopic) -> Option<Observed> {
    if topic.error().is_some() || topic.partitions().is_empty() {
        return None;
    }
    let replicas = topic
        .partitions()
        .iter()
        .map(|partition| partition.replicas().len());
    Some(Observed {
        partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
        replication_factor: i32::try_from(replicas.min().unwrap_or(0)).unwrap_or(i32::MAX),
        ..Observed::default()
    })
}

fn setting(resource: &ConfigResource, name: &str) -> Option<String> {
    resource.get(name).and_then(|entry| entry.value.clone())
}

/// All that is to be said about a topic; one [`Severity::Fine`] line if nothing is wrong.
fn compare(plan: &Plan, observed: &Observed, brokers: i32) -> Vec<Finding> {
    let target = Target::on(plan, brokers);
    let mut findings = Vec::new();
    let mut say = |severity, text| findings.push(Finding::new(plan, severity, text));

    if observed.partitions != plan.partitions {
        let text = format!(
            "has {} partitions where {} are configured: set topics.partitions to what is there, or add partitions knowing that keys move",
            observed.partitions, plan.partitions,
        );
        say(Severity::Warning, text);
    }
    if observed.replication_factor < target.replication_factor {
        let text = format!(
            "has {} replicas where {} are needed: one broker's end would lose acknowledged pushes; raise it with kafka-reassign-partitions",
            observed.replication_factor, target.replication_factor,
        );
        say(Severity::Problem, text);
    } else if observed.replication_factor < plan.replication_factor {
        let text = format!(
            "has {} replicas where {} are configured, because the cluster has {brokers} brokers",
            observed.replication_factor, plan.replication_factor,
        );
        say(Severity::Warning, text);
    }
    if let Some(min) = observed.min_insync_replicas {
        if min < target.min_insync_replicas {
            let text = format!(
                "min.insync.replicas is {min}, at least {} is needed: an acknowledged push could be on one broker alone",
                target.min_insync_replicas,
            );
            say(Severity::Problem, text);
        } else if min > observed.replication_factor {
            let text = format!(
                "min.insync.replicas is {min} with {} replicas: nothing can be written",
                observed.replication_factor,
            );
            say(Severity::Problem, text);
        }
    }
    if let Some(cleanup) = observed
        .cleanup
        .as_deref()
        .filter(|have| !plan.cleanup.matches(have))
    {
        let text = format!(
            "cleanup.policy is {cleanup}, {} is needed: records would go or stay that must not",
            plan.cleanup.as_str(),
        );
        say(Severity::Problem, text);
    }
    if let Some(max) = observed
        .max_message_bytes
        .filter(|max| *max < plan.max_message_bytes)
    {
        let text = format!(
            "max.message.bytes is {max}, at least {} is needed for a body of http.max_body_bytes with its key and headers",
            plan.max_message_bytes,
        );
        say(Severity::Problem, text);
    }
    if findings.is_empty() {
        findings.push(Finding::new(plan, Severity::Fine, describe(observed)));
    }
    findings
}

fn describe(observed: &Observed) -> String {
    format!(
        "{} partitions, {} replicas, min.insync.replicas {}, cleanup.policy {}, max.message.bytes {}",
        observed.partitions,
        observed.replication_factor,
        known(observed.min_insync_replicas.as_ref()),
        known(observed.cleanup.as_ref()),
        known(observed.max_message_bytes.as_ref()),
    )
}

fn known(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::Cleanup;

    fn plan() -> Plan {
        Plan {
            topic: Topic::CommandStatus,
            name: "iot.command-status".to_owned(),
            partitions: 6,
            replication_factor: 3,
            min_insync_replicas: 2,
            cleanup: Cleanup::Delete,
            retention_hours: Some(168),
            max_message_bytes: 1_056_768,
        }
    }

    fn observed() -> Observed {
        Observed {
            partitions: 6,
            replication_factor: 3,
            cleanup: Some("delete".to_owned()),
            min_insync_replicas: Some(2),
            max_message_bytes: Some(1_056_768),
        }
    }

    #[test]
    fn each_deviation_is_one_finding_of_its_severity() {
        let cases = [
            (observed(), 3, Severity::Fine, "6 partitions, 3 replicas"),
            // While one of three brokers is away.
            (observed(), 2, Severity::Fine, "6 partitions, 3 replicas"),
            (
                Observed {
                    partitions: 3,
                    ..observed()
                },
                3,
                Severity::Warning,
                "has 3 partitions",
            ),
            (
                Observed {
                    partitions: 12,
                    ..observed()
                },
                3,
                Severity::Warning,
                "has 12 partitions",
            ),
            (
                Observed {
                    replication_factor: 1,
                    min_insync_replicas: Some(2),
                    ..observed()
                },
                3,
                Severity::Problem,
                "has 1 replicas",
            ),
            (
                Observed {
                    min_insync_replicas: Some(1),
                    ..observed()
                },
                3,
                Severity::Problem,
                "min.insync.replicas is 1",
            ),
            (
                Observed {
                    min_insync_replicas: Some(4),
                    ..observed()
                },
                3,
                Severity::Problem,
                "nothing can be written",
            ),
            (
                Observed {
                    cleanup: Some("compact".to_owned()),
                    ..observed()
                },
                3,
                Severity::Problem,
                "cleanup.policy is compact",
            ),
            (
                Observed {
                    max_message_bytes: Some(1_048_588),
                    ..observed()
                },
                3,
                Severity::Problem,
                "max.message.bytes is 1048588",
            ),
            (
                Observed {
                    replication_factor: 1,
                    min_insync_replicas: Some(1),
                    ..observed()
                },
                1,
                Severity::Warning,
                "the cluster has 1 brokers",
            ),
        ];
        for (observed, brokers, severity, text) in cases {
            let findings = compare(&plan(), &observed, brokers);
            assert!(
                findings
                    .iter()
                    .any(|f| f.severity == severity && f.text.contains(text)),
                "{text}: {findings:?}"
            );
            assert!(
                findings.iter().all(|f| f.severity <= severity),
                "{text}: {findings:?}"
            );
        }
    }

    #[test]
    fn a_small_cluster_gets_what_it_can_hold() {
        let on = |brokers| Target::on(&plan(), brokers);
        assert_eq!(
            on(1),
            Target {
                replication_factor: 1,
                min_insync_replicas: 1
            }
        );
        assert_eq!(
            on(2),
            Target {
                replication_factor: 2,
                min_insync_replicas: 1
            }
        );
        assert_eq!(
            on(3),
            Target {
                replication_factor: 3,
                min_insync_replicas: 2
            }
        );
        assert_eq!(
            on(9),
            Target {
                replication_factor: 3,
                min_insync_replicas: 2
            }
        );
    }
}
