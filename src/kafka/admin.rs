//! Asks the cluster about its topics, and compares them with their specs.
//!
//! `creation` creates missing ones; `topic_check` says in words what differs.

mod creation;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker, MetadataTopic};
use rdkafka::producer::Producer as _;

use super::cluster_size::{ClusterSize, Evidence};
use super::failure::{Denial, Operation};
use super::failures::{Failures, RequestError};
use super::polled::PolledProducer;
use super::topic_check::{Finding, ObservedTopic, TopicCheck, compare};
use super::{ReportingContext, admin_config};
use crate::config::Settings;
use crate::topics::{Topic, TopicSpec};
pub use creation::Degraded;

/// The longest wait for one answer from the cluster while a person waits.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two questions about what may change within seconds.
const CHECK_PAUSE: Duration = Duration::from_millis(200);

/// Checks and creates topics.
pub struct TopicAdmin {
    /// Requests metadata. Its own thread serves its events, so that the reasons
    /// of failures are known while a request waits.
    client: Arc<PolledProducer<ReportingContext>>,
    /// Makes all other requests. rdkafka never serves its events.
    requests: AdminClient<DefaultClientContext>,
    failures: Failures,
}

/// What the cluster reports of itself and its topics.
struct Survey {
    evidence: Evidence,
    /// In the order of the specs; `None` if the topic does not exist.
    topics: Vec<Option<ObservedTopic>>,
    /// By the name of a topic: why the cluster does not say whether it exists.
    hidden: BTreeMap<String, Denial>,
}

impl TopicAdmin {
    /// Creates a client, which connects in the background.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the configuration.
    pub fn new(settings: &Settings, failures: &Failures) -> Result<Self, KafkaError> {
        let mut config = admin_config(settings);
        let client = config.create_with_context(ReportingContext(failures.clone()))?;
        config
            .remove("debug")
            .remove("statistics.interval.ms")
            .set_log_level(RDKafkaLogLevel::Emerg);
        Ok(Self {
            client: Arc::new(client),
            requests: config.create()?,
            failures: failures.clone(),
        })
    }

