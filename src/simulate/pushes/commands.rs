//! The life cycles of commands: each is sent, delivered and executed.
//!
//! The body is that of the page "Pushing Device Acknowledgment Notifications".

use chrono::{DateTime, TimeDelta, Utc};

use super::json::JsonObject;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::scenario::{PushDraft, Scenario};
use crate::topics::Topic;

/// Commands are confirmed in groups of this size: first all of a group are
/// sent, then all are delivered, then all are executed.
const GROUP: u64 = 50;
const STATUSES: [&str; 3] = ["sent", "delivered", "executed"];
/// The permutations of [`STATUSES`] other than the published order.
const DISORDERS: [[usize; 3]; 5] = [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const SERVICES: [&str; 4] = ["Battery", "Switch", "Meter", "Valve"];
/// 2026-01-01T00:00:00Z, when the first command is sent.
const START_S: i64 = 1_767_225_600;

/// Drafts the confirmation of this rank among all confirmations.
pub(super) fn draft(scenario: &Scenario, rank: u64, number: u64) -> PushDraft {
    let (group, within) = (rank / (3 * GROUP), rank % (3 * GROUP));
    let command = group * GROUP + within % GROUP;
    let turn = usize::try_from(within / GROUP).unwrap_or(0);
    let status = order(scenario, command)[turn];
    Confirmation {
        scenario,
        number,
        command,
        status,
    }
    .draft()
}

/// The order in which a command's statuses arrive, as indices of [`STATUSES`].
fn order(scenario: &Scenario, command: u64) -> [usize; 3] {
    let Scenario { seed, mix, .. } = scenario;
    if !seed.chance(Salt::CommandOrder, command, mix.disorder) {
        return [0, 1, 2];
    }
    let kind = seed.below(Salt::Command, command, 5);
    DISORDERS[usize::try_from(kind).unwrap_or(0)]
}

struct Confirmation<'a> {
    scenario: &'a Scenario,
    number: u64,
    command: u64,
    /// Index of [`STATUSES`].
    status: usize,
}

impl Confirmation<'_> {
    fn draft(&self) -> PushDraft {
        let oddity = oddities::of(self.scenario, self.number);
        let seed = self.scenario.seed;
        let device = self
            .scenario
            .device_id(seed.number(Salt::CommandDevice, self.command));
        let request = self.request_id(oddity);
        let header = self.header(oddity, &device, &request);
        let mut body = JsonObject::of_type("messageConfirm")
            .nested("header", &header)
            .raw("body", self.content());
        match oddity {
            Some(Oddity::KeyOrder) => body.reverse(),
            Some(Oddity::UnknownKeys) => body = oddities::with_unknown_keys(body, self.number),
            _ => {}
        }
        let has_no_request_id = oddity == Some(Oddity::NoKey);
        let is_keyed_by_device = self.scenario.is_keyed_by_device();
        PushDraft {
            body: body.to_json(),
            topic: if has_no_request_id && !is_keyed_by_device {
                Topic::DeadLetter
            } else {
                Topic::CommandStatus
            },
            key: Some(if has_no_request_id || is_keyed_by_device {
                device
            } else {
                request.text
            }),
            conforms: conforms(oddity),
        }
    }

    fn header(&self, oddity: Option<Oddity>, device: &str, request: &RequestId) -> JsonObject {
        let seed = self.scenario.seed;
        let service = seed.below(Salt::Service, self.command, 4);
        let service = SERVICES[usize::try_from(service).unwrap_or(0)];
        let status = STATUSES[self.status];
        let mut header = JsonObject::default()
            .raw("requestId", request.json.clone())
            .text("from", &format!("/devices/{device}/services/{service}"))
            .text("to", &seed.uuid(Salt::Application, 0))
            .text("status", status)
            .text("timestamp", &self.timestamp("%Y%m%dT%H%M%SZ"));
        match oddity {
            Some(Oddity::KeyOrder) => header.reverse(),
            Some(Oddity::NullField) => header.replace("to", "null"),
            Some(Oddity::OtherWord) => {
                header.replace("status", format!("\"{}\"", status.to_uppercase()));
            }
            Some(Oddity::UnknownWord) => header.replace("status", "\"TIMEOUT\""),
            Some(Oddity::Dialect) => {
                let timestamp = self.timestamp("%Y%m%dT%H%M%S%.3fZ");
                header.replace("timestamp", format!("\"{timestamp}\""));
            }
            Some(Oddity::NoKey) => header.replace("requestId", "null"),
            Some(Oddity::UnknownKeys | Oddity::OwnId | Oddity::EscapedId) | None => {}
        }
        header
    }

    fn request_id(&self, oddity: Option<Oddity>) -> RequestId {
        let seed = self.scenario.seed;
        let id = seed.uuid(Salt::Command, self.command);
        match oddity {
            // The documents leave open whether a requestId names a command or a push.
            Some(Oddity::OwnId) => RequestId::ascii(seed.uuid(Salt::Request, self.number)),
            Some(Oddity::EscapedId) => RequestId {
                text: format!("命令-{id}"),
                json: format!("\"\\u547d\\u4ee4-{id}\""),
            },
            _ => RequestId::ascii(id),
        }
    }

    fn content(&self) -> String {
        let reading = self.scenario.seed.below(Salt::Reading, self.command, 100);
        match self.status {
            0 => "{}".to_owned(),
            1 => format!("{{\"batteryLevel\":{reading}}}"),
            _ => format!("{{\"batteryLevel\":{reading},\"result\":\"done\"}}"),
        }
    }

    fn timestamp(&self, format: &str) -> String {
        let delay_ms = i64::try_from(self.status).unwrap_or(0) * 2_345;
        let since_start_ms = i64::try_from(self.command).unwrap_or(0) * 10 + delay_ms;
        let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(START_S);
        (start + TimeDelta::milliseconds(since_start_ms))
            .format(format)
            .to_string()
    }
}

/// A request id as the record's key, and as JSON in the body.
struct RequestId {
    text: String,
    json: String,
}

impl RequestId {
    fn ascii(text: String) -> Self {
        let json = format!("\"{text}\"");
        Self { text, json }
    }
}

fn conforms(oddity: Option<Oddity>) -> bool {
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
