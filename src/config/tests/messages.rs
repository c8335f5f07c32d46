//! Every message of the configuration, word for word.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::config::properties::{PROPERTIES, Property};

#[test]
fn each_invalid_value_has_its_message() {
    for (text, expected) in VALUES.iter().copied() {
        assert_eq!(message(&overrides(&[text])), expected, "{text}");
    }
}

#[test]
fn each_invalid_flag_has_its_message() {
    for (text, expected) in FLAGS.iter().copied() {
        assert_eq!(message(&overrides(&[text])), expected, "{text}");
    }
}

#[test]
fn the_flag_with_the_servers_is_the_last_layer_and_named_in_its_message() {
    let mut sources = overrides(&["kafka.bootstrap_servers=a:1"]);
    sources.kafka = Some("b:2".to_owned());
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.kafka.bootstrap_servers, "b:2");
    sources.kafka = Some("b".to_owned());
    assert_eq!(
        message(&sources),
        r#"kafka.bootstrap_servers = "b" (--kafka): must be host:port, or several of them separated by commas"#
    );
}

#[test]
fn each_invalid_variable_has_its_message() {
    for (variable, text, expected) in VARIABLES.iter().copied() {
        assert_eq!(message(&environment(&[(variable, text)])), expected);
    }
}

#[test]
fn a_value_and_a_file_for_the_same_key_are_an_error_in_either_order() {
    let value = ("NORTHBRIDGE__AUTH__TOKEN", "s3cret");
    let file = ("NORTHBRIDGE__AUTH__TOKEN_FILE", "/nowhere");
    let expected = "auth.token: NORTHBRIDGE__AUTH__TOKEN and NORTHBRIDGE__AUTH__TOKEN_FILE \
                    are both set; set only one of them";
    assert_eq!(message(&environment(&[value, file])), expected);
    let other_order = message(&environment(&[file, value]));
    assert!(other_order.ends_with(expected), "{other_order}");
}

#[test]
fn a_variable_that_is_not_utf_8_is_an_error() {
    let broken = OsString::from_vec(b"s3cret\xff".to_vec());
    let mut sources = environment(&[("NORTHBRIDGE_OTHER__TOKEN", "ignored")]);
    sources.environment = vec![
        ("NORTHBRIDGE__AUTH__TOKEN".into(), broken.clone()),
        ("NORTHBRIDGE_OTHER".into(), broken),
    ];
    assert_eq!(
        message(&sources),
        "NORTHBRIDGE__AUTH__TOKEN (environment): must be UTF-8"
    );
}

#[test]
fn a_file_with_a_value_in_another_encoding_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let variable = [(
        "NORTHBRIDGE__AUTH__TOKEN_FILE",
        &*path.display().to_string(),
    )];
    for (bytes, expected) in [
        (&b"\xff\xfet\0o\0"[..], "probably UTF-16"),
        (b"\xfe\xff\0t\0o", "probably UTF-16"),
        (b"t\0o\0", "probably UTF-16"),
        (b"t\xfc", "the text is not UTF-8"),
    ] {
        fs::write(&path, bytes).unwrap();
        let found = message(&environment(&variable));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn a_file_without_a_value_is_an_empty_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "token", "\n\n").display().to_string();
    let found = message(&environment(&[("NORTHBRIDGE__AUTH__TOKEN_FILE", &path)]));
    assert_eq!(
        found,
        "auth.token = *** (environment variable NORTHBRIDGE__AUTH__TOKEN_FILE): must not be empty"
    );
}

