//! A producer with a thread that takes its events: delivery reports, errors, statistics.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, ProducerContext};

/// How long a poll waits for an event. rdkafka waits for whole milliseconds and spins for
/// the rest of the time; of 100 ms it spins for one, a hundredth of a core whatever
/// happens, and so does its `ThreadedProducer`.
const POLL_TIMEOUT: Duration = Duration::from_micros(100_050);

/// Dropping it ends the thread, and waits for that.
pub(super) struct PolledProducer<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    is_dropped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> FromClientConfigAndContext<C> for PolledProducer<C> {
    fn from_config_and_context(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let polling = {
            let (producer, is_dropped) = (Arc::clone(&producer), Arc::clone(&is_dropped));
            move || {
                while !is_dropped.load(Ordering::Relaxed) {
                    producer.poll(POLL_TIMEOUT);
                }
            }
        };
        let thread = thread::Builder::new().name("kafka-events".to_owned());
        let thread = thread.spawn(polling).map_err(|error| {
            let reason = format!("no thread for a producer's events: {error}");
            KafkaError::ClientCreation(reason)
        })?;
        Ok(Self {
            producer,
            is_dropped,
            thread: Some(thread),
        })
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for PolledProducer<C> {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of a callback was reported by then.
            let _ = thread.join();
        }
    }
}
