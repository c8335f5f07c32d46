//! What every kind of push is derived from: the seed, the devices, the mix of
//! traffic and the listener's rules.

use super::random::{Salt, Seed};
use crate::notification::{CommandKey, Rules};
use crate::topics::Topic;

/// The composition of the traffic, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficMix {
    /// Of all pushes, those that repeat an earlier one.
    pub repeats: u32,
    /// Of the pushes that are not repeats, those of types without a state.
    pub others: u32,
    /// Of the rest, upgrade results; what remains are command confirmations.
    pub upgrades: u32,
    /// Of the commands, those whose confirmations arrive out of order.
    pub disorder: u32,
    /// Of the pushes that are not repeats, those that deviate from the documents.
    pub oddities: u32,
}

/// The parameters of a simulated application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) seed: Seed,
    /// At least one.
    pub(super) devices: u64,
    pub(super) mix: TrafficMix,
    pub(super) rules: Rules,
}

/// A body, and where it belongs under [`crate::notification::Validation::Tolerant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PushDraft {
    pub(super) body: String,
    pub(super) topic: Topic,
    pub(super) key: Option<String>,
    /// True if the body satisfies the published table of its type.
    pub(super) conforms: bool,
}

impl Scenario {
    pub(super) fn new(seed: u64, devices: u64, mix: TrafficMix, rules: Rules) -> Self {
        Self {
            seed: Seed::new(seed),
            devices: devices.max(1),
            mix,
            rules,
        }
    }

    /// The id of device `number`, counted modulo the number of devices.
    pub(super) fn device_id(&self, number: u64) -> String {
        self.seed.uuid(Salt::Device, number % self.devices)
    }

    /// Returns whether command confirmations are keyed by device id.
    pub(super) fn is_keyed_by_device(&self) -> bool {
        self.rules.command_key == CommandKey::DeviceId
    }
}
