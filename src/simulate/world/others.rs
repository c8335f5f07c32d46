//! Every type besides the two of the mission, each in turn.
//!
//! The bodies follow the platform's pages on its subscriptions, and captured pushes.

use super::json::Object;
use super::oddities::{self, Oddity};
use super::random::Salt;
use super::{Draft, World};
use crate::topics::Topic;

type Maker = fn(&Facts) -> (Object, Option<String>);

/// Those that are frequent in real traffic come more than once.
const KINDS: [Maker; 27] = [
    |facts| facts.data(),
    |facts| facts.datas(),
    |facts| facts.data(),
    |facts| facts.command_response(),
    |facts| facts.data(),
    |facts| facts.event(),
    |facts| facts.info("deviceAdded"),
    |facts| facts.info("bindDevice"),
    |facts| facts.info("deviceInfoChanged"),
    |facts| facts.plain("deviceDeleted"),
    |facts| facts.service_info(),
    |facts| facts.desired(),
    |facts| facts.rule(),
    |facts| facts.model("deviceModelAdded"),
    |facts| facts.model("deviceModelDeleted"),
    |facts| facts.model("deviceCapabilitiesAdded"),
    |facts| facts.model("deviceCapabilitiesChanged"),
    |facts| facts.model("deviceCapabilitiesDeleted"),
    |facts| {
        facts.upgrade(
            "swUpgradeStateChangeNotify",
            "swUpgradeState",
            "downloading",
        )
    },
    |facts| facts.upgrade("swUpgradeStateChangeNotify", "swUpgradeState", "installing"),
    |facts| facts.upgrade("fwUpgradeStateChangeNotify", "step", "1"),
    |facts| facts.upgrade("fwUpgradeResultNotify", "status", "SUCCESS"),
    |facts| facts.callback(),
    |facts| facts.envelope(),
    |facts| facts.envelope_without_header(),
    |facts| facts.plain("somethingNewChanged"),
    |facts| facts.data(),
];

/// Push number `rank` among the other types.
pub(super) fn draft(world: &World, rank: u64, number: u64) -> Draft {
    let kinds = u64::try_from(KINDS.len()).unwrap_or(1);
    let kind = usize::try_from(rank % kinds).unwrap_or(0);
    let facts = Facts::of(world, rank);
    let (mut body, key) = KINDS[kind](&facts);
    match oddities::of(world, number) {
        Some(Oddity::KeyOrder) => body.reverse(),
        Some(_) => body = oddities::with_unknown_keys(body, number),
        None => {}
    }
    Draft {
        body: body.write(),
        topic: Topic::Notifications,
        key,
        as_published: true,
    }
}

/// What the bodies of one push are filled with.
struct Facts {
    rank: u64,
    device: String,
    gateway: String,
    application: String,
    request: String,
    reading: u64,
}

impl Facts {
    fn of(world: &World, rank: u64) -> Self {
        let seed = world.seed;
        Self {
            rank,
            device: world.device(seed.number(Salt::OtherDevice, rank)),
            gateway: seed.uuid(Salt::Gateway, rank),
            application: seed.object_id(Salt::Application, 0),
            request: seed.uuid(Salt::Request, rank),
            reading: seed.below(Salt::Reading, rank, 100),
        }
    }

    fn of_device(&self, notify_type: &str) -> Object {
        Object::of_type(notify_type)
            .text("deviceId", &self.device)
            .text("gatewayId", &self.gateway)
    }

    fn keyed(&self, body: Object) -> (Object, Option<String>) {
        (body, Some(self.device.clone()))
    }

    fn plain(&self, notify_type: &str) -> (Object, Option<String>) {
        self.keyed(self.of_device(notify_type))
    }

