//! Fail points, in debug builds only: numbered steps at which a process kills
//! or freezes itself, so that tests can interrupt it exactly there, and parts of it
//! that panic.

#[cfg(debug_assertions)]
const VARIABLE: &str = "NORTHBRIDGE_FAIL_POINT";

/// Marks step `step`. If `NORTHBRIDGE_FAIL_POINT` is `step:count`, the process
/// sends itself SIGKILL at the `count`-th pass; if it is `step:count:STOP`,
/// SIGSTOP, and with `step:count:STOP:seconds` it goes on only so long after it
/// was resumed.
#[cfg(debug_assertions)]
pub(crate) fn fail_point(step: u32) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    struct FailPoint {
        step: u32,
        passes_left: AtomicU64,
        signal: String,
        pause: Duration,
    }

    static FAIL_POINT: LazyLock<Option<FailPoint>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let mut parts = text.split(':');
        Some(FailPoint {
            step: parts.next()?.parse().ok()?,
            passes_left: AtomicU64::new(parts.next()?.parse().ok()?),
            signal: parts.next().unwrap_or("KILL").to_owned(),
            pause: Duration::from_secs(parts.next().unwrap_or("0").parse().ok()?),
        })
    });
    if let Some(point) = &*FAIL_POINT
        && point.step == step
        && point.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let id = std::process::id().to_string();
        let _ = std::process::Command::new("kill")
            .args([&format!("-{}", point.signal), &id])
            .status();
        std::thread::sleep(point.pause);
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn fail_point(_: u32) {}

/// # Panics
///
/// Panics if `NORTHBRIDGE_FAIL_POINT` is `panic:part`.
#[cfg(debug_assertions)]
pub(super) fn panic_in(part: &str) {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    assert!(asked.strip_prefix("panic:") != Some(part), "a fail point");
}

#[cfg(not(debug_assertions))]
#[inline]
pub(super) fn panic_in(_: &str) {}
