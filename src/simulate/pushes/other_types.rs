//! Every notify type without a state, each in turn.
//!
//! The bodies follow the platform's subscription pages, and captured pushes.

use super::json::JsonObject;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::scenario::{PushDraft, Scenario};
use crate::topics::Topic;

/// Builds a body, and the key of its record.
type BodyTemplate = fn(&BodyValues) -> (JsonObject, Option<String>);

/// Types that are frequent in real traffic occur more than once.
const TEMPLATES: [BodyTemplate; 27] = [
    |values| values.data_changed(),
    |values| values.datas_changed(),
    |values| values.data_changed(),
    |values| values.command_response(),
    |values| values.data_changed(),
    |values| values.device_event(),
    |values| values.device_info("deviceAdded"),
    |values| values.device_info("bindDevice"),
    |values| values.device_info("deviceInfoChanged"),
    |values| values.device_only("deviceDeleted"),
    |values| values.service_info(),
    |values| values.desired_properties(),
    |values| values.rule_event(),
    |values| values.device_model("deviceModelAdded"),
    |values| values.device_model("deviceModelDeleted"),
    |values| values.device_model("deviceCapabilitiesAdded"),
    |values| values.device_model("deviceCapabilitiesChanged"),
    |values| values.device_model("deviceCapabilitiesDeleted"),
    |values| {
        values.upgrade_state(
            "swUpgradeStateChangeNotify",
            "swUpgradeState",
            "downloading",
        )
    },
    |values| values.upgrade_state("swUpgradeStateChangeNotify", "swUpgradeState", "installing"),
    |values| values.upgrade_state("fwUpgradeStateChangeNotify", "step", "1"),
    |values| values.upgrade_state("fwUpgradeResultNotify", "status", "SUCCESS"),
    |values| values.command_callback(),
    |values| values.envelope(),
    |values| values.envelope_without_header(),
    |values| values.device_only("somethingNewChanged"),
    |values| values.data_changed(),
];

/// Drafts the push of this rank among the types without a state.
pub(super) fn draft(scenario: &Scenario, rank: u64, number: u64) -> PushDraft {
    let templates = u64::try_from(TEMPLATES.len()).unwrap_or(1);
    let template = usize::try_from(rank % templates).unwrap_or(0);
    let (mut body, key) = TEMPLATES[template](&BodyValues::of(scenario, rank));
    match oddities::of(scenario, number) {
        Some(Oddity::KeyOrder) => body.reverse(),
        Some(_) => body = oddities::with_unknown_keys(body, number),
        None => {}
    }
    PushDraft {
        body: body.to_json(),
        topic: Topic::Notifications,
        key,
        conforms: true,
    }
}

/// The values that fill the body of one push.
struct BodyValues {
    rank: u64,
    device: String,
    gateway: String,
    application: String,
    request: String,
    reading: u64,
}

impl BodyValues {
    fn of(scenario: &Scenario, rank: u64) -> Self {
        let seed = scenario.seed;
        Self {
            rank,
            device: scenario.device_id(seed.number(Salt::OtherDevice, rank)),
            gateway: seed.uuid(Salt::Gateway, rank),
            application: seed.object_id(Salt::Application, 0),
            request: seed.uuid(Salt::Request, rank),
            reading: seed.below(Salt::Reading, rank, 100),
        }
    }

    fn of_device(&self, notify_type: &str) -> JsonObject {
        JsonObject::of_type(notify_type)
            .text("deviceId", &self.device)
            .text("gatewayId", &self.gateway)
    }

    fn keyed_by_device(&self, body: JsonObject) -> (JsonObject, Option<String>) {
        (body, Some(self.device.clone()))
    }

    fn device_only(&self, notify_type: &str) -> (JsonObject, Option<String>) {
        self.keyed_by_device(self.of_device(notify_type))
    }

    fn service(&self, name: &str) -> JsonObject {
        JsonObject::default()
            .text("serviceId", name)
            .text("serviceType", name)
            .raw(
                "data",
                format!(
                    "{{\"batteryLevel\":{},\"total\":{}}}",
                    self.reading, self.rank
                ),
            )
            .text("eventTime", "20260101T000000Z")
    }

    fn data_changed(&self) -> (JsonObject, Option<String>) {
        let body = self
            .of_device("deviceDataChanged")
            .raw("requestId", "null")
            .nested("service", &self.service("Battery"));
        self.keyed_by_device(body)
    }

    fn datas_changed(&self) -> (JsonObject, Option<String>) {
        let services = ["Battery", "Meter"].map(|name| self.service(name).to_json());
        let body = self
            .of_device("deviceDatasChanged")
            .raw("requestId", "null")
            .raw("services", format!("[{}]", services.join(",")));
        self.keyed_by_device(body)
    }

