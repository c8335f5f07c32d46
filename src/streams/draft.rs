//! A state while a batch is applied to it: copied on the first write, and only
//! then.
//!
//! Most events change their state, but a repeated push changes nothing, and the
//! state of an operation is too large to copy for each of its devices.

/// A state that a batch may change: the committed one until the first change,
/// then the batch's own copy.
#[derive(Debug)]
pub struct Draft<'s, State> {
    committed: Option<&'s State>,
    changed: Option<Box<State>>,
}

impl<'s, State> Draft<'s, State> {
    /// A draft over the `committed` state; `changed` is what earlier records of
    /// the same batch made of it.
    pub fn of(committed: Option<&'s State>, changed: Option<Box<State>>) -> Self {
        Self { committed, changed }
    }

    /// The state as the batch has it so far; `None` for a key not seen before.
    pub fn get(&self) -> Option<&State> {
        self.changed.as_deref().or(self.committed)
    }

    /// Replaces the whole state.
    pub fn replace(&mut self, state: Box<State>) {
        self.changed = Some(state);
    }

    /// Returns the state for a change in place. The first call of a batch clones
    /// the committed state, or starts with `initial` if there is none.
    pub fn edit(&mut self, initial: impl FnOnce() -> State) -> &mut State
    where
        State: Clone,
    {
        let committed = self.committed;
        self.changed
            .get_or_insert_with(|| Box::new(committed.map_or_else(initial, State::clone)))
    }

    /// The state to write; `None` if nothing changed it.
    pub fn changed(self) -> Option<Box<State>> {
        self.changed
    }
}
