//! Tests of the program without a Kafka of its own process, and of what the test
//! support is made of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose surroundings fail can only panic, and clippy sees tests by their attribute alone"
)]

#[path = "../support/mod.rs"]
mod support;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

mod acknowledgement;
mod answers;
mod books;
mod clients;
mod command_line;
mod drain;
mod limits;
mod protocols;
mod readiness;
mod records;
mod survival;

/// One member of RFC 1952.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
