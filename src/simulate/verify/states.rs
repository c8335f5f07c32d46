//! Verifies the streams: the state topics must equal the model of the raw
//! topics.
//!
//! The raw topics alone decide what a state must be, whatever was answered.
//! Only keys of the run are compared: those that occur in a record which was
//! written since the run began and whose body is a push of the run. So other
//! senders and earlier runs do not matter; but a state written since the run
//! began must follow from some record. If a key was used before, for example by
//! an earlier run with the same seed, its state follows from more than the
//! run's pushes; so a key that differs is checked again with all its records
//! since the beginning of the topics.
//!
//! Commands and devices are compared partition by partition, operations all at
//! once. No record is kept in memory: the run's records take 48 bytes each in
//! the partition at hand, their keys 64, and foreign records 16; the pushes are
//! derived again.

mod catch_up;
mod comparison;
mod kind;
mod mismatch;
mod recheck;
mod scope;

use std::time::{Duration, Instant};

use super::index::BodyIndex;
use crate::config::Settings;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::{LogReader, ReadError};
use crate::simulate::pushes::PushGenerator;

use catch_up::StreamGroups;
use kind::StateKind;
use mismatch::StateMismatch;
use scope::TopicPair;

/// The number of mismatches that are listed individually.
const MAX_LISTED_FAULTS: usize = 20;
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The state topics and their raw topics, from their ends before a run onwards.
#[derive(Debug)]
pub(super) struct StatesVerifier {
    settings: Settings,
    failures: Failures,
    pairs: [TopicPair; 3],
}

/// The comparison of the state topics with the model, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatesVerification {
    /// Commands of the run that must have a state.
    pub(crate) commands: u64,
    /// Devices of the run that must have a state.
    pub(crate) devices: u64,
    /// Operations of the run that must have a state.
    pub(crate) operations: u64,
    /// Keys whose state differs from the model, in any way.
    pub(crate) differing: u64,
    /// What the streams had not processed when the time was up; `None` if they
    /// had caught up.
    pub(crate) behind: Option<String>,
    /// The first mismatches, at most 20.
    pub(crate) faults: Vec<StateMismatch>,
}

impl StatesVerifier {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer or lacks one of the
    /// topics.
    pub(super) fn at_current_ends(
        reader: &LogReader,
        settings: &Settings,
        failures: &Failures,
    ) -> Result<Self, ReadError> {
        let pair = |kind| TopicPair::at_current_ends(reader, settings, kind);
        let pairs = [
            pair(StateKind::Command)?,
            pair(StateKind::Device)?,
            pair(StateKind::Operation)?,
        ];
        Ok(Self {
            settings: settings.clone(),
            failures: failures.clone(),
            pairs,
        })
    }

    /// Waits until the streams have caught up, then compares; repeats both
    /// until the comparison holds or `catch_up` has passed.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(super) fn verify(
        &self,
        reader: &LogReader,
        generator: &PushGenerator,
        index: &BodyIndex,
        catch_up: Duration,
    ) -> Result<StatesVerification, ReadError> {
        let deadline = Instant::now() + catch_up;
        let streams = StreamGroups::new(reader, &self.settings, &self.failures)?;
        loop {
            let behind = streams.wait_until_caught_up(deadline);
            let mut result = self.compare(reader, generator, index)?;
            result.behind = behind;
            if result.holds() || Instant::now() > deadline {
                return Ok(result);
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    fn compare(
        &self,
        reader: &LogReader,
        generator: &PushGenerator,
        index: &BodyIndex,
    ) -> Result<StatesVerification, ReadError> {
        let mut result = StatesVerification::default();
        for scope in self.pairs.iter().flat_map(TopicPair::scopes) {
            let compared = scope.compare(reader, generator, index)?;
            *result.compared_of(scope.pair.kind) += compared.expected_states();
            let rechecked = scope.recheck(reader, &compared.differing())?;
            let orphans = scope.orphans(reader, &compared.unexplained())?;
            result.differing += rechecked.differing;
            result.differing += u64::try_from(orphans.len()).unwrap_or(u64::MAX);
            result.faults.extend(rechecked.mismatches);
            result.faults.extend(orphans);
            result.faults.truncate(MAX_LISTED_FAULTS);
        }
        Ok(result)
    }
}

impl StatesVerification {
    /// Returns whether all states equal the model.
    pub(crate) fn holds(&self) -> bool {
        self.differing == 0
    }

    fn compared_of(&mut self, kind: StateKind) -> &mut u64 {
        match kind {
            StateKind::Command => &mut self.commands,
            StateKind::Device => &mut self.devices,
            StateKind::Operation => &mut self.operations,
        }
    }
}
