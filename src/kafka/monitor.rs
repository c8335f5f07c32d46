//! Monitors the cluster on behalf of the producer: which partitions are
//! available, whether the topics meet their requirements, and whether there is
//! a warm connection to each leader. Holds the readiness conditions that
//! follow from it, and replaces (see `replacement`) a producer that cannot
//! recover.
//!
//! Runs on a thread of its own, because librdkafka's requests block.

mod cluster_state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::runtime::Handle;

use super::Producer;
use super::admin::TopicAdmin;
use super::delivery_error::TopicPartition;
use super::failure::{Denial, Failure, Operation, Resource};
use super::metrics::TopicFindings;
use super::replacement::{Reason, Replacement};
use super::topic_check::{Severity, TopicCheck};
use crate::process::readiness::{Condition, Fallback, Readiness};
use crate::process::vital;
use crate::topics::Topic;
use cluster_state::{ClusterState, available_leaders};

/// How often the cluster is checked while it is healthy.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often while it is not: a recovery must be noticed within a second.
const FAST_INTERVAL: Duration = Duration::from_millis(100);
/// From this time without an acknowledgement the cluster counts as not healthy.
const SILENCE_WARNING: Duration = Duration::from_millis(500);
/// The timeout of a metadata request and of a request to a leader.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of a request for the topics' settings. A cluster that denies
/// access to them may never answer it, and readiness waits for the first check.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after Kafka became reachable again an outage is not yet blamed on
/// the topics. Checking them delays the metadata requests.
const RECOVERY_GRACE: Duration = Duration::from_secs(5);
/// How often topics that meet their requirements are checked.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often topics that do not, or that could not be checked.
const FAST_TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// The monitoring thread, which ends after this is dropped.
#[derive(Debug)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
}

