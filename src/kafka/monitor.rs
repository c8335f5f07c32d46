//! Watches the cluster for the producer, on a thread of its own: which
//! partitions can take records, whether the topics are fit, whether the
//! connections are warm; and replaces a producer that met a fatal error.
//!
//! librdkafka's questions block, so none of this runs on the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::metadata::MetadataPartition;
use tokio::runtime::Handle;

use super::Producer;
use super::admin::{Admin, Severity, Survey};
use crate::process::health::{Condition, Readiness};
use crate::topics::{Plan, Topic};

/// How often the cluster is asked while it is well.
const PACE: Duration = Duration::from_secs(1);
/// How often while it is not: its return must be known within a second.
const HURRY: Duration = Duration::from_millis(100);
/// An acknowledgement that is owed for so long is a sign that something is wrong.
const UNEASY: Duration = Duration::from_millis(500);
/// How long a question may take.
const ASK: Duration = Duration::from_secs(2);
/// How long the one about the topics' settings may take. A cluster that does
/// not show them may never answer it, and readiness waits for the first.
const ASK_SETTINGS: Duration = Duration::from_secs(1);
/// So long a cluster that came back may take to be well before its topics are
/// suspected: looking at them holds up the questions.
const SETTLING: Duration = Duration::from_secs(5);
/// How often fit topics are looked at again.
const SURVEY: Duration = Duration::from_secs(60);
/// How often topics that are not fit, or could not be looked at, are.
const SURVEY_SOON: Duration = Duration::from_secs(3);

/// The thread that watches. Ends when dropped.
#[derive(Debug)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
}

impl Monitor {
    /// Starts watching, and keeps the conditions `kafka`, `topics` and
    /// `connections` of `readiness`.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be started.
    pub fn start(
        producer: Producer,
        admin: Admin,
        readiness: &Readiness,
        answer_deadline: Duration,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            kafka: readiness.condition("kafka", "no broker has answered yet"),
            topics: readiness.condition("topics", "not compared yet"),
            connections: readiness.condition("connections", "no leader has been asked yet"),
            runtime: Handle::current(),
            answer_deadline,
            min_insync: [1; Topic::INGRESS.len()],
            next_survey: Instant::now(),
            fit: false,
            said: Vec::new(),
            contact: Contact::Unknown,
            was_well: false,
            warm: 0,
            producer,
            admin,
        };
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("kafka-monitor".to_owned())
            .spawn(move || watch.run(&stopped))?;
        Ok(Self { stop })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Watch {
    producer: Producer,
    admin: Admin,
    runtime: Handle,
    kafka: Condition,
    topics: Condition,
    connections: Condition,
    answer_deadline: Duration,
    /// `min.insync.replicas` of each topic, as far as known.
    min_insync: [i32; Topic::INGRESS.len()],
    next_survey: Instant,
    /// Whether the topics were fit when they were looked at last.
    fit: bool,
    /// The findings that were logged last.
    said: Vec<String>,
    contact: Contact,
    /// Whether every partition could take records at some time.
    was_well: bool,
    /// Leaders asked so far; the connections are warm when all were.
    warm: usize,
}

/// Whether Kafka answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// It was not asked yet.
    Unknown,
    /// The last question was not answered.
    Lost,
    /// All questions since then were.
    Since(Instant),
}

/// The partitions of one topic, and whether each can take records.
struct Seen {
    topic: Topic,
    takes_records: Vec<bool>,
}

/// What a look at the cluster has shown, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Every partition can take records.
    Well,
    /// Some cannot.
    Unwell,
    /// Some topics do not exist.
    Missing,
    /// No broker answered.
    Silent,
}

impl Sight {
    fn of(topics: &[Seen]) -> Self {
        if topics.iter().any(|topic| topic.takes_records.is_empty()) {
            Self::Missing
        } else if topics
            .iter()
            .all(|topic| topic.takes_records.iter().all(|takes| *takes))
        {
            Self::Well
        } else {
            Self::Unwell
        }
    }
}

