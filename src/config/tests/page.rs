//! The reference page says what the code does.

use std::collections::BTreeMap;

use super::*;
use crate::config::properties::{PROPERTIES, Rule};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The first two cells of each row of the page that describes a key.
fn described() -> BTreeMap<String, String> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let key = cells[0].trim_start_matches("| ").trim_matches('`');
        (key.to_owned(), cells[1].to_owned())
    })
    .collect()
}

#[test]
fn the_page_and_the_code_have_the_same_keys_and_defaults() {
    let in_code = |(key, default): (&String, &Json)| {
        let cell = match default {
            Json::Null => "none".to_owned(),
            Json::Array(items) if items.is_empty() => "none".to_owned(),
            Json::String(text) => format!("`{text}`"),
            Json::Array(_) | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {
                format!("`{default}`")
            }
        };
        (key.clone(), cell)
    };
    let mut expected: BTreeMap<_, _> = keys().defaults().iter().map(in_code).collect();
    expected.insert("kafka.options".to_owned(), "none".to_owned());
    assert_eq!(described(), expected);
}

#[test]
fn the_page_and_the_code_forbid_the_same_properties_for_the_same_reasons() {
    let in_code = PROPERTIES.iter().filter_map(|property| {
        let quoted = |list: &[&str], between: &str| {
            let list: Vec<String> = list.iter().map(|item| format!("`{item}`")).collect();
            list.join(between)
        };
        let names = quoted(property.names, ", ");
        match property.rule {
            Rule::Refused(why) => Some(format!("- {names}: {why}.")),
            Rule::Limited { values, reason, .. } => Some(format!(
                "- {names} other than {}: {reason}.",
                quoted(values, " or ")
            )),
            Rule::Passed(_) => None,
        }
    });
    let (_, on_page) = PAGE
        .split_once("### Properties that cannot be set")
        .unwrap();
    let (on_page, _) = on_page.split_once("\n## ").unwrap();
    let on_page = on_page.lines().filter(|line| line.starts_with("- "));
    assert_eq!(on_page.collect::<Vec<_>>(), in_code.collect::<Vec<_>>());
}

#[test]
fn the_files_on_the_page_load() {
    for language in ["toml", "yaml"] {
        for block in PAGE.split(&format!("```{language}\n")).skip(1) {
            let (text, _) = block.split_once("```").unwrap();
            let settings = load_file(&format!("page.{language}"), text);
            assert_ne!(settings.unwrap(), Settings::default(), "{text}");
        }
    }
}