impl Monitor {
    /// Starts the thread, and adds the conditions `kafka`, `topics` and
    /// `connections` to `readiness`, for each of which `fallback` may take the place.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the thread cannot be started.
    pub fn start(
        producer: Producer,
        admin: TopicAdmin,
        findings: TopicFindings,
        readiness: &Readiness,
        fallback: Option<&Arc<dyn Fallback>>,
        answer_deadline: Duration,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let condition = |name, why| {
            let condition = readiness.condition(name, why);
            match fallback {
                Some(fallback) => condition.or(Arc::clone(fallback)),
                None => condition,
            }
        };
        let monitoring = Monitoring {
            kafka: condition("kafka", "no broker has responded yet")
                .explained_by(producer.failures().clone()),
            topics: condition("topics", "not checked yet"),
            connections: condition("connections", "no leader has responded yet")
                .explained_by(producer.failures().clone()),
            is_bridged: fallback.is_some(),
            runtime: Handle::current(),
            answer_deadline,
            min_insync_replicas: [1; Topic::INGRESS.len()],
            next_topic_check: Instant::now(),
            topics_met_requirements: false,
            logged_findings: Vec::new(),
            contact: Contact::Unknown,
            was_ever_healthy: false,
            warm_leaders: 0,
            replacement: Replacement::new(),
            cluster_id: None,
            other_cluster: String::new(),
            producer,
            admin,
            findings,
        };
        let stopped = Arc::clone(&stop);
        vital::start_thread("kafka-monitor", move || monitoring.run(&stopped))?;
        Ok(Self { stop })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The state of the monitoring thread.
struct Monitoring {
    producer: Producer,
    admin: TopicAdmin,
    findings: TopicFindings,
    runtime: Handle,
    kafka: Condition,
    topics: Condition,
    connections: Condition,
    /// Whether something takes Kafka's place while it is down.
    is_bridged: bool,
    answer_deadline: Duration,
    /// By topic; 1 until the first check has read the real values.
    min_insync_replicas: [i32; Topic::INGRESS.len()],
    next_topic_check: Instant,
    topics_met_requirements: bool,
    /// What was logged last, so that nothing is logged twice.
    logged_findings: Vec<String>,
    contact: Contact,
    was_ever_healthy: bool,
    /// Requests to leaders that succeeded since the producer was created; once
    /// they are as many as there are partitions, every connection is warm.
    warm_leaders: usize,
    replacement: Replacement,
    /// As of the last check; `None` until the first one has found it.
    cluster_id: Option<String>,
    /// Ends the reason of a healthy cluster once another one answers; else empty.
    other_cluster: String,
}

/// The outcome of the requests sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// No request has been sent yet.
    Unknown,
    /// The last request failed.
    Lost,
    /// Every request since then succeeded.
    Since(Instant),
}

impl Contact {
    fn is_older_than(self, duration: Duration) -> bool {
        matches!(self, Self::Since(since) if since.elapsed() >= duration)
    }
}

impl Monitoring {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Some(reason) = self.replacement.due(&self.producer) {
                self.replace_producer(&reason);
            }
            let cluster = self.refresh_metadata();
            self.producer.give_turns();
            let unacknowledged_for = self.producer.longest_unacknowledged();
            self.update_readiness(cluster);
            // A frozen broker stays the leader in the metadata until its
            // session expires. Until then only missing acknowledgements reveal
            // it, and only frequent metadata requests let librdkafka learn of
            // the new leader soon, so nothing else may delay them.
            let is_healthy =
                cluster == ClusterState::Healthy && unacknowledged_for < SILENCE_WARNING;
            if is_healthy {
                self.keep_connections_warm();
            }
            let may_check = is_healthy || self.may_be_caused_by_topics(cluster, unacknowledged_for);
            if may_check && Instant::now() >= self.next_topic_check {
                self.check_topics();
            }
            std::thread::sleep(if is_healthy { INTERVAL } else { FAST_INTERVAL });
        }
    }

    /// Returns whether the topics may be the reason why the cluster is not
    /// healthy: they failed the last check, or the outage outlasts the push
    /// deadline although Kafka has been reachable for a while.
    fn may_be_caused_by_topics(&self, cluster: ClusterState, unacknowledged_for: Duration) -> bool {
        let is_lasting = unacknowledged_for >= self.answer_deadline
            && self.contact.is_older_than(RECOVERY_GRACE);
        cluster != ClusterState::Unreachable && (is_lasting || !self.topics_met_requirements)
    }

    fn replace_producer(&mut self, reason: &Reason) {
        const REPLACED: &str =
            "replaced the producer; the new one resends what was not acknowledged";
        let is_known = self.denial().is_some();
        if let Reason::FatalError(code, _) = reason {
            // The one right that a producer needs outside any record.
            let attempt = Denial::new(Operation::IdempotentWrite, Resource::Cluster);
            let failures = self.producer.failures();
            failures.observe_denial(&KafkaError::Global(*code), attempt);
        }
        match self.producer.replace() {
            Ok(()) => {
                self.warm_leaders = 0;
                if is_known {
                    tracing::debug!(%reason, "{REPLACED}");
                } else {
                    tracing::warn!(%reason, "{REPLACED}");
                }
            }
            Err(error) => tracing::error!(%error, "cannot replace the producer; retrying"),
        }
    }

    /// Fetches the metadata of every topic and applies it to the producer.
    fn refresh_metadata(&mut self) -> ClusterState {
        match self.available_leaders() {
            Ok(topics) => {
                self.contact_succeeded();
                for (spec, leaders) in self.producer.specs().iter().zip(&topics) {
                    self.producer.update_metadata(spec.topic, leaders);
                }
                ClusterState::of(&topics)
            }
            Err(error) => {
                self.contact_failed(&error);
                self.producer.mark_unavailable();
                ClusterState::Unreachable
            }
        }
    }

    /// Returns, for each topic, the leader of each partition that is available; nothing
    /// for a topic that does not exist.
    fn available_leaders(&self) -> Result<Vec<Vec<Option<i32>>>, KafkaError> {
        let specs = self.producer.specs().iter();
        specs
            .map(|spec| {
                let metadata = self.producer.metadata(&spec.name, REQUEST_TIMEOUT)?;
                let min_insync_replicas = self.min_insync_replicas[spec.topic.index()];
                let topic = metadata.topics().first();
                Ok(topic.map_or_else(Vec::new, |topic| {
                    available_leaders(topic, min_insync_replicas)
                }))
            })
            .collect()
    }

    fn contact_succeeded(&mut self) {
        self.producer.failures().answered();
        if self.contact == Contact::Lost {
            tracing::info!("Kafka is reachable again");
        }
        if !matches!(self.contact, Contact::Since(_)) {
            self.contact = Contact::Since(Instant::now());
        }
    }

    fn contact_failed(&mut self, error: &KafkaError) {
        if self.contact != Contact::Lost {
            let reason = self.producer.failures().symptom();
            let reason = reason.as_ref().map(tracing::field::display);
            if self.is_bridged {
                tracing::warn!(%error, reason, "Kafka is unreachable; pushes are spooled");
            } else {
                tracing::warn!(
                    %error,
                    reason,
                    "Kafka is unreachable; pushes wait until their deadline, then get 503"
                );
            }
        }
        self.contact = Contact::Lost;
    }

    /// Readiness begins when every partition is available. From then on only
    /// an outage of all partitions that is older than the push deadline ends
    /// it, and one available partition restores it: an ingress that can store
    /// some pushes loses fewer than one that refuses connections.
    ///
    /// An ingress whose producer gets no id can store nothing.
    fn update_readiness(&mut self, cluster: ClusterState) {
        if let Some(denial) = self.denial() {
            self.kafka.set(false, &denial.to_string());
            return;
        }
        let is_outage = matches!(cluster, ClusterState::Degraded | ClusterState::Unreachable);
        if is_outage && self.producer.is_down() {
            let seconds = self.producer.shortest_unacknowledged().as_secs();
            let why = format!("no partition has accepted records for {seconds} s");
            if self.kafka.set(false, &why) && !self.is_bridged {
                tracing::warn!("Kafka is known to be down; pushes get 503 at once");
            }
            return;
        }
        match cluster {
            ClusterState::Healthy => {
                self.was_ever_healthy = true;
                let why = "every partition has a leader and enough in-sync replicas";
                self.kafka
                    .set(true, &format!("{why}{}", self.other_cluster));
            }
            ClusterState::Degraded => {
                let why = "some partitions have no leader or too few in-sync replicas";
                if self.was_ever_healthy {
                    self.kafka.set(true, why);
                } else {
                    self.kafka.explain(why);
                }
            }
            ClusterState::TopicsMissing => self.kafka.explain("some topics do not exist"),
            ClusterState::Unreachable => self.kafka.explain(&self.unreachable()),
        }
    }

    /// Returns why librdkafka's producer gets no id, if that is why it fails.
    fn denial(&self) -> Option<Failure> {
        let failures = self.producer.failures();
        failures.denial_of(Operation::IdempotentWrite)
    }

    fn unreachable(&self) -> String {
        let symptom = self.producer.failures().symptom();
        symptom.map_or_else(
            || "no broker is reachable".to_owned(),
            |symptom| format!("no broker is reachable: {symptom}"),
        )
    }

    /// Sends a request to one leader, each time another one, so that no broker
    /// closes its connection as idle and the next record need not wait for a
    /// new one. On the first pass, and after the producer was replaced, sends
    /// one to each leader at once.
    fn keep_connections_warm(&mut self) {
        let partitions = self.partitions();
        let is_first_pass = self.warm_leaders < partitions.len();
        let (start, count) = if is_first_pass {
            (self.warm_leaders, partitions.len())
        } else {
            (self.warm_leaders % partitions.len().max(1), 1)
        };
        for partition in partitions.iter().copied().skip(start).take(count) {
            match self.producer.ping_leader(partition, REQUEST_TIMEOUT) {
                Ok(true) => self.warm_leaders += 1,
                Ok(false) => return self.replacement.report(Reason::RecordsLost(partition)),
                Err(_) => return,
            }
        }
        if is_first_pass {
            self.connections.set(true, "every leader has responded");
        }
    }

    /// Returns every known partition.
    fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.producer.specs().iter().map(|spec| spec.topic);
        let of_topic = |topic| {
            let partitions = (0..).take(self.producer.partition_count(topic));
            partitions.map(move |partition| TopicPartition(topic, partition))
        };
        topics.flat_map(of_topic).collect()
    }

    /// Notices that another cluster answers, as after a change of the names in
    /// `kafka.bootstrap_servers`. Its topics are other topics, so the producer is
    /// replaced; pushes are stored there from now on.
    fn check_cluster_id(&mut self) {
        let Some(id) = self.producer.cluster_id(REQUEST_TIMEOUT) else {
            return;
        };
        match self.cluster_id.replace(id.clone()) {
            Some(before) if before != id => {
                tracing::warn!(
                    cluster_id = %id,
                    %before,
                    "another Kafka cluster answers; pushes are stored there"
                );
                self.other_cluster = format!(
                    "; another cluster answers than before: its id is {id}, the last one's was {before}"
                );
                self.replacement.report(Reason::OtherCluster);
            }
            Some(_) | None => {}
        }
    }

    fn check_topics(&mut self) {
        self.next_topic_check = Instant::now() + FAST_TOPIC_CHECK_INTERVAL;
        self.check_cluster_id();
        let specs = self.producer.specs();
        let check = self.admin.check(specs, SETTINGS_TIMEOUT);
        let check = match self.runtime.block_on(check) {
            Ok(check) => check,
            Err(error) => {
                let why = format!("cannot check the topics: {error}");
                return self.topics.explain(&why);
            }
        };
        for (topic, observed) in &check.observed {
            if let Some(min) = observed.min_insync_replicas() {
                self.min_insync_replicas[topic.index()] = min;
            }
        }
        self.findings.set(&check);
        self.log_findings(&check);
        self.topics_met_requirements = check.first_problem().is_none();
        if let Some(problem) = check.first_problem() {
            // Readiness waits for topics that meet their requirements, and outlasts
            // a change: it concerns every instance, and an ingress that can store
            // some pushes loses fewer than none.
            self.topics.explain(&problem.about_topic());
        } else {
            self.topics.set(true, "all topics meet their requirements");
            self.next_topic_check = Instant::now() + TOPIC_CHECK_INTERVAL;
        }
    }

    /// Logs the findings if they differ from those logged last.
    fn log_findings(&mut self, check: &TopicCheck) {
        let findings = check
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Ok);
        let texts: Vec<String> = findings.clone().map(ToString::to_string).collect();
        if texts == self.logged_findings {
            return;
        }
        for finding in findings {
            let (topic, text) = (finding.topic.as_str(), finding.text.as_str());
            if finding.severity.must_be_fixed() {
                tracing::error!(
                    topic,
                    finding = text,
                    "a topic does not meet its requirements"
                );
            } else {
                tracing::warn!(
                    topic,
                    finding = text,
                    "a topic differs from its configuration"
                );
            }
        }
        self.logged_findings = texts;
    }
}
