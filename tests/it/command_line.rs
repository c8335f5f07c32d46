//! The command line as an operator uses it: help, messages, exit codes.

use std::net::TcpListener;
use std::process::Output;

use crate::support::http::post_with;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};

#[test]
fn wrong_usage_exits_with_64_and_names_the_mistake() {
    let rows: &[(&[&str], &str)] = &[
        (&["ingress", "--colour"], "--colour"),
        (&["ingest"], "ingest"),
        (&["topics"], "Usage"),
        (&["topics", "delete"], "delete"),
        (&["config", "show"], "show"),
        (&["ingress", "--config"], "--config"),
        (&[], "Usage"),
    ];
    for (arguments, expected) in rows {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            errors(&output).contains(expected),
            "{arguments:?}: {}",
            errors(&output)
        );
    }
}

#[test]
fn invalid_configuration_exits_with_64_and_names_key_value_rule_and_source() {
    let rows: &[(&str, &[&str])] = &[
        (
            "http.max_bodybytes=1",
            &["http.max_bodybytes", "--set", "http.max_body_bytes"],
        ),
        (
            "http.answer_deadline_ms=15000",
            &["http.answer_deadline_ms", "15000", "--set", "14000"],
        ),
        (
            "kafka.options.acks=1",
            &[
                "kafka.options.acks",
                "\"1\"",
                "--set",
                "all in-sync replicas",
            ],
        ),
        (
            "kafka.options.lingr.ms=5",
            &["kafka.options.lingr.ms", "\"5\"", "--set", "linger.ms?"],
        ),
        (
            "kafka.options.linger.ms=soon",
            &[
                "kafka.options.linger.ms",
                "\"soon\"",
                "--set",
                "Invalid value",
            ],
        ),
    ];
    for command in [
        &["ingress"][..],
        &["dev"],
        &["config", "check"],
        &["topics", "verify"],
    ] {
        for (setting, expected) in rows {
            let output = run(&[command, &["--set", setting]].concat(), &[]);
            assert_eq!(output.status.code(), Some(64), "{command:?} {setting}");
            for part in *expected {
                assert!(
                    errors(&output).contains(part),
                    "{part}: {}",
                    errors(&output)
                );
            }
        }
    }
}

#[test]
fn an_unknown_environment_variable_is_an_error_that_suggests_the_nearest_key() {
    let output = run(&["config", "check"], &[("http.lisen", "127.0.0.1:1")]);
    assert_eq!(output.status.code(), Some(64));
    let stderr = errors(&output);
    assert!(
        stderr.contains("NORTHBRIDGE__HTTP__LISEN") && stderr.contains("NORTHBRIDGE__HTTP__LISTEN"),
        "{stderr}"
    );
}

#[test]
fn contradictory_kafka_options_are_rejected_by_check_and_start() {
    let options = [
        ("kafka.options.security.protocol", "ssl"),
        ("kafka.options.ssl.ca.location", "/nowhere/ca.pem"),
    ];
    for command in [
        &["config", "check"][..],
        &["ingress"],
        &["topics", "verify"],
    ] {
        let output = run(command, &options);
        assert_eq!(output.status.code(), Some(64), "{command:?}");
        let stderr = errors(&output);
        assert!(
            stderr.contains("kafka.options") && stderr.contains("ssl.ca.location"),
            "{stderr}"
        );
    }
}

#[test]
fn a_valid_configuration_passes_the_check_silently() {
    let output = run(&["config", "check"], &[("kafka.options.linger.ms", "5")]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
}

#[test]
fn config_print_outputs_toml_with_masked_secrets() {
    let output = run(
        &["config", "print"],
        &[
            ("auth.token", "s3cret-token"),
            ("auth.basic.username", "s3cret-user"),
            ("auth.basic.password", "s3cret-password"),
            ("kafka.options.security.protocol", "SASL_SSL"),
            ("kafka.options.sasl.mechanism", "PLAIN"),
            ("kafka.options.sasl.password", "s3cret-sasl"),
        ],
    );
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        !printed.contains("s3cret") && printed.contains("***"),
        "{printed}"
    );
    for section in ["[http]", "[kafka", "[auth", "[limits]", "[shutdown]"] {
        assert!(printed.contains(section), "{section}");
    }
}

