//! States as records: written and read again.

use std::fmt::Debug;

use serde_json::Value;

use crate::streams::states::format::{self, StateError, StoredState};
use crate::streams::states::position::Counted;

/// The state as it is after it was written and read again; checks that it is the same.
pub(crate) fn restored<S: StoredState + Debug + PartialEq>(state: &S) -> S {
    let value = serde_json::to_vec(state).unwrap();
    let header = serde_json::to_vec(&state.header()).unwrap();
    let restored = read(&value, Some(&header)).unwrap();
    assert_eq!(&restored, state);
    restored
}

/// Reads a record with nothing counted before.
pub(crate) fn read<S: StoredState>(value: &[u8], header: Option<&[u8]>) -> Result<S, StateError> {
    let counted = Counted::default();
    format::read(value, header, counted).map(|state| *state)
}

/// The content of the header.
pub(crate) fn header(state: &impl StoredState) -> Value {
    serde_json::to_value(state.header()).unwrap()
}
