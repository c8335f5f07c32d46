//! A command's state as JSON, the value in `iot.command-state`.
//!
//! The names of its fields come from [`StateField`] alone. An absent field is left out, never null.
//! `bodyAt` is in the record's header; records from before the header have it in the value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize as DeriveDeserialize, Serialize as DeriveSerialize};

use super::{CommandState, Progress, StateField, Status, TEXTS};
use crate::streams::states::format::{FormatVersion, StoredState};
use crate::streams::states::texts::{Text, Texts};
use crate::streams::states::time::Timestamp;

/// The field that was in the value before there was a header.
const BODY_AT: &str = "bodyAt";

/// What a command's state needs beyond the fields of its value.
#[derive(Debug, DeriveSerialize, DeriveDeserialize)]
pub struct Header {
    version: FormatVersion,
    #[serde(rename = "bodyAt", default, skip_serializing_if = "Option::is_none")]
    body_at: Option<Timestamp>,
}

impl StoredState for CommandState {
    type Header = Header;

    fn header(&self) -> Header {
        Header {
            version: FormatVersion,
            body_at: self.progress.body_at,
        }
    }

    fn set_header(&mut self, header: Header) {
        self.progress.body_at = header.body_at;
    }
}

impl Serialize for CommandState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        let Progress {
            status,
            reached_at,
            body_at: _,
        } = self.progress;
        for (field, text) in StateField::ALL.iter().zip(self.texts.all()) {
            write(&mut object, *field, text)?;
        }
        write(&mut object, StateField::Status, Some(status))?;
        let times = StateField::ALL.iter().skip(StateField::SentAt.index());
        for (field, at) in times.zip(reached_at) {
            write(&mut object, *field, at)?;
        }
        write(&mut object, StateField::Body, self.body.as_deref())?;
        object.end()
    }
}

fn write<M: SerializeMap>(
    object: &mut M,
    field: StateField,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| {
        object.serialize_entry(field.label(), &value)
    })
}

impl<'de> Deserialize<'de> for CommandState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = CommandState;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the state of a command")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<CommandState, A::Error> {
                read(object)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads a state. `requestId` and `status` are mandatory, and unknown fields are skipped.
fn read<'de, A: MapAccess<'de>>(mut object: A) -> Result<CommandState, A::Error> {
    let mut texts: [Option<Text<'de>>; TEXTS] = Default::default();
    let mut status = None;
    let mut reached_at = [None; Status::ALL.len()];
    let (mut body, mut body_at) = (None, None);
    let mut seen = [false; StateField::ALL.len()];
    while let Some(name) = object.next_key::<Text<'de>>()? {
        let known = StateField::ALL
            .iter()
            .find(|field| field.label() == name.as_str());
        if let Some(field) = known
            && std::mem::replace(&mut seen[field.index()], true)
        {
            return Err(A::Error::duplicate_field(field.label()));
        }
        match known {
            Some(StateField::Status) => status = Some(object.next_value()?),
            Some(
                time @ (StateField::SentAt | StateField::DeliveredAt | StateField::ExecutedAt),
            ) => reached_at[time.index() - StateField::SentAt.index()] = object.next_value()?,
            Some(StateField::Body) => body = object.next_value()?,
            Some(text) => texts[text.index()] = object.next_value()?,
            None if name.as_str() == BODY_AT => body_at = object.next_value()?,
            None => drop(object.next_value::<IgnoredAny>()?),
        }
    }
    let [request_id, ..] = &texts;
    if request_id.is_none() {
        return Err(A::Error::missing_field(StateField::RequestId.label()));
    }
    Ok(CommandState {
        texts: Texts::new(texts.each_ref().map(|text| text.as_ref().map(Text::as_str))),
        progress: Progress {
            status: status.ok_or_else(|| A::Error::missing_field(StateField::Status.label()))?,
            reached_at,
            body_at,
        },
        body,
    })
}
