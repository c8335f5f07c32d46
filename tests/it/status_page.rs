//! The status page over HTTP: what it says is what `/metrics` and `/readyz` say, and it
//! shows no secret. `tests/page` looks at it in a browser.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::http::{RawConnection, Response, get, post_with};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

const PATH: &str = "/notifications";

#[test]
fn a_browser_gets_a_page_that_may_run_and_load_nothing_but_its_own() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[]);
    let html = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for accept in [html, "*/*"] {
        let answer = ask(&northbridge, accept);
        assert_eq!(answer.status, 200);
        let expected = [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("vary", "Accept"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        let text = answer.text();
        let hash = |element: &str| {
            let (_, after) = text.split_once(&format!("<{element}>")).unwrap();
            let (inline, _) = after.split_once(&format!("</{element}>")).unwrap();
            let digest = ring::digest::digest(&ring::digest::SHA256, inline.as_bytes());
            format!("{element}-src 'sha256-{}'", STANDARD.encode(digest))
        };
        let policy = answer.header("content-security-policy").unwrap();
        let rules: Vec<_> = policy.split("; ").collect();
        let (script, style) = (hash("script"), hash("style"));
        let expected = [
            "default-src 'none'",
            &script,
            &style,
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ];
        assert_eq!(rules, expected);
    }
}

#[test]
fn it_answers_get_and_head_alone() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[]);
    let mut connection = RawConnection::open(northbridge.admin_address());
    connection.write("HEAD / HTTP/1.1\r\nhost: northbridge.test\r\n\r\n");
    let head = connection.read_response_head();
    assert_eq!(head.status, 200);
    let length = ask(&northbridge, "*/*").body.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    let answer = post_with(northbridge.admin_address(), "/", &[], "");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
    assert_eq!(
        get(northbridge.admin_address(), "/page").unwrap().status,
        404
    );
}

