//! Kafka's classes as the JVM lays them out in memory, recorded once (JEP 350).
//!
//! Loading and verifying its classes is what a broker's start consists of; with
//! the record a start takes six tenths of the time, and tests make dozens. A
//! JVM that cannot use it, such as a newer one, says so and does without.

use std::path::Path;
use std::sync::LazyLock;

use super::distribution::Distribution;
use super::{ClusterOptions, broker, data_directory};

/// The jars, with the record of their classes.
pub fn distribution() -> &'static Distribution {
    static DISTRIBUTION: LazyLock<Distribution> = LazyLock::new(|| {
        let jars = Distribution::fetched();
        let record = jars.beside(".jsa");
        jars.once(&record, |record| write(&jars, record));
        jars.with_option(format!("-XX:SharedArchiveFile={}", record.display()))
    });
    &DISTRIBUTION
}

/// A broker that ends in peace writes down what it loaded.
fn write(jars: &Distribution, record: &Path) {
    let writing = jars.with_option(format!("-XX:ArchiveClassesAtExit={}", record.display()));
    let directory = data_directory();
    let options = ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    };
    let brokers = broker::configure(&writing, directory.path(), &options);
    broker::format_all(&brokers);
    for broker in brokers {
        broker.restart();
        broker.stop_gracefully();
    }
}
