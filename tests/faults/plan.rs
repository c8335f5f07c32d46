//! The parameters of a run: duration, rate, seed and directory. They come from
//! environment variables because a test has no flags of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DURATION: &str = "NORTHBRIDGE_FAULTS_DURATION";
const RATE: &str = "NORTHBRIDGE_FAULTS_RATE";
const SPOOLED_OUTAGE: &str = "NORTHBRIDGE_FAULTS_SPOOLED_OUTAGE";
const PHASES: &str = "NORTHBRIDGE_FAULTS_PHASES";
const SEED: &str = "NORTHBRIDGE_FAULTS_SEED";
const DIRECTORY: &str = "NORTHBRIDGE_FAULTS_DIRECTORY";

/// The parameters of one run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// New rounds start until this has elapsed; every round runs to its end.
    pub(crate) duration: Duration,
    /// Pushes per second, over all loads.
    pub(crate) rate: u32,
    /// How long all brokers are down while the ingresses have a spool.
    pub(crate) spooled_outage: Duration,
    /// The phases of a round.
    phases: Vec<String>,
    /// Determines the order of the faults, and the pushes.
    pub(crate) seed: u64,
    /// The directory for results and logs.
    pub(crate) directory: PathBuf,
}

impl Plan {
    pub(crate) fn annotations(&self) -> String {
        self.file("annotations")
    }

    pub(crate) fn report(&self) -> String {
        self.file("report.html")
    }

    /// Whether a round has a phase.
    pub(crate) fn has(&self, phase: &str) -> bool {
        self.phases.iter().any(|chosen| chosen == phase)
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Reads the environment. The default is one round of all these phases, which takes
    /// eleven minutes, with a random seed.
    pub(crate) fn from_environment(phases: &[&str]) -> Self {
        let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..1 << 32));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = env::var_os(DIRECTORY)
            .map_or_else(|| target.join("faults"), PathBuf::from)
            .join(seed.to_string());
        Self {
            duration: duration(DURATION).unwrap_or_default(),
            rate: number(RATE).map_or(120, |rate| u32::try_from(rate).unwrap()),
            spooled_outage: duration(SPOOLED_OUTAGE).unwrap_or(Duration::from_secs(45)),
            phases: chosen(phases),
            seed,
            directory,
        }
    }
}

fn chosen(phases: &[&str]) -> Vec<String> {
    let chosen = env::var(PHASES).unwrap_or_else(|_| phases.join(","));
    let chosen: Vec<String> = chosen.split(',').map(str::to_owned).collect();
    for phase in &chosen {
        let is_known = phases.contains(&phase.as_str());
        assert!(is_known, "{PHASES}: {phase:?} is none of {phases:?}");
    }
    chosen
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Seconds, minutes or hours: `90s`, `20m`, `1h`.
fn duration(variable: &str) -> Option<Duration> {
    let text = env::var(variable).ok()?;
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match digits.parse::<u64>() {
        Ok(number) if seconds > 0 => Some(Duration::from_secs(number * seconds)),
        Ok(_) | Err(_) => panic!("{variable}={text} is not a duration such as 20m or 1h"),
    }
}
