//! Campaigns of upgrades: an operation over many devices, of which a tenth
//! fail and are tried again.
//!
//! The body is that of the page "Pushing Software Upgrade Result Notifications".

use super::json::Object;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::{Draft, World};
use crate::topics::Topic;

/// Devices of a campaign.
const MEMBERS: u64 = 100;
/// Of which so many fail, and are tried again at the end.
const RETRIED: u64 = 10;

const ERRORS: [(&str, &str); 3] = [
    ("10009", "The device is not online"),
    ("10018", "The download timed out"),
    ("10025", "The checksum of the package is wrong"),
];

/// Result number `rank` of all campaigns.
pub(super) fn draft(world: &World, rank: u64, number: u64) -> Draft {
    let (operation, turn) = (rank / (MEMBERS + RETRIED), rank % (MEMBERS + RETRIED));
    Attempt::of(world, operation, turn).draft(oddities::of(world, number), number)
}

struct Attempt<'a> {
    world: &'a World,
    operation: u64,
    turn: u64,
    device: String,
    failed: bool,
}

impl<'a> Attempt<'a> {
    fn of(world: &'a World, operation: u64, turn: u64) -> Self {
        let seed = world.seed;
        // Which of every ten devices fails, in this campaign.
        let weak = seed.below(Salt::Failure, operation, 10);
        let again = turn >= MEMBERS;
        let member = if again {
            (turn - MEMBERS) * 10 + weak
        } else {
            turn
        };
        let failed = if again {
            seed.chance(Salt::Retry, operation * RETRIED + turn, 30)
        } else {
            member % 10 == weak
        };
        let first = seed.below(Salt::CampaignStart, operation, world.devices);
        Self {
            world,
            operation,
            turn,
            device: world.device(first + member),
            failed,
        }
    }

    fn draft(&self, oddity: Option<Oddity>, number: u64) -> Draft {
        let operation = self.world.seed.object_id(Salt::Operation, self.operation);
        let mut body = self.body(&operation);
        let mut key = self.device.clone();
        let mut topic = Topic::UpgradeResult;
        match oddity {
            Some(Oddity::KeyOrder) => body.reverse(),
            Some(Oddity::UnknownKeys) => body = oddities::with_unknown_keys(body, number),
            Some(Oddity::NullField) => body.replace("description", "null"),
            Some(Oddity::OtherWord) => body.replace("swUpgradeResult", self.other_word()),
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
        Draft {
            body: body.write(),
            topic,
            key: Some(key),
            as_published: as_published(oddity),
        }
    }

    fn body(&self, operation: &str) -> Object {
        let seed = self.world.seed;
        let sub_operation = self.operation * (MEMBERS + RETRIED) + self.turn;
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
        Object::of_type("swUpgradeResultNotify")
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

    fn other_word(&self) -> &'static str {
        if self.failed {
            "\"FAILED\""
        } else {
            "\"SUCCESSFUL\""
        }
    }
}

fn as_published(oddity: Option<Oddity>) -> bool {
    match oddity {
        Some(
            Oddity::NullField
            | Oddity::OtherWord
            | Oddity::UnknownWord
            | Oddity::OwnId
            | Oddity::NoKey,
        ) => false,
        // Another page of the same API has a number for upgradeTime.
        Some(Oddity::KeyOrder | Oddity::UnknownKeys | Oddity::Dialect | Oddity::EscapedId)
        | None => true,
    }
}
