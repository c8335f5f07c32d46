//! Tests on a real Apache Kafka of three brokers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose surroundings fail can only panic, and clippy sees tests by their attribute alone"
)]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod ingress;
mod replay;
mod simulate;
mod streams;
