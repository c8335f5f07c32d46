//! `northbridge topics create` and `topics verify`: what they print, and with
//! which code they exit. [`TopicAdmin`] does the work.

use anyhow::Context;

use crate::config::Settings;
use crate::kafka::CANNOT_CREATE_CLIENT;
use crate::kafka::admin::{Degraded, REQUEST_TIMEOUT, TopicAdmin};
use crate::kafka::failures::{Failures, RequestError};
use crate::kafka::topic_check::{Finding, TopicCheck};
use crate::process::{Exit, output};
use crate::topics::specs;

/// Creates the missing topics, then prints one line for each finding.
///
/// # Errors
///
/// Returns an error if librdkafka rejects a setting.
pub async fn create(settings: &Settings, degraded: Degraded) -> anyhow::Result<Exit> {
    create_and_print(settings, degraded, |_| true).await
}

/// Creates the missing topics, and prints what it created and what is wrong, but no
/// line for a topic that only exists.
///
/// # Errors
///
/// The same as of [`create`].
pub(super) async fn ensure(settings: &Settings) -> anyhow::Result<Exit> {
    create_and_print(settings, Degraded::Refuse, Finding::is_news).await
}

async fn create_and_print(
    settings: &Settings,
    degraded: Degraded,
    is_shown: fn(&Finding) -> bool,
) -> anyhow::Result<Exit> {
    let failures = Failures::of_command(settings);
    let check = TopicAdmin::new(settings, &failures)
        .context(CANNOT_CREATE_CLIENT)?
        .create(&specs(settings), degraded)
        .await;
    report(settings, &failures, check, is_shown)
}

/// Prints one line for each way in which a topic differs from its requirements.
///
/// # Errors
///
/// Returns an error if librdkafka rejects a setting.
pub async fn verify(settings: &Settings) -> anyhow::Result<Exit> {
    let failures = Failures::of_command(settings);
    let check = TopicAdmin::new(settings, &failures)
        .context(CANNOT_CREATE_CLIENT)?
        .check(&specs(settings), REQUEST_TIMEOUT)
        .await;
    report(settings, &failures, check, |_| true)
}

fn report(
    settings: &Settings,
    failures: &Failures,
    check: Result<TopicCheck, RequestError>,
    is_shown: fn(&Finding) -> bool,
) -> anyhow::Result<Exit> {
    let check = match check {
        Ok(check) => check,
        Err(error) => {
            return Ok(super::unavailable(settings, failures, &error));
        }
    };
    for finding in check.findings.iter().filter(|finding| is_shown(finding)) {
        output::print_line(finding)?;
    }
    Ok(if check.first_problem().is_some() {
        Exit::Findings
    } else {
        Exit::Done
    })
}
