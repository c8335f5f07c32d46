//! One of the processes that get the same load in turns, and what it used and needed.
#![allow(
    dead_code,
    reason = "each benchmark compiles this on its own and uses only part of it"
)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::load::{Load, Report, Until};
use crate::support::northbridge::Northbridge;
use crate::usage::cpu_time;

/// One of the processes to compare.
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) pid: String,
    pub(crate) address: SocketAddr,
}

/// What one candidate used and needed in one round.
pub(crate) struct Measurement {
    pub(crate) cpu_us_per_push: f64,
    pub(crate) pushes: usize,
    /// From the intended send time of each push.
    pub(crate) latencies: Vec<Duration>,
    /// From when each push was sent.
    pub(crate) round_trips: Vec<Duration>,
}

impl Candidate {
    pub(crate) fn of(name: &str, program: &Northbridge) -> Self {
        Self {
            name: name.to_owned(),
            pid: program.pid().to_string(),
            address: program.address(),
        }
    }

    /// A round at a rate, whether or not pushes are answered.
    pub(crate) fn measure(&self, load: Load, round: Duration) -> Measurement {
        let until = Until::Elapsed(round);
        self.measured(|| Load { until, ..load }.start().finish())
    }

    /// A round in which every connection pushes as soon as it is answered.
    pub(crate) fn saturate(&self, connections: u32, round: Duration) -> Measurement {
        self.measured(|| {
            let load = Load {
                rate_per_s: u32::MAX,
                ..self.load(1, connections)
            };
            let running = load.start();
            std::thread::sleep(round);
            running.stop()
        })
    }

    pub(crate) fn load(&self, rate_per_s: u32, connections: u32) -> Load {
        Load {
            rate_per_s,
            connections,
            ..Load::to(self.address)
        }
    }

    fn measured(&self, load: impl FnOnce() -> Report) -> Measurement {
        let before = cpu_time(&self.pid);
        let report = load();
        let used = cpu_time(&self.pid).saturating_sub(before);
        all_stored(&report);
        let pushes = u32::try_from(report.pushes.len()).expect("a number of pushes");
        Measurement {
            cpu_us_per_push: used.as_secs_f64() * 1e6 / f64::from(pushes),
            pushes: report.pushes.len(),
            latencies: report.pushes.iter().map(|push| push.latency).collect(),
            round_trips: report.pushes.iter().map(|push| push.round_trip).collect(),
        }
    }
}

/// Panics unless every push was answered 200.
pub(crate) fn all_stored(report: &Report) {
    let answers = report.answers();
    assert!(
        answers.keys().eq(["200"]),
        "every push is answered 200: {answers:?}"
    );
}
