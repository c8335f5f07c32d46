//! The format of a state's record: the published fields in the value, and in the header
//! `northbridge-state` the version of the format with what the state needs beyond them.
//!
//! Records from before the header have everything in their value. The name of the header and its
//! field `version` are the same in every version, so that an older program can tell that a record is
//! newer than itself.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::position::Counted;

/// The version that is written, and the newest that is read.
const VERSION: u64 = 1;

/// A state as its topic stores it.
///
/// Its serialized form is the value. It is deserialized from a value of any version, and of one
/// without a header.
pub trait StoredState: Clone + Serialize + DeserializeOwned + Send {
    /// The content of the header: a [`FormatVersion`], and what the value lacks.
    type Header: Serialize + DeserializeOwned;

    /// Whether a state without a header must be rewritten as soon as it is restored: if it needs
    /// something that only the time of its last write tells.
    const REWRITTEN_AT_ONCE: bool = false;

    /// The header to write beside the value.
    fn header(&self) -> Self::Header;

    /// Completes a state that was read from a value with this header.
    fn set_header(&mut self, header: Self::Header);

    /// Completes a state that was read from a value without a header; `counted` are the input
    /// records that it includes.
    fn set_counted(&mut self, counted: Counted) {
        let _ = counted;
    }
}

/// The field `version` of a header. It is written as the current version, and cannot be read if it
/// is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatVersion;

/// Why a record of a state topic cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    /// Another program wrote it.
    Unreadable,
    /// A newer version of this program wrote it.
    Newer(NewerFormat),
}

/// The version of a record that only a newer version of this program can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("format version {0} is newer than version {VERSION}, the newest that this program reads")]
pub(crate) struct NewerFormat(u64);

/// Reads the record of a state. `counted` are the input records that a state without a header
/// includes.
pub(crate) fn read<S: StoredState>(
    value: &[u8],
    header: Option<&[u8]>,
    counted: Counted,
) -> Result<Box<S>, StateError> {
    let Some(header) = header else {
        let mut state: Box<S> = from_json(value)?;
        state.set_counted(counted);
        return Ok(state);
    };
    let content = from_json(header)
        .map_err(|unreadable| newer_format(header).map_or(unreadable, StateError::Newer))?;
    let mut state: Box<S> = from_json(value)?;
    state.set_header(content);
    Ok(state)
}

fn newer_format(header: &[u8]) -> Option<NewerFormat> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = from_json(header).ok()?;
    (version > VERSION).then_some(NewerFormat(version))
}

fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(json).map_err(|_| StateError::Unreadable)
}

impl Serialize for FormatVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(VERSION)
    }
}

impl<'de> Deserialize<'de> for FormatVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1..=VERSION => Ok(Self),
            _ => Err(D::Error::custom("not a known version")),
        }
    }
}
