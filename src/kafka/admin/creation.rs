//! Creates missing topics, with as many replicas as the whole cluster can hold.
//!
//! Never deletes a topic, and never changes one that exists.

use std::time::Instant;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{CHECK_PAUSE, REQUEST_TIMEOUT, Survey, TopicAdmin};
use crate::kafka::cluster_size::{ClusterSize, Replication};
use crate::kafka::failure::{Denial, Operation};
use crate::kafka::failures::RequestError;
use crate::kafka::topic_check::{Finding, ObservedTopic, Severity, TopicCheck};
use crate::topics::{Topic, TopicSpec};

/// What `topics create` does while brokers are down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degraded {
    /// Creates nothing that would have fewer replicas than all brokers can hold.
    Refuse,
    /// Creates topics as if the brokers that are alive were all.
    Allow,
}

impl TopicAdmin {
    /// Creates the topics that are missing, then compares all of them.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer. A topic that is not
    /// created is a finding.
    pub async fn create(
        &self,
        specs: &[TopicSpec],
        degraded: Degraded,
    ) -> Result<TopicCheck, RequestError> {
        let (missing, size) = self.missing(specs, degraded).await?;
        let (mut created, mut failed) = (Vec::new(), Vec::new());
        for spec in &missing {
            if !size.can_hold(spec) {
                failed.push(Finding::not_created(spec, &size));
                continue;
            }
            match self.create_one(spec, &size).await? {
                Ok(findings) => created.extend(findings),
                Err(code) => {
                    let attempt = Denial::on_topic(Operation::Create, &spec.name);
                    let denial = self.denial(code, attempt);
                    failed.push(Finding::failed(spec, code, denial.as_ref()));
                }
            }
        }
        let mut check = self.check_when_known(specs, &created, degraded).await?;
        // "created" replaces the line that says that nothing is wrong, and the
        // reason of a failure the one that says that the topic is missing.
        check.findings.retain(|finding| {
            let is_about = |others: &[Finding]| others.iter().any(|it| it.topic == finding.topic);
            let is_replaced =
                is_about(&failed) || finding.severity == Severity::Ok && is_about(&created);
            !is_replaced
        });
        check
            .findings
            .splice(0..0, created.into_iter().chain(failed));
        Ok(check)
    }

    /// Returns the topics to create, and the size of the cluster. Waits a while
    /// for brokers that are down and that the topics need.
    async fn missing(
        &self,
        specs: &[TopicSpec],
        degraded: Degraded,
    ) -> Result<(Vec<TopicSpec>, ClusterSize), RequestError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let survey = self.survey(specs, REQUEST_TIMEOUT).await?;
            let size = survey.size(specs, degraded);
            let missing = survey.missing(specs);
            let can_hold_all = missing.iter().all(|spec| size.can_hold(spec));
            if can_hold_all || Instant::now() >= deadline {
                return Ok((missing, size));
            }
            tokio::time::sleep(CHECK_PAUSE).await;
        }
    }

    /// Checks the topics once the brokers that answer know those that were just
    /// created: each broker learns of a new topic at its own time.
    async fn check_when_known(
        &self,
        specs: &[TopicSpec],
        created: &[Finding],
        degraded: Degraded,
    ) -> Result<TopicCheck, RequestError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let check = self.check_with(specs, REQUEST_TIMEOUT, degraded).await?;
            let is_known = |new: &Finding| {
                let spec = specs.iter().find(|spec| spec.name == new.topic);
                let is_it = |(topic, _): &(Topic, ObservedTopic)| {
                    spec.is_some_and(|spec| spec.topic == *topic)
                };
                check.observed.iter().any(is_it)
            };
            if created.iter().all(is_known) || Instant::now() >= deadline {
                return Ok(check);
            }
            tokio::time::sleep(CHECK_PAUSE).await;
        }
    }

    /// Creates a topic with all its settings, or without the optional ones if the
    /// cluster does not let its clients choose them. The inner error is the
    /// broker's answer about this topic.
    async fn create_one(
        &self,
        spec: &TopicSpec,
        size: &ClusterSize,
    ) -> Result<Result<Vec<Finding>, RDKafkaErrorCode>, KafkaError> {
        let (required, optional) = (spec.required_settings(), spec.optional_settings());
        let all = [required.as_slice(), optional.as_slice()].concat();
        let created = Finding::created(spec);
        match self.send_creation(spec, size, &all).await? {
            Ok(()) => Ok(Ok(vec![created])),
            Err(
                rejected @ (RDKafkaErrorCode::PolicyViolation | RDKafkaErrorCode::InvalidConfig),
            ) => {
                let result = self.send_creation(spec, size, &required).await?;
                Ok(result.map(|()| vec![created, Finding::without_optional(spec, rejected)]))
            }
            Err(code) => Ok(Err(code)),
        }
    }

    /// The inner error is the broker's answer about this topic; one that exists by
    /// now counts as created.
    async fn send_creation(
        &self,
        spec: &TopicSpec,
        size: &ClusterSize,
        settings: &[(&'static str, String)],
    ) -> Result<Result<(), RDKafkaErrorCode>, KafkaError> {
        let replication = Replication::attainable(spec, size.total);
        let min_insync_replicas = replication.min_insync.to_string();
        let factor = TopicReplication::Fixed(replication.factor);
        let mut topic = NewTopic::new(&spec.name, spec.partitions, factor)
            .set("min.insync.replicas", &min_insync_replicas);
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let results = self.requests.create_topics([&topic], &options).await?;
        Ok(match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(code),
            Some(Err(_) | Ok(_)) | None => Ok(()),
        })
    }
}

impl Survey {
    /// Returns the specs of the topics that do not exist. A state topic gets as
    /// many partitions as its input has.
    fn missing(&self, specs: &[TopicSpec]) -> Vec<TopicSpec> {
        let all = || specs.iter().zip(&self.topics);
        let partitions = |topic: Option<Topic>| {
            let (_, input) = all().find(|(spec, _)| Some(spec.topic) == topic)?;
            Some(input.as_ref()?.partitions)
        };
        all()
            .filter(|(_, observed)| observed.is_none())
            .filter(|(spec, _)| !self.hidden.contains_key(&spec.name))
            .map(|(spec, _)| TopicSpec {
                partitions: partitions(spec.topic.input()).unwrap_or(spec.partitions),
                ..spec.clone()
            })
            .collect()
    }
}
