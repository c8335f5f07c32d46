//! The documents and specifications agree with the program and with the bodies
//! that the tests send.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::status_page;
use crate::support::northbridge::Northbridge;
use crate::support::{eventually, http};

/// Metric names, each with its type and its label names.
type Table = BTreeMap<String, (String, BTreeSet<String>)>;

const UPGRADE_WITH_DRIFT: &str =
    r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d","swUpgradeResult":"SUCCESSFUL"}"#;

#[tokio::test]
async fn the_metrics_page_lists_exactly_the_exposed_metrics() {
    let directory = tempfile::TempDir::new().unwrap();
    let spool = ("spool.directory", directory.path().to_str().unwrap());
    let northbridge = dev_with(&[spool]);
    // Series with labels from the outside appear late: drift once a push has some,
    // brokers once librdkafka has reported its statistics.
    let answer = http::post(northbridge.address(), "/notifications", UPGRADE_WITH_DRIFT).await;
    assert_eq!(answer.status, 200);
    // A lag appears once a stream has processed a record and knows the end offset.
    eventually("librdkafka reports its statistics", || {
        let scrape = scrape(&northbridge);
        let reported = scrape.contains("northbridge_kafka_round_trip_seconds");
        (reported && scrape.contains("northbridge_stream_lag_records")).then_some(())
    });
    assert_eq!(
        metrics_on_page(&read("docs/metrics.md")),
        metrics_in(&scrape(&northbridge))
    );
}

#[test]
fn label_values_match_the_specifications() {
    let northbridge = dev();
    let openapi = yaml("docs/openapi.yaml");
    let asyncapi = yaml("docs/asyncapi.yaml");
    let metrics = scrape(&northbridge);

    let responses = &openapi["paths"]["/notifications"]["post"]["responses"];
    let codes = responses.as_object().expect("responses").keys();
    let counted = label_values(&metrics, "northbridge_http_responses_total", "code");
    assert_eq!(codes.cloned().collect::<BTreeSet<_>>(), counted);

    let conditions = &openapi["components"]["schemas"]["Readiness"]["properties"]["conditions"];
    let named = texts(&conditions["items"]["properties"]["name"]["enum"]);
    assert_eq!(
        named,
        label_values(&metrics, "northbridge_ready", "condition")
    );

    let headers = &asyncapi["components"]["schemas"]["DeadLetterHeaders"]["allOf"][1];
    let reasons = texts(&headers["properties"]["northbridge-reason"]["enum"]);
    let counted = label_values(&metrics, "northbridge_dead_letters_total", "reason");
    assert_eq!(reasons, counted);
    let topics = read("docs/topics.md");
    assert_eq!(
        first_cells(section(&topics, "## Dead letters"), ""),
        reasons
    );
}

#[test]
fn stream_dead_letter_reasons_match_the_specification() {
    let asyncapi = yaml("docs/asyncapi.yaml");
    let headers = &asyncapi["components"]["schemas"]["StreamDeadLetterHeaders"]["properties"];
    let reasons = texts(&headers["northbridge-reason"]["enum"]);
    let topics = read("docs/topics.md");
    let (added, listed): (BTreeSet<_>, BTreeSet<_>) =
        first_cells(section(&topics, "### Dead letters of a stream"), "")
            .into_iter()
            .partition(|cell| cell.starts_with("northbridge-"));
    assert_eq!(listed, reasons);
    assert_eq!(added, texts_of_keys(headers));
    let code = read("src/streams/states/poison.rs") + &read("src/streams/worker/dead_letter.rs");
    let in_code = code.lines().filter_map(|line| {
        let (variant, reason) = line.trim().split_once(" => \"")?;
        let reason = reason.strip_suffix("\",")?;
        (variant.starts_with("Self::") && !reason.contains(' ')).then(|| reason.to_owned())
    });
    assert_eq!(in_code.collect::<BTreeSet<_>>(), reasons);
}

#[test]
fn the_metrics_page_lists_the_streams_of_dev() {
    let counted = label_values(
        &scrape(&dev()),
        "northbridge_stream_records_total",
        "stream",
    );
    let page = read("docs/metrics.md");
    let (_, after) = page
        .split_once("`stream` is ")
        .expect("the list of streams");
    let sentence = after.split('.').next().expect("a sentence");
    let named = sentence.split('`').skip(1).step_by(2).map(str::to_owned);
    assert_eq!(named.collect::<BTreeSet<_>>(), counted);
}

