//! Bodies of notifications: compact JSON with every field of the platform's published
//! tables.
#![allow(
    dead_code,
    reason = "a benchmark compiles this file alone and uses only part of it"
)]

/// A `messageConfirm`, which reports the progress of a command: `status` is
/// `sent`, `delivered` or `executed`.
pub fn message_confirm(request_id: &str, device_id: &str, status: &str) -> String {
    format!(
        "{{\"notifyType\":\"messageConfirm\",\"header\":{{\
         \"requestId\":\"{request_id}\",\
         \"from\":\"/devices/{device_id}/services/Switch\",\
         \"to\":\"northbound-application\",\
         \"status\":\"{status}\",\
         \"timestamp\":\"20151212T121212Z\"}},\
         \"body\":{{}}}}"
    )
}

/// A `swUpgradeResultNotify`, which reports the end of a device's software
/// upgrade: `result` is `SUCCESS` or `FAIL`.
pub fn upgrade_result(device_id: &str, operation_id: &str, result: &str) -> String {
    format!(
        "{{\"notifyType\":\"swUpgradeResultNotify\",\
         \"deviceId\":\"{device_id}\",\
         \"appId\":\"application\",\
         \"operationId\":\"{operation_id}\",\
         \"subOperationId\":\"{operation_id}-{device_id}\",\
         \"curVersion\":\"1.5\",\
         \"targetVersion\":\"1.5\",\
         \"sourceVersion\":\"1.0\",\
         \"swUpgradeResult\":\"{result}\",\
         \"upgradeTime\":\"20151212T121212Z\",\
         \"resultDesc\":\"\",\
         \"errorCode\":\"0\",\
         \"description\":\"\"}}"
    )
}

/// A `deviceDataChanged`, which reports new property values of a device. No stream reads
/// it.
pub fn device_data_changed(device_id: &str, value: usize) -> String {
    format!(
        "{{\"notifyType\":\"deviceDataChanged\",\
         \"deviceId\":\"{device_id}\",\
         \"gatewayId\":\"{device_id}\",\
         \"service\":{{\"serviceId\":\"Switch\",\"serviceType\":\"Switch\",\
         \"data\":{{\"on\":{value}}},\"eventTime\":\"20151212T121212Z\"}}}}"
    )
}
