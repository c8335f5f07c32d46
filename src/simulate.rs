//! `northbridge simulate`: plays the platform against a URL, and proves that
//! what was answered 200 is stored.

pub mod world;
