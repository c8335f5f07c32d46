//! One push with its top level scanned: the values that identify its type and its ids.
//!
//! Knows the three shapes that reach the listener, and must not know what each type requires.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::drift::{Drift, Field};
use super::notify_type::NotifyType;
use super::scan;
use super::unreadable::Cause;
use super::value;

/// The longest name of a type that is kept.
const MAX_NAME_BYTES: usize = 256;

/// The values at the top level of a body, in the sender's bytes.
pub(super) struct Push<'a> {
    pub(super) text: &'a str,
    pub(super) notify_type: Option<&'a RawValue>,
    pub(super) header: Option<&'a RawValue>,
    pub(super) body: Option<&'a RawValue>,
    pub(super) device_id: Option<&'a RawValue>,
    pub(super) device_id_iot: Option<&'a RawValue>,
    pub(super) flat_device_id: Option<&'a RawValue>,
    pub(super) dotted_device_id: Option<&'a RawValue>,
    pub(super) request_id: Option<&'a RawValue>,
    pub(super) command_id: Option<&'a RawValue>,
    pub(super) operation_id: Option<&'a RawValue>,
    pub(super) rule_id: Option<&'a RawValue>,
    pub(super) result: Option<&'a RawValue>,
    pub(super) resource: Option<&'a RawValue>,
    pub(super) event: Option<&'a RawValue>,
    pub(super) envelope_request_id: Option<&'a RawValue>,
    pub(super) notify_data: Option<&'a RawValue>,
}

/// The type of a push.
pub(super) struct Identity<'a> {
    pub(super) notify_type: NotifyType,
    pub(super) type_name: Cow<'a, str>,
    pub(super) drift: Drift,
}

impl<'a> Push<'a> {
    pub(super) fn scan(text: &'a str) -> Result<Self, Cause> {
        let [
            notify_type,
            header,
            body,
            device_id,
            device_id_iot,
            flat_device_id,
            dotted_device_id,
            request_id,
            command_id,
            operation_id,
            rule_id,
            result,
            resource,
            event,
            envelope_request_id,
            notify_data,
        ] = scan::object(
            text,
            [
                "notifyType",
                "header",
                "body",
                "deviceId",
                "deviceIdIot",
                "device_id",
                "notify_data.header.device_id",
                "requestId",
                "commandId",
                "operationId",
                "ruleId",
                "result",
                "resource",
                "event",
                "request_id",
                "notify_data",
            ],
        )?;
        Ok(Self {
            text,
            notify_type,
            header,
            body,
            device_id,
            device_id_iot,
            flat_device_id,
            dotted_device_id,
            request_id,
            command_id,
            operation_id,
            rule_id,
            result,
            resource,
            event,
            envelope_request_id,
            notify_data,
        })
    }

    /// Identifies the push's type; `None` if it has none of the three shapes. A `notifyType` in
    /// the header counts if there is none outside.
    pub(super) fn identity(&self) -> Option<Identity<'a>> {
        self.named().or_else(|| {
            if self.is_envelope() {
                Some(self.envelope())
            } else if self.is_callback() {
                Some(Identity::of_known(NotifyType::CommandCallback))
            } else {
                None
            }
        })
    }

    fn named(&self) -> Option<Identity<'a>> {
        let name = type_name(self.notify_type).or_else(|| self.name_in_header())?;
        if let Some(notify_type) = NotifyType::from_published(&name) {
            return Some(Identity::of_known(notify_type));
        }
        let mut drift = Drift::default();
        let type_name = presentable(name).unwrap_or_else(|| {
            drift.add(Field::NotifyType);
            Cow::Borrowed(NotifyType::Other.label())
        });
        Some(Identity {
            notify_type: NotifyType::Other,
            type_name,
            drift,
        })
    }

    fn name_in_header(&self) -> Option<Cow<'a, str>> {
        let [notify_type] = scan::nested(self.header?.get(), ["notifyType"]);
        type_name(notify_type)
    }

    /// Version 5 of the platform sends all three fields; two of them suffice to recognize it.
    fn is_envelope(&self) -> bool {
        let fields = [self.resource, self.event, self.notify_data];
        fields.iter().flatten().count() >= 2
    }

    /// The type's name joins both fields, as in `device.message.report`.
    fn envelope(&self) -> Identity<'a> {
        let mut drift = Drift::default();
        let mut or_drift = |field, name: Option<Cow<'a, str>>| {
            let name = name.and_then(presentable);
            if name.is_none() {
                drift.add(field);
            }
            name
        };
        let resource = or_drift(Field::Resource, self.resource.and_then(value::text));
        let event = or_drift(Field::Event, self.event.and_then(value::text));
        let type_name = resource.zip(event).and_then(|(resource, event)| {
            let name = [&*resource, ".", &*event].concat();
            or_drift(Field::Event, Some(Cow::Owned(name)))
        });
        Identity {
            notify_type: NotifyType::Envelope,
            type_name: type_name.unwrap_or(Cow::Borrowed(NotifyType::Other.label())),
            drift,
        }
    }

    /// `deviceId`, `commandId` and `result` are all mandatory; `commandId` and one more suffice to
    /// recognize it.
    fn is_callback(&self) -> bool {
        self.command_id.is_some() && (self.result.is_some() || self.device_id.is_some())
    }
}

impl Identity<'_> {
    /// A known type, whose name is its label.
    fn of_known(notify_type: NotifyType) -> Self {
        Self {
            notify_type,
            type_name: Cow::Borrowed(notify_type.label()),
            drift: Drift::default(),
        }
    }
}

fn type_name(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    value::text(value?).filter(|name| !name.is_empty())
}

/// A name that a header and a log can hold unchanged.
fn presentable(name: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    (fits && !name.contains(char::is_control)).then_some(name)
}
