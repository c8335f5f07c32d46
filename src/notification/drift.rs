//! The fields of a push that are not as published: a set over a closed list.
//!
//! Knows the names of fields, and must not know the rules for any of them.

use std::fmt;

use super::closed_list::closed_list;

closed_list! {
    /// A field that matters to the reader, by its path in the body.
    pub enum Field {
        NotifyType = "notifyType",
        Header = "header",
        HeaderRequestId = "header.requestId",
        HeaderDeviceId = "header.deviceId",
        HeaderFrom = "header.from",
        HeaderTo = "header.to",
        HeaderStatus = "header.status",
        HeaderTimestamp = "header.timestamp",
        Body = "body",
        DeviceId = "deviceId",
        AppId = "appId",
        OperationId = "operationId",
        SubOperationId = "subOperationId",
        CurVersion = "curVersion",
        TargetVersion = "targetVersion",
        SourceVersion = "sourceVersion",
        SwUpgradeResult = "swUpgradeResult",
        UpgradeTime = "upgradeTime",
        ResultDesc = "resultDesc",
        ErrorCode = "errorCode",
        Description = "description",
        RequestId = "requestId",
        CommandId = "commandId",
        RuleId = "ruleId",
        Resource = "resource",
        Event = "event",
        EnvelopeRequestId = "request_id",
        NotifyData = "notify_data",
        NotifyDataHeader = "notify_data.header",
        NotifyDataDeviceId = "notify_data.header.device_id",
        DeviceIdIot = "deviceIdIot",
        FlatDeviceId = "device_id",
    }
}

const _: () = assert!(Field::ALL.len() <= 32, "Drift has a bit for each field");

/// The fields of one push that are not as published.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift(u32);

impl Drift {
    /// Returns whether every field is as published.
    #[cfg(test)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each field once, in the order of [`Field::ALL`].
    pub(crate) fn fields(self) -> impl Iterator<Item = Field> {
        let fields = Field::ALL.iter().copied();
        fields.filter(move |field| self.0 & bit(*field) != 0)
    }

    pub(super) fn add(&mut self, field: Field) {
        self.0 |= bit(field);
    }
}

fn bit(field: Field) -> u32 {
    1 << field.index()
}

impl fmt::Debug for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.fields().map(Field::label))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_field_is_reported_alone_and_once() {
        for field in Field::ALL {
            let mut drift = Drift::default();
            drift.add(*field);
            drift.add(*field);
            assert_eq!(drift.fields().collect::<Vec<_>>(), [*field]);
        }
    }

    #[test]
    fn an_empty_set_reports_no_field() {
        assert!(Drift::default().is_empty());
        assert_eq!(Drift::default().fields().count(), 0);
    }
}
