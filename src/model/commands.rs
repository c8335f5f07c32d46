//! A command's state, derived from all its confirmations at once.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value, json};

use super::{Object, Push, put, text, usable_id};

const STATUSES: [&str; 3] = ["sent", "delivered", "executed"];

/// A push that confirms one of the three statuses.
pub(super) struct Confirmation {
    rank: usize,
    at: Option<DateTime<Utc>>,
    device: Option<String>,
    service: Option<String>,
    to: Option<String>,
    body: Option<String>,
}

/// The command that a push confirms.
pub(super) fn id(push: &Push) -> Option<String> {
    let object = push.object_of_type("messageConfirm")?;
    usable_id(&header(&object)?, "requestId")
}

fn header(object: &Object) -> Option<Object> {
    serde_json::from_str(object.get("header")?.get()).ok()
}

impl Confirmation {
    /// The confirmation, with the command that it confirms.
    pub(super) fn read(push: &Push) -> Option<(String, Self)> {
        let object = push.object_of_type("messageConfirm")?;
        let header = header(&object)?;
        let id = usable_id(&header, "requestId")?;
        let status = text(&header, "status")?.to_lowercase();
        let from = text(&header, "from").unwrap_or_default();
        let segments: Vec<&str> = from.split('/').collect();
        let (device, service) = match segments[..] {
            ["", "devices", device] if !device.is_empty() => (Some(device), None),
            ["", "devices", device, "services", service] if !device.is_empty() => (
                Some(device),
                Some(service).filter(|service| !service.is_empty()),
            ),
            _ => (None, None),
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

/// The state of a command after all its confirmations; `None` if there are none.
pub(super) fn state(id: &str, all: &[Confirmation]) -> Option<Value> {
    let furthest = all.iter().map(|one| one.rank).max()?;
    let last = all.iter().filter(|one| one.rank == furthest);
    let last = last.max_by_key(|one| (one.at, one.body.clone()))?;
    let origin = all.iter().max_by_key(|one| {
        let (device, service) = (one.device.clone(), one.service.clone());
        (service.is_some(), device, service)
    })?;

    let mut state = Map::new();
    state.insert("requestId".into(), json!(id));
    state.insert("status".into(), json!(STATUSES[furthest]));
    put(&mut state, "deviceId", origin.device.as_deref());
    put(&mut state, "serviceId", origin.service.as_deref());
    let to = all.iter().filter_map(|one| one.to.as_deref()).max();
    put(&mut state, "to", to);
    for (rank, field) in ["sentAt", "deliveredAt", "executedAt"].iter().enumerate() {
        let times = all.iter().filter(|one| one.rank == rank);
        let first = times.filter_map(|one| one.at).min();
        let text = first.map(|at| at.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string());
        put(&mut state, field, text.as_deref());
    }
    if let Some(body) = &last.body {
        state.insert("body".into(), serde_json::from_str(body).ok()?);
    }
    Some(Value::Object(state))
}

fn push_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (seconds, fraction) = time.split_at_checked(6)?;
    let millis = fraction.strip_prefix('.').unwrap_or(fraction);
    let has_fraction = !fraction.is_empty();
    let digits = format!("{date}{seconds}{millis}");
    let lengths = [date.len(), millis.len()];
    if lengths != [8, if has_fraction { 3 } else { 0 }]
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let time = NaiveDateTime::parse_from_str(&format!("{digits:0<17}"), "%Y%m%d%H%M%S%3f");
    Some(time.ok()?.and_utc())
}
