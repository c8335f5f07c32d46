//! Which fields of a push are not as published: a small set over a closed list.
//!
//! Knows the names of fields, and must not know what is right for each.

use std::fmt;

use super::closed_list::closed_list;

closed_list! {
    /// A field that the reader looks at, by its path inside the body.
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
    }
}

const _: () = assert!(Field::ALL.len() <= 32, "a set of fields is 32 bits");

/// The fields of one push that are not as published.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift(u32);

impl Drift {
    /// Whether every field is as published.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The labels of the fields, each once, in the order of [`Field::ALL`].
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Field::ALL
            .iter()
            .enumerate()
            .filter(move |(place, _)| self.0 & (1 << place) != 0)
            .map(|(_, field)| field.label())
    }

    pub(super) fn add(&mut self, field: Field) {
        let place = Field::ALL.iter().position(|known| *known == field);
        self.0 |= place.map_or(0, |place| 1 << place);
    }
}

impl fmt::Debug for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_reported_alone_and_once() {
        for field in Field::ALL {
            let mut drift = Drift::default();
            drift.add(*field);
            drift.add(*field);
            assert_eq!(drift.iter().collect::<Vec<_>>(), [field.label()]);
        }
    }

    #[test]
    fn nothing_added_is_nothing_reported() {
        assert!(Drift::default().is_empty());
        assert_eq!(Drift::default().iter().count(), 0);
    }
}
