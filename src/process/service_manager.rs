//! What systemd, or another service manager that speaks the protocol of
//! `sd_notify(3)`, learns about this process. Without `NOTIFY_SOCKET` in the
//! environment nothing is sent.
//!
//! A process counts as started once it is live: a start has a time limit, and Kafka
//! may be away for longer. Whether it is ready is in its status line.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;

use super::readiness::Readiness;
use super::vital;

/// How often the status line follows readiness, and the watchdog is told that the
/// runtime still runs tasks.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time to exit after the shutdown deadline.
const EXIT_MARGIN: Duration = Duration::from_secs(5);

/// Reports the process as started, and from now on its readiness.
pub(crate) fn started(readiness: Readiness) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    notify(&[NotifyState::Ready]);
    vital::spawn("service manager's status", follow(readiness));
}

/// Reports a drain, which may take until `deadline` whatever the service manager's own
/// limit is.
pub(crate) fn stopping(deadline: Duration) {
    let micros = (deadline + EXIT_MARGIN).as_micros();
    let extension = u32::try_from(micros).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(extension),
        NotifyState::Status("draining"),
    ]);
}

/// Reports that the settings are being read again.
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Reports the end of what [`reloading`] began, whatever came of it.
pub(crate) fn reloaded() {
    notify(&[NotifyState::Ready]);
}

async fn follow(readiness: Readiness) {
    let mut reported = String::new();
    loop {
        let status = readiness.report().to_string();
        notify(&[NotifyState::Watchdog]);
        if status != reported {
            notify(&[NotifyState::Status(&status)]);
            reported = status;
        }
        sleep(INTERVAL).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
