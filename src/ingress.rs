//! The ingress half: HTTP in, Kafka out.

pub mod auth;
pub mod client_address;
pub mod idle;
pub mod paths;
pub mod tls;
