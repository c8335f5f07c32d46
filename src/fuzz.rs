//! The fuzz targets: each takes arbitrary bytes, and panics if a law is broken. Built
//! only for fuzzing (`fuzz/`).

pub use crate::commands::replay::fuzz::dead_letter;
pub use crate::config::fuzz::layers;
pub use crate::ingress::fuzz::{addresses, body, connection};
pub use crate::notification::fuzz::reader;
pub use crate::streams::fuzz::{pushes, stored};