    /// Compares topics with their specs. `timeout` bounds each request.
    ///
    /// A missing topic is a finding, and so is a topic whose settings the
    /// cluster does not show to this client.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub async fn check(
        &self,
        specs: &[TopicSpec],
        timeout: Duration,
    ) -> Result<TopicCheck, RequestError> {
        self.check_with(specs, timeout, Degraded::Refuse).await
    }

    /// Returns those of the topics that exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer, or does not say whether
    /// one of them exists.
    pub(crate) async fn existing(
        &self,
        specs: &[TopicSpec],
    ) -> Result<HashSet<Topic>, RequestError> {
        Ok(self.partitions(specs).await?.into_keys().collect())
    }

    /// Returns the number of partitions of those of the topics that exist.
    ///
    /// # Errors
    ///
    /// The same as of [`TopicAdmin::existing`].
    pub(crate) async fn partitions(
        &self,
        specs: &[TopicSpec],
    ) -> Result<HashMap<Topic, i32>, RequestError> {
        let mut survey = Survey::of(specs);
        self.ask_for_all(specs, &mut survey, REQUEST_TIMEOUT)
            .await?;
        if let Some(denial) = survey.hidden.values().next() {
            return Err(self.failures.request_error(denial));
        }
        let partitions = |(spec, observed): (&TopicSpec, Option<ObservedTopic>)| {
            Some((spec.topic, observed?.partitions))
        };
        let existing = specs.iter().zip(survey.topics);
        Ok(existing.filter_map(partitions).collect())
    }

    /// Returns the addresses that the brokers advertise now, in the format of
    /// `bootstrap.servers`; blocks the thread. `topic` may be any.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(crate) fn advertised_servers(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<String, KafkaError> {
        let metadata = self.client.client().fetch_metadata(Some(topic), timeout)?;
        Ok(super::advertised_servers(&metadata))
    }

    /// Returns the end offset of each partition of a topic, or `None` if the
    /// topic does not exist; blocks the thread. `timeout` bounds each request.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(crate) fn end_offsets(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<Vec<i64>>, KafkaError> {
        let client = self.client.client();
        let metadata = client.fetch_metadata(Some(topic), timeout)?;
        let observed = metadata.topics().first().and_then(observe);
        let Some(observed) = observed else {
            return Ok(None);
        };
        let end = |partition| Ok(client.fetch_watermarks(topic, partition, timeout)?.1);
        let ends: Result<Vec<i64>, KafkaError> = (0..observed.partitions).map(end).collect();
        ends.map(Some)
    }

    async fn check_with(
        &self,
        specs: &[TopicSpec],
        timeout: Duration,
        degraded: Degraded,
    ) -> Result<TopicCheck, RequestError> {
        let mut survey = self.survey(specs, timeout).await?;
        let mut findings = self.add_settings(specs, &mut survey, timeout).await;
        let size = survey.size(specs, degraded);
        let compared = compare(specs, &survey.topics, &size).into_iter();
        findings.extend(
            compared.map(|finding| match survey.hidden.get(&finding.topic) {
                Some(denial) => Finding::hidden(&finding.topic, denial),
                None => finding,
            }),
        );
        let existing =
            |(spec, observed): (&TopicSpec, Option<ObservedTopic>)| Some((spec.topic, observed?));
        let observed = specs.iter().zip(survey.topics).filter_map(existing);
        Ok(TopicCheck {
            findings,
            observed: observed.collect(),
        })
    }

    /// Asks for the topics, and for as much evidence of the cluster's size as it
    /// takes.
    async fn survey(&self, specs: &[TopicSpec], timeout: Duration) -> Result<Survey, RequestError> {
        let mut survey = Survey::of(specs);
        self.ask_for_all(specs, &mut survey, timeout).await?;
        self.add_evidence(&mut survey.evidence, most_replicas(specs), timeout)
            .await?;
        Ok(survey)
    }

    /// Asks for all topics. One is missing if two answers in a row say so: a
    /// broker that has just started may not know all topics yet.
    async fn ask_for_all(
        &self,
        specs: &[TopicSpec],
        survey: &mut Survey,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        self.ask_for_unknown(specs, survey, timeout).await?;
        if survey.topics.iter().any(Option::is_none) {
            tokio::time::sleep(CHECK_PAUSE).await;
            self.ask_for_unknown(specs, survey, timeout).await?;
        }
        Ok(())
    }

    /// Asks for each topic that is not known yet. One request for each: without a
    /// name, the answer has all topics of the cluster.
    async fn ask_for_unknown(
        &self,
        specs: &[TopicSpec],
        survey: &mut Survey,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        for (spec, observed) in specs.iter().zip(&mut survey.topics) {
            if observed.is_none() {
                let metadata = self.metadata(Some(&spec.name), timeout).await?;
                survey.evidence.alive = brokers_of(&metadata);
                survey.evidence.replicas.extend(replicas_of(&metadata));
                let topic = metadata.topics().first();
                *observed = topic.and_then(observe);
                survey.hidden.remove(&spec.name);
                if let Some(denial) = topic.and_then(|topic| self.hidden(&spec.name, topic)) {
                    survey.hidden.insert(spec.name.clone(), denial);
                } else {
                    let attempt = || Denial::on_topic(Operation::Describe, &spec.name);
                    self.failures.allowed(attempt);
                }
            }
        }
        Ok(())
    }

    /// Fetches the metadata of a topic, or of all. Does not wait for the timeout
    /// if it is certain that no broker can be talked to.
    async fn metadata(
        &self,
        topic: Option<&str>,
        timeout: Duration,
    ) -> Result<Metadata, RequestError> {
        let (client, topic) = (Arc::clone(&self.client), topic.map(str::to_owned));
        let failures = self.failures.clone();
        // Goes on after the request was given up, so that new addresses are learned.
        let fetch = move || {
            let metadata = client.client().fetch_metadata(topic.as_deref(), timeout);
            metadata.inspect(|metadata| failures.observe_metadata(metadata))
        };
        let fetched = tokio::select! {
            fetched = tokio::task::spawn_blocking(fetch) => fetched,
            failure = self.failures.certain() => return Err(RequestError::Failure(failure)),
        };
        let metadata = fetched.unwrap_or(Err(KafkaError::Canceled));
        metadata.map_err(|error| self.failures.explain(error))
    }

    fn hidden(&self, name: &str, topic: &MetadataTopic) -> Option<Denial> {
        let code = RDKafkaErrorCode::from(topic.error()?);
        self.denial(code, Denial::on_topic(Operation::Describe, name))
    }

    /// Returns the denial that an error code means, and reports it.
    fn denial(&self, code: RDKafkaErrorCode, attempt: Denial) -> Option<Denial> {
        let denial = Denial::of(code, attempt);
        if let Some(denial) = &denial {
            self.failures.denied(denial);
        }
        denial
    }

    /// Asks for what else shows the number of brokers, while those that are known
    /// are fewer than wanted: the replicas of all topics, then the settings of
    /// the brokers.
    async fn add_evidence(
        &self,
        evidence: &mut Evidence,
        wanted: i32,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        if evidence.suffices(wanted) {
            return Ok(());
        }
        let metadata = self.metadata(None, timeout).await?;
        evidence.alive = brokers_of(&metadata);
        evidence.replicas.extend(replicas_of(&metadata));
        for broker in evidence.alive.clone() {
            if evidence.suffices(wanted) || evidence.settings.is_some() {
                break;
            }
            evidence.settings = self.broker_settings(broker, timeout).await;
        }
        Ok(())
    }

    /// Returns the settings of a broker, or `None` if it does not show them.
    async fn broker_settings(
        &self,
        broker: i32,
        timeout: Duration,
    ) -> Option<BTreeMap<String, String>> {
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let resources = [ResourceSpecifier::Broker(broker)];
        let described = self.requests.describe_configs(&resources, &options).await;
        let resource = described.ok()?.into_iter().next()?.ok()?;
        Some(settings_of(&resource))
    }

    /// Adds the settings of all existing topics, with one request. Returns a
    /// warning if the cluster does not show them: a broker may not support the
    /// request, and the client may lack the permission.
    ///
    /// Every broker can answer. librdkafka would wait for the controller, which some
    /// clusters do not name. The broker is random, so that one that does not answer is
    /// not asked each time.
    async fn add_settings(
        &self,
        specs: &[TopicSpec],
        survey: &mut Survey,
        timeout: Duration,
    ) -> Vec<Finding> {
        let broker = fastrand::choice(&survey.evidence.alive).copied();
        let existing: Vec<_> = specs
            .iter()
            .zip(&mut survey.topics)
            .filter_map(|(spec, observed)| observed.as_mut().map(|observed| (spec, observed)))
            .collect();
        let resources: Vec<_> = existing
            .iter()
            .map(|(spec, _)| ResourceSpecifier::Topic(&spec.name))
            .collect();
        if resources.is_empty() {
            return Vec::new();
        }
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .broker_id(broker);
        let described = match self.requests.describe_configs(&resources, &options).await {
            Ok(described) => described,
            Err(error) => return vec![Finding::settings_hidden("all topics", &error)],
        };
        // librdkafka returns the results in the order of the resources.
        let mut findings = Vec::new();
        for ((spec, observed), described) in existing.into_iter().zip(described) {
            match described {
                // rdkafka leaves out the error of a single resource, which then
                // has no settings.
                Ok(resource) if resource.entries.is_empty() => {
                    let denial = Denial::on_topic(Operation::DescribeConfigs, &spec.name);
                    findings.push(Finding::settings_hidden(&spec.name, &denial));
                }
                Ok(resource) => observed.settings = settings_of(&resource),
                Err(code) => findings.push(Finding::settings_hidden(&spec.name, &code)),
            }
        }
        findings
    }
}

