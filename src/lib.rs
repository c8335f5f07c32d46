//! northbridge carries an IoT platform's notifications onto Kafka and never
//! loses one that it acknowledged.
//!
//! `docs/ARCHITECTURE.md` is the map of these modules.

pub mod cli;
pub mod config;
pub mod dev;
pub mod health_command;
pub mod ingress;
pub mod kafka;
pub mod metrics;
pub mod notification;
pub mod process;
pub mod record;
pub mod replay;
pub mod simulate;
pub mod streams;
pub mod topics;
pub mod topics_command;
