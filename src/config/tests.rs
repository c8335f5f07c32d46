//! The configuration as an operator meets it: layers, settings, printed settings.

mod messages;
mod page;

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::keys::Keys;
use super::secret::MASK;
use super::settle::{self, Origins};
use super::*;

fn environment(variables: &[(&str, &str)]) -> Sources {
    let owned = |(name, text): &(&str, &str)| ((*name).into(), (*text).into());
    Sources {
        environment: variables.iter().map(owned).collect(),
        ..Sources::default()
    }
}

fn overrides(texts: &[&str]) -> Sources {
    Sources {
        overrides: texts.iter().map(ToString::to_string).collect(),
        ..Sources::default()
    }
}

fn files(paths: &[PathBuf]) -> Sources {
    Sources {
        files: paths.to_vec(),
        ..Sources::default()
    }
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Loads what one file of that name and text makes.
fn load_file(name: &str, text: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let sources = files(&[write(&dir, name, text)]);
    Settings::load(&sources).map_err(|error| without_dir(&error, dir.path()))
}

/// The message of an error, with the directory of the test taken out.
fn without_dir(error: &ConfigError, dir: &Path) -> String {
    error
        .to_string()
        .replace(&format!("{}/", dir.display()), "")
}

fn message(sources: &Sources) -> String {
    Settings::load(sources).unwrap_err().to_string()
}

fn keys() -> Keys {
    Keys::of(&settle::tree(&Settings::default()))
}

fn path_texts(paths: &[PathTemplate]) -> Vec<&str> {
    paths.iter().map(PathTemplate::as_str).collect()
}

fn exposed(secrets: &[Secret]) -> Vec<&str> {
    secrets.iter().map(Secret::expose).collect()
}

#[test]
fn without_any_source_the_defaults_apply() {
    let settings = Settings::load(&Sources::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn every_format_gives_the_same_settings() {
    let texts = [
        ("a.toml", "[http]\nmax_body_bytes = 5\npaths = ['/a', '/b']"),
        ("a.yaml", "http:\n  max_body_bytes: 5\n  paths: [/a, /b]"),
        ("a.yml", "http.max_body_bytes: 5\nhttp.paths: /a, /b"),
        (
            "a.json",
            r#"{"http":{"max_body_bytes":5,"paths":["/a","/b"]}}"#,
        ),
    ];
    for (name, text) in texts {
        let settings = load_file(name, text).unwrap();
        assert_eq!(settings.http.max_body_bytes, 5, "{name}");
        assert_eq!(path_texts(&settings.http.paths), ["/a", "/b"], "{name}");
    }
}

#[test]
fn a_byte_order_mark_is_ignored() {
    for (name, text) in [
        ("a.toml", "\u{feff}log.level = 'warn'"),
        ("a.yaml", "\u{feff}log: {level: warn}"),
        ("a.json", "\u{feff}{\"log\":{\"level\":\"warn\"}}"),
    ] {
        let settings = load_file(name, text).unwrap();
        assert_eq!(settings.log.level, LogLevel::Warn, "{name}");
    }
    let variable = environment(&[("NORTHBRIDGE__LOG__LEVEL", "\u{feff}warn")]);
    let settings = Settings::load(&variable).unwrap();
    assert_eq!(settings.log.level, LogLevel::Warn);
}

#[test]
fn a_later_layer_overrides_an_earlier_one_key_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(&dir, "1.toml", limits([1, 1, 1, 1]).as_str());
    let text = "limits:\n  max_in_flight: 2\n  admission_timeout_ms: 2\nhttp:\n";
    let second = write(&dir, "2.yaml", text);
    let mut sources = files(&[first, second]);
    sources.environment = environment(&[
        ("NORTHBRIDGE__LIMITS__MAX_IN_FLIGHT_BYTES", "3000000"),
        ("NORTHBRIDGE__LIMITS__ADMISSION_TIMEOUT_MS", "3"),
    ])
    .environment;
    sources.overrides = vec!["limits.admission_timeout_ms=4".to_owned()];
    let found = Settings::load(&sources).unwrap().limits;
    let expected = Limits {
        max_connections: 1,
        max_in_flight: 2,
        max_in_flight_bytes: 3_000_000,
        admission_timeout_ms: Millis(4),
        ..Limits::default()
    };
    assert_eq!(found, expected);
}

fn limits(values: [u32; 4]) -> String {
    let [connections, in_flight, bytes, admission] = values;
    format!(
        "[limits]\nmax_connections = {connections}\nmax_in_flight = {in_flight}\n\
         max_in_flight_bytes = {bytes}\nadmission_timeout_ms = {admission}\n"
    )
}

#[test]
fn a_null_does_not_override_an_earlier_layer() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(
        &dir,
        "1.json",
        r#"{"http":{"max_body_bytes":7},"log":{"level":"warn"}}"#,
    );
    let second = write(&dir, "2.yaml", "http:\n  max_body_bytes: ~\nlog:\n");
    let settings = Settings::load(&files(&[first, second])).unwrap();
    assert_eq!(settings.http.max_body_bytes, 7);
    assert_eq!(settings.log.level, LogLevel::Warn);
}

#[test]
fn every_key_can_come_from_the_environment() {
    for (key, default) in keys().defaults() {
        let variable = format!("NORTHBRIDGE__{}", key.replace('.', "__").to_uppercase());
        let text = match default {
            Json::Array(_) | Json::Null => continue,
            Json::String(text) => text.clone(),
            Json::Bool(_) | Json::Number(_) | Json::Object(_) => default.to_string(),
        };
        let settings = Settings::load(&environment(&[(&variable, &text)]));
        assert_eq!(settings.unwrap(), Settings::default(), "{variable}");
    }
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let settings = Settings::load(&environment(&[
        ("NORTHBRIDGE__HTTP__PATHS", "/a, /b/"),
        (
            "NORTHBRIDGE__AUTH__ALLOWED_ADDRESSES",
            "192.0.2.7,2001:db8::/32",
        ),
        (
            "NORTHBRIDGE__KAFKA__BOOTSTRAP_SERVERS",
            "one:9092, [::1]:9093",
        ),
    ]))
    .unwrap();
    assert_eq!(path_texts(&settings.http.paths), ["/a", "/b/"]);
    let networks = settings.auth.allowed_addresses;
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(settings.kafka.bootstrap_servers, "one:9092,[::1]:9093");
}

#[test]
fn variables_with_a_similar_prefix_are_ignored() {
    // Kubernetes sets these for a service named northbridge.
    let sources = environment(&[
        ("NORTHBRIDGE_PORT", "tcp://10.0.0.1:8080"),
        ("NORTHBRIDGE_SERVICE_HOST", "10.0.0.1"),
    ]);
    assert_eq!(Settings::load(&sources).unwrap(), Settings::default());
}

#[test]
fn a_secret_is_one_value_or_a_list_of_two() {
    let one = load_file("a.toml", "auth.token = 'a,b'").unwrap();
    assert_eq!(exposed(&one.auth.token), ["a,b"]);
    let two = load_file("a.toml", "auth.token = ['old', 'new']").unwrap();
    assert_eq!(exposed(&two.auth.token), ["old", "new"]);
    let set = Settings::load(&overrides(&["auth.token=a,b=c"])).unwrap();
    assert_eq!(exposed(&set.auth.token), ["a,b=c"]);
}

#[test]
fn a_variable_can_name_a_file_that_contains_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name, text| write(&dir, name, text).display().to_string();
    let settings = Settings::load(&environment(&[
        (
            "NORTHBRIDGE__AUTH__TOKEN_FILE",
            &path("token", "old \n\r\nnew\r\n"),
        ),
        (
            "NORTHBRIDGE__TLS__KEY_FILE_FILE",
            &path("key", "/etc/key.pem\n"),
        ),
        ("NORTHBRIDGE__TLS__CERTIFICATE_FILE", "/etc/certificate.pem"),
        (
            "NORTHBRIDGE__LIMITS__MAX_IN_FLIGHT_FILE",
            &path("limit", "12\n"),
        ),
        (
            "NORTHBRIDGE__KAFKA__OPTIONS__SSL__KEY__PEM_FILE",
            &path("pem", "a\nb\n"),
        ),
        (
            "NORTHBRIDGE__KAFKA__OPTIONS__SSL__CERTIFICATE__PEM_FILE",
            &path("certificate", "\u{feff}c\r\n"),
        ),
        (
            "NORTHBRIDGE__KAFKA__OPTIONS__SASL__PASSWORD_FILE",
            &path("password", " p\n\r\n"),
        ),
        ("NORTHBRIDGE__KAFKA__OPTIONS__SASL__MECHANISM", "PLAIN"),
        (
            "NORTHBRIDGE__KAFKA__OPTIONS__SECURITY__PROTOCOL",
            "SASL_SSL",
        ),
    ]))
    .unwrap();
    assert_eq!(exposed(&settings.auth.token), ["old ", "new"]);
    assert_eq!(settings.tls.key_file, Some(PathBuf::from("/etc/key.pem")));
    assert_eq!(settings.limits.max_in_flight, 12);
    let options: Vec<_> = settings.kafka.options.iter().collect();
    assert_eq!(
        options,
        [
            ("sasl.mechanism", "PLAIN"),
            ("sasl.password", " p\n"),
            ("security.protocol", "SASL_SSL"),
            ("ssl.certificate.pem", "c"),
            ("ssl.key.pem", "a\nb")
        ]
    );
}

