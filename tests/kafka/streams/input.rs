//! Random input for the streams: pushes out of order, repeated, incomplete, with
//! drift, and poison records that can never be applied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

use super::topics::Topics;
use crate::support::records::NewRecord;

/// The header of a poison record; its value is the expected dead-letter reason.
pub(super) const POISON: &str = "test-reason";

/// A generator of pushes; equal seeds generate equal pushes.
#[derive(Debug)]
pub(super) struct Input {
    random: Rng,
    /// How many distinct commands, devices and operations there are.
    pub(super) ids: u32,
    commands: Vec<NewRecord>,
    upgrades: Vec<NewRecord>,
}

impl Input {
    /// Uses a random seed and prints it, so that a failure can be reproduced.
    pub(super) fn random(ids: u32) -> Self {
        let seed = fastrand::u64(..);
        println!("the input's seed is {seed}");
        Self {
            random: Rng::with_seed(seed),
            ids,
            commands: Vec::new(),
            upgrades: Vec::new(),
        }
    }

    /// Records for `command-status`.
    pub(super) fn commands(&mut self, count: usize) -> Vec<NewRecord> {
        let mut records = Vec::new();
        for _ in 0..count {
            let record = match self.random.u8(..10) {
                0 => self.poisonous_command(),
                1 | 2 if !self.commands.is_empty() => {
                    self.random.choice(&self.commands).unwrap().clone()
                }
                _ => self.command(),
            };
            self.commands.push(record.clone());
            records.push(record);
        }
        records
    }

    /// Records for `upgrade-result`.
    pub(super) fn upgrades(&mut self, count: usize) -> Vec<NewRecord> {
        let mut records = Vec::new();
        for _ in 0..count {
            let record = match self.random.u8(..10) {
                0 => self.poisonous_upgrade(),
                1 | 2 if !self.upgrades.is_empty() => {
                    let repeated = self.random.choice(&self.upgrades).unwrap().clone();
                    self.received(repeated)
                }
                _ => self.upgrade(),
            };
            self.upgrades.push(record.clone());
            records.push(record);
        }
        records
    }

    fn command(&mut self) -> NewRecord {
        let id = format!("request-{}", self.random.u32(..self.ids));
        let device = self.random.u8(..3);
        let header = json!({
            "requestId": id,
            "from": self.pick(&[
                json!(format!("/devices/d{device}")),
                json!(format!("/devices/d{device}/services/switch")),
                Value::Null,
            ]),
            "to": self.pick(&[json!("application"), json!("another"), Value::Null]),
            "status": self.pick(&[
                json!("sent"), json!("SENT"), json!("delivered"), json!("Delivered"),
                json!("executed"), json!("expired"), json!(7), Value::Null,
            ]),
            "timestamp": self.pick(&[
                json!("20260101T000000Z"), json!("20260101T000001Z"), json!("20260101T000001.500Z"),
                json!("2026-01-01T00:00:02Z"), json!("yesterday"), Value::Null,
            ]),
        });
        let body = self.pick(&[
            json!({}),
            json!({"on": true}),
            json!({"on": false}),
            Value::Null,
        ]);
        let push = json!({"notifyType": "messageConfirm", "header": header, "body": body});
        self.received(NewRecord::keyed(id, push.to_string()))
    }

    fn upgrade(&mut self) -> NewRecord {
        let id = format!("device-{}", self.random.u32(..self.ids));
        let push = json!({
            "notifyType": self.pick(&[json!("swUpgradeResultNotify"), Value::Null]),
            "deviceId": id,
            "appId": "application",
            "operationId": match self.random.u32(..=self.ids) {
                0 => Value::Null,
                operation => json!(format!("operation-{}", operation / 4)),
            },
            "subOperationId": self.random.u8(..4),
            "curVersion": "1.5",
            "targetVersion": self.pick(&[json!("1.5"), json!("1.6"), json!(2), Value::Null]),
            "sourceVersion": "1.0",
            "swUpgradeResult": self.pick(&[
                json!("SUCCESS"), json!("successful"), json!("FAIL"), json!("Failed"),
            ]),
            "upgradeTime": self.pick(&[json!("12"), json!(12), Value::Null]),
            "resultDesc": "",
            "errorCode": self.pick(&[json!("0"), json!("17"), json!(18), Value::Null]),
            "description": self.pick(&[json!("ünïcode \u{0}"), Value::Null]),
        });
        self.received(NewRecord::keyed(id, push.to_string()))
    }

    fn poisonous_command(&mut self) -> NewRecord {
        let long = "x".repeat(513);
        let cases = [
            ("not-json-object", "{".to_owned()),
            ("not-json-object", "[]".to_owned()),
            (
                "other-notify-type",
                r#"{"notifyType":"deviceAdded","deviceId":"d"}"#.to_owned(),
            ),
            (
                "request-id-missing",
                r#"{"notifyType":"messageConfirm","header":{"requestId":null}}"#.to_owned(),
            ),
            (
                "request-id-too-long",
                format!(r#"{{"header":{{"requestId":"{long}"}}}}"#),
            ),
        ];
        self.poison(&cases)
    }

    fn poisonous_upgrade(&mut self) -> NewRecord {
        let long = "x".repeat(513);
        let cases = [
            ("not-json-object", String::new()),
            (
                "other-notify-type",
                r#"{"notifyType":"messageConfirm"}"#.to_owned(),
            ),
            (
                "device-id-missing",
                r#"{"swUpgradeResult":"SUCCESS"}"#.to_owned(),
            ),
            ("device-id-too-long", format!(r#"{{"deviceId":"{long}"}}"#)),
            ("result-missing", r#"{"deviceId":"device-1"}"#.to_owned()),
            (
                "result-unknown",
                r#"{"deviceId":"device-1","swUpgradeResult":"MAYBE"}"#.to_owned(),
            ),
        ];
        self.poison(&cases)
    }

    fn poison(&mut self, cases: &[(&str, String)]) -> NewRecord {
        let (reason, value) = self.random.choice(cases).unwrap();
        let (reason, value) = (*reason, value.clone());
        let key = format!("poison-{}", self.random.u8(..));
        NewRecord::keyed(key, value).with_header(POISON, reason)
    }

    /// Two of three records have a `ce_time`, rounded to half a day so that equal
    /// receipts are common; the third is as from another producer.
    fn received(&mut self, mut record: NewRecord) -> NewRecord {
        record.headers.retain(|(name, _)| name != "ce_time");
        if self.random.u8(..3) == 0 || record.headers.iter().any(|(name, _)| name == POISON) {
            return record;
        }
        // Within a week of the records without `ce_time`, so no attempt is dropped.
        let midnight: DateTime<Utc> = Utc::now().duration_trunc(TimeDelta::days(1)).unwrap();
        let at = midnight - TimeDelta::hours(12 * i64::from(self.random.u8(..10)));
        record.with_header("ce_time", at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    }

    fn pick(&mut self, choices: &[Value]) -> Value {
        self.random.choice(choices).unwrap().clone()
    }
}

/// Writes to both input topics while `act` runs.
pub(super) fn under_load<R>(topics: &Topics, input: &mut Input, act: impl FnOnce() -> R) -> R {
    /// Stops the load even if `act` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                topics.write("command-status", &input.commands(20));
                topics.write("upgrade-result", &input.upgrades(20));
            }
        });
        let _stop = Stop(&stop);
        act()
    })
}
