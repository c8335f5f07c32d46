//! Free loopback ports that stay free while a broker is away.
//!
//! The kernel hands out ephemeral ports from 32768 on (Linux's default
//! `ip_local_port_range`), also to outgoing connections: a killed broker could
//! find its own taken when it comes back. So these lie below.

use std::net::{Ipv4Addr, TcpListener};

/// So many different ports on which nobody listens now.
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
