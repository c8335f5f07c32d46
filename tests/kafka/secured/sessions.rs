//! Sessions of SCRAM-SHA-256, which the broker ends after ten seconds unless the
//! client authenticates again (KIP-368): what librdkafka logs about them.

use super::installation::{Settings, set};
use crate::support::northbridge::Northbridge;

/// A client begins to authenticate again.
const RENEWAL: &str = "Received REAUTH op";
/// A broker has accepted the credentials, for a new connection or again.
const SESSION: &str = "Received session lifetime";
/// A connection is open.
const CONNECTED: &str = "Connected to ";
/// A connection has ended.
const ENDED: &str = "\"facility\":\"FAIL\"";
/// Why the client itself ends connections: it has not used one, or has learned a
/// broker's own address.
const ENDED_BY_CLIENT: [&str; 2] = ["idle time exceeded", "_DESTROY_BROKER"];

/// Lets a process log what librdkafka does about its sessions.
pub(super) fn log_sessions(settings: &mut Settings) {
    set(settings, "log.level", "debug");
    set(settings, "kafka.options.debug", "broker,security");
}

/// Asserts that a process has renewed a session, and has lost no connection since.
pub(super) fn assert_renewed(process: &Northbridge) {
    let log = process.log();
    let contain = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    let renewed = contain(SESSION).saturating_sub(contain(CONNECTED));
    assert!(renewed > 0, "{} renewals, none succeeded", contain(RENEWAL));
    let since_first = log.iter().skip_while(|line| !line.contains(RENEWAL));
    let is_by_client = |line: &str| ENDED_BY_CLIENT.iter().any(|cause| line.contains(cause));
    let lost: Vec<_> = since_first
        .filter(|line| line.contains(ENDED) && !is_by_client(line))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
}
