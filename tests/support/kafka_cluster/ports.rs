//! Free loopback ports that stay free while a broker is down.
//!
//! The kernel assigns ephemeral ports from 32768 upwards (Linux's default
//! `ip_local_port_range`), including to outgoing connections, so a restarted
//! broker could find its port taken. These ports lie below that range.

use std::net::{Ipv4Addr, TcpListener};

/// Returns `count` distinct ports that are free at the moment.
pub fn free(count: usize) -> Vec<u16> {
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    while held.len() < count {
        let port = fastrand::u16(12_000..32_000);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    held.iter().map(|(port, _)| *port).collect()
}