#[test]
fn problem_types_are_the_same_in_page_specification_and_code() {
    let specified = texts(
        &yaml("docs/openapi.yaml")["components"]["schemas"]["Problem"]["properties"]["type"]["enum"],
    );
    let page = read("docs/http-api.md");
    let on_page = first_cells(&page, "urn:northbridge:problem:");
    assert_eq!(on_page, specified);
    let code = read("src/ingress/answer.rs");
    for problem in &specified {
        let kind = problem.rsplit(':').next().expect("a last segment");
        assert!(code.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[test]
fn every_specification_example_is_a_body_in_tests_bodies() {
    let openapi = yaml("docs/openapi.yaml");
    let asyncapi = yaml("docs/asyncapi.yaml");
    let request = &openapi["paths"]["/notifications"]["post"]["requestBody"];
    let of_requests = request["content"]["application/json"]["examples"]
        .as_object()
        .expect("examples")
        .iter()
        .map(|(name, example)| (name.as_str(), &example["value"]));
    let messages = asyncapi["components"]["messages"].as_object();
    let of_messages = messages
        .expect("messages")
        .values()
        .filter_map(|message| message["examples"].as_array())
        .flatten()
        .map(|example| {
            (
                example["name"].as_str().expect("a name"),
                &example["payload"],
            )
        });
    for (name, example) in of_requests.chain(of_messages) {
        assert_eq!(
            example,
            &json(&format!("tests/bodies/{name}.json")),
            "{name}"
        );
    }
}

#[test]
fn the_two_main_bodies_are_valid_against_their_schemas() {
    for (schema, body) in [
        ("message-confirm", "messageConfirm"),
        ("sw-upgrade-result-notify", "swUpgradeResultNotify"),
    ] {
        let schema = json(&format!("docs/schemas/{schema}.schema.json"));
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let mut body = json(&format!("tests/bodies/{body}.json"));
        let problems: Vec<_> = validator.iter_errors(&body).collect();
        assert!(problems.is_empty(), "{problems:?}");
        body["notifyType"] = "another".into();
        assert!(!validator.is_valid(&body));
    }
}

#[test]
fn every_schema_and_its_examples_are_valid() {
    for entry in fs::read_dir(root().join("docs/schemas")).expect("the schemas") {
        let path = entry.expect("an entry").path();
        let schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{}", path.display());
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for example in schema["examples"].as_array().into_iter().flatten() {
            assert!(validator.is_valid(example), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn what_the_status_page_shows_is_valid_against_its_schema() {
    let dev = dev();
    dev.wait_until_ready();
    let answer = http::post(dev.address(), "/notifications", UPGRADE_WITH_DRIFT).await;
    assert_eq!(answer.status, 200);
    let mut schema = serde_json::json!({"$ref": "#/components/schemas/Status"});
    schema["components"] = yaml("docs/openapi.yaml")["components"].take();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let status = status_page::status(&dev);
    let problems: Vec<_> = validator.iter_errors(&status).collect();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn every_relative_link_in_the_documents_resolves() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().expect("a folder").join(file)
            };
            let shown = format!("{}: {link}", document.display());
            assert!(target.exists(), "{shown}");
            if !heading.is_empty() {
                let target = fs::read_to_string(&target).expect("a document");
                assert!(headings(&target).contains(heading), "{shown}");
            }
        }
    }
}

#[test]
fn every_line_of_a_document_is_one_sentence() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for line in prose(&text).filter(|line| !line.starts_with('|')) {
            let next = line
                .match_indices(". ")
                .find(|(at, _)| line[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()));
            let numbered = line.trim_start().starts_with(|c: char| c.is_ascii_digit());
            assert!(next.is_none() || numbered, "{}: {line}", document.display());
        }
    }
}

#[test]
fn the_design_document_justifies_every_dependency() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let design = read("docs/DESIGN.md");
    let (_, reasons) = design.split_once("## Dependencies").expect("the heading");
    for section in ["dependencies", "dev-dependencies"] {
        for name in manifest[section].as_table().expect("a table").keys() {
            assert!(reasons.contains(&format!("`{name}`")), "{name}");
        }
    }
}

/// Starts `northbridge dev` with a log that contains its addresses.
fn dev() -> Northbridge {
    dev_with(&[])
}

fn dev_with(settings: &[(&str, &str)]) -> Northbridge {
    let own = [("log.level", "info")];
    Northbridge::start(&["dev"], &[&own[..], settings].concat())
}

fn scrape(northbridge: &Northbridge) -> String {
    let answer = http::get(northbridge.admin_address(), "/metrics").expect("metrics");
    answer.text()
}

/// Parses the rows of the page: `| name | type | labels | meaning |`.
fn metrics_on_page(page: &str) -> Table {
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `northbridge_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_start_matches("| ").trim_matches('`');
        let labels = cells[2].split(", ").filter(|label| *label != "none");
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        (name.to_owned(), (cells[1].to_owned(), labels.collect()))
    })
    .collect()
}

/// Parses a scrape; `le` is left out because every histogram has it.
fn metrics_in(scrape: &str) -> Table {
    let mut table = Table::new();
    let mut metric = "";
    for line in scrape.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            metric = name;
            table.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (_, labels) = table
                .get_mut(metric)
                .expect("a TYPE line before its series");
            let names = labels_of(line).map(|(label, _)| label.to_owned());
            labels.extend(names.filter(|label| label != "le"));
        }
    }
    table
}

fn labels_of(series: &str) -> impl Iterator<Item = (&str, &str)> {
    let inner = series
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or("", |(inner, _)| inner);
    inner.split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name, value.trim_matches('"')))
    })
}

fn label_values(scrape: &str, metric: &str, label: &str) -> BTreeSet<String> {
    let series = scrape.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with('{'))
    });
    series
        .flat_map(labels_of)
        .filter(|(name, _)| *name == label)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// The first cells of the table rows that are code and begin with `start`.
fn first_cells(text: &str, start: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0))
        .filter(|cell| cell.starts_with(start))
        .map(str::to_owned)
        .collect()
}

/// The text from a heading to the next heading of any level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("{heading}\n")).expect("the heading");
    let text = &text[start + heading.len()..];
    text.split("\n#").next().unwrap_or(text)
}

fn documents() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("docs")).expect("the documents");
    pages
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain(["README.md", "CHANGELOG.md", "examples/README.md"].map(|page| root().join(page)))
        .collect()
}

/// The lines outside fenced code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The link targets inside the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .filter(|target| !target.contains("://"))
}

/// The heading anchors of a document, as GitHub generates them.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

fn texts(list: &Value) -> BTreeSet<String> {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| item.as_str().expect("a text").to_owned())
        .collect()
}

fn texts_of_keys(object: &Value) -> BTreeSet<String> {
    let keys = object.as_object().expect("an object").keys();
    keys.cloned().collect()
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).expect("YAML")
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