#[test]
fn kafka_options_are_the_same_from_every_layer() {
    let dotted = "[kafka.options]\n'linger.ms' = 5\n'socket.keepalive.enable' = true";
    let nested = "kafka:\n  options:\n    linger: {ms: 5}\n    socket.keepalive.enable: true";
    let variables = environment(&[
        ("NORTHBRIDGE__KAFKA__OPTIONS__LINGER__MS", "5"),
        (
            "NORTHBRIDGE__KAFKA__OPTIONS__SOCKET__KEEPALIVE__ENABLE",
            "true",
        ),
    ]);
    let flags = overrides(&[
        "kafka.options.linger.ms=5",
        "kafka.options.socket.keepalive.enable=true",
    ]);
    for settings in [
        load_file("a.toml", dotted).unwrap(),
        load_file("a.yaml", nested).unwrap(),
        Settings::load(&variables).unwrap(),
        Settings::load(&flags).unwrap(),
    ] {
        let options: Vec<_> = settings.kafka.options.iter().collect();
        assert_eq!(
            options,
            [("linger.ms", "5"), ("socket.keepalive.enable", "true")]
        );
    }
}

#[test]
fn an_option_may_begin_with_the_name_of_another() {
    let texts = ["group.protocol=classic", "group.protocol.type=consumer"];
    let texts = texts.map(|text| format!("kafka.options.{text}"));
    let settings = Settings::load(&overrides(&[&texts[0], &texts[1]])).unwrap();
    let options: Vec<_> = settings.kafka.options.iter().collect();
    assert_eq!(
        options,
        [
            ("group.protocol", "classic"),
            ("group.protocol.type", "consumer")
        ]
    );
}

