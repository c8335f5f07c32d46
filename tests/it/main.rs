//! Tests of the program without a Kafka of its own process, and of what the test
//! support is made of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose surroundings fail can only panic, and clippy sees tests by their attribute alone"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/certificates.rs"]
mod certificates;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

mod acknowledgement;
mod addresses;
mod answers;
mod auth;
mod books;
mod clients;
mod command_line;
mod dev;
mod documents;
mod drain;
mod health;
mod limits;
mod protocols;
mod pushes;
mod readiness;
mod records;
mod simulate;
mod survival;
mod tls;

/// One member of RFC 1952.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
