//! A class data sharing archive of Kafka's classes, created once (JEP 350).
//!
//! A broker's startup mostly loads and verifies classes. With the archive a
//! start takes 60 % of the time, and the tests make dozens of them. A JVM that
//! cannot use the archive, such as a newer one, warns and starts without it.
//! Versions that need `ZooKeeper` are tried seldom and have no archive.

use std::path::Path;
use std::sync::LazyLock;

use super::distribution::Distribution;
use super::{ClusterOptions, broker, data_directory};

/// The jars, run with the archive.
pub fn distribution() -> &'static Distribution {
    static DISTRIBUTION: LazyLock<Distribution> = LazyLock::new(|| {
        let jars = Distribution::download();
        if jars.needs_zookeeper() {
            return jars;
        }
        let archive = jars.sibling(".jsa");
        jars.once(&archive, |archive| create(&jars, archive));
        jars.with_option(format!("-XX:SharedArchiveFile={}", archive.display()))
    });
    &DISTRIBUTION
}

/// The JVM of a broker that stops gracefully archives the classes it loaded.
fn create(jars: &Distribution, archive: &Path) {
    let archiving = jars.with_option(format!("-XX:ArchiveClassesAtExit={}", archive.display()));
    let directory = data_directory();
    let options = ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    };
    let brokers = broker::configure(&archiving, directory.path(), &options);
    broker::format_all(&brokers, broker::CLUSTER_ID, &[]);
    for broker in brokers {
        broker.restart();
        broker.stop_gracefully();
    }
}
