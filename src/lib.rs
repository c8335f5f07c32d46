//! northbridge stores the notifications that an IoT platform pushes over HTTP
//! in Kafka, and never loses one that it has acknowledged.
//!
//! `docs/ARCHITECTURE.md` is the map of these modules. This crate is a program,
//! not a library: what is public is so for `main`, the benchmarks and the tests.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`process::output` prints, and does not panic if nobody reads"
)]

pub mod cli;
pub mod commands;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzz;
mod headers;
pub mod ingress;
pub mod kafka;
pub mod metrics;
pub mod model;
pub mod notification;
pub mod process;
pub mod record;
pub mod simulate;
mod spool;
pub mod streams;
pub mod telemetry;
pub mod topics;
