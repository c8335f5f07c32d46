//! What is proved after a run, put together: what is stored, and what the
//! streams made of it.

use std::time::Duration;

use rdkafka::error::KafkaError;

use super::index::Index;
use super::ledger::Numbers;
use super::proof::{self, Proof};
use super::states::{self, States};
use super::verify::Stored;
use super::world::World;
use crate::config::Settings;

/// The topics since a moment.
#[derive(Debug)]
pub struct Judge {
    stored: Stored,
    states: Option<States>,
}

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    /// The pushes of the run are the first of these.
    pub world: World,
    /// So many.
    pub pushes: u32,
    /// Those answered 200.
    pub answered: Numbers,
}

/// What the proofs came to.
#[derive(Debug)]
pub struct Judgement {
    /// Whether every push answered 200 is stored.
    pub stored: proof::Verdict,
    /// Whether the states follow from what is stored; none where not asked for.
    pub states: Option<states::Verdict>,
}

impl Judge {
    /// Notes where the topics end now, before a run.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or lacks one of the topics.
    pub fn from_now(settings: &Settings, with_states: bool) -> Result<Self, KafkaError> {
        let states = with_states.then(|| States::from_now(settings));
        Ok(Self {
            stored: Stored::from_now(settings)?,
            states: states.transpose()?,
        })
    }

    /// Reads what came since.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer.
    pub fn judge(self, pushed: &Pushed, catch_up: Duration) -> Result<Judgement, KafkaError> {
        let Pushed {
            world,
            pushes,
            answered,
        } = pushed;
        eprintln!("reading what is stored");
        let index = Index::of(world, *pushes);
        let proof = Proof::new(world, &index, *pushes, answered);
        let stored = self.stored.prove(proof)?;
        let states = self.states.map(|states| {
            eprintln!("waiting until the streams have caught up");
            states.prove(world, &index, catch_up)
        });
        Ok(Judgement {
            stored,
            states: states.transpose()?,
        })
    }
}

impl Judgement {
    /// Whether all that was to be proved holds.
    pub fn holds(&self) -> bool {
        let states = self.states.as_ref();
        self.stored.holds() && states.is_none_or(states::Verdict::holds)
    }
}