impl Survey {
    /// Nothing is known of these topics yet.
    fn of(specs: &[TopicSpec]) -> Self {
        Self {
            evidence: Evidence::default(),
            topics: vec![None; specs.len()],
            hidden: BTreeMap::new(),
        }
    }

    fn size(&self, specs: &[TopicSpec], degraded: Degraded) -> ClusterSize {
        let size = self.evidence.size(most_replicas(specs));
        match degraded {
            Degraded::Refuse => size,
            Degraded::Allow => size.of_living(),
        }
    }
}

impl std::fmt::Debug for TopicAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicAdmin").finish_non_exhaustive()
    }
}

/// Returns what metadata tells about a topic, or `None` if it does not exist.
fn observe(topic: &MetadataTopic) -> Option<ObservedTopic> {
    if topic.error().is_some() || topic.partitions().is_empty() {
        return None;
    }
    let replicas = topic
        .partitions()
        .iter()
        .map(|partition| partition.replicas().len());
    Some(ObservedTopic {
        partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
        replication_factor: i32::try_from(replicas.min().unwrap_or(0)).unwrap_or(i32::MAX),
        ..ObservedTopic::default()
    })
}

fn settings_of(resource: &ConfigResource) -> BTreeMap<String, String> {
    let entries = resource.entries.iter();
    let known = entries.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)));
    known.collect()
}

fn brokers_of(metadata: &Metadata) -> BTreeSet<i32> {
    let brokers = metadata.brokers().iter();
    brokers.map(MetadataBroker::id).collect()
}

/// Returns the brokers that hold replicas, of whichever topics these are.
fn replicas_of(metadata: &Metadata) -> impl Iterator<Item = i32> {
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    partitions.flat_map(|partition| partition.replicas().iter().copied())
}

/// Returns the largest replication factor of these topics.
fn most_replicas(specs: &[TopicSpec]) -> i32 {
    let factors = specs.iter().map(|spec| spec.replication_factor);
    factors.max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::embedded::EmbeddedBroker;
    use crate::topics::specs;

    /// The clock stands still while a request is under way, so that the topic is
    /// created between the first answer and the second question.
    #[tokio::test(start_paused = true)]
    async fn a_topic_is_missing_only_if_two_answers_in_a_row_say_so() {
        let broker = EmbeddedBroker::start(&[]).unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = broker.bootstrap_servers();
        settings.topics.replication_factor = 1;
        let admin = TopicAdmin::new(&settings, &Failures::of_command(&settings)).unwrap();
        let specs = &specs(&settings)[..2];
        let began = tokio::time::Instant::now();
        let create_between = async {
            tokio::time::sleep(CHECK_PAUSE / 2).await;
            broker.create(&specs[..1]).unwrap();
        };
        let (survey, ()) = tokio::join!(admin.survey(specs, REQUEST_TIMEOUT), create_between);
        let survey = survey.unwrap();
        assert!(began.elapsed() >= CHECK_PAUSE);
        assert!(survey.topics[0].is_some());
        assert!(survey.topics[1].is_none());
    }
}
