//! Tests on a real three-broker Apache Kafka.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose environment fails can only panic, and clippy exempts only functions marked as tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod cluster;
mod ingress;
mod replay;
mod secured;
mod simulate;
mod streams;
mod tap;
mod topics;
