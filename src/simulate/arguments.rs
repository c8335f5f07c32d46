//! The flags of `northbridge simulate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::world::Shares;

/// What to play, against what, and what to prove afterwards.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct SimulateArgs {
    /// Where to push: http:// or https://, with the path, and the token where one is needed.
    pub url: String,

    /// Pushes a second.
    #[arg(long, default_value_t = 100.0, value_name = "NUMBER", value_parser = rate, help_heading = "Load")]
    pub rate: f64,
    /// How long new pushes come: 30s, 5m, 1h.
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = duration, conflicts_with = "count", help_heading = "Load")]
    pub duration: Duration,
    /// How many pushes, instead of how long.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub count: Option<u32>,
    /// Connections that are kept open.
    #[arg(long, default_value_t = 32, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000), help_heading = "Load")]
    pub connections: u16,
    /// Speaks HTTP/2, with up to 64 pushes at a time on each connection.
    #[arg(long, help_heading = "Load")]
    pub http2: bool,

    /// What the pushes follow from; one seed gives the same pushes, and none gives new ones.
    #[arg(long, value_name = "NUMBER", help_heading = "Pushes")]
    pub seed: Option<u64>,
    /// Devices that take part.
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Pushes")]
    pub devices: u32,
    /// Percentage of pushes that are repeats of earlier ones.
    #[arg(long, default_value_t = 2, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub repeats: u32,
    /// Percentage of the rest that is of other types than the two of the mission.
    #[arg(long, default_value_t = 15, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub others: u32,
    /// Percentage of the rest that are results of upgrades; what remains confirms commands.
    #[arg(long, default_value_t = 20, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub upgrades: u32,
    /// Percentage of commands whose confirmations come out of order.
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub disorder: u32,
    /// Percentage of pushes that are not as published.
    #[arg(long, default_value_t = 2, value_name = "PERCENT", value_parser = percent(), help_heading = "Pushes")]
    pub oddities: u32,

    /// What happens to a push that failed: nothing, or one of the two published rules.
    #[arg(long, value_enum, default_value_t = PolicyName::None, help_heading = "Delivery rules")]
    pub policy: PolicyName,
    /// How often a blacklisted host is tried again.
    #[arg(long, default_value = "3m", value_name = "TIME", value_parser = duration, help_heading = "Delivery rules")]
    pub probe_interval: Duration,
    /// How long after a failure the policy `retry` pushes again.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration, help_heading = "Delivery rules")]
    pub retry_interval: Duration,

    /// Trusts the authorities in this PEM file alone, instead of the system's.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// Takes any certificate.
    #[arg(long, conflicts_with = "ca", help_heading = "Connection")]
    pub insecure: bool,
    /// Names the host in the handshake, which the platform does not do by itself.
    #[arg(long, help_heading = "Connection")]
    pub sni: bool,
    /// The user name of Basic credentials.
    #[arg(
        long,
        value_name = "NAME",
        requires = "password_file",
        help_heading = "Connection"
    )]
    pub user: Option<String>,
    /// The file with the password of Basic credentials.
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        help_heading = "Connection"
    )]
    pub password_file: Option<PathBuf>,

    /// Prints the outcome as JSON instead of a table.
    #[arg(long, help_heading = "Outcome")]
    pub json: bool,

    /// Writes the outcome as a page with plots as well, for a browser.
    #[arg(long, value_name = "FILE", help_heading = "Outcome")]
    pub report: Option<PathBuf>,
    /// Marks moments in the plots: each line of this file, read at the end, is a time in
    /// RFC 3339 and a text.
    #[arg(
        long,
        value_name = "FILE",
        requires = "report",
        help_heading = "Outcome"
    )]
    pub marks: Option<PathBuf>,

    /// Proves on this Kafka that every push answered 200 is stored, byte for byte, under its key.
    #[arg(long, value_name = "BOOTSTRAP", value_parser = NonEmptyStringValueParser::new(), help_heading = "Proof")]
    pub verify: Option<String>,
    /// Proves also that the state topics hold what follows from what is stored.
    #[arg(long, requires = "verify", help_heading = "Proof")]
    pub verify_state: bool,
    /// How long the streams get to catch up.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration, requires = "verify_state", help_heading = "Proof")]
    pub catch_up: Duration,
    /// What stands before every topic's name, as `topics.prefix`.
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "verify",
        help_heading = "Proof"
    )]
    pub topics_prefix: Option<String>,
}

/// What happens to a push that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// Nothing: plain load.
    None,
    /// As published in 2024: what is not answered 200 is lost; ten in a row blacklist the host.
    Discard,
    /// As published before: what is not answered, or 501 to 504, is pushed again for ten minutes.
    Retry,
}

impl PolicyName {
    /// As it is written on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Discard => "discard",
            Self::Retry => "retry",
        }
    }
}

impl SimulateArgs {
    /// How many new pushes there are in all.
    pub fn pushes(&self) -> u32 {
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

    /// What the pushes are made of.
    pub fn shares(&self) -> Shares {
        Shares {
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
        Err("must be from 0.01 to 1000000".to_owned())
    }
}

/// A whole number with its unit: `500ms`, `30s`, `5m`, `1h`.
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
    fn a_time_is_a_number_with_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "m", "0s", "-1s", "5d", "1.5s", "999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
