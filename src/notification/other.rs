//! Every type without a stream of its own: finds the best id in it, at any of the known places.
//!
//! No id is mandatory here: one that cannot be used is reported as drift, and the next is tried.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::drift::{Drift, Field};
use super::push::{Identity, Push};
use super::scan::Values;
use super::unreadable::IdProblem;
use super::{Notification, Subject, scan, value};

/// Reads a push, whose key is its device, or else its request, command, operation or rule.
pub(super) fn read<'a>(push: &Push<'a>, identity: Identity<'a>) -> Notification<'a> {
    let mut search = Search {
        drift: identity.drift,
    };
    let (device_id, key) = search.ids(push);
    let subject = Subject {
        notify_type: identity.notify_type,
        type_name: identity.type_name,
        device_id,
        key,
    };
    Notification::new(subject, search.drift)
}

/// Reads an object of unknown shape; `None` if it has no id at any of the same places.
pub(super) fn read_unknown<'a>(push: &Push<'a>) -> Option<Notification<'a>> {
    let mut search = Search {
        drift: Drift::default(),
    };
    search.drift.add(Field::NotifyType);
    let (device_id, key) = search.ids(push);
    let subject = Subject {
        device_id,
        key: Some(key?),
        ..Subject::unknown()
    };
    Some(Notification::new(subject, search.drift))
}

/// Returns whether a push names this request, or this command, at one of the places
/// that a key may come from. Its key says so only if it names no device.
pub(super) fn names_request(push: &Push<'_>, id: &str) -> bool {
    let header = push.header.map_or("", RawValue::get);
    let [in_header] = scan::nested(header, ["requestId"]);
    let places = [
        push.request_id,
        in_header,
        push.envelope_request_id,
        push.command_id,
    ];
    let mut named = places.into_iter().map(value::id);
    named.any(|found| found.is_ok_and(|found| found == id))
}

type Id<'a> = Option<Cow<'a, str>>;

struct Search {
    drift: Drift,
}

impl Search {
    /// The device id and the key.
    fn ids<'a>(&mut self, push: &Push<'a>) -> (Id<'a>, Id<'a>) {
        if let device_id @ Some(_) = self.id(Field::DeviceId, push.device_id) {
            return (device_id.clone(), device_id);
        }
        let names = ["deviceId", "from", "requestId"];
        let [device_id, from, header_request_id] = self.fields(Field::Header, push.header, names);
        let device_id = self
            .id(Field::HeaderDeviceId, device_id)
            .or_else(|| self.usable(Field::HeaderFrom, from, value::device_in_path))
            .or_else(|| self.device_of_envelope(push))
            .or_else(|| self.id(Field::DeviceIdIot, push.device_id_iot))
            .or_else(|| self.id(Field::FlatDeviceId, push.flat_device_id))
            .or_else(|| self.id(Field::NotifyDataDeviceId, push.dotted_device_id));
        if device_id.is_some() {
            return (device_id.clone(), device_id);
        }
        let key = self
            .id(Field::RequestId, push.request_id)
            .or_else(|| self.id(Field::HeaderRequestId, header_request_id))
            .or_else(|| self.id(Field::EnvelopeRequestId, push.envelope_request_id))
            .or_else(|| self.id(Field::CommandId, push.command_id))
            .or_else(|| self.id(Field::OperationId, push.operation_id))
            .or_else(|| self.id(Field::RuleId, push.rule_id));
        (None, key)
    }

    fn device_of_envelope<'a>(&mut self, push: &Push<'a>) -> Id<'a> {
        let [header] = self.fields(Field::NotifyData, push.notify_data, ["header"]);
        let [device_id] = self.fields(Field::NotifyDataHeader, header, ["device_id"]);
        self.id(Field::NotifyDataDeviceId, device_id)
    }

    fn id<'a>(&mut self, field: Field, value: Option<&'a RawValue>) -> Id<'a> {
        self.usable(field, value, value::id)
    }

    /// The id that `read` finds in a value. A value without a usable id is drift, and so is a number;
    /// an absent one is not.
    fn usable<'a>(
        &mut self,
        field: Field,
        value: Option<&'a RawValue>,
        read: fn(Option<&'a RawValue>) -> Result<Cow<'a, str>, IdProblem>,
    ) -> Id<'a> {
        let value = value?;
        let id = read(Some(value)).ok();
        if id.is_none() || value::is_number(value) {
            self.drift.add(field);
        }
        id
    }

    /// The fields of an object. Any value but an object is drift, unless it is absent or null.
    fn fields<'a, const N: usize>(
        &mut self,
        field: Field,
        value: Option<&'a RawValue>,
        names: [&str; N],
    ) -> Values<'a, N> {
        let Some(value) = value.filter(|value| !value::is_null(value)) else {
            return [None; N];
        };
        if !value::is_object(value) {
            self.drift.add(field);
        }
        scan::nested(value.get(), names)
    }
}
