//! Tests of the built program over librdkafka's mock cluster or without any
//! Kafka, and of the test support itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose environment fails can only panic, and clippy exempts only functions marked as tests"
)]

#[path = "../support/mod.rs"]
mod support;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

mod acknowledgement;
mod addresses;
mod answers;
mod auth;
mod command_line;
mod config_check;
mod dev;
mod documents;
mod drain;
mod generated;
mod health;
mod kafka_failures;
mod limits;
mod metrics;
mod panics;
mod printing;
mod producer_restart;
mod protected_listener;
mod protocols;
mod readiness;
mod records;
mod reload;
mod service_manager;
mod show;
mod simulate;
mod spool;
mod status_page;
mod strangers;
mod tap;
mod test_support;
mod tls;
mod traces;

/// Compresses to a single gzip member (RFC 1952).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
