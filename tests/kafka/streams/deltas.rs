//! What the internal topic between the two stages of `upgrade-result` must
//! hold, computed from scratch as the states are.

use northbridge::simulate::model::upgrades::{Upgrade, distinct, receipt};
use northbridge::simulate::model::{Push, grouped};
use serde_json::{Map, Value, json};

/// The values of `iot.upgrade-delta` for all pushes, given in the order in
/// which they were written for each device: one for each push that changed the
/// newest attempt of its device in its operation, or the earliest receipt there.
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

/// The newest attempt of one device in an operation and the earliest receipt
/// there, as a delta tells them.
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