#[test]
fn each_invalid_file_has_its_message() {
    for (name, text, expected) in FILES.iter().copied() {
        assert_eq!(
            load_file(name, text),
            Err(expected.to_owned()),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_missing_file_has_its_message() {
    assert_eq!(
        message(&files(&[PathBuf::from("/nowhere/a.toml")])),
        "/nowhere/a.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let sources = overrides(&["http.lisen=1", "log.level=x", "limits.max_in_flight=0"]);
    let error = Settings::load(&sources).unwrap_err();
    assert_eq!(error.problems.len(), 3);
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn all_broken_rules_between_settings_are_reported_at_once() {
    let sources = overrides(&["tls.key_file=/k", "topics.min_insync_replicas=9"]);
    assert_eq!(Settings::load(&sources).unwrap_err().problems.len(), 2);
}

#[test]
fn every_forbidden_property_is_rejected() {
    let is_refused = |property: &&Property| !property.is_settable();
    let refused = PROPERTIES.iter().filter(is_refused);
    for name in refused.flat_map(|property| property.names) {
        let name = name.replace('*', "mock.num.brokers");
        let found = message(&overrides(&[&format!("kafka.options.{name}=1")]));
        assert!(found.contains("cannot be set: "), "{found}");
        assert!(!found.contains("lower-case words"), "{found}");
    }
}

/// Values that are not valid, and the message for each.
#[rustfmt::skip]
const VALUES: &[(&str, &str)] = &[
    ("http.listen=8080", r#"http.listen = "8080" (--set): must be an address with a port, such as 0.0.0.0:8080 or [::]:8080"#),
    ("http.paths=", r#"http.paths = [""] (--set): "" must begin with "/""#),
    ("http.paths=a", r#"http.paths = ["a"] (--set): "a" must begin with "/""#),
    ("http.paths=/a?b", r#"http.paths = ["/a?b"] (--set): "/a?b" must not contain a query or a fragment"#),
    ("http.paths=/ä", r#"http.paths = ["/ä"] (--set): "/ä" must contain only characters that a URI allows in a path; percent-encode others"#),
    ("http.paths=/a<b>", r#"http.paths = ["/a<b>"] (--set): "/a<b>" must contain only characters that a URI allows in a path; percent-encode others"#),
    ("http.paths=a,/b?c", "http.paths = [\"a\",\"/b?c\"] (--set): \"a\" must begin with \"/\"\nhttp.paths = [\"a\",\"/b?c\"] (--set): \"/b?c\" must not contain a query or a fragment"),
    ("http.paths=/n/x{token}", r#"http.paths = ["/n/x{token}"] (--set): "/n/x{token}" must not contain braces except as the whole segment {token}"#),
    ("http.paths=/a{token}", r#"http.paths = ["/a{token}"] (--set): "/a{token}" must not contain braces except as the whole segment {token}"#),
    ("http.paths=/{id}", r#"http.paths = ["/{id}"] (--set): "/{id}" must not contain braces except as the whole segment {token}"#),
    ("http.paths=/a,/a/", r#"http.paths = ["/a","/a/"] (--set): "/a/" is listed twice; a trailing slash makes no difference"#),
    ("http.paths=/{token}/{token}", "http.paths = [\"/{token}/{token}\"] (--set): \"/{token}/{token}\" must contain {token} only once"),
    ("http.paths=/{token}", r#"http.paths = ["/{token}"] (--set): {token} requires auth.token, which is not set"#),
    ("http.max_body_bytes=0", "http.max_body_bytes = 0 (--set): must be at least 1"),
    ("http.max_body_bytes=16777217", "http.max_body_bytes = 16777217 (--set): must be at most 16777216"),
    ("http.max_head_bytes=8191", "http.max_head_bytes = 8191 (--set): must be at least 8192"),
    ("http.max_head_bytes=1048577", "http.max_head_bytes = 1048577 (--set): must be at most 1048576"),
    ("http.header_timeout_ms=0", "http.header_timeout_ms = 0 (--set): must be at least 1"),
    ("http.header_timeout_ms=5s", r#"http.header_timeout_ms = "5s" (--set): must be a whole number"#),
    ("http.header_timeout_ms=-1", r#"http.header_timeout_ms = "-1" (--set): must be a whole number"#),
    ("http.header_timeout_ms=4294967296", "http.header_timeout_ms = 4294967296 (--set): must be at most 4294967295"),
    ("http.answer_deadline_ms=20000", "http.answer_deadline_ms = 20000 (--set): must be at most 14000, because the sender times out after 15 s"),
    ("http.answer_deadline_ms=5500", "http.answer_deadline_ms = 5500 (--set): must be more than limits.admission_timeout_ms + http.body_timeout_ms (500 + 5000), or no time is left for Kafka"),
    ("http.unreadable=drop", r#"http.unreadable = "drop" (--set): must be `dead-letter` or `reject`"#),
    ("http.validation=lax", r#"http.validation = "lax" (--set): must be `tolerant` or `strict`"#),
    ("tls.key_file=", r#"tls.key_file = "" (--set): must not be empty"#),
    ("tls.key_file=/k", r#"tls.key_file = "/k" (--set): requires tls.certificate_file"#),
    ("tls.certificate_file=/c", r#"tls.certificate_file = "/c" (--set): requires tls.key_file"#),
    ("tls.client_ca_file=/a", r#"tls.client_ca_file = "/a" (--set): requires tls.certificate_file and tls.key_file"#),
    ("auth.token=", "auth.token = *** (--set): must not be empty"),
    (r#"auth.token="s3cret""#, "auth.token = *** (--set): must not be in quotes, which would be part of the secret"),
    ("auth.token=***", "auth.token = *** (--set): must be the secret itself, not the mask that is printed instead"),
    ("auth.basic.username=u", "auth.basic.username = *** (--set): requires auth.basic.password"),
    ("auth.basic.password=p", "auth.basic.password = *** (--set): requires auth.basic.username"),
    ("auth.allowed_addresses=", r#"auth.allowed_addresses = [""] (--set): must be addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32"#),
    ("auth.trusted_proxies=10.0.0.0/33", r#"auth.trusted_proxies = ["10.0.0.0/33"] (--set): must be addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32"#),
    ("auth.client_address=x-forwarded-for", r#"auth.client_address = "x-forwarded-for" (--set): requires auth.trusted_proxies, or any client could claim any address"#),
    ("auth.client_address=proxy-protocol", r#"auth.client_address = "proxy-protocol" (--set): requires auth.trusted_proxies, or any client could claim any address"#),
    ("auth.client_address=header", r#"auth.client_address = "header" (--set): must be one of `connection`, `x-forwarded-for`, `proxy-protocol`"#),
    ("limits.max_connections=0", "limits.max_connections = 0 (--set): must be at least 1"),
    ("limits.max_in_flight_bytes=1048575", "limits.max_in_flight_bytes = 1048575 (--set): must be at least http.max_body_bytes (1048576), or the largest body is never admitted"),
    ("kafka.bootstrap_servers=", r#"kafka.bootstrap_servers = "" (--set): must not be empty"#),
    ("kafka.bootstrap_servers=a:1,b", r#"kafka.bootstrap_servers = "a:1,b" (--set): must be host:port, or several of them separated by commas"#),
    ("kafka.bootstrap_servers=a:0", r#"kafka.bootstrap_servers = "a:0" (--set): must be host:port, or several of them separated by commas"#),
    ("kafka.bootstrap_servers=\"kafka:9092\"", r#"kafka.bootstrap_servers = "\"kafka:9092\"" (--set): must not begin or end with a quote, which would be part of the value"#),
    ("kafka.bootstrap_servers=kafka:9092 ", r#"kafka.bootstrap_servers = "kafka:9092 " (--set): must not begin or end with a blank or a line break"#),
    ("kafka.bootstrap_servers=kafka:9092\r", r#"kafka.bootstrap_servers = "kafka:9092\r" (--set): must not begin or end with a blank or a line break"#),
    ("kafka.bootstrap_servers=a:1,'b:2',c:3", r#"kafka.bootstrap_servers = "a:1,'b:2',c:3" (--set): must not contain quotes, which would be part of a host's name"#),
    ("kafka.bootstrap_servers=a:1;b:2", r#"kafka.bootstrap_servers = "a:1;b:2" (--set): must be separated by commas, not semicolons"#),
    ("kafka.bootstrap_servers=kafka://a:1", r#"kafka.bootstrap_servers = "kafka://a:1" (--set): must be host:port without a scheme; kafka.options.security.protocol turns on TLS"#),
    ("kafka.bootstrap_servers=a:1,SASL_SSL://b:2", r#"kafka.bootstrap_servers = "a:1,SASL_SSL://b:2" (--set): must be host:port without a scheme; kafka.options.security.protocol turns on TLS"#),
    ("kafka.bootstrap_servers=a:1 b:2", r#"kafka.bootstrap_servers = "a:1 b:2" (--set): must be host:port, or several of them separated by commas"#),
    ("kafka.bootstrap_servers=::1:9092", r#"kafka.bootstrap_servers = "::1:9092" (--set): must be host:port, or several of them separated by commas"#),
    ("log.level='info'", r#"log.level = "'info'" (--set): must not begin or end with a quote, which would be part of the value"#),
    ("limits.max_in_flight=5 ", r#"limits.max_in_flight = "5 " (--set): must not begin or end with a blank or a line break"#),
    ("kafka.options.sasl.username=\"u\"", r#"kafka.options.sasl.username = "\"u\"" (--set): must not begin or end with a quote, which would be part of the value"#),
    ("kafka.options.client.id=", r#"kafka.options.client.id = "" (--set): must not be empty"#),
    ("kafka.options.socket.timeout.ms=5000ms", r#"kafka.options.socket.timeout.ms = "5000ms" (--set): must be a decimal number; librdkafka would read this one as 5000"#),
    ("kafka.options.session.timeout.ms=9000", r#"kafka.options.session.timeout.ms = "9000" (--set): cannot be set: set streams.session_timeout_ms instead"#),
    ("kafka.options.transaction.timeout.ms=9000", r#"kafka.options.transaction.timeout.ms = "9000" (--set): cannot be set: set streams.transaction_timeout_ms instead"#),
    ("kafka.options.group.protocol=consumer", r#"kafka.options.group.protocol = "consumer" (--set): must be classic: the protocol `consumer` (KIP-848) takes neither streams.session_timeout_ms nor the assignment strategy of the streams"#),
    ("kafka.options.sasl.mechanisms=OAUTHBEARER", r#"kafka.options.sasl.mechanisms = "OAUTHBEARER" (--set): must be PLAIN or SCRAM-SHA-256 or SCRAM-SHA-512: GSSAPI (Kerberos) and OAUTHBEARER are not built in; instead of them, use SCRAM-SHA-512, PLAIN, or a client certificate with security.protocol=SSL"#),
    ("kafka.options.sasl.oauthbearer.method=oidc", r#"kafka.options.sasl.oauthbearer.method = "oidc" (--set): cannot be set: OAUTHBEARER is not built in; use SCRAM, PLAIN or a client certificate"#),
    ("kafka.options.security.protocol=sasl_ssl", r#"kafka.options.security.protocol = "sasl_ssl" (--set): requires kafka.options.sasl.mechanism"#),
    ("kafka.options.sasl.username=u", r#"kafka.options.sasl.username = "u" (--set): requires kafka.options.security.protocol = SASL_SSL or SASL_PLAINTEXT"#),
    ("kafka.options.ssl.ca.location=/ca", r#"kafka.options.ssl.ca.location = "/ca" (--set): requires kafka.options.security.protocol = SSL or SASL_SSL"#),
    ("kafka.options.security.protocol=TLS", r#"kafka.options.security.protocol = "TLS" (--set): must be one of PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"#),
    ("kafka.options.sasl.jaas.config=s3cret", "kafka.options.sasl.jaas.config = *** (--set): cannot be set: it is a property of Java clients; set sasl.username and sasl.password instead"),
    ("kafka.options.client.secret=e", "kafka.options.client.secret = *** (--set): rejected by librdkafka: no such configuration property"),
    ("kafka.options.acks=1", r#"kafka.options.acks = "1" (--set): cannot be set: a 200 promises that all in-sync replicas have the record"#),
    ("kafka.options.test.mock.num.brokers=1", r#"kafka.options.test.mock.num.brokers = "1" (--set): cannot be set: it replaces Kafka with a mock cluster"#),
    ("kafka.options.dr_msg_cb=1", r#"kafka.options.dr_msg_cb = "1" (--set): cannot be set: the properties of librdkafka are lower-case words joined by dots, and callbacks are not supported"#),
    ("kafka.options.lingr.ms=5", r#"kafka.options.lingr.ms = "5" (--set): rejected by librdkafka: no such configuration property; did you mean linger.ms?"#),
    ("kafka.options.compression.type=zip", r#"kafka.options.compression.type = "zip" (--set): rejected by librdkafka: Invalid value "zip" for configuration property "compression.codec""#),
    ("kafka.options.sasl.password=***", "kafka.options.sasl.password = *** (--set): must be the secret itself, not the mask that is printed instead"),
    ("topics.partitions=0", "topics.partitions = 0 (--set): must be at least 1"),
    ("topics.partitions=10001", "topics.partitions = 10001 (--set): must be at most 10000"),
    ("topics.replication_factor=32768", "topics.replication_factor = 32768 (--set): must be at most 32767"),
    ("topics.min_insync_replicas=4", "topics.min_insync_replicas = 4 (--set): must be at most topics.replication_factor (3), or nothing can be written"),
    ("topics.command_status.key=name", r#"topics.command_status.key = "name" (--set): must be `request-id` or `device-id`"#),
    ("topics.dead_letter.name=a/b", r#"topics.dead_letter.name = "a/b" (--set): results in the topic "iot.a/b", but a topic's name has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', and is neither "." nor "..""#),
    ("topics.dead_letter.name=notifications", r#"topics.dead_letter.name = "notifications" (--set): results in the topic "iot.notifications", which collides with another topic; Kafka treats '.' and '_' as the same character"#),
    ("admin.listen=127.0.0.1:8080", r#"admin.listen = "127.0.0.1:8080" (--set): must differ from http.listen (0.0.0.0:8080)"#),
    ("telemetry.otlp_endpoint=", r#"telemetry.otlp_endpoint = "" (--set): must not be empty"#),
    ("telemetry.otlp_endpoint=collector:4318", r#"telemetry.otlp_endpoint = "collector:4318" (--set): must be a URL such as http://collector:4318"#),
    ("telemetry.otlp_endpoint=grpc://collector:4317", r#"telemetry.otlp_endpoint = "grpc://collector:4317" (--set): must begin with http:// or https://"#),
    ("telemetry.otlp_endpoint=http://me:s3cret@collector", "telemetry.otlp_endpoint = *** (--set): must not contain credentials; use telemetry.headers"),
    ("telemetry.otlp_endpoint=http://collector/?a=b", r#"telemetry.otlp_endpoint = "http://collector/?a=b" (--set): must not contain a query or a fragment"#),
    ("telemetry.otlp_endpoint=http://collector/v1/traces/", r#"telemetry.otlp_endpoint = "http://collector/v1/traces/" (--set): must be the base URL of the collector; /v1/traces is added to it"#),
    ("telemetry.sampling_ratio=1.5", "telemetry.sampling_ratio = 1.5 (--set): must be from 0 to 1"),
    ("telemetry.sampling_ratio=-1", "telemetry.sampling_ratio = -1.0 (--set): must be from 0 to 1"),
    ("telemetry.sampling_ratio=10%", r#"telemetry.sampling_ratio = "10%" (--set): must be a number such as 0.5"#),
    ("telemetry.sampling_ratio=NaN", r#"telemetry.sampling_ratio = "NaN" (--set): must be a number such as 0.5"#),
    ("telemetry.headers=Authorization: Bearer s3cret", "telemetry.headers = *** (--set): requires telemetry.otlp_endpoint"),
    ("telemetry.headers=Bearer s3cret", "telemetry.headers = *** (--set): must be of the form Name: value"),
    ("telemetry.headers=Authorization:", "telemetry.headers = *** (--set): must be of the form Name: value"),
    ("telemetry.headers=Host: a", "telemetry.headers = *** (--set): must not name a header that follows from the request"),
    ("telemetry.headers=***", "telemetry.headers = *** (--set): must be the header itself, not the mask that is printed instead"),
    ("log.format=xml", r#"log.format = "xml" (--set): must be one of `text`, `json`, `auto`"#),
    ("log.level=INFO", r#"log.level = "INFO" (--set): must be one of `error`, `warn`, `info`, `debug`, `trace`"#),
    ("shutdown.deadline_ms=18000", "shutdown.deadline_ms = 18000 (--set): must be more than shutdown.announce_ms + http.answer_deadline_ms (5000 + 13000), or accepted pushes are cut off"),
    ("shutdown.announce_ms=12000", "shutdown.deadline_ms = 25000 (default): must be more than shutdown.announce_ms + http.answer_deadline_ms (12000 + 13000), or accepted pushes are cut off"),
];

/// Flags that are not valid, and the message for each.
#[rustfmt::skip]
const FLAGS: &[(&str, &str)] = &[
    ("http.listen", "--set http.listen: must be of the form key=value"),
    ("auth.token s3cret", "--set auth.token: must be of the form key=value"),
    ("http.lisen=1", "http.lisen (--set): unknown key; did you mean http.listen?"),
    ("=1", " (--set): unknown key"),
    ("kafka.options=1", "kafka.options (--set): must be a section with keys, not a value"),
];

/// Variables that are not valid, and the message for each.
#[rustfmt::skip]
const VARIABLES: &[(&str, &str, &str)] = &[
    ("NORTHBRIDGE__HTTP__ANSWER_DEADLINE_MS", "20000", "http.answer_deadline_ms = 20000 (environment variable NORTHBRIDGE__HTTP__ANSWER_DEADLINE_MS): must be at most 14000, because the sender times out after 15 s"),
    ("NORTHBRIDGE__HTTP__LISTN", "1", "NORTHBRIDGE__HTTP__LISTN (environment): unknown key; did you mean NORTHBRIDGE__HTTP__LISTEN?"),
    ("NORTHBRIDGE__AUTH__TOKENS_FILE", "/x", "NORTHBRIDGE__AUTH__TOKENS_FILE (environment): unknown key; did you mean NORTHBRIDGE__AUTH__TOKEN?"),
    ("NORTHBRIDGE_AUTH_TOKEN", "s3cret", "NORTHBRIDGE_AUTH_TOKEN (environment): unknown key; did you mean NORTHBRIDGE__AUTH__TOKEN?"),
    ("NORTHBRIDGE_AUTH__TOKEN_FILE", "/x", "NORTHBRIDGE_AUTH__TOKEN_FILE (environment): unknown key; did you mean NORTHBRIDGE__AUTH__TOKEN_FILE?"),
    ("NORTHBRIDGE_TLS_KEY_FILE", "/x", "NORTHBRIDGE_TLS_KEY_FILE (environment): unknown key; did you mean NORTHBRIDGE__TLS__KEY_FILE?"),
    ("NORTHBRIDGE_KAFKA_OPTIONS_SASL_PASSWORD_FILE", "/x", "NORTHBRIDGE_KAFKA_OPTIONS_SASL_PASSWORD_FILE (environment): unknown key; did you mean NORTHBRIDGE__KAFKA__OPTIONS__SASL__PASSWORD_FILE?"),
    ("NORTHBRIDGE__ZZZ", "1", "NORTHBRIDGE__ZZZ (environment): unknown key"),
    ("NORTHBRIDGE__HTTP", "1", "http (environment variable NORTHBRIDGE__HTTP): must be a section with keys, not a value"),
    ("NORTHBRIDGE__AUTH__TOKEN", "", "auth.token = *** (environment variable NORTHBRIDGE__AUTH__TOKEN): must not be empty"),
    ("NORTHBRIDGE__AUTH__TOKEN_FILE", "/nowhere/token", "auth.token (environment variable NORTHBRIDGE__AUTH__TOKEN_FILE): cannot read /nowhere/token: No such file or directory (os error 2)"),
    ("NORTHBRIDGE__KAFKA__OPTIONS__ACKS", "0", r#"kafka.options.acks = "0" (environment variable NORTHBRIDGE__KAFKA__OPTIONS__ACKS): cannot be set: a 200 promises that all in-sync replicas have the record"#),
    ("NORTHBRIDGE__KAFKA__OPTIONS__LINGER_MS", "5", r#"kafka.options.linger_ms = "5" (environment variable NORTHBRIDGE__KAFKA__OPTIONS__LINGER_MS): cannot be set: the properties of librdkafka are lower-case words joined by dots, and callbacks are not supported; did you mean linger.ms?"#),
];

/// Files that are not valid: name, contents, and the message for each.
#[rustfmt::skip]
const FILES: &[(&str, &str, &str)] = &[
    ("a.ini", "", "a.ini: must end in .toml, .yaml, .yml or .json"),
    ("a", "", "a: must end in .toml, .yaml, .yml or .json"),
    ("a.toml", "[log]\n[http\n", "a.toml: cannot be parsed: unclosed table, expected `]` at line 2"),
    ("a.toml", "x = 1\n\nauth.token = 's3cret", "a.toml: cannot be parsed: invalid literal string, expected `'` at line 3"),
    ("a.json", "{\n\"http\": }", "a.json: cannot be parsed: expected value at line 2 column 9"),
    ("a.yaml", "http:\n  a: [", "a.yaml: cannot be parsed: while parsing a node, did not find expected node content at byte 12 line 3 column 1"),
    ("a.yaml", "s3cret", "a.yaml: must contain sections with keys"),
    ("a.json", "[]", "a.json: must contain sections with keys"),
    ("a.toml", "[spool]\ndirectory = '/spool'\nafter_ms = 12000", "spool.after_ms = 12000 (a.toml): must be less than http.answer_deadline_ms (13000) by more than 3000, or pushes are answered 503 before they are spooled"),
    ("a.toml", "htpp.listen = 1", "htpp (a.toml): unknown key; did you mean http?"),
    ("a.toml", "[auth.basic]\nuser = 's3cret'", "auth.basic.user (a.toml): unknown key; did you mean auth.basic.username?"),
    ("a.toml", "max_connections = 1", "max_connections (a.toml): unknown key; did you mean limits.max_connections?"),
    ("a.toml", "auth = 's3cret'", "auth (a.toml): must be a section with keys, not a value"),
    ("a.toml", "http.listen = 8080", "http.listen = 8080 (a.toml): must be a string"),
    ("a.toml", "http.max_body_bytes = 1.5", "http.max_body_bytes = 1.5 (a.toml): must be a whole number"),
    ("a.toml", "http.max_body_bytes = true", "http.max_body_bytes = true (a.toml): must be a whole number"),
    ("a.toml", "http.paths = 1", "http.paths = 1 (a.toml): must be a string or a list of strings"),
    ("a.toml", "http.paths = [1]", "http.paths = [1] (a.toml): must be a string or a list of strings"),
    ("a.toml", "http.paths = []", "http.paths = [] (a.toml): must name at least one path"),
    ("a.toml", "auth.token = 12345", "auth.token = *** (a.toml): must be a string or a list of strings"),
    ("a.toml", "auth.token = ['a', 'b', 'c']", "auth.token = *** (a.toml): must contain at most two secrets, the old one and the new one"),
    ("a.toml", "auth.token = ['a', '']", "auth.token = *** (a.toml): must not be empty"),
    ("a.toml", "kafka.bootstrap_servers = [1]", "kafka.bootstrap_servers = [1] (a.toml): must be a string or a list of strings"),
    ("a.toml", "[kafka.options]\n'client.id' = 1e5", "kafka.options.client.id = 100000.0 (a.toml): must be quoted"),
    ("a.json", r#"{"kafka":{"options":{"client.id":1.10}}}"#, "kafka.options.client.id = 1.1 (a.json): must be quoted"),
    ("a.toml", "[kafka.options]\n'linger.ms' = 1\n'queue.buffering.max.ms' = 2", "kafka.options.linger.ms: kafka.options.linger.ms (a.toml) and kafka.options.queue.buffering.max.ms (a.toml) are both set; set only one of them"),
    ("a.toml", "[kafka.options]\n'security.protocol' = 'SSL'\n'ssl.certificate.location' = '/c'", r#"kafka.options.ssl.certificate.location = "/c" (a.toml): requires kafka.options.ssl.key.location or kafka.options.ssl.key.pem"#),
    ("a.yaml", "kafka: {options: {client.id: 007, sasl.password: on}}", "kafka.options.client.id = 007 (a.yaml): must be quoted, because YAML parsers change it\nkafka.options.sasl.password = *** (a.yaml): must be quoted, because YAML parsers change it"),
    ("a.yaml", "auth:\n  token: [abc, 1e5]", "auth.token = *** (a.yaml): must be quoted, because YAML parsers change it"),
    ("a.yaml", "limits: {max_in_flight: 1_000}", "limits.max_in_flight = 1_000 (a.yaml): must be a whole number in decimal digits"),
    ("a.toml", "telemetry.sampling_ratio = true", "telemetry.sampling_ratio = true (a.toml): must be a number such as 0.5"),
    ("a.yaml", "auth:", "auth (a.yaml): must not be null or empty, or the listener would be open by mistake; remove the key if it is not meant"),
    ("a.yaml", "auth: {basic: {username: u, password: }}", "auth.basic.password (a.yaml): must not be null or empty, or the listener would be open by mistake; remove the key if it is not meant"),
    ("a.toml", "auth.allowed_addresses = []", "auth.allowed_addresses (a.toml): must not be null or empty, or the listener would be open by mistake; remove the key if it is not meant"),
    ("a.json", r#"{"auth":{"token":""}}"#, "auth.token (a.json): must not be null or empty, or the listener would be open by mistake; remove the key if it is not meant"),
    ("a.toml", "l\0o\0", "a.toml: cannot be read: the text is not UTF-8 but probably UTF-16; save it as UTF-8"),
    ("a.toml", "[kafka.options]\n'linger.ms' = [1]", "kafka.options.linger.ms = [1] (a.toml): must be a single value"),
    ("a.toml", "auth.basic = {username = ['u', ''], password = ['p', 'q']}", "auth.basic.username = *** (a.toml): must not be empty"),
    ("a.toml", "auth.basic = {username = 'u', password = ['', 'q']}", "auth.basic.password = *** (a.toml): must not be empty"),
    ("a.toml", "auth.basic = {username = ['u', 'v'], password = ['p', 'q', 'r']}", "auth.basic.password = *** (a.toml): must contain at most two secrets, the old one and the new one"),
    ("a.toml", "auth.basic = {username = 'a:b', password = 'c'}", "auth.basic.username = *** (a.toml): must not contain a colon, which ends the username in Basic credentials"),
    ("a.toml", "auth.basic = {username = ['a', 'b'], password = 'c'}", "auth.basic.username = *** (a.toml): must be one for all passwords, or as many as there are passwords"),
];
