//! What the output topics must hold, computed from scratch out of all pushes.
//!
//! Written from the published laws of the states alone. It keeps every push,
//! sorts, and reads the answer off; it shares no code with the streams and
//! knows nothing of their merges, their truncation or their internal fields.
//! Times stand for themselves as text: whoever compares, compares values as
//! [`visible`] leaves them.
//!
//! It expects receipts in whole milliseconds and no escapes in the names of
//! JSON fields.
#![allow(
    dead_code,
    reason = "each test binary uses the part of the model that it needs"
)]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A record of a raw topic: the sender's bytes and when they were received.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) bytes: Vec<u8>,
    pub(crate) received_at: DateTime<Utc>,
}

type Object = BTreeMap<String, Box<RawValue>>;

impl Push {
    /// Takes the receipt from the `ce_time` header, else from the record.
    pub(crate) fn from_record(bytes: &[u8], ce_time: Option<&str>, timestamp_ms: i64) -> Self {
        let header = ce_time.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        let record = || DateTime::from_timestamp_millis(timestamp_ms).unwrap();
        Self {
            bytes: bytes.to_vec(),
            received_at: header.map_or_else(record, |time| time.with_timezone(&Utc)),
        }
    }

    fn object(&self) -> Option<Object> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    }
}

/// A state without the fields that are nobody else's business.
pub(crate) fn visible(mut state: Value) -> Value {
    if let Some(fields) = state.as_object_mut() {
        for internal in ["bodyAt", "older", "latest"] {
            fields.remove(internal);
        }
    }
    state
}

/// The value of `iot.command-state` for every `requestId`.
pub(crate) fn command_states(pushes: &[Push]) -> BTreeMap<String, Value> {
    grouped(pushes.iter().filter_map(Confirmation::read))
        .into_iter()
        .map(|(id, confirmations)| {
            let state = command_state(&id, &confirmations);
            (id, state)
        })
        .collect()
}

/// The value of `iot.device-software` for every `deviceId`.
pub(crate) fn device_software(pushes: &[Push]) -> BTreeMap<String, Value> {
    grouped(pushes.iter().filter_map(Upgrade::read))
        .into_iter()
        .map(|(id, upgrades)| {
            let state = device(&id, &kept(distinct(&upgrades)));
            (id, state)
        })
        .collect()
}

/// The value of `iot.upgrade-operation` for every `operationId`.
pub(crate) fn upgrade_operations(pushes: &[Push]) -> BTreeMap<String, Value> {
    let mut operations: BTreeMap<String, Vec<Vec<Upgrade>>> = BTreeMap::new();
    for upgrades in grouped(pushes.iter().filter_map(Upgrade::read)).into_values() {
        let by_operation = grouped(distinct(&upgrades).into_iter().filter_map(|upgrade| {
            let id = upgrade.field("operationId").to_owned();
            (!id.is_empty()).then_some((id, upgrade))
        }));
        for (id, of_device) in by_operation {
            operations.entry(id).or_default().push(of_device);
        }
    }
    operations
        .into_iter()
        .map(|(id, devices)| {
            let state = operation(&id, &devices);
            (id, state)
        })
        .collect()
}

/// The values of `iot.upgrade-delta` for all pushes, given in the order in
/// which they were written for each device: one for each push that changed the
/// newest attempt of its device in its operation, or the earliest receipt there.
pub(crate) fn upgrade_deltas(pushes: &[Push]) -> Vec<Value> {
    let mut deltas = Vec::new();
    for (device, upgrades) in grouped(pushes.iter().filter_map(Upgrade::read)) {
        for count in 1..=upgrades.len() {
            let operation = upgrades[count - 1].field("operationId");
            let before = standing(&upgrades[..count - 1], operation);
            let after = standing(&upgrades[..count], operation);
            let Some((newest, earliest)) = after.clone().filter(|_| before != after) else {
                continue;
            };
            let mut delta = Map::new();
            delta.insert("operationId".into(), json!(operation));
            delta.insert("deviceId".into(), json!(device));
            if let Some((newest, _)) = before {
                delta.insert("before".into(), newest);
            }
            delta.insert("after".into(), newest);
            delta.insert("earliestAt".into(), earliest);
            deltas.push(Value::Object(delta));
        }
    }
    deltas
}

