//! The reader against every published body. Its children: the two types with a stream, other types,
//! hostile input, laws.

mod hostile;
mod laws;
mod other;
mod stream_types;

use serde_json::value::RawValue;

use super::*;

macro_rules! bodies {
    ($($label:literal),+ $(,)?) => {
        &[$(($label, include_str!(concat!("../../tests/bodies/", $label, ".json"))),)+]
    };
}

/// Every body of `tests/bodies`, by the label of its type.
const BODIES: &[(&str, &str)] = bodies![
    "messageConfirm",
    "swUpgradeResultNotify",
    "deviceAdded",
    "deviceDeleted",
    "bindDevice",
    "deviceInfoChanged",
    "serviceInfoChanged",
    "deviceDataChanged",
    "deviceDatasChanged",
    "commandRsp",
    "deviceEvent",
    "deviceDesiredPropertiesModifyStatusChanged",
    "ruleEvent",
    "deviceModelAdded",
    "deviceModelDeleted",
    "deviceCapabilitiesAdded",
    "deviceCapabilitiesChanged",
    "deviceCapabilitiesDeleted",
    "swUpgradeStateChangeNotify",
    "fwUpgradeStateChangeNotify",
    "fwUpgradeResultNotify",
    "commandCallback",
    "envelope",
];

/// The device and the command in all these bodies.
const DEVICE: &str = "d4922d8a-6c8e-4396-852c-164aefa6638f";
const REQUEST: &str = "29d7a5c4-6b0f-4b2e-8f3a-0c9d1e2f3a4b";

const TOLERANT: Rules = Rules {
    command_key: CommandKey::RequestId,
    validation: Validation::Tolerant,
};
const BY_DEVICE: Rules = Rules {
    command_key: CommandKey::DeviceId,
    ..TOLERANT
};
const STRICT: Rules = Rules {
    validation: Validation::Strict,
    ..TOLERANT
};

fn body(label: &str) -> &'static str {
    let found = BODIES.iter().find(|(known, _)| *known == label);
    found.expect("a body in tests/bodies").1
}

/// The body with another value under `key`.
fn set(label: &str, key: &str, json: &str) -> String {
    let (before, after) = split(label, key);
    let mut values = serde_json::Deserializer::from_str(after).into_iter();
    let old: &RawValue = values.next().unwrap().unwrap();
    let rest = &after[old.get().len()..];
    format!("{before}\"{key}\":{json}{rest}")
}

/// The body with `key` renamed.
fn without(label: &str, key: &str) -> String {
    let (before, after) = split(label, key);
    format!("{before}\"was {key}\":{after}")
}

fn split<'a>(label: &'a str, key: &str) -> (&'a str, &'a str) {
    let parts = body(label).split_once(&format!("\"{key}\":"));
    parts.expect("a body with this key")
}

/// The body with other members before its own.
fn with(label: &str, members: &str) -> String {
    format!("{{{members},{}", &body(label)[1..])
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[track_caller]
fn readable(body: &str, rules: Rules) -> Notification<'_> {
    read(body.as_bytes(), rules).unwrap_or_else(|unreadable| panic!("{unreadable}: {body}"))
}

#[track_caller]
fn key(body: &str, rules: Rules) -> Option<String> {
    readable(body, rules).subject().key().map(str::to_owned)
}

/// The fields reported as drift.
#[track_caller]
fn drift(body: &str) -> Vec<&'static str> {
    let drift = readable(body, TOLERANT).drift();
    drift.fields().map(Field::label).collect()
}

#[track_caller]
fn reason(body: impl AsRef<[u8]>, rules: Rules) -> &'static str {
    let body = body.as_ref();
    match read(body, rules) {
        Ok(notification) => panic!("{notification:?}: {}", body.escape_ascii()),
        Err(unreadable) => unreadable.reason(),
    }
}

#[test]
fn every_type_has_a_body_and_no_body_drifts() {
    let without_body = |known: &NotifyType| !BODIES.iter().any(|body| body.0 == known.label());
    let missing: Vec<_> = NotifyType::ALL
        .iter()
        .copied()
        .filter(without_body)
        .collect();
    assert_eq!(missing, [NotifyType::Other]);
    for (label, body) in BODIES {
        let notification = readable(body, STRICT);
        assert_eq!(notification.subject().notify_type().label(), *label);
        assert!(
            notification.drift().is_empty(),
            "{label}: {:?}",
            notification.drift()
        );
    }
}

#[test]
fn every_body_has_its_category_key_device_and_name() {
    let has_no_device =
        |label: &str| label.starts_with("deviceModel") || label.starts_with("deviceCapa");
    for (label, body) in BODIES {
        let (category, key, device) = match *label {
            "messageConfirm" => (Category::CommandStatus, Some(REQUEST), Some(DEVICE)),
            "swUpgradeResultNotify" => (Category::UpgradeResult, Some(DEVICE), Some(DEVICE)),
            "ruleEvent" => (Category::Notifications, Some("1000312"), None),
            label if has_no_device(label) => (Category::Notifications, None, None),
            _ => (Category::Notifications, Some(DEVICE), Some(DEVICE)),
        };
        let name = if *label == "envelope" {
            "device.message.report"
        } else {
            label
        };
        let notification = readable(body, TOLERANT);
        assert_eq!(notification.category(), category, "{label}");
        assert_eq!(notification.subject().key(), key, "{label}");
        assert_eq!(notification.subject().device_id(), device, "{label}");
        assert_eq!(notification.subject().type_name(), name);
    }
}

#[test]
fn the_settings_are_spelled_in_kebab_case() {
    let keys: Vec<CommandKey> = serde_json::from_str(r#"["request-id","device-id"]"#).unwrap();
    assert_eq!(keys, [CommandKey::RequestId, CommandKey::DeviceId]);
    let modes: Vec<Validation> = serde_json::from_str(r#"["tolerant","strict"]"#).unwrap();
    assert_eq!(modes, [Validation::Tolerant, Validation::Strict]);
}
