//! Numbers and times as a report shows them.

use std::time::Duration;

/// A number of milliseconds, in ms or s with at most two decimal places.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{} ms", rounded(ms, 2)),
        ms if ms < 10.0 => format!("{} ms", rounded(ms, 1)),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{} s", rounded(ms / 1_000.0, 1)),
    }
}

/// Seconds since the start of the run as `m:ss` or `h:mm:ss`.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// [`clock`] with a tenth of a second.
pub(super) fn clock_with_tenths(seconds: f64) -> String {
    let tenths = Duration::from_secs_f64(seconds.max(0.0)).subsec_millis() / 100;
    format!("{}.{tenths}", clock(seconds))
}

/// A label of an axis, with the suffix `k` or `M` if the value is large.
pub(super) fn axis_label(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{}M", rounded(value / 1_000_000.0, 1)),
        value if value >= 10_000.0 => format!("{}k", rounded(value / 1_000.0, 1)),
        value => rounded(value, 2),
    }
}

/// Rounded to at most `digits` decimal places, without trailing zeros.
fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