#[test]
fn milliseconds_become_durations() {
    let http = Settings::default().http;
    assert_eq!(http.answer_deadline_ms.duration(), Duration::from_secs(13));
}

#[test]
fn a_topic_name_begins_with_the_prefix() {
    let topics = Settings::default().topics;
    assert_eq!(
        topics.full_name(&topics.dead_letter.name),
        "iot.dead-letter"
    );
}

#[test]
fn the_prefix_of_topics_may_be_empty() {
    let settings = Settings::load(&overrides(&["topics.prefix="])).unwrap();
    assert_eq!(settings.topics.full_name("x"), "x");
}

#[test]
fn topic_names_that_kafka_treats_as_equal_collide() {
    let sources = overrides(&[
        "topics.dead_letter.name=a.b",
        "topics.notifications.name=a_b",
    ]);
    let found = message(&sources);
    assert!(found.starts_with("topics.dead_letter.name = \"a.b\" (--set): results in the topic"));
    assert!(
        found.contains("which collides with another topic"),
        "{found}"
    );
}

#[test]
fn listeners_on_free_ports_do_not_collide() {
    let sources = overrides(&["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"]);
    assert!(Settings::load(&sources).is_ok());
}

#[test]
fn values_at_their_bounds_are_valid() {
    for text in [
        "http.max_body_bytes=16777216",
        "http.max_head_bytes=8192",
        "http.max_head_bytes=1048576",
        "http.answer_deadline_ms=14000",
        "http.answer_deadline_ms=5501",
        "limits.max_in_flight_bytes=1048576",
        "limits.max_in_flight_bytes=4294967295",
        "topics.min_insync_replicas=3",
        "shutdown.announce_ms=0",
        "shutdown.deadline_ms=18001",
    ] {
        assert!(Settings::load(&overrides(&[text])).is_ok(), "{text}");
    }
}

