//! `messageConfirm`: the platform confirms how far a command has come.
//!
//! Owns the published table of this body and the choice of its key.

use super::drift::Field;
use super::notify_type::NotifyType;
use super::push::Push;
use super::table::{self, Format, Row};
use super::unreadable::Cause;
use super::{CommandKey, Notification, Rules, Subject, Unreadable, scan, value};

/// The page "Pushing Device Acknowledgment Notifications" of the platform's northbound API.
const TABLE: [Row; 6] = [
    Row {
        field: Field::HeaderRequestId,
        format: Format::TextUpTo(128),
    },
    Row {
        field: Field::HeaderFrom,
        format: Format::DevicePath(128),
    },
    Row {
        field: Field::HeaderTo,
        format: Format::TextUpTo(128),
    },
    Row {
        field: Field::HeaderStatus,
        format: Format::OneOf(&["sent", "delivered", "executed"]),
    },
    Row {
        field: Field::HeaderTimestamp,
        format: Format::Timestamp,
    },
    Row {
        field: Field::Body,
        format: Format::Object,
    },
];

/// Reads a confirmation. Only `header.from` names its device.
pub(super) fn read<'a>(push: &Push<'a>, rules: Rules) -> Result<Notification<'a>, Unreadable<'a>> {
    let header = push.header.map_or("null", |header| header.get());
    let [request_id, from, to, status, timestamp] =
        scan::nested(header, ["requestId", "from", "to", "status", "timestamp"]);

    let device_id = value::device_in_path(from);
    let (key, fallback, field) = match rules.command_key {
        CommandKey::RequestId => (
            value::id(request_id),
            device_id.clone(),
            Field::HeaderRequestId,
        ),
        CommandKey::DeviceId => (device_id.clone(), value::id(request_id), Field::HeaderFrom),
    };
    let problem = key.as_ref().err().copied();
    let subject = Subject::new(
        NotifyType::MessageConfirm,
        device_id.ok(),
        key.or(fallback).ok(),
    );
    if let Some(problem) = problem {
        return Err(Unreadable::new(Cause::Id { field, problem }, subject));
    }

    let values = [request_id, from, to, status, timestamp, push.body];
    match table::check(&TABLE, &values, rules.validation) {
        Ok(drift) => Ok(Notification::new(subject, drift)),
        Err(field) => Err(Unreadable::new(Cause::FieldTable { field }, subject)),
    }
}
