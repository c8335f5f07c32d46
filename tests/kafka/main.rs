//! Tests on a real Apache Kafka of three brokers.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
