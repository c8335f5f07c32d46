//! Where pushes go: the producer, the spool if one is set, and the monitor of the cluster.

use anyhow::Context;

use crate::config::Settings;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::Failures;
use crate::kafka::metrics::{KafkaClientMetrics, ProducerMetrics, TopicFindings};
use crate::kafka::monitor::Monitor;
use crate::kafka::{self, Producer};
use crate::process::admin::AdminServer;
use crate::spool::{Deliveries, Storage};

/// The parts behind the listener.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) producer: Producer,
    pub(crate) storage: Storage,
    /// `None` without a spool.
    pub(crate) deliveries: Option<Deliveries>,
    _monitor: Monitor,
    failures: Failures,
}

impl Backend {
    /// Starts every part and reports to `admin`. Does not wait for Kafka.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the settings, or the spool cannot be used.
    pub(crate) fn start(
        settings: &Settings,
        admin: &AdminServer,
        client: &KafkaClientMetrics,
    ) -> anyhow::Result<Self> {
        let (metrics, readiness) = (&admin.metrics, &admin.readiness);
        let failures = Failures::new(settings, client, admin.last_errors.clone());
        let topics = TopicAdmin::new(settings, &failures).context(kafka::CANNOT_CREATE_CLIENT)?;
        let producer_metrics = ProducerMetrics::register(metrics);
        let producer = Producer::new(settings, producer_metrics, client.clone(), failures.clone())
            .context(kafka::CANNOT_CREATE_CLIENT)?;
        let (storage, deliveries) = Storage::open(settings, producer.clone(), metrics)
            .context("the spool cannot be used; check spool.directory")?;
        let monitor = Monitor::start(
            producer.clone(),
            topics,
            TopicFindings::register(metrics),
            readiness,
            storage.fallback().as_ref(),
            settings.http.answer_deadline_ms.duration(),
        )
        .context("cannot start the thread that monitors Kafka")?;
        Ok(Self {
            producer,
            storage,
            deliveries,
            _monitor: monitor,
            failures,
        })
    }

    /// Returns why Kafka takes nothing, as far as that is known.
    pub(crate) fn why_unavailable(&self) -> String {
        let symptom = self.failures.symptom();
        symptom.map_or_else(
            || "Kafka takes no records".to_owned(),
            |symptom| symptom.to_string(),
        )
    }
}