#[test]
fn its_values_are_those_of_metrics_summed_over_other_labels() {
    let dev = Northbridge::start(&["dev"], &[("log.level", "info")]);
    dev.wait_until_ready();
    for (body, status) in [
        (message_confirm("r-1", "d", "sent"), 200),
        ("no JSON".to_owned(), 200),
        (String::new(), 400),
    ] {
        assert_eq!(post_with(dev.address(), PATH, &[], body).status, status);
    }
    let applied = [r#"stream="command-status""#, r#"result="applied""#];
    dev.wait_for_metric("northbridge_stream_records_total", &applied, 1.0);
    dev.wait_for_metric("northbridge_commands_open", &[], 1.0);

    // What changes by itself may change between two requests.
    eventually("both say the same", || {
        let (metrics, page) = (dev.metrics(), latest(&status(&dev)));
        page.iter()
            .filter(|(series, _)| !series.starts_with("process_resident"))
            .all(|(series, value)| (sum(&metrics, series) - value).abs() < 1e-9)
            .then_some(())
    });
    let page = latest(&status(&dev));
    for (series, value) in [
        (r#"northbridge_pushes_total{outcome="stored"}"#, 1.0),
        (r#"northbridge_pushes_total{outcome="rejected"}"#, 1.0),
        (r#"northbridge_http_responses_total{code="400"}"#, 1.0),
        (r#"northbridge_dead_letters_total{reason="not-json"}"#, 1.0),
        (r#"northbridge_commands_open{status="sent"}"#, 1.0),
        (
            r#"northbridge_push_duration_seconds_bucket{le="+Inf",outcome="stored"}"#,
            1.0,
        ),
    ] {
        assert_eq!(page.get(series), Some(&value), "{series}");
    }
}

#[test]
fn it_knows_what_happened_before_anybody_looked() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let address = northbridge.address();
    assert_eq!(post_with(address, PATH, &[], "no JSON").status, 200);
    eventually("three samples were taken", || {
        let history = &status(&northbridge)["history"];
        let times = history["times"].as_array()?;
        let received = history["series"]["northbridge_pushes_received_total"].as_array()?;
        assert_eq!(times.len(), received.len());
        assert!(times.is_sorted_by_key(Value::as_i64));
        assert_eq!(received.first()?.as_f64(), Some(0.0));
        assert_eq!(received.last()?.as_f64(), Some(1.0));
        (times.len() > 3).then_some(())
    });
}

#[test]
fn it_has_the_conditions_of_readyz_and_the_last_error_of_kafka() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let readyz = get(northbridge.admin_address(), "/readyz").unwrap();
    let readyz: Value = serde_json::from_slice(&readyz.body).unwrap();
    let page = status(&northbridge);
    assert_eq!(page["readiness"], readyz);
    assert_eq!(page["process"], "ingress");
    assert_eq!(page["lastErrors"], serde_json::json!({}));

    mock.go_down();
    let error = eventually("the error is shown", || {
        let error = status(&northbridge)["lastErrors"]["ingress"].take();
        error["ongoing"].as_bool()?.then_some(error)
    });
    let counted = format!("kind={}", error["kind"]);
    assert!(northbridge.metric("northbridge_kafka_errors_total", &[&counted]) > 0.0);
    mock.come_back();
    let over = eventually("the error is over", || {
        let error = status(&northbridge)["lastErrors"]["ingress"].take();
        (!error["ongoing"].as_bool()?).then_some(error)
    });
    assert!(over["firstAt"].as_str() <= over["lastAt"].as_str());
}

#[test]
fn it_shows_no_secret_and_no_path() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[
        ("http.paths", "/hard-to-guess/{token}"),
        ("auth.token", "s3cret-token"),
        ("auth.basic.username", "s3cret-user"),
        ("auth.basic.password", "s3cret-password"),
        ("kafka.options.security.protocol", "SASL_PLAINTEXT"),
        ("kafka.options.sasl.mechanism", "PLAIN"),
        ("kafka.options.sasl.username", "user"),
        ("kafka.options.sasl.password", "s3cret-of-kafka"),
    ]);
    let page = status(&northbridge);
    assert_eq!(page["settings"]["auth.token"], serde_json::json!(["***"]));
    assert_eq!(
        page["settings"]["auth.basic.password"],
        serde_json::json!(["***"])
    );
    assert_eq!(page["settings"]["spool.directory"], Value::Null);
    assert_eq!(
        page["settings"]["kafka.options.security.protocol"],
        "SASL_PLAINTEXT"
    );
    assert_eq!(
        page["settings"]["kafka.bootstrap_servers"],
        mock.bootstrap()
    );
    for accept in ["*/*", "application/json"] {
        let text = ask(&northbridge, accept).text();
        for secret in ["s3cret", "hard-to-guess"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_stream_shows_what_it_has_and_nothing_of_an_ingress() {
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let settings = [("kafka.bootstrap_servers", bootstrap.as_str())];
    let page = status(&Northbridge::start(&["command-status"], &settings));
    assert_eq!(page["process"], "command-status");
    let series = latest(&page);
    assert!(series.contains_key(r#"northbridge_commands_open{status="sent"}"#));
    for other in [
        "northbridge_pushes",
        "northbridge_spool",
        "northbridge_upgrades",
    ] {
        assert!(!series.keys().any(|series| series.starts_with(other)));
    }
    let settings = page["settings"].as_object().unwrap();
    assert!(settings.contains_key("streams.group_prefix"));
    assert!(!settings.contains_key("http.listen"));
}

fn ask(northbridge: &Northbridge, accept: &str) -> Response {
    let mut connection = RawConnection::open(northbridge.admin_address());
    connection.write(format!(
        "GET / HTTP/1.1\r\nhost: northbridge.test\r\naccept: {accept}\r\n\r\n"
    ));
    connection.read_response()
}

/// What the page shows.
pub(super) fn status(northbridge: &Northbridge) -> Value {
    let answer = ask(northbridge, "application/json");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Accept"));
    serde_json::from_slice(&answer.body).unwrap()
}

/// The last value of each series.
fn latest(page: &Value) -> BTreeMap<String, f64> {
    let series = page["history"]["series"].as_object().unwrap().iter();
    let last = series.filter_map(|(name, values)| {
        let value = values.as_array()?.last()?.as_f64()?;
        Some((name.clone(), value))
    });
    last.collect()
}

/// The sum of all series of `/metrics` that have the name and the labels of `wanted`.
fn sum(metrics: &BTreeMap<String, f64>, wanted: &str) -> f64 {
    let labels = |series: &str| {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').map(str::to_owned);
        (name.to_owned(), labels.collect::<Vec<_>>())
    };
    let (name, wanted) = labels(wanted);
    let has_all = |(series, value): (&String, &f64)| {
        let (found, labels) = labels(series);
        let has = wanted
            .iter()
            .all(|label| label.is_empty() || labels.contains(label));
        (found == name && has).then_some(*value)
    };
    metrics.iter().filter_map(has_all).sum()
}
