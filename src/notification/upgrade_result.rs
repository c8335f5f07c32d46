//! `swUpgradeResultNotify`: the software upgrade of one device ended.
//!
//! Owns the published table of this body and the choice of its key.

use super::drift::Field;
use super::notify_type::NotifyType;
use super::push::Push;
use super::table::{self, Format, Row};
use super::unreadable::Cause;
use super::{Notification, Subject, Unreadable, Validation, scan, value};

/// The page "Pushing Software Upgrade Result Notifications" of the platform's northbound API,
/// without `notifyType`. No lengths are published.
const TABLE: [Row; 12] = [
    text(Field::DeviceId),
    text(Field::AppId),
    text(Field::OperationId),
    text(Field::SubOperationId),
    text(Field::CurVersion),
    text(Field::TargetVersion),
    text(Field::SourceVersion),
    Row {
        field: Field::SwUpgradeResult,
        format: Format::OneOf(&["SUCCESS", "FAIL"]),
    },
    // A string on this page, a `long` on another page of the same API.
    Row {
        field: Field::UpgradeTime,
        format: Format::TextOrNumber,
    },
    text(Field::ResultDesc),
    text(Field::ErrorCode),
    text(Field::Description),
];

/// Reads an upgrade result, whose key is its device.
pub(super) fn read<'a>(
    push: &Push<'a>,
    validation: Validation,
) -> Result<Notification<'a>, Unreadable<'a>> {
    let device_id = value::id(push.device_id);
    let problem = device_id.as_ref().err().copied();
    let key = device_id.clone().or(value::id(push.operation_id)).ok();
    let subject = Subject::new(NotifyType::SwUpgradeResultNotify, device_id.ok(), key);
    if let Some(problem) = problem {
        let field = Field::DeviceId;
        return Err(Unreadable::new(Cause::Id { field, problem }, subject));
    }

    let values = scan::nested(push.text, TABLE.each_ref().map(|row| row.field.label()));
    match table::check(&TABLE, &values, validation) {
        Ok(drift) => Ok(Notification::new(subject, drift)),
        Err(field) => Err(Unreadable::new(Cause::FieldTable { field }, subject)),
    }
}

const fn text(field: Field) -> Row {
    Row {
        field,
        format: Format::Text,
    }
}
