//! A device's software as JSON, the value in `iot.device-software`.
//!
//! The names of an attempt's fields come from [`AttemptField`] alone. An absent field is left out,
//! never null. `older` is in the record's header; records from before the header have it in the
//! value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Attempt, AttemptField, DeviceSoftware, TEXTS};
use crate::streams::states::format::{FormatVersion, StoredState};
use crate::streams::states::texts::{Text, Texts};

/// What a device's state needs beyond the fields of its value.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Header {
    version: FormatVersion,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older: Vec<Attempt>,
}

impl StoredState for DeviceSoftware {
    type Header = Header;

    fn header(&self) -> Header {
        Header {
            version: FormatVersion,
            older: self.older.clone(),
        }
    }

    fn set_header(&mut self, header: Header) {
        self.older = header.older;
    }
}

/// The fields of the newest attempt are written twice: at the top and in `attempts`.
impl Serialize for DeviceSoftware {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("deviceId", &self.device_id)?;
        if let Some(newest) = self.attempts.first() {
            newest.write(&mut object)?;
        }
        object.serialize_entry("attempts", &self.attempts)?;
        object.end()
    }
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        self.write(&mut object)?;
        object.end()
    }
}

impl Attempt {
    /// Adds the attempt's fields to an object.
    fn write<M: SerializeMap>(&self, object: &mut M) -> Result<(), M::Error> {
        for (field, text) in AttemptField::ALL.iter().zip(self.texts.all()) {
            if let Some(text) = text {
                object.serialize_entry(field.label(), text)?;
            }
        }
        object.serialize_entry(AttemptField::Result.label(), &self.result)?;
        object.serialize_entry(AttemptField::ReceivedAt.label(), &self.received_at)
    }

    /// Reads the attempt's fields from an object and skips all others.
    fn read<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut texts: [Option<Text<'de>>; TEXTS] = Default::default();
        let (mut result, mut received_at) = (None, None);
        let mut seen = [false; AttemptField::ALL.len()];
        while let Some(name) = object.next_key::<Text<'de>>()? {
            let known = AttemptField::ALL
                .iter()
                .find(|field| field.label() == name.as_str());
            if let Some(field) = known
                && std::mem::replace(&mut seen[field.index()], true)
            {
                return Err(A::Error::duplicate_field(field.label()));
            }
            match known {
                Some(AttemptField::Result) => result = Some(object.next_value()?),
                Some(AttemptField::ReceivedAt) => received_at = Some(object.next_value()?),
                Some(text) => texts[text.index()] = object.next_value()?,
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        let missing = |field: AttemptField| A::Error::missing_field(field.label());
        Ok(Self {
            texts: Texts::new(texts.each_ref().map(|text| text.as_ref().map(Text::as_str))),
            result: result.ok_or_else(|| missing(AttemptField::Result))?,
            received_at: received_at.ok_or_else(|| missing(AttemptField::ReceivedAt))?,
        })
    }
}

impl<'de> Deserialize<'de> for Attempt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Attempt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an upgrade attempt")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Attempt, A::Error> {
                Attempt::read(object)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What is read of a state; the fields of the newest attempt at the top are not.
#[derive(serde::Deserialize)]
struct AllAttempts {
    #[serde(rename = "deviceId")]
    device_id: String,
    attempts: Vec<Attempt>,
    /// Only in records from before the header.
    #[serde(default)]
    older: Vec<Attempt>,
}

impl<'de> Deserialize<'de> for DeviceSoftware {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let AllAttempts {
            device_id,
            mut attempts,
            older,
        } = AllAttempts::deserialize(deserializer)?;
        if attempts.is_empty() {
            return Err(D::Error::custom("a device without attempts"));
        }
        attempts.extend(older);
        Ok(Self::retaining(device_id, attempts))
    }
}
