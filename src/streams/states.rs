//! The three states: what a record means to each (the event), what is kept of it (the state, as
//! stored in its topic), and the merge of one into the other.
//!
//! Pure: nothing here knows Kafka, a clock or a metric.

pub mod command;
pub mod device;
mod fields;
pub mod format;
pub mod operation;
pub mod poison;
pub mod position;
mod texts;
pub mod time;
