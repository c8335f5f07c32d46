//! The streams half: raw pushes in, the state of commands, devices and upgrade
//! operations out.
//!
//! The three states are pure: each module holds what a record means (the
//! event), what is kept of it (the state, as written to its topic) and the
//! merge of one into the other. None of them knows Kafka, a clock or a metric;
//! what an `apply` returns says what to write and what to count.
//!
//! Nothing here knows `ingress`.

pub mod command_state;
pub mod device_software;
pub mod push;
pub mod time;
pub mod upgrade_operation;

#[cfg(test)]
mod campaigns;
#[cfg(test)]
#[path = "../tests/support/model.rs"]
mod model;
#[cfg(test)]
mod schemas;
