//! The test support itself: that the cluster is whole, breaks as told, and ends
//! with the tests.

use crate::support::kafka_cluster::{Cluster, ClusterOptions};

#[test]
fn three() {
    let t = std::time::Instant::now();
    let c = Cluster::start(&ClusterOptions::default());
    eprintln!("{:?} {}", t.elapsed(), c.bootstrap());
}