/// The newest attempt of one device in an operation and the earliest receipt
/// there, as a delta tells them.
fn standing(upgrades: &[Upgrade], operation: &str) -> Option<(Value, Value)> {
    let mut all = distinct(upgrades);
    all.retain(|upgrade| !operation.is_empty() && upgrade.field("operationId") == operation);
    let newest = all.first()?;
    let mut outcome = Map::new();
    outcome.insert("result".into(), json!(newest.field("result")));
    for field in ["targetVersion", "errorCode"] {
        put(
            &mut outcome,
            field,
            newest.fields.get(field).map(String::as_str),
        );
    }
    outcome.insert("receivedAt".into(), receipt(newest.received_at));
    let earliest = all.iter().map(|upgrade| upgrade.received_at).min()?;
    Some((Value::Object(outcome), receipt(earliest)))
}

const STATUSES: [&str; 3] = ["sent", "delivered", "executed"];

struct Confirmation {
    rank: usize,
    at: Option<DateTime<Utc>>,
    device: Option<String>,
    service: Option<String>,
    to: Option<String>,
    body: Option<String>,
}

impl Confirmation {
    fn read(push: &Push) -> Option<(String, Self)> {
        let object = push.object()?;
        if text(&object, "notifyType").is_some_and(|name| name != "messageConfirm") {
            return None;
        }
        let header: Object = serde_json::from_str(object.get("header")?.get()).ok()?;
        let id = usable_id(&header, "requestId")?;
        let status = text(&header, "status")?.to_lowercase();
        let from = text(&header, "from").unwrap_or_default();
        let (device, service) = match from.strip_prefix("/devices/") {
            Some(rest) => match rest.split_once("/services/") {
                Some((device, service)) => (Some(device), Some(service)),
                None => (Some(rest), None),
            },
            None => (None, None),
        };
        let body = object.get("body").filter(|raw| raw.get() != "null");
        let confirmation = Self {
            rank: STATUSES.iter().position(|known| *known == status)?,
            at: text(&header, "timestamp").and_then(|text| push_time(&text)),
            device: device.map(str::to_owned),
            service: service.map(str::to_owned),
            to: text(&header, "to"),
            body: body.map(|raw| raw.get().to_owned()),
        };
        Some((id, confirmation))
    }
}

