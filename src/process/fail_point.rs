//! Fail points, in debug builds only: numbered steps at which a process kills
//! or freezes itself or panics, so that tests can interrupt it exactly there.

/// The step of the listener's accept loop.
pub(crate) const ACCEPT: u32 = 11;
/// The step of the thread that monitors Kafka.
pub(crate) const MONITOR: u32 = 12;
/// The step of the admin server's accept loop.
pub(crate) const ADMIN: u32 = 13;

/// Marks step `step`. If `NORTHBRIDGE_FAIL_POINT` is `step:count`, the process
/// sends itself SIGKILL at the `count`-th pass; if it is `step:count:STOP`,
/// SIGSTOP, and with `step:count:STOP:seconds` it goes on only so long after it
/// was resumed; at `step:count:PANIC` it panics.
///
/// # Panics
///
/// Panics if the variable asks for it.
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
        let text = std::env::var("NORTHBRIDGE_FAIL_POINT").ok()?;
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
        assert!(point.signal != "PANIC", "at the fail point {step}");
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
