//! The lives of commands: each is sent, delivered and executed.
//!
//! The body is that of the page "Pushing Device Acknowledgment Notifications".

use chrono::{DateTime, TimeDelta, Utc};

use super::json::Object;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::{Draft, World};
use crate::topics::Topic;

/// So many commands are under way at a time.
const UNDER_WAY: u64 = 50;
const STEPS: [&str; 3] = ["sent", "delivered", "executed"];
/// The orders in which confirmations may come where they are out of order.
const DISORDERS: [[usize; 3]; 5] = [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const SERVICES: [&str; 4] = ["Battery", "Switch", "Meter", "Valve"];
/// 2026-01-01T00:00:00Z, when the first command is sent.
const START_S: i64 = 1_767_225_600;

/// Confirmation number `rank` of all commands.
pub(super) fn draft(world: &World, rank: u64, number: u64) -> Draft {
    let group = rank / (3 * UNDER_WAY);
    let within = rank % (3 * UNDER_WAY);
    let command = group * UNDER_WAY + within % UNDER_WAY;
    let turn = usize::try_from(within / UNDER_WAY).unwrap_or(0);
    let step = order(world, command)[turn];
    Confirmation {
        world,
        number,
        command,
        step,
    }
    .draft()
}

fn order(world: &World, command: u64) -> [usize; 3] {
    let seed = world.seed;
    if !seed.chance(Salt::CommandOrder, command, world.shares.disorder) {
        return [0, 1, 2];
    }
    let kind = seed.below(Salt::Command, command, 5);
    DISORDERS[usize::try_from(kind).unwrap_or(0)]
}

struct Confirmation<'a> {
    world: &'a World,
    number: u64,
    command: u64,
    step: usize,
}

impl Confirmation<'_> {
    fn draft(&self) -> Draft {
        let oddity = oddities::of(self.world, self.number);
        let seed = self.world.seed;
        let device = self
            .world
            .device(seed.number(Salt::CommandDevice, self.command));
        let request = self.request_id(oddity);
        let header = self.header(oddity, &device, &request);
        let mut body = Object::of_type("messageConfirm")
            .nested("header", &header)
            .raw("body", self.content());
        match oddity {
            Some(Oddity::KeyOrder) => body.reverse(),
            Some(Oddity::UnknownKeys) => body = oddities::with_unknown_keys(body, self.number),
            _ => {}
        }
        let keyless = oddity == Some(Oddity::NoKey);
        let by_device = self.world.keyed_by_device();
        Draft {
            body: body.write(),
            topic: if keyless && !by_device {
                Topic::DeadLetter
            } else {
                Topic::CommandStatus
            },
            key: Some(if keyless || by_device {
                device
            } else {
                request.text
            }),
            as_published: as_published(oddity),
        }
    }

    fn header(&self, oddity: Option<Oddity>, device: &str, request: &RequestId) -> Object {
        let seed = self.world.seed;
        let service = seed.below(Salt::Service, self.command, 4);
        let service = SERVICES[usize::try_from(service).unwrap_or(0)];
        let mut header = Object::default()
            .raw("requestId", request.json.clone())
            .text("from", &format!("/devices/{device}/services/{service}"))
            .text("to", &seed.uuid(Salt::Application, 0))
            .text("status", STEPS[self.step])
            .text("timestamp", &self.at("%Y%m%dT%H%M%SZ"));
        match oddity {
            Some(Oddity::KeyOrder) => header.reverse(),
            Some(Oddity::NullField) => header.replace("to", "null"),
            Some(Oddity::OtherWord) => {
                header.replace("status", format!("\"{}\"", STEPS[self.step].to_uppercase()));
            }
            Some(Oddity::UnknownWord) => header.replace("status", "\"TIMEOUT\""),
            Some(Oddity::Dialect) => {
                let time = self.at("%Y%m%dT%H%M%S%.3fZ");
                header.replace("timestamp", format!("\"{time}\""));
            }
            Some(Oddity::NoKey) => header.replace("requestId", "null"),
            Some(Oddity::UnknownKeys | Oddity::OwnId | Oddity::EscapedId) | None => {}
        }
        header
    }

    /// The text that is the key, and how it stands in the body.
    fn request_id(&self, oddity: Option<Oddity>) -> RequestId {
        let seed = self.world.seed;
        let id = seed.uuid(Salt::Command, self.command);
        match oddity {
            // The documents do not settle whether a command or a push has an id.
            Some(Oddity::OwnId) => RequestId::plain(seed.uuid(Salt::Request, self.number)),
            Some(Oddity::EscapedId) => RequestId {
                text: format!("命令-{id}"),
                json: format!("\"\\u547d\\u4ee4-{id}\""),
            },
            _ => RequestId::plain(id),
        }
    }

    fn content(&self) -> String {
        let reading = self.world.seed.below(Salt::Reading, self.command, 100);
        match self.step {
            0 => "{}".to_owned(),
            1 => format!("{{\"batteryLevel\":{reading}}}"),
            _ => format!("{{\"batteryLevel\":{reading},\"result\":\"done\"}}"),
        }
    }

    fn at(&self, format: &str) -> String {
        let delay_ms = i64::try_from(self.step).unwrap_or(0) * 2_345;
        let since_ms = i64::try_from(self.command).unwrap_or(0) * 10 + delay_ms;
        let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(START_S);
        (start + TimeDelta::milliseconds(since_ms))
            .format(format)
            .to_string()
    }
}

struct RequestId {
    text: String,
    json: String,
}

impl RequestId {
    fn plain(text: String) -> Self {
        let json = format!("\"{text}\"");
        Self { text, json }
    }
}

fn as_published(oddity: Option<Oddity>) -> bool {
    match oddity {
        Some(
            Oddity::NullField
            | Oddity::OtherWord
            | Oddity::UnknownWord
            | Oddity::Dialect
            | Oddity::NoKey,
        ) => false,
        Some(Oddity::KeyOrder | Oddity::UnknownKeys | Oddity::OwnId | Oddity::EscapedId) | None => {
            true
        }
    }
}
