//! The spool while Kafka is away: how fast pushes are answered, what each costs on the
//! disk, how soon a killed process is at work again, and how fast everything is
//! delivered.
//!
//! The disk is that of the `target` directory; Kafka is librdkafka's mock cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use support::load::{Load, Report, Until};
use support::mock::Mock;
use support::northbridge::Northbridge;
use usage::{memory_mb, percentile};

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

/// Rates at which pushes come, and more than any ingress answers.
const RATES_PER_S: [u32; 3] = [600, 5_000, 100_000];
const CONNECTIONS: [u32; 2] = [64, 512];
const ROUND: Duration = Duration::from_secs(10);

fn main() {
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mock = Mock::start();
    let settings = [
        ("spool.directory", directory.path().to_str().unwrap()),
        ("spool.max_bytes", "17179869184"),
        ("spool.after_ms", "100"),
        ("topics.partitions", "6"),
    ];
    let ingress = mock.ready_ingress(&settings);
    let warm = Load {
        until: Until::Pushes(1_000),
        ..Load::to(ingress.address())
    };
    warm.start().finish();
    mock.go_down();
    println!(
        "rate/s  connections  answered 200/s   p50 ms   p99 ms  longest ms  syncs/push  bytes/push"
    );
    for rate_per_s in RATES_PER_S {
        for connections in CONNECTIONS {
            round(&ingress, directory.path(), rate_per_s, connections);
        }
    }
    let spooled = ingress.metric("northbridge_spool_records", &[]);
    println!(
        "{spooled} pushes, {} MB",
        bytes_in(directory.path()) / 1_000_000
    );
    ingress.kill();
    let killed = Instant::now();
    let ingress = mock.ready_ingress(&settings);
    println!("ready {:?} after it was killed", killed.elapsed());
    let back = Instant::now();
    mock.come_back();
    while ingress.metric("northbridge_spool_records", &[]) > 0.5 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = back.elapsed().as_secs_f64();
    let memory = memory_mb(&ingress.pid().to_string(), "VmHWM");
    println!(
        "delivered {:.0} a second, in {took:.1} s, at most {memory:.0} MB",
        spooled / took
    );
}

fn round(ingress: &Northbridge, directory: &Path, rate_per_s: u32, connections: u32) {
    let count = |name: &str| ingress.metric(name, &[]);
    let (written, syncs) = (
        "northbridge_spool_written_total",
        "northbridge_spool_write_seconds_count",
    );
    let before = (count(written), count(syncs), bytes_in(directory));
    let load = Load {
        rate_per_s,
        connections,
        until: Until::Elapsed(ROUND),
        ..Load::to(ingress.address())
    };
    let began = Instant::now();
    let running = load.start();
    std::thread::sleep(ROUND);
    let report = running.stop();
    let took = began.elapsed().as_secs_f64();
    let pushes = count(written) - before.0;
    let bytes = u32::try_from(bytes_in(directory) - before.2).unwrap();
    println!(
        "{rate_per_s:6} {connections:12} {:15.0} {} {:11.3} {:11.0}",
        f64::from(u32::try_from(report.acknowledged().count()).unwrap()) / took,
        latencies(&report, rate_per_s),
        (count(syncs) - before.1) / pushes,
        f64::from(bytes) / pushes,
    );
    let others = report.pushes.len() - report.acknowledged().count();
    assert_eq!(others, 0, "answers other than 200: {:?}", report.answers());
}

/// A load that the ingress cannot follow has no latency from the intended time.
fn latencies(report: &Report, rate_per_s: u32) -> String {
    let mut latencies: Vec<_> = report.pushes.iter().map(|push| push.latency).collect();
    latencies.sort_unstable();
    let shown = [50, 99, 100].map(|percent| percentile(&latencies, percent).as_secs_f64() * 1e3);
    let [p50, p99, longest] = shown;
    if RATES_PER_S.last() == Some(&rate_per_s) {
        return format!("{:>8} {:>8} {:>11}", "-", "-", "-");
    }
    format!("{p50:8.2} {p99:8.2} {longest:11.2}")
}

fn bytes_in(directory: &Path) -> u64 {
    let files = directory.read_dir().expect("the spool");
    let lengths = files.map(|file| file.unwrap().metadata().unwrap().len());
    lengths.sum()
}
