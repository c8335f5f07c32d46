//! The closed list of what the platform pushes, and the stream each belongs to.
//!
//! Knows the platform's names of its types, and must not know how a body is read.

use super::closed_list::closed_list;

/// Where a push belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Confirmations of commands.
    CommandStatus,
    /// Results of software upgrades.
    UpgradeResult,
    /// Everything else.
    Notifications,
}

closed_list! {
    /// The type of a push, of a closed list.
    ///
    /// The names are those of the subscription API's `notifyType`.
    /// The last three have none: the callback of a command, the envelope of the platform's
    /// version 5, and a type unknown here.
    pub enum NotifyType {
        MessageConfirm = "messageConfirm",
        SwUpgradeResultNotify = "swUpgradeResultNotify",
        DeviceAdded = "deviceAdded",
        DeviceDeleted = "deviceDeleted",
        BindDevice = "bindDevice",
        DeviceInfoChanged = "deviceInfoChanged",
        ServiceInfoChanged = "serviceInfoChanged",
        DeviceDataChanged = "deviceDataChanged",
        DeviceDatasChanged = "deviceDatasChanged",
        CommandRsp = "commandRsp",
        DeviceEvent = "deviceEvent",
        DeviceDesiredPropertiesModifyStatusChanged = "deviceDesiredPropertiesModifyStatusChanged",
        RuleEvent = "ruleEvent",
        DeviceModelAdded = "deviceModelAdded",
        DeviceModelDeleted = "deviceModelDeleted",
        DeviceCapabilitiesAdded = "deviceCapabilitiesAdded",
        DeviceCapabilitiesChanged = "deviceCapabilitiesChanged",
        DeviceCapabilitiesDeleted = "deviceCapabilitiesDeleted",
        SwUpgradeStateChangeNotify = "swUpgradeStateChangeNotify",
        FwUpgradeStateChangeNotify = "fwUpgradeStateChangeNotify",
        FwUpgradeResultNotify = "fwUpgradeResultNotify",
        CommandCallback = "commandCallback",
        Envelope = "envelope",
        Other = "other",
    }
}

impl NotifyType {
    /// The stream to which pushes of this type belong.
    pub fn stream(self) -> Stream {
        if self == Self::MessageConfirm {
            Stream::CommandStatus
        } else if self == Self::SwUpgradeResultNotify {
            Stream::UpgradeResult
        } else {
            Stream::Notifications
        }
    }

    /// The type that the sender calls `name` in the field `notifyType`.
    pub(super) fn published(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|known| known.label() == name)?;
        let has_no_name = matches!(named, Self::CommandCallback | Self::Envelope | Self::Other);
        (!has_no_name).then_some(*named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_ours_is_no_name_of_the_senders() {
        for ours in ["commandCallback", "envelope", "other", "", "MessageConfirm"] {
            assert_eq!(NotifyType::published(ours), None, "{ours}");
        }
    }

    #[test]
    fn every_label_is_said_once() {
        let mut labels: Vec<_> = NotifyType::ALL.iter().map(|known| known.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), NotifyType::ALL.len());
    }

    #[test]
    fn only_the_two_types_of_the_mission_have_streams_of_their_own() {
        let own: Vec<_> = NotifyType::ALL
            .iter()
            .filter(|known| known.stream() != Stream::Notifications)
            .map(|known| known.label())
            .collect();
        assert_eq!(own, ["messageConfirm", "swUpgradeResultNotify"]);
    }
}
