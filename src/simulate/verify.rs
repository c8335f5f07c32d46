//! Verification after a run: every push answered 200 is stored, and the state
//! topics hold what follows from what is stored.
//!
//! Reads only what was written after the run began. It must not know how pushes
//! were sent or what the listener did with them.

mod index;
mod states;
mod stored;

use std::time::Duration;

use super::pushes::{PushGenerator, PushSet};
use crate::config::Settings;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::{LogReader, LogReaderConfig, ReadError};
use crate::process::output;

pub use index::BodyIndex;
pub(crate) use states::StatesVerification;
use states::StatesVerifier;
use stored::StoredVerifier;
pub use stored::comparison::{StoredComparison, StoredVerification};

/// A partition without a record for this long is unavailable: an election takes
/// less.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The topics as they are before a run, to be read from there after it.
#[derive(Debug)]
pub(crate) struct Verifier {
    reader: LogReader,
    stored: StoredVerifier,
    states: Option<StatesVerifier>,
}

/// The pushes of a run, and which of them were answered 200.
#[derive(Debug)]
pub(crate) struct PushedRun {
    pub(crate) generator: PushGenerator,
    /// The run's pushes are the numbers below this one.
    pub(crate) pushes: u32,
    pub(crate) acknowledged: PushSet,
}

/// The result of everything that was verified.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) stored: StoredVerification,
    /// `None` if the states were not to be verified.
    pub(crate) states: Option<StatesVerification>,
}

impl Verifier {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer or lacks one of the
    /// topics.
    pub(crate) fn at_current_ends(
        settings: &Settings,
        failures: &Failures,
        verify_states: bool,
    ) -> Result<Self, ReadError> {
        let config = LogReaderConfig::new(settings, failures).stall_timeout(STALL_TIMEOUT);
        let reader = config.create()?;
        let states =
            verify_states.then(|| StatesVerifier::at_current_ends(&reader, settings, failures));
        Ok(Self {
            stored: StoredVerifier::at_current_ends(&reader, settings)?,
            states: states.transpose()?,
            reader,
        })
    }

    /// Verifies a run from the records written since; blocks for up to
    /// `catch_up` longer if the states are verified.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer.
    pub(crate) fn verify(
        self,
        run: &PushedRun,
        catch_up: Duration,
    ) -> Result<Verification, ReadError> {
        output::note("reading the stored records");
        let index = BodyIndex::new(&run.generator, run.pushes);
        let comparison =
            StoredComparison::new(&run.generator, &index, run.pushes, &run.acknowledged);
        let stored = self.stored.verify(&self.reader, comparison)?;
        let states = self.states.map(|states| {
            output::note("waiting for the streams to catch up");
            states.verify(&self.reader, &run.generator, &index, catch_up)
        });
        Ok(Verification {
            stored,
            states: states.transpose()?,
        })
    }
}

impl Verification {
    /// Returns whether everything that was verified holds.
    pub(crate) fn holds(&self) -> bool {
        let states = self.states.as_ref();
        self.stored.holds() && states.is_none_or(StatesVerification::holds)
    }
}
