//! The ids by which the brokers know a stage.
//!
//! Both contain `topics.prefix`, so that installations with different topics on
//! one cluster never share a group, and never fence each other's producers. Every
//! character of them is one that [the rules](crate::config) allow in names of topics
//! or in `streams.*`, except those of a host name.

use crate::config::Settings;

/// Returns the consumer group of a stage.
pub(crate) fn group(settings: &Settings, stage: &str) -> String {
    let (group_prefix, topics_prefix) = (&settings.streams.group_prefix, &settings.topics.prefix);
    format!("{group_prefix}{topics_prefix}{stage}")
}

/// Returns the transactional id of this instance of a stage. It is the same after a
/// restart, so that the successor fences its predecessor.
pub(super) fn transactional_id(settings: &Settings, stage: &str) -> String {
    format!("{}.{}", group(settings, stage), instance_name(settings))
}

pub(super) fn instance_name(settings: &Settings) -> String {
    let host_name = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    settings.streams.instance.clone().unwrap_or_else(host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_stage_contain_the_prefix_of_its_topics() {
        let mut settings = Settings::default();
        settings.streams.instance = Some("0".to_owned());
        let ids = |settings: &Settings| {
            let stage = "command-status";
            (group(settings, stage), transactional_id(settings, stage))
        };
        let named = |group: &str| (group.to_owned(), format!("{group}.0"));
        assert_eq!(ids(&settings), named("northbridge.iot.command-status"));
        "plant_2-".clone_into(&mut settings.topics.prefix);
        assert_eq!(ids(&settings), named("northbridge.plant_2-command-status"));
    }

    #[test]
    fn an_instance_without_a_name_has_that_of_its_host() {
        let settings = Settings::default();
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let expected = format!("northbridge.iot.command-status.{host}");
        assert_eq!(transactional_id(&settings, "command-status"), expected);
    }
}
