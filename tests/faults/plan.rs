//! What is to be run: for how long, at which rate, from which seed. The
//! environment says so, for a test has no flags of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DURATION: &str = "NORTHBRIDGE_FAULTS_DURATION";
const RATE: &str = "NORTHBRIDGE_FAULTS_RATE";
const SEED: &str = "NORTHBRIDGE_FAULTS_SEED";
const DIRECTORY: &str = "NORTHBRIDGE_FAULTS_DIRECTORY";

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Rounds begin until this is over; the first is always played to its end.
    pub(crate) duration: Duration,
    /// Pushes a second, of all loads together.
    pub(crate) rate: u32,
    /// What the order of the faults and the pushes follow from.
    pub(crate) seed: u64,
    /// Where the run leaves what it has to tell.
    pub(crate) directory: PathBuf,
}

impl Plan {
    /// The file of the faults and their times.
    pub(crate) fn marks(&self) -> String {
        self.file("marks")
    }

    /// The page that shows the run.
    pub(crate) fn report(&self) -> String {
        self.file("report.html")
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// As the environment says; where it is silent, one round of five minutes
    /// from a new seed.
    pub(crate) fn from_environment() -> Self {
        let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..1 << 32));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = env::var_os(DIRECTORY)
            .map_or_else(|| target.join("faults"), PathBuf::from)
            .join(seed.to_string());
        Self {
            duration: env::var(DURATION).map_or(Duration::ZERO, |text| duration(&text)),
            rate: number(RATE).map_or(120, |rate| u32::try_from(rate).unwrap()),
            seed,
            directory,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Seconds, minutes or hours: `90s`, `20m`, `1h`.
fn duration(text: &str) -> Duration {
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match digits.parse::<u64>() {
        Ok(number) if seconds > 0 => Duration::from_secs(number * seconds),
        Ok(_) | Err(_) => panic!("{DURATION}={text} is no time such as 20m or 1h"),
    }
}
