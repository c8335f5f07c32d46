//! The flags of `northbridge simulate`, with their help texts and ranges.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::pushes::TrafficMix;

/// The target of a run, its load, and what to verify afterwards.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct SimulateArgs {
    /// The URL to push to: http:// or https://, with the path and, if required, the token.
    pub(super) url: String,

    /// New pushes per second, sent at this rate whatever the answers are.
    #[arg(long, default_value_t = 100.0, value_name = "NUMBER", value_parser = rate, help_heading = "Load")]
    pub(super) rate: f64,
    /// How long to send new pushes: 30s, 5m, 1h.
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration, conflicts_with = "count", help_heading = "Load")]
    pub(super) duration: Duration,
    /// Number of pushes to send, instead of a duration.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub(super) count: Option<u32>,
    /// The most connections; as many are opened as are needed at once, and kept alive.
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000), help_heading = "Load")]
    pub(super) connections: u16,
    /// Uses HTTP/2, with up to 64 concurrent pushes on each connection.
    #[arg(long, help_heading = "Load")]
    pub(super) http2: bool,

    /// Seed of the pushes: the same seed gives the same pushes; random by default.
    #[arg(long, value_name = "NUMBER", help_heading = "Pushes")]
    pub(super) seed: Option<u64>,
    /// Number of devices that the pushes come from.
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Pushes")]
    pub(super) devices: u32,
    /// Percentage of pushes that repeat an earlier one.
    #[arg(long, default_value_t = 2, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub(super) repeats: u32,
    /// Percentage of the pushes that are not repeats whose type has no state topic.
    #[arg(long, default_value_t = 15, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub(super) others: u32,
    /// Percentage of the remaining pushes that are upgrade results; all others confirm commands.
    #[arg(long, default_value_t = 20, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub(super) upgrades: u32,
    /// Percentage of commands whose confirmations arrive out of order.
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub(super) disorder: u32,
    /// Percentage of pushes that deviate from the platform's documents.
    #[arg(long, default_value_t = 2, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub(super) oddities: u32,

    /// Delivery rule for failed pushes: none, or one of the two that the platform has published.
    #[arg(long, value_enum, default_value_t = PolicyName::None, help_heading = "Delivery rules")]
    pub(super) policy: PolicyName,
    /// Interval between probes of a blacklisted host.
    #[arg(long, default_value = "3m", value_name = "TIME", value_parser = duration, help_heading = "Delivery rules")]
    pub(super) probe_interval: Duration,
    /// Delay before a retry under the policy `retry`.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration, help_heading = "Delivery rules")]
    pub(super) retry_interval: Duration,

    /// PEM file with the only certificate authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(super) ca: Option<PathBuf>,
    /// Accepts any server certificate, without verifying its issuer or its name.
    #[arg(long, conflicts_with = "ca", help_heading = "Connection")]
    pub(super) insecure: bool,
    /// Sends the server name (SNI) in the TLS handshake; the platform sends none by default.
    #[arg(long, help_heading = "Connection")]
    pub(super) sni: bool,
    /// User name for HTTP Basic authentication.
    #[arg(
        long,
        value_name = "NAME",
        requires = "password_file",
        help_heading = "Connection"
    )]
    pub(super) user: Option<String>,
    /// File that contains the password for HTTP Basic authentication.
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        help_heading = "Connection"
    )]
    pub(super) password_file: Option<PathBuf>,

    /// Prints the summary as JSON instead of a table.
    #[arg(long, help_heading = "Summary")]
    pub(super) json: bool,

    /// Writes an HTML report with plots to this file as well.
    #[arg(long, value_name = "FILE", help_heading = "Summary")]
    pub(super) report: Option<PathBuf>,
    /// Annotates the report's plots from this file, read at the end of the run: one RFC 3339
    /// time and a text in each line.
    #[arg(
        long,
        value_name = "FILE",
        requires = "report",
        help_heading = "Summary"
    )]
    pub(super) annotations: Option<PathBuf>,

    /// Exits with 1 if a push is not answered 200.
    #[arg(long, help_heading = "Verification")]
    pub(super) require_200: bool,
    /// Verifies in this Kafka cluster that every push answered 200 is stored: byte for byte, in its
    /// topic, under its key.
    #[arg(long, value_name = "BOOTSTRAP", value_parser = NonEmptyStringValueParser::new(), help_heading = "Verification")]
    pub(super) verify: Option<String>,
    /// Verifies also that the state topics equal the model of the stored pushes.
    #[arg(long, requires = "verify", help_heading = "Verification")]
    pub(super) verify_state: bool,
    /// How long to wait for the streams to process what is stored.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration, requires = "verify_state", help_heading = "Verification")]
    pub(super) catch_up: Duration,
    /// Prefix of all topic names, like the setting `topics.prefix`.
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "verify",
        help_heading = "Verification"
    )]
    pub(super) topics_prefix: Option<String>,
}

/// The delivery rule by which the platform treats a failed push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PolicyName {
    /// A failed push has no consequence: plain load.
    None,
    /// Published in 2024: a push not answered 200 is lost; ten failures in a row blacklist the host.
    Discard,
    /// Published before: a push without an answer, or answered 501 to 504, is retried for ten minutes.
    Retry,
}

impl PolicyName {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Discard => "discard",
            Self::Retry => "retry",
        }
    }
}

impl SimulateArgs {
    /// The number of new pushes: `--count`, or as many as `--duration` has room
    /// for at `--rate`.
    pub(super) fn pushes(&self) -> u32 {
        self.count.unwrap_or_else(|| {
            let pushes = (self.duration.as_secs_f64() * self.rate).ceil();
            #[expect(
                clippy::as_conversions,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, and is never negative"
            )]
            let pushes = pushes as u32;
            pushes.max(1)
        })
    }

    pub(super) fn traffic_mix(&self) -> TrafficMix {
        TrafficMix {
            repeats: self.repeats,
            others: self.others,
            upgrades: self.upgrades,
            disorder: self.disorder,
            oddities: self.oddities,
        }
    }
}

fn percent() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=100)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=1_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be between 0.01 and 1000000".to_owned())
    }
}

/// Parses a whole number with an optional unit: `500ms`, `30s`, `5m`, `1h`;
/// without one, it means seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| "must be a number with a unit, such as 5m".to_owned())?;
    let duration = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    };
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be more than 0, in ms, s, m or h, such as 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "m", "0s", "-1s", "5d", "1.5s", "999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