    fn service(&self, name: &str) -> Object {
        Object::default()
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

    fn data(&self) -> (Object, Option<String>) {
        let body = self
            .of_device("deviceDataChanged")
            .raw("requestId", "null")
            .nested("service", &self.service("Battery"));
        self.keyed(body)
    }

    fn datas(&self) -> (Object, Option<String>) {
        let (one, two) = (self.service("Battery"), self.service("Meter"));
        let services = format!("[{},{}]", one.write(), two.write());
        let body = self
            .of_device("deviceDatasChanged")
            .raw("requestId", "null")
            .raw("services", services);
        self.keyed(body)
    }

    fn info(&self, notify_type: &str) -> (Object, Option<String>) {
        let info = Object::default()
            .text("nodeId", &format!("{:015}", self.rank))
            .text("name", "Water meter 17")
            .raw("description", "null")
            .text("manufacturerId", "HwCo")
            .text("deviceType", "WaterMeter")
            .text("model", "NBIoTDevice")
            .text("protocolType", "CoAP")
            .text("status", "ONLINE");
        self.keyed(self.of_device(notify_type).nested("deviceInfo", &info))
    }

    fn service_info(&self) -> (Object, Option<String>) {
        let body = self
            .of_device("serviceInfoChanged")
            .text("serviceId", "Battery")
            .raw("serviceInfo", "{\"muteCmds\":[\"SET_INTERVAL\"]}");
        self.keyed(body)
    }

    fn desired(&self) -> (Object, Option<String>) {
        let body = Object::of_type("deviceDesiredPropertiesModifyStatusChanged")
            .text("deviceId", &self.device)
            .text("serviceId", "Battery")
            .raw(
                "properties",
                format!("{{\"reportInterval\":{}}}", self.rank),
            )
            .text("status", "DELIVERED");
        self.keyed(body)
    }

    fn command_response(&self) -> (Object, Option<String>) {
        let header = Object::default()
            .text("requestId", &self.request)
            .text(
                "from",
                &format!("/devices/{}/services/Battery", self.device),
            )
            .text("deviceId", &self.device)
            .text("serviceType", "Battery")
            .text("method", "SET_INTERVAL");
        let body = Object::of_type("commandRsp")
            .nested("header", &header)
            .raw("body", "{\"result\":0}");
        self.keyed(body)
    }

    /// The device stands only inside `header.from`.
    fn event(&self) -> (Object, Option<String>) {
        let header = Object::default()
            .text("eventType", "lowBattery")
            .text(
                "from",
                &format!("/devices/{}/services/Battery", self.device),
            )
            .text("timestamp", "20260101T000000Z");
        let body = Object::of_type("deviceEvent")
            .nested("header", &header)
            .raw("body", format!("{{\"total\":{}}}", self.rank));
        self.keyed(body)
    }

    fn rule(&self) -> (Object, Option<String>) {
        let rule = format!("{}", 1_000_000 + self.rank);
        let body = Object::of_type("ruleEvent")
            .text("ruleId", &rule)
            .text("ruleName", "Low battery")
            .raw("reasons", format!("[{{\"id\":\"{}\"}}]", self.device));
        (body, Some(rule))
    }

    fn model(&self, notify_type: &str) -> (Object, Option<String>) {
        let body = Object::of_type(notify_type)
            .text("appId", &self.application)
            .text("deviceType", "WaterMeter")
            .text("manufacturerId", "HwCo")
            .text("model", &format!("NBIoT-{}", self.rank));
        (body, None)
    }

    fn upgrade(
        &self,
        notify_type: &str,
        field: &'static str,
        value: &str,
    ) -> (Object, Option<String>) {
        let body = Object::of_type(notify_type)
            .text("deviceId", &self.device)
            .text("appId", &self.application)
            .text("operationId", &self.gateway)
            .text("subOperationId", &self.request)
            .text(field, value);
        self.keyed(body)
    }

    /// The callback of a command has no `notifyType`.
    fn callback(&self) -> (Object, Option<String>) {
        let body = Object::default()
            .text("deviceId", &self.device)
            .text("commandId", &self.request)
            .raw(
                "result",
                "{\"resultCode\":\"DELIVERED\",\"resultDetail\":null}",
            );
        self.keyed(body)
    }

    fn envelope(&self) -> (Object, Option<String>) {
        let header = Object::default()
            .text("app_id", &self.application)
            .text("device_id", &self.device);
        let data = Object::default().nested("header", &header).raw(
            "body",
            "{\"topic\":\"topic\",\"content\":{\"batteryLevel\":84}}",
        );
        self.keyed(self.enveloped(&data))
    }

    fn envelope_without_header(&self) -> (Object, Option<String>) {
        let data = Object::default().raw("body", "{\"content\":{}}");
        (self.enveloped(&data), Some(self.request.clone()))
    }

    fn enveloped(&self, data: &Object) -> Object {
        Object::default()
            .text("resource", "device.message")
            .text("event", "report")
            .text("event_time", "20260101T000000Z")
            .text("request_id", &self.request)
            .nested("notify_data", data)
    }
}
