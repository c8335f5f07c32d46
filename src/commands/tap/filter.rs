//! Which records a tap shows.

use super::line::Line;
use crate::notification::names_request;
use crate::topics::Topic;

/// The records to show: those that match every criterion. Of the texts of one, any
/// may match; a criterion without texts matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The types of pushes, as the platform sends them.
    pub types: Vec<String>,
    /// The devices that pushes are from.
    pub devices: Vec<String>,
    /// The requests that pushes are about.
    pub requests: Vec<String>,
    /// Why a record is a dead letter. Nothing else has a reason.
    pub reasons: Vec<String>,
}

impl Filter {
    /// Returns the topics that can have such records.
    pub(super) fn topics(&self) -> &'static [Topic] {
        if self.reasons.is_empty() {
            &Topic::INGRESS
        } else {
            &[Topic::DeadLetter]
        }
    }

    pub(super) fn matches(&self, line: &Line<'_>) -> bool {
        matches_any(&self.types, |it| is(line.notify_type, it))
            && matches_any(&self.reasons, |it| is(line.reason, it))
            // Records of other writers may have no headers.
            && matches_any(&self.devices, |it| is(line.device.or(line.key), it))
            && matches_any(&self.requests, |it| {
                is(line.key, it) || names_request(line.value.unwrap_or_default(), it)
            })
    }
}

fn matches_any(texts: &[String], matches: impl Fn(&str) -> bool) -> bool {
    texts.is_empty() || texts.iter().any(|text| matches(text))
}

fn is(field: Option<&[u8]>, text: &str) -> bool {
    field == Some(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: &str = r#"{"notifyType":"messageConfirm","header":{"requestId":"r-1"}}"#;

    fn filter(criterion: &str, texts: &[&str]) -> Filter {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut filter = Filter::default();
        match criterion {
            "type" => filter.types = texts,
            "device" => filter.devices = texts,
            "request" => filter.requests = texts,
            "reason" => filter.reasons = texts,
            other => panic!("{other}"),
        }
        filter
    }

    #[test]
    fn each_criterion_reads_its_own_part_of_a_record() {
        let line = Line {
            notify_type: Some(b"messageConfirm"),
            device: Some(b"d-1"),
            key: Some(b"k-1"),
            reason: Some(b"not-gzip"),
            value: Some(CONFIRM.as_bytes()),
            ..Line::default()
        };
        assert!(Filter::default().matches(&line));
        for (criterion, texts, expected) in [
            ("type", &["messageConfirm"][..], true),
            ("type", &["messageconfirm"], false),
            ("type", &["other", "messageConfirm"], true),
            ("device", &["d-1"], true),
            ("device", &["k-1"], false),
            ("request", &["r-1"], true),
            ("request", &["k-1"], true),
            ("request", &["d-1"], false),
            ("reason", &["not-gzip"], true),
            ("reason", &["not-json"], false),
        ] {
            let filter = filter(criterion, texts);
            assert_eq!(filter.matches(&line), expected, "{filter:?}");
        }
        let both = Filter {
            devices: vec!["d-2".to_owned()],
            ..filter("type", &["messageConfirm"])
        };
        assert!(!both.matches(&line));
    }

    #[test]
    fn a_record_without_headers_is_of_the_device_in_its_key() {
        let line = Line {
            key: Some(b"d-1"),
            ..Line::default()
        };
        assert!(filter("device", &["d-1"]).matches(&line));
        assert!(!filter("type", &["messageConfirm"]).matches(&line));
        assert!(!filter("request", &["r-1"]).matches(&line));
    }

    #[test]
    fn only_dead_letters_have_a_reason() {
        assert_eq!(filter("reason", &["x"]).topics(), [Topic::DeadLetter]);
        assert_eq!(filter("type", &["x"]).topics(), Topic::INGRESS);
    }
}