fn command_state(id: &str, all: &[Confirmation]) -> Value {
    let furthest = all.iter().map(|one| one.rank).max().unwrap();
    let mut last: Vec<&Confirmation> = all.iter().filter(|one| one.rank == furthest).collect();
    last.sort_by_key(|one| (one.at, one.body.clone()));
    let mut origins: Vec<&Confirmation> = all.iter().collect();
    origins.sort_by_key(|one| {
        (
            one.service.is_some(),
            one.device.clone(),
            one.service.clone(),
        )
    });
    let origin = origins.last().unwrap();

    let mut state = Map::new();
    state.insert("requestId".into(), json!(id));
    state.insert("status".into(), json!(STATUSES[furthest]));
    put(&mut state, "deviceId", origin.device.as_deref());
    put(&mut state, "serviceId", origin.service.as_deref());
    put(
        &mut state,
        "to",
        all.iter().filter_map(|one| one.to.as_deref()).max(),
    );
    for (rank, field) in ["sentAt", "deliveredAt", "executedAt"].iter().enumerate() {
        let times = all.iter().filter(|one| one.rank == rank);
        let first = times.filter_map(|one| one.at).min();
        put(
            &mut state,
            field,
            first
                .map(|at| at.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
                .as_deref(),
        );
    }
    if let Some(body) = &last.last().unwrap().body {
        state.insert("body".into(), serde_json::from_str(body).unwrap());
    }
    Value::Object(state)
}

#[derive(Clone)]
struct Upgrade {
    fields: BTreeMap<&'static str, String>,
    received_at: DateTime<Utc>,
}

/// The published fields, in the order that decides between equal receipts.
const PUBLISHED: [&str; 11] = [
    "result",
    "appId",
    "operationId",
    "subOperationId",
    "curVersion",
    "targetVersion",
    "sourceVersion",
    "upgradeTime",
    "errorCode",
    "resultDesc",
    "description",
];

impl Upgrade {
    fn read(push: &Push) -> Option<(String, Self)> {
        let object = push.object()?;
        if text(&object, "notifyType").is_some_and(|name| name != "swUpgradeResultNotify") {
            return None;
        }
        let id = usable_id(&object, "deviceId")?;
        let result = match text(&object, "swUpgradeResult")?.to_lowercase().as_str() {
            "success" | "successful" | "succeeded" => "SUCCESS",
            "fail" | "failed" | "failure" => "FAIL",
            _ => return None,
        };
        let mut fields: BTreeMap<&'static str, String> = PUBLISHED
            .iter()
            .filter_map(|name| Some((*name, text(&object, name)?)))
            .collect();
        fields.insert("result", result.to_owned());
        let upgrade = Self {
            fields,
            received_at: push.received_at,
        };
        Some((id, upgrade))
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn succeeded(&self) -> bool {
        self.field("result") == "SUCCESS"
    }

    fn order(&self) -> (DateTime<Utc>, bool, Vec<Option<&String>>) {
        let rest = PUBLISHED[1..].iter().map(|name| self.fields.get(name));
        // Of two results in one millisecond the failure counts as the later.
        (self.received_at, !self.succeeded(), rest.collect())
    }

    fn json(&self) -> Map<String, Value> {
        let fields = self.fields.iter();
        let mut json: Map<String, Value> = fields
            .map(|(name, text)| ((*name).to_owned(), json!(text)))
            .collect();
        json.insert("receivedAt".into(), receipt(self.received_at));
        json
    }
}

/// Each distinct push once, by its earliest receipt; newest first.
fn distinct(upgrades: &[Upgrade]) -> Vec<Upgrade> {
    let mut all = upgrades.to_vec();
    all.sort_by_key(|upgrade| upgrade.received_at);
    let mut seen = BTreeSet::new();
    all.retain(|upgrade| seen.insert(upgrade.fields.clone()));
    all.sort_by(|a, b| b.order().cmp(&a.order()));
    all
}

fn kept(newest_first: Vec<Upgrade>) -> Vec<Upgrade> {
    let horizon = newest_first[0].received_at - TimeDelta::days(7);
    let numbered = newest_first.into_iter().enumerate();
    numbered
        .filter(|(rank, upgrade)| *rank < 16 || upgrade.received_at >= horizon)
        .map(|(_, upgrade)| upgrade)
        .collect()
}

fn device(id: &str, attempts: &[Upgrade]) -> Value {
    let mut state = attempts[0].json();
    state.insert("deviceId".into(), json!(id));
    let all: Vec<_> = attempts.iter().map(Upgrade::json).collect();
    state.insert("attempts".into(), json!(all));
    Value::Object(state)
}

fn operation(id: &str, devices: &[Vec<Upgrade>]) -> Value {
    let newest: Vec<&Upgrade> = devices.iter().map(|attempts| &attempts[0]).collect();
    let failed: Vec<&Upgrade> = newest
        .iter()
        .copied()
        .filter(|one| !one.succeeded())
        .collect();
    let receipts = || devices.iter().flatten().map(|one| one.received_at);
    json!({
        "operationId": id,
        "targetVersions": counted(&newest, "targetVersion"),
        "succeeded": newest.len() - failed.len(),
        "failed": failed.len(),
        "devices": newest.len(),
        "errors": counted(&failed, "errorCode"),
        "firstAt": receipt(receipts().min().unwrap()),
        "lastAt": receipt(receipts().max().unwrap()),
    })
}

fn counted(upgrades: &[&Upgrade], field: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for upgrade in upgrades.iter().filter(|one| !one.field(field).is_empty()) {
        *counts.entry(upgrade.field(field).to_owned()).or_default() += 1;
    }
    counts
}

fn grouped<T>(pairs: impl Iterator<Item = (String, T)>) -> BTreeMap<String, Vec<T>> {
    let mut groups: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (id, one) in pairs {
        groups.entry(id).or_default().push(one);
    }
    groups
}

fn put(state: &mut Map<String, Value>, field: &str, text: Option<&str>) {
    if let Some(text) = text {
        state.insert(field.into(), json!(text));
    }
}

fn receipt(time: DateTime<Utc>) -> Value {
    json!(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A string as it reads, a number as it was written, all else nothing.
fn text(object: &Object, name: &str) -> Option<String> {
    let json = object.get(name)?.get();
    match serde_json::from_str(json).ok()? {
        Value::String(text) => Some(text),
        Value::Number(_) => Some(json.to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn usable_id(object: &Object, name: &str) -> Option<String> {
    text(object, name).filter(|id| (1..=256).contains(&id.len()))
}

fn push_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let digits = text.strip_suffix('Z')?.replace(['T', '.'], "");
    let padded = format!("{digits:0<17}");
    let (seconds, millis) = padded.split_at_checked(14)?;
    let time = NaiveDateTime::parse_from_str(&format!("{seconds}.{millis}"), "%Y%m%d%H%M%S%.3f");
    Some(time.ok()?.and_utc())
}
