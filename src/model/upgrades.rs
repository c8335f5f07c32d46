//! The states of devices and operations, each derived from all its upgrade results at once.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::{Push, text, usable_id};

pub(super) const TYPE: &str = "swUpgradeResultNotify";

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

/// A push with one of the two results.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The published fields, under their names in a state.
    pub fields: BTreeMap<&'static str, String>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
}

impl Upgrade {
    /// The upgrade result, with its device.
    pub fn read(push: &Push) -> Option<(String, Self)> {
        let object = push.object_of_type(TYPE)?;
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

    /// The operation that counts it; `None` if its id is absent or empty.
    pub fn operation(&self) -> Option<&str> {
        self.fields
            .get("operationId")
            .map(String::as_str)
            .filter(|id| !id.is_empty())
    }

    fn succeeded(&self) -> bool {
        self.fields.get("result").is_some_and(|it| it == "SUCCESS")
    }

    fn order(&self) -> (DateTime<Utc>, bool, Vec<Option<&String>>) {
        let rest = PUBLISHED[1..].iter().map(|name| self.fields.get(name));
        // Of two results in the same millisecond, the failure counts as the later.
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
pub fn distinct(upgrades: &[Upgrade]) -> Vec<Upgrade> {
    let mut all = upgrades.to_vec();
    all.sort_by_key(|upgrade| upgrade.received_at);
    let mut seen = BTreeSet::new();
    all.retain(|upgrade| seen.insert(upgrade.fields.clone()));
    all.sort_by(|a, b| b.order().cmp(&a.order()));
    all
}

/// The attempts that a device's state keeps, of all its attempts, newest first.
pub(super) fn kept(newest_first: Vec<Upgrade>) -> Vec<Upgrade> {
    let newest = newest_first.first().map(|newest| newest.received_at);
    let horizon = newest.map(|newest| newest - TimeDelta::days(7));
    let numbered = newest_first.into_iter().enumerate();
    numbered
        .filter(|(rank, upgrade)| *rank < 16 || Some(upgrade.received_at) >= horizon)
        .map(|(_, upgrade)| upgrade)
        .collect()
}

/// The state of a device with these attempts, newest first.
pub(super) fn device(id: &str, attempts: &[Upgrade]) -> Option<Value> {
    let mut state = attempts.first()?.json();
    state.insert("deviceId".into(), json!(id));
    let all: Vec<_> = attempts.iter().map(Upgrade::json).collect();
    state.insert("attempts".into(), json!(all));
    Some(Value::Object(state))
}

/// The state of an operation with the attempts of each of its devices, newest first.
pub(super) fn operation(id: &str, devices: &[Vec<Upgrade>]) -> Option<Value> {
    let newest: Vec<&Upgrade> = devices.iter().filter_map(|all| all.first()).collect();
    let failed = newest.iter().copied().filter(|one| !one.succeeded());
    let failed: Vec<&Upgrade> = failed.collect();
    let receipts = || devices.iter().flatten().map(|one| one.received_at);
    Some(json!({
        "operationId": id,
        "targetVersions": counted(&newest, "targetVersion"),
        "succeeded": newest.len() - failed.len(),
        "failed": failed.len(),
        "devices": newest.len(),
        "errors": counted(&failed, "errorCode"),
        "firstAt": receipt(receipts().min()?),
        "lastAt": receipt(receipts().max()?),
    }))
}

fn counted(upgrades: &[&Upgrade], field: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let named = upgrades.iter().filter_map(|one| one.fields.get(field));
    for name in named.filter(|name| !name.is_empty()) {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

/// A time as a state writes it.
pub fn receipt(time: DateTime<Utc>) -> Value {
    json!(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
