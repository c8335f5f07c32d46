//! Tests of the program without a Kafka of its own process, and of what the test
//! support is made of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose surroundings fail can only panic, and clippy sees tests by their attribute alone"
)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod documents;
