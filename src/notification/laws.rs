//! The laws of the reader, for the tests and the fuzz targets.

use serde_json::Value;

use super::*;

fn every_rule() -> impl Iterator<Item = Rules> {
    let keys = [CommandKey::RequestId, CommandKey::DeviceId];
    let modes = [Validation::Tolerant, Validation::Strict];
    keys.into_iter().flat_map(move |command_key| {
        modes.map(|validation| Rules {
            command_key,
            validation,
        })
    })
}

/// Checks what holds for any bytes: the reader gives one of its two answers, within its bounds.
/// # Panics
///
/// Panics if a law is broken.
pub(crate) fn check_laws(body: &[u8]) {
    for rules in every_rule() {
        let answer = read(body, rules);
        let subject = match &answer {
            Ok(notification) => {
                let keyed = notification.category() != Category::Notifications;
                assert!(!keyed || notification.subject().key().is_some());
                notification.subject()
            }
            Err(unreadable) => {
                assert!(Cause::REASONS.contains(&unreadable.reason()));
                assert!(unreadable.to_string().len() <= 512);
                unreadable.subject()
            }
        };
        for id in [subject.key(), subject.device_id()].into_iter().flatten() {
            assert!((1..=MAX_ID_BYTES).contains(&id.len()));
        }
        assert!((1..=256).contains(&subject.type_name().len()));
        assert!(!subject.type_name().contains(char::is_control));
    }
}

/// Checks the key of a push against a search of the whole tree.
///
/// # Panics
///
/// Panics if they differ.
pub(crate) fn compare_with_tree(body: &[u8], tree: &Value) {
    for rules in every_rule().filter(|rules| rules.validation == Validation::Tolerant) {
        match (read(body, rules), key_in_tree(tree, rules)) {
            (Ok(notification), Ok(key)) => {
                assert_eq!(notification.subject().key(), key.as_deref());
            }
            (Err(_), Err(())) => {}
            (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
        }
    }
}

/// The key that a search of the whole tree finds; an error if the push must be unreadable.
fn key_in_tree(push: &Value, rules: Rules) -> Result<Option<String>, ()> {
    let at = |path| push.pointer(path).and_then(usable);
    let top = |name: &str| push.get(name).and_then(usable);
    let device = || push.pointer("/header/from").and_then(device_in);
    let named = |value: &Value| {
        value
            .as_str()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    };
    let outside = push.get("notifyType").and_then(named);
    let name = outside.or_else(|| push.pointer("/header/notifyType").and_then(named));
    let has = |name: &str| push.get(name).is_some();
    let of_envelope = ["resource", "event", "notify_data"].map(has);
    let known_shape = of_envelope.iter().filter(|has| **has).count() >= 2
        || has("commandId") && (has("result") || has("deviceId"));
    match (name.as_deref(), rules.command_key) {
        (Some("messageConfirm"), CommandKey::RequestId) => {
            at("/header/requestId").map(Some).ok_or(())
        }
        (Some("messageConfirm"), CommandKey::DeviceId) => device().map(Some).ok_or(()),
        (Some("swUpgradeResultNotify"), _) => at("/deviceId").map(Some).ok_or(()),
        (name, _) => {
            let key = at("/deviceId")
                .or_else(|| at("/header/deviceId"))
                .or_else(device)
                .or_else(|| at("/notify_data/header/device_id"))
                .or_else(|| top("deviceIdIot"))
                .or_else(|| top("device_id"))
                .or_else(|| top("notify_data.header.device_id"))
                .or_else(|| at("/requestId"))
                .or_else(|| at("/header/requestId"))
                .or_else(|| at("/request_id"))
                .or_else(|| at("/commandId"))
                .or_else(|| at("/operationId"))
                .or_else(|| at("/ruleId"));
            if name.is_some() || known_shape || key.is_some() {
                Ok(key)
            } else {
                Err(())
            }
        }
    }
}

fn usable(value: &Value) -> Option<String> {
    let id = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(id).filter(|id| !id.is_empty() && id.len() <= 512)
}

fn device_in(value: &Value) -> Option<String> {
    let device = value
        .as_str()?
        .strip_prefix("/devices/")?
        .split('/')
        .next()?;
    Some(device.to_owned()).filter(|id| !id.is_empty() && id.len() <= 512)
}
