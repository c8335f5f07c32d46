//! The closed list of the types that the platform pushes, and the category of each.
//!
//! Knows the platform's names for its types, and must not know how a body is read.

use super::closed_list::closed_list;

/// The kind of a push: one of the two types with a stream of their own, or any other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// A confirmation of a command.
    CommandStatus,
    /// The result of a software upgrade.
    UpgradeResult,
    /// Any other type.
    Notifications,
}

closed_list! {
    /// The type of a push.
    ///
    /// The names are those of `notifyType` in the platform's subscription API.
    /// The last three are ours: a command callback, an envelope of the platform's version 5, and
    /// any type that is not listed.
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
    pub(super) fn category(self) -> Category {
        if self == Self::MessageConfirm {
            Category::CommandStatus
        } else if self == Self::SwUpgradeResultNotify {
            Category::UpgradeResult
        } else {
            Category::Notifications
        }
    }

    /// The type with this published name.
    pub(super) fn from_published(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|known| known.label() == name)?;
        let is_ours = matches!(named, Self::CommandCallback | Self::Envelope | Self::Other);
        (!is_ours).then_some(*named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_labels_are_not_published_names() {
        for ours in ["commandCallback", "envelope", "other", "", "MessageConfirm"] {
            assert_eq!(NotifyType::from_published(ours), None, "{ours}");
        }
    }

    #[test]
    fn every_label_is_unique() {
        let mut labels: Vec<_> = NotifyType::ALL.iter().map(|known| known.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), NotifyType::ALL.len());
    }

    #[test]
    fn only_confirmations_and_upgrade_results_have_their_own_category() {
        let own: Vec<_> = NotifyType::ALL
            .iter()
            .filter(|known| known.category() != Category::Notifications)
            .map(|known| known.label())
            .collect();
        assert_eq!(own, ["messageConfirm", "swUpgradeResultNotify"]);
    }
}