    fn device_info(&self, notify_type: &str) -> (JsonObject, Option<String>) {
        let info = JsonObject::default()
            .text("nodeId", &format!("{:015}", self.rank))
            .text("name", "Water meter 17")
            .raw("description", "null")
            .text("manufacturerId", "HwCo")
            .text("deviceType", "WaterMeter")
            .text("model", "NBIoTDevice")
            .text("protocolType", "CoAP")
            .text("status", "ONLINE");
        self.keyed_by_device(self.of_device(notify_type).nested("deviceInfo", &info))
    }

    fn service_info(&self) -> (JsonObject, Option<String>) {
        let body = self
            .of_device("serviceInfoChanged")
            .text("serviceId", "Battery")
            .raw("serviceInfo", "{\"muteCmds\":[\"SET_INTERVAL\"]}");
        self.keyed_by_device(body)
    }

    fn desired_properties(&self) -> (JsonObject, Option<String>) {
        let body = JsonObject::of_type("deviceDesiredPropertiesModifyStatusChanged")
            .text("deviceId", &self.device)
            .text("serviceId", "Battery")
            .raw(
                "properties",
                format!("{{\"reportInterval\":{}}}", self.rank),
            )
            .text("status", "DELIVERED");
        self.keyed_by_device(body)
    }

    fn command_response(&self) -> (JsonObject, Option<String>) {
        let header = JsonObject::default()
            .text("requestId", &self.request)
            .text(
                "from",
                &format!("/devices/{}/services/Battery", self.device),
            )
            .text("deviceId", &self.device)
            .text("serviceType", "Battery")
            .text("method", "SET_INTERVAL");
        let body = JsonObject::of_type("commandRsp")
            .nested("header", &header)
            .raw("body", "{\"result\":0}");
        self.keyed_by_device(body)
    }

    /// Names its device in `header.from` only.
    fn device_event(&self) -> (JsonObject, Option<String>) {
        let header = JsonObject::default()
            .text("eventType", "lowBattery")
            .text(
                "from",
                &format!("/devices/{}/services/Battery", self.device),
            )
            .text("timestamp", "20260101T000000Z");
        let body = JsonObject::of_type("deviceEvent")
            .nested("header", &header)
            .raw("body", format!("{{\"total\":{}}}", self.rank));
        self.keyed_by_device(body)
    }

    fn rule_event(&self) -> (JsonObject, Option<String>) {
        let rule = format!("{}", 1_000_000 + self.rank);
        let body = JsonObject::of_type("ruleEvent")
            .text("ruleId", &rule)
            .text("ruleName", "Low battery")
            .raw("reasons", format!("[{{\"id\":\"{}\"}}]", self.device));
        (body, Some(rule))
    }

    fn device_model(&self, notify_type: &str) -> (JsonObject, Option<String>) {
        let body = JsonObject::of_type(notify_type)
            .text("appId", &self.application)
            .text("deviceType", "WaterMeter")
            .text("manufacturerId", "HwCo")
            .text("model", &format!("NBIoT-{}", self.rank));
        (body, None)
    }

    fn upgrade_state(
        &self,
        notify_type: &str,
        field: &'static str,
        value: &str,
    ) -> (JsonObject, Option<String>) {
        let body = JsonObject::of_type(notify_type)
            .text("deviceId", &self.device)
            .text("appId", &self.application)
            .text("operationId", &self.gateway)
            .text("subOperationId", &self.request)
            .text(field, value);
        self.keyed_by_device(body)
    }

    /// A command callback, which has no `notifyType`.
    fn command_callback(&self) -> (JsonObject, Option<String>) {
        let body = JsonObject::default()
            .text("deviceId", &self.device)
            .text("commandId", &self.request)
            .raw(
                "result",
                "{\"resultCode\":\"DELIVERED\",\"resultDetail\":null}",
            );
        self.keyed_by_device(body)
    }

    fn envelope(&self) -> (JsonObject, Option<String>) {
        let header = JsonObject::default()
            .text("app_id", &self.application)
            .text("device_id", &self.device);
        let data = JsonObject::default().nested("header", &header).raw(
            "body",
            "{\"topic\":\"topic\",\"content\":{\"batteryLevel\":84}}",
        );
        self.keyed_by_device(self.in_envelope(&data))
    }

    fn envelope_without_header(&self) -> (JsonObject, Option<String>) {
        let data = JsonObject::default().raw("body", "{\"content\":{}}");
        (self.in_envelope(&data), Some(self.request.clone()))
    }

    fn in_envelope(&self, data: &JsonObject) -> JsonObject {
        JsonObject::default()
            .text("resource", "device.message")
            .text("event", "report")
            .text("event_time", "20260101T000000Z")
            .text("request_id", &self.request)
            .nested("notify_data", data)
    }
}
