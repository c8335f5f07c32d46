//! The model of `iot.upgrade-delta`, the internal topic between the two stages of
//! `upgrade-result`.

use northbridge::model::upgrades::{Upgrade, distinct, receipt};
use northbridge::model::{Push, grouped};
use serde_json::{Map, Value, json};

/// The expected values of `iot.upgrade-delta`: one for each push that changed the
/// newest attempt, or the earliest receipt, of its device in its operation.
///
/// The pushes of each device must be in the order in which they were written.
pub(super) fn upgrade_deltas(pushes: &[Push]) -> Vec<Value> {
    let mut deltas = Vec::new();
    for (device, upgrades) in grouped(pushes.iter().filter_map(Upgrade::read)) {
        for count in 1..=upgrades.len() {
            let Some(operation) = upgrades[count - 1].operation() else {
                continue;
            };
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

/// The newest attempt and the earliest receipt of one device in an operation, in
/// the format of a delta.
fn standing(upgrades: &[Upgrade], operation: &str) -> Option<(Value, Value)> {
    let mut all = distinct(upgrades);
    all.retain(|upgrade| upgrade.operation() == Some(operation));
    let newest = all.first()?;
    let mut outcome = Map::new();
    for field in ["result", "targetVersion", "errorCode"] {
        if let Some(text) = newest.fields.get(field) {
            outcome.insert(field.into(), json!(text));
        }
    }
    outcome.insert("receivedAt".into(), receipt(newest.received_at));
    let earliest = all.iter().map(|upgrade| upgrade.received_at).min()?;
    Some((Value::Object(outcome), receipt(earliest)))
}