impl Watch {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.producer.is_fatal() {
                self.replace();
            }
            let sight = self.observe();
            self.judge(sight);
            // A frozen leader stays the leader until its session ends. Until
            // then only silence tells, and only these questions let librdkafka
            // learn of the new leader soon; nothing else may hold them up.
            let silence = self.producer.longest_silence();
            let calm = sight == Sight::Well && silence < UNEASY;
            if calm {
                self.keep_warm();
            }
            // Also of a cluster that stays unwell: the reason may be in the topics.
            let stays = silence >= self.answer_deadline && self.contact.is_older_than(SETTLING);
            let may_look = calm || !self.fit || stays;
            if sight != Sight::Silent && may_look && Instant::now() >= self.next_survey {
                self.survey();
            }
            std::thread::sleep(if calm { PACE } else { HURRY });
        }
    }

    fn replace(&mut self) {
        match self.producer.replace() {
            Ok(()) => {
                self.warm = 0;
                tracing::warn!("the producer met a fatal error; a fresh one took over");
            }
            Err(error) => tracing::error!(%error, "no fresh producer could be made"),
        }
    }

    /// Asks which partitions can take records, and tells the producer.
    fn observe(&mut self) -> Sight {
        let sight = match self.ask() {
            Ok(seen) => {
                for topic in &seen {
                    if topic.takes_records.is_empty() {
                        self.producer.not_seen(topic.topic);
                    }
                    self.producer.seen(topic.topic, &topic.takes_records);
                }
                Sight::of(&seen)
            }
            Err(error) => {
                for topic in Topic::INGRESS {
                    self.producer.not_seen(topic);
                }
                if self.contact != Contact::Lost {
                    tracing::warn!(%error, "Kafka does not answer; pushes wait for it, and are refused after a while");
                }
                Sight::Silent
            }
        };
        self.contact = match self.contact {
            _ if sight == Sight::Silent => Contact::Lost,
            Contact::Since(then) => Contact::Since(then),
            Contact::Unknown => Contact::Since(Instant::now()),
            Contact::Lost => {
                tracing::info!("Kafka answers again");
                Contact::Since(Instant::now())
            }
        };
        sight
    }

    fn ask(&self) -> Result<Vec<Seen>, rdkafka::error::KafkaError> {
        let mut seen = Vec::new();
        for plan in self.producer.plans() {
            let metadata = self.producer.topic(&plan.name, ASK)?;
            let min_insync = self.min_insync[plan.topic.index()];
            let mut takes_records = Vec::new();
            if let Some(topic) = metadata
                .topics()
                .first()
                .filter(|topic| topic.error().is_none())
            {
                takes_records.resize(topic.partitions().len(), false);
                for partition in topic.partitions() {
                    let place = usize::try_from(partition.id()).unwrap_or(usize::MAX);
                    if let Some(takes) = takes_records.get_mut(place) {
                        *takes = can_take_records(partition, min_insync);
                    }
                }
            }
            seen.push(Seen {
                topic: plan.topic,
                takes_records,
            });
        }
        Ok(seen)
    }

    /// Ready for the first time only when all is well. Then it takes a whole
    /// outage, older than the answer's deadline, to end that, and one partition
    /// to end the outage: while some partition takes records, refusing
    /// connections would lose more.
    fn judge(&mut self, sight: Sight) {
        self.producer.longest_silence();
        let shortest = self.producer.shortest_silence();
        let is_away = matches!(sight, Sight::Unwell | Sight::Silent);
        if is_away && shortest >= self.answer_deadline {
            let why = format!(
                "no partition has taken records for {} s",
                shortest.as_secs()
            );
            if self.kafka.set(false, &why) {
                tracing::warn!("Kafka is known to be down; pushes are refused at once");
            }
            return;
        }
        match sight {
            Sight::Well => {
                self.was_well = true;
                self.kafka.set(
                    true,
                    "every partition has a leader and enough replicas in sync",
                );
            }
            Sight::Unwell => {
                let why = "some partitions have no leader or too few replicas in sync";
                if self.was_well {
                    self.kafka.set(true, why);
                } else {
                    self.kafka.explain(why);
                }
            }
            Sight::Missing => self.kafka.explain("some topics do not exist"),
            Sight::Silent => self.kafka.explain("no broker answers just now"),
        }
    }

    /// Asks one leader for its last offset: a connection that is used stays
    /// open, and the first record on it does not wait for it to be made.
    /// Before the first readiness, and after a restart, all of them at once.
    fn keep_warm(&mut self) {
        let partitions = self.partitions();
        let first = self.warm < partitions.len();
        let asked: Vec<usize> = if first {
            (self.warm..partitions.len()).collect()
        } else {
            vec![self.warm % partitions.len().max(1)]
        };
        for place in asked {
            let Some((name, partition)) = partitions.get(place) else {
                continue;
            };
            if self.producer.ask_leader(name, *partition, ASK).is_err() {
                return;
            }
            self.warm += 1;
        }
        if first {
            self.connections.set(true, "every leader has answered");
        }
    }

    fn partitions(&self) -> Vec<(String, i32)> {
        let of = |plan: &Plan| {
            let name = plan.name.clone();
            let count = self.producer.partition_count(plan.topic);
            (0..)
                .take(count)
                .map(move |partition| (name.clone(), partition))
        };
        self.producer.plans().iter().flat_map(of).collect()
    }

    fn survey(&mut self) {
        let survey = self
            .runtime
            .block_on(self.admin.survey(self.producer.plans(), ASK_SETTINGS));
        self.next_survey = Instant::now() + SURVEY_SOON;
        let survey = match survey {
            Ok(survey) => survey,
            Err(error) => {
                self.topics
                    .explain(&format!("the topics could not be compared: {error}"));
                return;
            }
        };
        for (topic, observed) in &survey.observed {
            if let Some(min) = observed.min_insync_replicas {
                self.min_insync[topic.index()] = min;
            }
        }
        self.say(&survey);
        self.fit = survey.problem().is_none();
        if let Some(problem) = survey.problem() {
            let why = format!("{}: {}", problem.topic, problem.text);
            self.topics.set(false, &why);
        } else {
            self.topics.set(true, "all are there and fit");
            self.next_survey = Instant::now() + SURVEY;
        }
    }

    /// Logs what is to be said about the topics, once until it changes.
    fn say(&mut self, survey: &Survey) {
        let findings = survey
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Fine);
        let said: Vec<String> = findings.clone().map(ToString::to_string).collect();
        if said == self.said {
            return;
        }
        for finding in findings {
            let (topic, text) = (finding.topic.as_str(), finding.text.as_str());
            if finding.severity == Severity::Problem {
                tracing::error!(topic, finding = text, "a topic is not fit");
            } else {
                tracing::warn!(topic, finding = text, "a topic is not as configured");
            }
        }
        self.said = said;
    }
}

impl Contact {
    fn is_older_than(self, time: Duration) -> bool {
        matches!(self, Self::Since(then) if then.elapsed() >= time)
    }
}

fn can_take_records(partition: &MetadataPartition, min_insync: i32) -> bool {
    let in_sync = i32::try_from(partition.isr().len()).unwrap_or(i32::MAX);
    partition.error().is_none() && partition.leader() >= 0 && in_sync >= min_insync
}
