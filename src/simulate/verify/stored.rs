//! Reads the records that were written to the ingress's topics since a run
//! began, and compares them with its pushes.
//!
//! Only records that the ingress wrote count: a stream's dead letter is a copy
//! of one, and so is a replayed record; a replay marker is neither.

pub(super) mod comparison;

use std::time::Duration;

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use self::comparison::{StoredComparison, StoredVerification};
use crate::config::Settings;
use crate::headers;
use crate::kafka::headers::first;
use crate::kafka::log_reader::{Isolation, LogReader, Offsets, ReadError};
use crate::topics::{Topic, name};

/// A broker that was frozen while others took over its partitions answers for a
/// moment with the ends that it knows. A push counts as missing only if it is
/// not found after this pause either.
const FORMER_LEADER_GRACE: Duration = Duration::from_secs(5);

/// Headers that the ingress never writes.
const FOREIGN_HEADERS: [&str; 3] = [headers::TOPIC, headers::REPLAYED, headers::REPLAYED_FROM];

/// The ingress's topics, from their ends before a run onwards.
#[derive(Debug)]
pub(super) struct StoredVerifier {
    topics: Vec<(Topic, String, Offsets)>,
}

impl StoredVerifier {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer or lacks one of the
    /// topics.
    pub(super) fn at_current_ends(
        reader: &LogReader,
        settings: &Settings,
    ) -> Result<Self, ReadError> {
        let topics = Topic::INGRESS
            .into_iter()
            .map(|topic| {
                let name = name(settings, topic);
                let ends = reader.end_offsets(&name, Isolation::Uncommitted)?;
                Ok((topic, name, ends))
            })
            .collect::<Result<_, ReadError>>()?;
        Ok(Self { topics })
    }

    /// Compares every record written since; blocks for a few seconds longer if
    /// an acknowledged push has no record.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(super) fn verify(
        mut self,
        reader: &LogReader,
        mut comparison: StoredComparison<'_>,
    ) -> Result<StoredVerification, ReadError> {
        self.read_on(reader, &mut comparison)?;
        if !comparison.is_complete() {
            std::thread::sleep(FORMER_LEADER_GRACE);
            self.read_on(reader, &mut comparison)?;
        }
        Ok(comparison.finish())
    }

    /// Compares the records that were written since the last call.
    fn read_on(
        &mut self,
        reader: &LogReader,
        comparison: &mut StoredComparison<'_>,
    ) -> Result<(), ReadError> {
        for (topic, name, next) in &mut self.topics {
            reader.read_since(name, next, Isolation::Uncommitted, |record| {
                if is_from_ingress(record) {
                    let value = record.payload().unwrap_or_default();
                    comparison.add(*topic, record.key(), value);
                }
            })?;
        }
        Ok(())
    }
}

fn is_from_ingress(record: &BorrowedMessage<'_>) -> bool {
    let mut foreign = FOREIGN_HEADERS.iter();
    !foreign.any(|name| first(record.headers(), name).is_some())
}
