//! `northbridge topics create` and `topics verify`.

use anyhow::Context;

use crate::config::Settings;
use crate::kafka::NOT_TAKEN;
use crate::kafka::admin::{ASK, Admin, Survey};
use crate::process::Exit;
use crate::topics::plans;

/// Creates what is missing and prints a line for each finding.
///
/// # Errors
///
/// Where librdkafka does not accept the settings.
pub async fn create(settings: &Settings) -> anyhow::Result<Exit> {
    let survey = Admin::new(settings)
        .context(NOT_TAKEN)?
        .create(&plans(settings))
        .await;
    Ok(report(settings, survey))
}

/// Compares the topics and prints a line for each finding.
///
/// # Errors
///
/// Where librdkafka does not accept the settings.
pub async fn verify(settings: &Settings) -> anyhow::Result<Exit> {
    let survey = Admin::new(settings)
        .context(NOT_TAKEN)?
        .survey(&plans(settings), ASK)
        .await;
    Ok(report(settings, survey))
}

fn report(settings: &Settings, survey: Result<Survey, rdkafka::error::KafkaError>) -> Exit {
    match survey {
        Ok(survey) => {
            for finding in &survey.findings {
                println!("{finding}");
            }
            if survey.problem().is_some() {
                Exit::Findings
            } else {
                Exit::Done
            }
        }
        Err(error) => {
            eprintln!(
                "error: Kafka did not answer at {} (kafka.bootstrap_servers): {error}",
                settings.kafka.bootstrap_servers,
            );
            Exit::Unavailable
        }
    }
}
