//! Reads what a run stored, for the proof.
//!
//! What was there before the run is passed over. A record that a stream wrote
//! to the dead-letter topic is a copy and no push; so is what a replay wrote,
//! and its marks are nothing at all.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::proof::{Proof, Verdict};
use crate::config::Settings;
use crate::kafka::scan::{Isolation, Positions, Scan, Scanned};
use crate::topics::{Topic, name};

/// Right after an election a partition may show an end that is behind what was
/// acknowledged; so what is missing gets this long to appear.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The headers of records that the ingress did not write.
const NOT_OF_THE_INGRESS: [&str; 3] = [
    "northbridge-topic",
    "northbridge-replayed",
    "northbridge-replayed-from",
];

/// The ingress's topics from a moment on.
#[derive(Debug)]
pub struct Stored {
    scan: Scan,
    topics: Vec<(Topic, String, Positions)>,
}

impl Stored {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or lacks one of the topics.
    pub fn from_now(settings: &Settings) -> Result<Self, KafkaError> {
        let scan = Scan::new(settings, Isolation::Uncommitted)?;
        let topics = Topic::INGRESS
            .into_iter()
            .map(|topic| {
                let name = name(settings, topic);
                let ends = scan.ends(&name)?;
                Ok((topic, name, ends))
            })
            .collect::<Result<_, KafkaError>>()?;
        Ok(Self { scan, topics })
    }

    /// Gives the proof everything that came since, until it is complete or
    /// nothing more is to be expected.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer.
    pub fn prove(mut self, mut proof: Proof<'_>) -> Result<Verdict, KafkaError> {
        let give_up = Instant::now() + GRACE;
        loop {
            self.read(&mut proof)?;
            if proof.is_complete() || Instant::now() > give_up {
                return Ok(proof.finish());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn read(&mut self, proof: &mut Proof<'_>) -> Result<(), KafkaError> {
        for (topic, name, at) in &mut self.topics {
            self.scan.read(name, at, |record| {
                if is_of_the_ingress(*record) {
                    let value = record.value().unwrap_or_default();
                    proof.take(*topic, record.key(), value);
                }
            })?;
        }
        Ok(())
    }
}

fn is_of_the_ingress(record: Scanned<'_>) -> bool {
    let mut foreign = NOT_OF_THE_INGRESS.iter();
    !foreign.any(|name| record.header(name).is_some())
}