#[test]
fn a_one_shot_command_without_kafka_exits_with_69_and_names_the_brokers() {
    for command in [
        &["topics", "verify"][..],
        &["topics", "create"],
        &["show", "command", "r-1"],
        &["tap"],
    ] {
        let output = run(command, &[("kafka.bootstrap_servers", "127.0.0.1:1")]);
        assert_eq!(output.status.code(), Some(69), "{command:?}");
        let stderr = errors(&output);
        assert!(
            stderr.contains("127.0.0.1:1") && stderr.contains("kafka.bootstrap_servers"),
            "{stderr}"
        );
    }
}

#[test]
fn topics_verify_reports_each_missing_topic_and_exits_with_1() {
    let mock = Mock::without_topics();
    mock.create_topic("iot.command-status");
    let output = run(
        &["topics", "verify"],
        &[("kafka.bootstrap_servers", &mock.bootstrap())],
    );
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    for topic in ["iot.upgrade-result", "iot.dead-letter", "iot.command-state"] {
        let line = printed
            .lines()
            .find(|line| line.contains(topic))
            .expect(topic);
        assert!(
            line.starts_with("problem") && line.contains("topics create"),
            "{line}"
        );
    }
    let there = printed
        .lines()
        .find(|line| line.contains("iot.command-status: does not exist"));
    assert!(there.is_none(), "{there:?}");
}

#[test]
fn version_prints_the_package_version() {
    for arguments in [["--version"], ["-V"]] {
        let output = run(&arguments, &[]);
        assert_eq!(output.status.code(), Some(0));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            printed.trim(),
            format!("northbridge {}", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn the_help_of_every_command_has_examples() {
    let commands: &[&[&str]] = &[
        &[],
        &["ingress"],
        &["command-status"],
        &["upgrade-result"],
        &["dev"],
        &["health"],
        &["replay"],
        &["simulate"],
        &["show"],
        &["show", "command"],
        &["show", "device"],
        &["show", "operation"],
        &["tap"],
        &["topics"],
        &["topics", "create"],
        &["topics", "verify"],
        &["config"],
        &["config", "check"],
        &["config", "print"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let output = run(&[command, &["--help"][..]].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        for part in ["Usage: northbridge", "--config", "Examples:\n  "] {
            assert!(
                printed.contains(part),
                "{command:?} has no {part}: {printed}"
            );
        }
        let output = run(&[command, &["--version"][..]].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{command:?} --version");
    }
}

#[test]
fn an_address_in_use_exits_with_64_and_names_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["http.listen", "admin.listen"] {
        for command in ["ingress", "dev"] {
            let output = run(
                &[command],
                &[(key, &address), ("kafka.bootstrap_servers", "127.0.0.1:1")],
            );
            assert_eq!(output.status.code(), Some(64), "{command} {key}");
            let stderr = errors(&output);
            let names = [key, &address, "in use"]
                .iter()
                .all(|part| stderr.contains(part));
            assert!(names, "{stderr}");
        }
    }
}

#[test]
fn dev_runs_without_kafka_and_prints_stored_records() {
    let northbridge = Northbridge::start(&["dev"], &[]);
    let line = northbridge.wait_for_output(|line| line.contains("  pushes "));
    let address = line
        .rsplit_once("http://")
        .and_then(|(_, rest)| rest.split_once('/'));
    let address = address.expect("a URL").0.parse().unwrap();
    let curl = northbridge.wait_for_output(|line| line.contains("curl "));
    let body = curl.split('\'').nth(1).expect("a body in quotes");
    assert_eq!(post_with(address, "/notifications", &[], body).status, 200);
    northbridge.wait_for_output(|line| {
        line.starts_with("stored  messageConfirm") && line.contains("key r-1")
    });
    assert_eq!(
        post_with(address, "/notifications", &[], "nonsense").status,
        200
    );
    northbridge
        .wait_for_output(|line| line.starts_with("dead letter") && line.contains("not-json"));
    northbridge.signal(rustix::process::Signal::INT);
    assert_eq!(northbridge.wait(), 0);
    assert_eq!(northbridge.log(), Vec::<String>::new());
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
