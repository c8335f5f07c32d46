//! The phase of the spool: all brokers are gone, and nobody outside notices.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::fleet::Instance;
use crate::laws;
use crate::phases;
use crate::support::bodies;
use crate::support::http::try_post;
use crate::support::ordered::first_values;
use crate::support::records::read_topic;
use crate::testbed::Testbed;

/// What is stored in order by its device, and read by no stream.
const TOPIC: &str = "notifications";
const DEVICES: usize = 4;
/// From the start of a phase to the outage.
const WARM: Duration = Duration::from_secs(2);
/// Pushes that librdkafka held when the brokers went wait until shortly before their
/// deadline; whoever kills their process cuts as many connections in a row.
const UNTIL_ALL_ARE_SPOOLED: Duration = Duration::from_secs(13);
/// How often the spools are looked at.
const POLL: Duration = Duration::from_millis(100);
const BETWEEN_KILLS_S: std::ops::Range<u64> = 4..12;

/// All brokers are down, while ingresses with a spool are killed at random moments: the
/// platform notices nothing but the connections of the killed, and everything is
/// delivered once the brokers are back.
pub(crate) fn all_brokers_gone(testbed: &Testbed, random: &mut Rng) {
    let phase = "all brokers gone, with a spool";
    let spools = Spools::set(testbed);
    let eighth = testbed.plan.rate / 8;
    let loads = [
        phases::load("spooled-discard", eighth, "discard", true),
        phases::load("spooled-retry", eighth, "retry", false),
    ];
    let ingresses: Vec<&Instance> = testbed.fleet.ingresses().collect();
    let ordered = InOrder::start(testbed);
    let mut delivery = None;
    let results = testbed.run_under_load(phase, &loads, || {
        sleep(WARM);
        let outage = testbed.plan.spooled_outage;
        let fault = "all brokers killed, with a spool";
        testbed.journal.fault(fault, &format!("for {outage:?}"));
        testbed.cluster.kill_all();
        let began = Instant::now();
        sleep(UNTIL_ALL_ARE_SPOOLED.min(outage));
        while began.elapsed() < outage {
            let left = outage.saturating_sub(began.elapsed());
            sleep(Duration::from_secs(random.u64(BETWEEN_KILLS_S)).min(left));
            let killed = ingresses[random.usize(..ingresses.len())];
            killed.kill();
            ordered.push_to(ingresses[0].push_address());
            for ingress in &ingresses {
                ingress.wait_until_ready();
            }
        }
        let spooled: f64 = ingresses.iter().map(|ingress| records(ingress)).sum();
        testbed.cluster.restart_all();
        testbed.cluster.wait_until_in_sync();
        testbed.journal.annotate("all brokers are up and in sync");
        let in_sync = Instant::now();
        // Without a kill: while the brokers start, pushes that go to Kafka wait for it, and
        // whoever kills their process cuts as many connections in a row.
        let most = laws::longest_delivery(spooled);
        while in_sync.elapsed() < 2 * most && ingresses.iter().any(|ingress| records(ingress) > 0.5)
        {
            sleep(POLL);
        }
        delivery = Some((spooled, in_sync.elapsed()));
    });
    if let Some((spooled, took)) = delivery {
        laws::spool_is_delivered(&testbed.journal, phase, spooled, took);
    }
    laws::only_connections_of_the_killed_fail(&testbed.journal, phase, &results);
    laws::answers_are_in_time(&testbed.journal, phase, &results);
    ordered.stop(testbed, phase);
    spools.unset(testbed);
}

fn records(ingress: &Instance) -> f64 {
    ingress.metric("northbridge_spool_records", &[])
}

/// The spools of all ingresses.
struct Spools(Vec<PathBuf>);

impl Spools {
    /// Restarts each ingress with a spool of its own.
    fn set(testbed: &Testbed) -> Self {
        let restart = |ingress: &Instance| {
            let directory = testbed
                .plan
                .directory
                .join(format!("spool-{}", ingress.name));
            let setting = (
                "spool.directory".to_owned(),
                directory.display().to_string(),
            );
            ingress.terminate_and_set(vec![setting]);
            ingress.wait_until_ready();
            directory
        };
        Self(testbed.fleet.ingresses().map(restart).collect())
    }

    /// Restarts each ingress without a spool. Nothing may be left in those that were.
    fn unset(self, testbed: &Testbed) {
        for (ingress, directory) in testbed.fleet.ingresses().zip(self.0) {
            ingress.terminate_and_set(Vec::new());
            ingress.wait_until_ready();
            let files = directory.read_dir().expect("the spool");
            let names = files.map(|file| file.expect("a file").file_name());
            let left: Vec<_> = names.filter(|name| name != "lock").collect();
            if !left.is_empty() {
                let violation = format!("{} left {left:?} in its spool", ingress.name);
                testbed.journal.violation(violation);
            }
        }
    }
}

/// A sender that pushes to one ingress, the next push of a device only once the one
/// before it was answered 200.
struct InOrder {
    prefix: String,
    target: Arc<std::sync::Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Vec<String>>>,
}

impl InOrder {
    fn start(testbed: &Testbed) -> Self {
        let ingress = testbed.fleet.ingresses().next().expect("an ingress");
        let target = Arc::new(std::sync::Mutex::new(ingress.push_address()));
        let stop = Arc::new(AtomicBool::new(false));
        let prefix = format!(
            "in-order-{}",
            testbed.journal.started().elapsed().as_millis()
        );
        let senders = (0..DEVICES).map(|number| {
            let (target, stop) = (Arc::clone(&target), Arc::clone(&stop));
            let device = device(&prefix, number);
            thread::spawn(move || push_until_stopped(&device, &target, &stop))
        });
        let senders = senders.collect();
        Self {
            prefix,
            target,
            stop,
            senders,
        }
    }

    fn push_to(&self, address: SocketAddr) {
        *self.target.lock().expect("no panic") = address;
    }

    /// Compares what is stored with what was answered.
    fn stop(self, testbed: &Testbed, phase: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let topic = format!("{}{TOPIC}", testbed.prefix);
        let acknowledged: Vec<Vec<String>> = self
            .senders
            .into_iter()
            .map(|sender| sender.join().expect("no panic"))
            .collect();
        let records = read_topic(&testbed.cluster.bootstrap(), &topic);
        for (number, acknowledged) in acknowledged.into_iter().enumerate() {
            let device = device(&self.prefix, number);
            let stored = first_values(&records, &device);
            laws::order_is_kept(&testbed.journal, phase, &acknowledged, &stored);
        }
    }
}

fn device(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number}")
}

/// Returns what was answered 200.
fn push_until_stopped(
    device: &str,
    target: &std::sync::Mutex<SocketAddr>,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let body = bodies::device_data_changed(device, acknowledged.len());
        // A push that was cut off is pushed again, until it is answered.
        while try_post(*target.lock().expect("no panic"), "/notifications", &body) != Some(200) {
            sleep(Duration::from_millis(100));
        }
        acknowledged.push(body);
        sleep(Duration::from_millis(50));
    }
    acknowledged
}
