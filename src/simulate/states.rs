//! The proof that the streams did their work: the state topics equal the model
//! of the raw topics.
//!
//! What decides is what stands in the raw topics, whatever was answered. Only
//! keys of the run are compared, those that a record since its start has whose
//! body is a push of the run; so neither other senders nor earlier runs
//! matter. But a state that was written since then must follow from some
//! record. Where such a key was used before, as it is by another run with the
//! same seed, its state is more than the run's pushes: so a key that differs
//! is looked at again, with all its records from the topics' beginnings.
//!
//! Commands and devices are compared partition by partition, operations all at
//! once. No record is kept. What is kept of each record of the run in the
//! partition at hand are 48 bytes, and 64 of each of its keys, and of others'
//! records 16; the pushes are derived again.

mod again;
mod first_look;
mod kind;
mod streams;

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::index::Index;
use super::world::World;
use crate::config::Settings;
use crate::kafka::scan::{Isolation, Positions, Scan};
use crate::topics::name;

pub use again::Difference;
pub use kind::State;

/// So many differences are told one by one.
const TOLD: usize = 20;
/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The states since a moment, and what they follow from.
pub struct States {
    settings: Settings,
    scan: Scan,
    pairs: [Pair; 3],
}

/// A state topic beside the raw topic that it follows from.
#[derive(Debug)]
struct Pair {
    state: State,
    raw: Log,
    states: Log,
}

/// A topic, and where its partitions ended at the start.
#[derive(Debug)]
struct Log {
    name: String,
    start: Positions,
}

/// Partitions that are compared at a time: a key has its records in the ones
/// and its state in the others.
struct Scope<'a> {
    pair: &'a Pair,
    raw: Vec<i32>,
    states: Vec<i32>,
}

/// What the comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Commands of the run that must have a state.
    pub commands: u64,
    /// Devices of the run that must have a state.
    pub devices: u64,
    /// Operations of the run that must have a state.
    pub operations: u64,
    /// States that are not the model's.
    pub differing: u64,
    /// What the streams had not done when the time was over.
    pub behind: Option<String>,
    /// The first differences.
    pub faults: Vec<Difference>,
}

impl States {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or lacks one of the topics.
    pub fn from_now(settings: &Settings) -> Result<Self, KafkaError> {
        let scan = Scan::new(settings, Isolation::Committed)?;
        let pair = |state| Pair::from_now(&scan, settings, state);
        let pairs = [
            pair(State::Command)?,
            pair(State::Device)?,
            pair(State::Operation)?,
        ];
        let settings = settings.clone();
        Ok(Self {
            settings,
            scan,
            pairs,
        })
    }

    /// Waits until the streams have caught up, then compares. Both together are
    /// tried until they succeed or the time is over.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer.
    pub fn prove(
        &self,
        world: &World,
        index: &Index,
        catch_up: Duration,
    ) -> Result<Verdict, KafkaError> {
        let give_up = Instant::now() + catch_up;
        let streams = streams::Streams::new(&self.settings)?;
        loop {
            let behind = streams.await_caught_up(give_up);
            let mut verdict = self.compare(world, index)?;
            verdict.behind = behind;
            if verdict.holds() || Instant::now() > give_up {
                return Ok(verdict);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn compare(&self, world: &World, index: &Index) -> Result<Verdict, KafkaError> {
        let mut verdict = Verdict::default();
        for scope in self.pairs.iter().flat_map(Pair::scopes) {
            let compared = scope.compare(&self.scan, world, index)?;
            *verdict.count_of(scope.pair.state) += compared.wanted();
            let again = scope.compare_again(&self.scan, &compared.differing())?;
            let unfounded = scope.unfounded(&self.scan, &compared.strangers())?;
            verdict.differing += again.differing;
            verdict.differing += u64::try_from(unfounded.len()).unwrap_or(u64::MAX);
            verdict.faults.extend(again.differences);
            verdict.faults.extend(unfounded);
            verdict.faults.truncate(TOLD);
        }
        Ok(verdict)
    }
}

impl Pair {
    fn from_now(scan: &Scan, settings: &Settings, state: State) -> Result<Self, KafkaError> {
        Ok(Self {
            state,
            raw: Log::from_now(scan, name(settings, state.follows_from()))?,
            states: Log::from_now(scan, name(settings, state.topic()))?,
        })
    }

    /// A command and a device have all their records in one partition, and
    /// their state in the one of the same number. The devices of an operation
    /// are everywhere.
    fn scopes(&self) -> Vec<Scope<'_>> {
        let raw: Vec<i32> = self.raw.start.keys().copied().collect();
        let states: Vec<i32> = self.states.start.keys().copied().collect();
        let scope = |raw, states| Scope {
            pair: self,
            raw,
            states,
        };
        match self.state {
            State::Operation => vec![scope(raw, states)],
            State::Command | State::Device => {
                let same = |number: &i32| states.contains(number).then_some(*number);
                raw.iter()
                    .map(|number| scope(vec![*number], same(number).into_iter().collect()))
                    .collect()
            }
        }
    }
}

impl Log {
    fn from_now(scan: &Scan, name: String) -> Result<Self, KafkaError> {
        let start = scan.ends(&name)?;
        Ok(Self { name, start })
    }
}

impl Verdict {
    /// Whether all states are the model's.
    pub fn holds(&self) -> bool {
        self.differing == 0
    }

    fn count_of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Command => &mut self.commands,
            State::Device => &mut self.devices,
            State::Operation => &mut self.operations,
        }
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}