#[test]
fn printed_settings_load_to_the_same_settings() {
    let settings = Settings::load(&overrides(&[
        "http.listen=[::1]:80",
        "http.paths=/a,/b/c",
        "http.unreadable=reject",
        "tls.certificate_file=/c \"d\".pem",
        "tls.key_file=/k.pem",
        "auth.allowed_addresses=192.0.2.0/24,2001:db8::1",
        "kafka.bootstrap_servers=a:1,b:2",
        "kafka.options.linger.ms=3",
        "topics.command_status.key=device-id",
        "log.format=json",
    ]))
    .unwrap();
    for settings in [settings, Settings::default()] {
        assert_eq!(load_file("printed.toml", &settings.to_toml()), Ok(settings));
    }
}

#[test]
fn secrets_are_masked_wherever_settings_are_shown() {
    let settings = Settings::load(&overrides(&[
        "auth.token=s3cret",
        "auth.basic.username=s3cret",
        "auth.basic.password=s3cret",
        "kafka.options.security.protocol=sasl_ssl",
        "kafka.options.sasl.mechanism=PLAIN",
        "kafka.options.sasl.password=s3cret",
        "telemetry.otlp_endpoint=https://collector",
        "telemetry.headers=authorization: s3cret",
    ]))
    .unwrap();
    for shown in [settings.to_toml(), format!("{settings:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(shown.matches(MASK).count(), 5, "{shown}");
    }
}

#[test]
fn a_share_is_a_number_in_every_format() {
    let texts = [
        ("a.toml", "telemetry.sampling_ratio = 0.25"),
        ("a.yaml", "telemetry: {sampling_ratio: 0.25}"),
        ("a.json", r#"{"telemetry":{"sampling_ratio":0.25}}"#),
    ];
    for (name, text) in texts {
        let ratio = load_file(name, text).unwrap().telemetry.sampling_ratio;
        assert_eq!(Ok(ratio), Ratio::try_from(0.25), "{name}");
    }
    for (written, expected) in [("0", 0.0), ("1", 1.0), (".5", 0.5)] {
        let file = format!("telemetry: {{sampling_ratio: {written}}}");
        let ratio = load_file("a.yaml", &file).unwrap().telemetry.sampling_ratio;
        assert_eq!(Ok(ratio), Ratio::try_from(expected), "{written}");
    }
}

#[test]
fn the_file_of_headers_has_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "headers", "Authorization: a,b\nx-tenant: c\n");
    let settings = Settings::load(&environment(&[
        ("NORTHBRIDGE__TELEMETRY__OTLP_ENDPOINT", "http://[::1]:4318"),
        (
            "NORTHBRIDGE__TELEMETRY__HEADERS_FILE",
            &path.display().to_string(),
        ),
    ]));
    let headers = settings.unwrap().telemetry.headers;
    let texts = headers.iter().map(|header| header.value.to_str().unwrap());
    assert_eq!(texts.collect::<Vec<_>>(), ["a,b", "c"]);
}

proptest! {
    #[test]
    fn no_message_contains_a_secret(secret in "[!-~]{8,20}", wrong in 0_usize..4) {
        let variables = [
            ("NORTHBRIDGE__AUTH__TOKEN", secret.as_str()),
            ("NORTHBRIDGE__AUTH__BASIC__USERNAME", secret.as_str()),
            ("NORTHBRIDGE__KAFKA__OPTIONS__SASL__PASSWORD", secret.as_str()),
            ("NORTHBRIDGE__TELEMETRY__HEADERS", secret.as_str()),
        ];
        let mut sources = environment(&variables);
        let wrongs = ["", "log.level=x", "http.x=1", "http.answer_deadline_ms=1"];
        let wrong = wrongs.into_iter().nth(wrong);
        sources.overrides.extend(wrong.filter(|text| !text.is_empty()).map(str::to_owned));
        prop_assert!(!message(&sources).contains(&secret));
    }

    #[test]
    fn any_text_for_any_key_is_accepted_or_reported(index in 0_usize..60, text in ".{0,12}") {
        let keys = keys();
        let Some(key) = keys.defaults().keys().nth(index) else { return Ok(()) };
        match Settings::load(&overrides(&[&format!("{key}={text}")])) {
            Ok(settings) => prop_assert!(rules::broken(&settings, &Origins::default()).is_empty()),
            Err(error) => prop_assert!(!error.problems.is_empty()),
        }
    }
}
