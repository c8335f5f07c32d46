//! The bodies that the platform sends for the two notifications of the mission,
//! compact and with every field of the published tables.

/// A device acknowledged a command: `status` is `sent`, `delivered` or
/// `executed`.
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

/// A software upgrade of a device ended: `result` is `SUCCESS` or `FAIL`.
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
