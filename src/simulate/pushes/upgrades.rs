//! Upgrade campaigns: one operation over many devices, of which a tenth fail and
//! are retried at its end.
//!
//! The body is that of the page "Pushing Software Upgrade Result Notifications".

use super::json::JsonObject;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::scenario::{PushDraft, Scenario};
use crate::topics::Topic;

/// First attempts of a campaign, one for each device.
const DEVICES: u64 = 100;
/// Second attempts of a campaign: one in ten of the first fails.
const RETRIES: u64 = 10;

const ERRORS: [(&str, &str); 3] = [
    ("10009", "The device is not online"),
    ("10018", "The download timed out"),
    ("10025", "The checksum of the package is wrong"),
];

/// Drafts the upgrade result of this rank, counted over all campaigns.
pub(super) fn draft(scenario: &Scenario, rank: u64, number: u64) -> PushDraft {
    let (operation, turn) = (rank / (DEVICES + RETRIES), rank % (DEVICES + RETRIES));
    Attempt::of(scenario, operation, turn).draft(oddities::of(scenario, number), number)
}

/// An attempt to upgrade one device.
struct Attempt<'a> {
    scenario: &'a Scenario,
    /// The number of the campaign, from which the operation's id follows.
    operation: u64,
    /// The index of the attempt within the campaign.
    turn: u64,
    device: String,
    failed: bool,
}

impl<'a> Attempt<'a> {
    fn of(scenario: &'a Scenario, operation: u64, turn: u64) -> Self {
        let seed = scenario.seed;
        // The index of the device that fails in every ten of this campaign.
        let failing = seed.below(Salt::Failure, operation, 10);
        let is_retry = turn >= DEVICES;
        let device = if is_retry {
            (turn - DEVICES) * 10 + failing
        } else {
            turn
        };
        let failed = if is_retry {
            seed.chance(Salt::Retry, operation * RETRIES + turn, 30)
        } else {
            device % 10 == failing
        };
        let first = seed.below(Salt::CampaignStart, operation, scenario.devices);
        Self {
            scenario,
            operation,
            turn,
            device: scenario.device_id(first + device),
            failed,
        }
    }

    fn draft(&self, oddity: Option<Oddity>, number: u64) -> PushDraft {
        let operation = self
            .scenario
            .seed
            .object_id(Salt::Operation, self.operation);
        let mut body = self.body(&operation);
        let mut key = self.device.clone();
        let mut topic = Topic::UpgradeResult;
        match oddity {
            Some(Oddity::KeyOrder) => body.reverse(),
            Some(Oddity::UnknownKeys) => body = oddities::with_unknown_keys(body, number),
            Some(Oddity::NullField) => body.replace("description", "null"),
            Some(Oddity::OtherWord) => body.replace("swUpgradeResult", self.other_spelling()),
            Some(Oddity::UnknownWord) => body.replace("swUpgradeResult", "\"ROLLED_BACK\""),
            Some(Oddity::Dialect) => body.replace("upgradeTime", "183"),
            Some(Oddity::OwnId) => body.remove("resultDesc"),
            Some(Oddity::EscapedId) => {
                body.replace("deviceId", format!("\"\\u8bbe\\u5907-{}\"", self.turn));
                key = format!("设备-{}", self.turn);
            }
            Some(Oddity::NoKey) => {
                body.replace("deviceId", "null");
                key = operation;
                topic = Topic::DeadLetter;
            }
            None => {}
        }
        PushDraft {
            body: body.to_json(),
            topic,
            key: Some(key),
            conforms: conforms(oddity),
        }
    }

    fn body(&self, operation: &str) -> JsonObject {
        let seed = self.scenario.seed;
        let sub_operation = self.operation * (DEVICES + RETRIES) + self.turn;
        let (source, target) = (
            format!("1.{}", self.operation % 50),
            format!("1.{}", self.operation % 50 + 1),
        );
        let current = if self.failed { &source } else { &target };
        let error = usize::try_from(seed.below(Salt::Failure, sub_operation, 3)).unwrap_or(0);
        let (result, result_text, code, text) = if self.failed {
            let (code, text) = ERRORS[error];
            ("FAIL", "Upgrade failed", code, text)
        } else {
            ("SUCCESS", "Upgrade succeeded", "0", "")
        };
        JsonObject::of_type("swUpgradeResultNotify")
            .text("deviceId", &self.device)
            .text("appId", &seed.object_id(Salt::Application, 0))
            .text("operationId", operation)
            .text(
                "subOperationId",
                &seed.object_id(Salt::SubOperation, sub_operation),
            )
            .text("curVersion", current)
            .text("targetVersion", &target)
            .text("sourceVersion", &source)
            .text("swUpgradeResult", result)
            .text("upgradeTime", "183")
            .text("resultDesc", result_text)
            .text("errorCode", code)
            .text("description", text)
    }

    fn other_spelling(&self) -> &'static str {
        if self.failed {
            "\"FAILED\""
        } else {
            "\"SUCCESSFUL\""
        }
    }
}

fn conforms(oddity: Option<Oddity>) -> bool {
    match oddity {
        Some(
            Oddity::NullField
            | Oddity::OtherWord
            | Oddity::UnknownWord
            | Oddity::OwnId
            | Oddity::NoKey,
        ) => false,
        // Another page of the same API documents upgradeTime as a number.
        Some(Oddity::KeyOrder | Oddity::UnknownKeys | Oddity::Dialect | Oddity::EscapedId)
        | None => true,
    }
}
