//! Every type without a stream of its own: the best id that it carries, wherever that stands.
//!
//! Nothing here is mandatory: an id that cannot be used is reported as drift and the next is tried.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::drift::{Drift, Field};
use super::push::{Kind, Push};
use super::scan::Values;
use super::unreadable::IdProblem;
use super::{Notification, Subject, scan, value};

/// Keys a push by its device, else by the request, command, operation or rule it belongs to.
pub(super) fn read<'a>(push: &Push<'a>, kind: Kind<'a>) -> Notification<'a> {
    let mut search = Search { drift: kind.drift };
    let (device_id, key) = search.ids(push);
    let subject = Subject {
        notify_type: kind.notify_type,
        type_name: kind.type_name,
        device_id,
        key,
    };
    Notification::new(subject, search.drift)
}

/// The same ids for an object of no known shape.
pub(super) fn subject_of_unknown<'a>(push: &Push<'a>) -> Subject<'a> {
    let mut search = Search {
        drift: Drift::default(),
    };
    let (device_id, key) = search.ids(push);
    Subject {
        device_id,
        key,
        ..Subject::unknown()
    }
}

type Id<'a> = Option<Cow<'a, str>>;

struct Search {
    drift: Drift,
}

impl Search {
    /// The device, and the key.
    fn ids<'a>(&mut self, push: &Push<'a>) -> (Id<'a>, Id<'a>) {
        if let device_id @ Some(_) = self.id(Field::DeviceId, push.device_id) {
            return (device_id.clone(), device_id);
        }
        let names = ["deviceId", "from", "requestId"];
        let [device_id, from, header_request_id] = self.inside(Field::Header, push.header, names);
        let device_id = self
            .id(Field::HeaderDeviceId, device_id)
            .or_else(|| self.keep(Field::HeaderFrom, from, value::device_in_path))
            .or_else(|| self.device_of_envelope(push));
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
        let [header] = self.inside(Field::NotifyData, push.notify_data, ["header"]);
        let [device_id] = self.inside(Field::NotifyDataHeader, header, ["device_id"]);
        self.id(Field::NotifyDataDeviceId, device_id)
    }

    fn id<'a>(&mut self, field: Field, value: Option<&'a RawValue>) -> Id<'a> {
        self.keep(field, value, value::id)
    }

    /// What `read` makes of a value; a value that is there and of no use is drift.
    fn keep<'a>(
        &mut self,
        field: Field,
        value: Option<&'a RawValue>,
        read: fn(Option<&'a RawValue>) -> Result<Cow<'a, str>, IdProblem>,
    ) -> Id<'a> {
        let id = read(Some(value?)).ok();
        if id.is_none() {
            self.drift.add(field);
        }
        id
    }

    /// The values inside an object that may be missing or null.
    fn inside<'a, const N: usize>(
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
