//! Replacing librdkafka's producer without losing a record or the order of a key.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer as _, PurgeConfig};

use super::{Handle, Inner, Job, JobLane, Producer};
use crate::kafka;
use crate::kafka::topic_lanes::{self, Lanes, TopicLanes};

/// How long a replaced producer may take for the acknowledgements of its
/// healthy partitions, and for reporting what is then purged.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest wait for the brokers' addresses before a producer is replaced.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a replaced producer is checked for remaining references.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);

impl Producer {
    /// Replaces librdkafka's producer: the only cure for a fatal error, and for
    /// what it caches of topics and leaders that have been replaced. Blocks the
    /// thread for up to two seconds, in which new records wait.
    ///
    /// What the old one has not delivered by then goes to the new one, before
    /// any later record and in its order; a record whose acknowledgement was
    /// under way may be stored twice.
    ///
    /// # Errors
    ///
    /// Returns librdkafka's error if it cannot create a producer; the old one
    /// stays in use.
    pub(in crate::kafka) fn replace(&self) -> Result<(), KafkaError> {
        let inner = &self.0;
        let new = inner.create_handle(self.advertised_servers().as_deref())?;
        for topic in &inner.lanes {
            topic.all().iter().for_each(|lane| lane.hold());
        }
        let old = inner.handle.swap(Some(Arc::new(new)));
        if let Some(old) = old {
            settle_all(&old);
            std::thread::spawn(move || close(old));
        }
        inner.metrics.restarts.inc();
        inner.lanes.iter().for_each(|topic| inner.renew(topic));
        Ok(())
    }

    /// Returns the addresses that the brokers advertise now, if one answers.
    fn advertised_servers(&self) -> Option<String> {
        let name = &self.0.specs.first()?.name;
        let metadata = self.metadata(name, METADATA_TIMEOUT).ok()?;
        Some(kafka::advertised_servers(&metadata))
    }
}

impl Inner {
    /// Gives a topic new lanes, and them what the old ones held.
    fn renew(self: &Arc<Self>, topic: &TopicLanes<Box<Job>>) {
        let new = topic.renewed();
        // Before the old lanes retire, so that whoever finds one retired finds
        // the new one. Later records wait there for those that are moved.
        let old = topic.install(new.clone());
        self.move_records(&old, &new);
    }

    /// Retires the old lanes, and gives what they held to new ones, in its order and
    /// before what those hold since.
    pub(super) fn move_records(self: &Arc<Self>, old: &[Arc<JobLane>], new: &Lanes<Box<Job>>) {
        let mut jobs: Vec<Box<Job>> = old.iter().flat_map(|lane| lane.retire()).collect();
        jobs.sort_by_key(|job| job.submitted);
        let mut moved: Vec<VecDeque<Box<Job>>> = new.iter().map(|_| VecDeque::new()).collect();
        for mut job in jobs {
            let key = job.record.key();
            if let Some(index) = topic_lanes::choose(new, key, self.answer_deadline) {
                job.lane = Arc::clone(&new[index]);
                moved[index].push_back(job);
            }
        }
        for (lane, moved) in new.iter().zip(moved) {
            if lane.open(moved, Instant::now()) {
                self.request_turn(Arc::clone(lane));
            }
        }
    }
}

/// Makes the old producer report every record that it holds.
fn settle_all(handle: &Handle) {
    // Partitions that work acknowledge within this time.
    if handle.flush(SETTLE_TIMEOUT).is_ok() {
        return;
    }
    handle.purge(PurgeConfig::default().queue().inflight());
    let settled = handle.flush(SETTLE_TIMEOUT).is_ok();
    tracing::info!(settled, "purged the replaced producer");
}

/// Drops the old producer on this thread, as its last reference. A delivery
/// callback must not: it runs on the polling thread, which the drop joins.
fn close(mut handle: Arc<Handle>) {
    loop {
        match Arc::try_unwrap(handle) {
            Ok(handle) => return drop(handle),
            Err(shared) => handle = shared,
        }
        std::thread::sleep(CLOSE_INTERVAL);
    }
}
