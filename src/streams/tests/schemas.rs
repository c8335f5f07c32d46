//! Validates values against the published JSON Schemas, and the schemas of the two pushes against the
//! platform's own examples.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

pub(crate) static COMMAND_STATE: LazyLock<Validator> = LazyLock::new(|| {
    validator(include_str!(
        "../../../docs/schemas/command-state.schema.json"
    ))
});
pub(crate) static DEVICE_SOFTWARE: LazyLock<Validator> = LazyLock::new(|| {
    validator(include_str!(
        "../../../docs/schemas/device-software.schema.json"
    ))
});
pub(crate) static UPGRADE_OPERATION: LazyLock<Validator> = LazyLock::new(|| {
    validator(include_str!(
        "../../../docs/schemas/upgrade-operation.schema.json"
    ))
});
static MESSAGE_CONFIRM: LazyLock<Validator> = LazyLock::new(|| {
    validator(include_str!(
        "../../../docs/schemas/message-confirm.schema.json"
    ))
});
static UPGRADE_RESULT: LazyLock<Validator> = LazyLock::new(|| {
    validator(include_str!(
        "../../../docs/schemas/sw-upgrade-result-notify.schema.json"
    ))
});

/// The rules of the schema that a value violates; `None` if it is valid.
pub(crate) fn violations(schema: &Validator, value: &Value) -> Option<String> {
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

fn validator(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn message_confirm() -> Value {
    json!({
        "notifyType": "messageConfirm",
        "header": {
            "requestId": "r1",
            "from": "/devices/d1/services/s1",
            "to": "na",
            "status": "delivered",
            "timestamp": "20151212T121212Z"
        },
        "body": {}
    })
}

fn upgrade_result() -> Value {
    json!({
        "notifyType": "swUpgradeResultNotify",
        "deviceId": "d1",
        "appId": "a1",
        "operationId": "o1",
        "subOperationId": "s1",
        "curVersion": "1.3",
        "targetVersion": "1.5",
        "sourceVersion": "1.0",
        "swUpgradeResult": "SUCCESS",
        "upgradeTime": "120",
        "resultDesc": "done",
        "errorCode": "0",
        "description": ""
    })
}

#[test]
fn the_examples_of_the_platform_satisfy_the_schemas_of_the_pushes() {
    assert_eq!(violations(&MESSAGE_CONFIRM, &message_confirm()), None);
    assert_eq!(violations(&UPGRADE_RESULT, &upgrade_result()), None);
}

#[test]
fn an_added_field_satisfies_the_schemas_of_the_pushes() {
    let mut push = upgrade_result();
    push["added"] = json!(1);
    assert_eq!(violations(&UPGRADE_RESULT, &push), None);
}

#[test]
fn a_missing_mandatory_field_violates_the_schemas_of_the_pushes() {
    for field in ["requestId", "from", "to", "status", "timestamp"] {
        let mut push = message_confirm();
        push["header"].as_object_mut().unwrap().remove(field);
        assert!(violations(&MESSAGE_CONFIRM, &push).is_some(), "{field}");
    }
    let names: Vec<String> = upgrade_result()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    for field in names {
        let mut push = upgrade_result();
        push.as_object_mut().unwrap().remove(&field);
        assert!(violations(&UPGRADE_RESULT, &push).is_some(), "{field}");
    }
}

#[test]
fn a_null_or_an_unknown_field_violates_the_schemas_of_the_states() {
    let valid = json!({"requestId": "r1", "status": "sent"});
    assert_eq!(violations(&COMMAND_STATE, &valid), None);
    for (field, value) in [
        ("to", Value::Null),
        ("body", Value::Null),
        ("sentAt", json!("today")),
        ("unknown", json!(1)),
    ] {
        let mut state = valid.clone();
        state[field] = value;
        assert!(violations(&COMMAND_STATE, &state).is_some(), "{field}");
    }
}
