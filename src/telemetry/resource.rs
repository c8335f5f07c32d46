//! What all spans of a process have in common.

use super::otlp::Resource;
use super::span::{Attribute, key_values};

/// `process` is the name of the command.
pub(super) fn of_process(process: &str) -> Resource {
    let instance = format!("{:032x}", fastrand::u128(..));
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    Resource {
        attributes: key_values(vec![
            Attribute::text("service.name", format!("northbridge-{process}")),
            Attribute::text("service.namespace", "northbridge"),
            Attribute::text("service.version", env!("CARGO_PKG_VERSION")),
            Attribute::text("service.instance.id", instance),
            Attribute::text("host.name", host),
        ]),
    }
}
