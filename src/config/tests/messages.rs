//! Every message of the configuration, word for word.

use super::*;

#[test]
fn each_value_that_cannot_be_used_has_its_message() {
    for (text, expected) in VALUES.iter().copied() {
        assert_eq!(message(&overrides(&[text])), expected, "{text}");
    }
}

#[test]
fn each_flag_that_sets_nothing_has_its_message() {
    for (text, expected) in FLAGS.iter().copied() {
        assert_eq!(message(&overrides(&[text])), expected, "{text}");
    }
}

#[test]
fn each_variable_that_cannot_be_used_has_its_message() {
    for (variable, text, expected) in VARIABLES.iter().copied() {
        assert_eq!(message(&environment(&[(variable, text)])), expected);
    }
}

#[test]
fn a_value_and_a_file_for_the_same_key_are_an_error_in_either_order() {
    let value = ("NORTHBRIDGE__AUTH__TOKEN", "s3cret");
    let file = ("NORTHBRIDGE__AUTH__TOKEN_FILE", "/nowhere");
    let expected = "auth.token: NORTHBRIDGE__AUTH__TOKEN and NORTHBRIDGE__AUTH__TOKEN_FILE \
                    are both set; only one of them may be";
    assert_eq!(message(&environment(&[value, file])), expected);
    let other_order = message(&environment(&[file, value]));
    assert!(other_order.ends_with(expected), "{other_order}");
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
fn each_file_that_cannot_be_used_has_its_message() {
    for (name, text, expected) in FILES.iter().copied() {
        assert_eq!(
            load_file(name, text),
            Err(expected.to_owned()),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_has_its_message() {
    assert_eq!(
        message(&files(&[PathBuf::from("/nowhere/a.toml")])),
        "/nowhere/a.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let sources = overrides(&["http.lisen=1", "log.level=x", "limits.max_in_flight=0"]);
    let error = Settings::load(&sources).unwrap_err();
    assert_eq!(error.problems.len(), 3);
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn every_rule_between_settings_is_told_at_once() {
    let sources = overrides(&["tls.key_file=/k", "topics.min_insync_replicas=9"]);
    assert_eq!(Settings::load(&sources).unwrap_err().problems.len(), 2);
}

#[test]
fn every_property_that_holds_the_promise_is_refused() {
    for name in options::FORBIDDEN.iter().flat_map(|(names, _)| *names) {
        let found = message(&overrides(&[&format!("kafka.options.{name}=1")]));
        assert!(found.contains("must not be set: "), "{found}");
    }
}

/// Settings that cannot be used, and what is said of each.
#[rustfmt::skip]
const VALUES: &[(&str, &str)] = &[
    ("http.listen=8080", r#"http.listen = "8080" (--set): must be an address with a port, such as 0.0.0.0:8080 or [::]:8080"#),
    ("http.paths=", r#"http.paths = [""] (--set): "" must begin with "/""#),
    ("http.paths=a", r#"http.paths = ["a"] (--set): "a" must begin with "/""#),
    ("http.paths=/a?b", r#"http.paths = ["/a?b"] (--set): "/a?b" must have no query and no fragment"#),
    ("http.paths=/ä", r#"http.paths = ["/ä"] (--set): "/ä" must hold visible ASCII characters alone; others are percent-encoded"#),
    ("http.paths=/a{token}", r#"http.paths = ["/a{token}"] (--set): "/a{token}" must hold no braces but those of a whole segment {token}"#),
    ("http.paths=/{id}", r#"http.paths = ["/{id}"] (--set): "/{id}" must hold no braces but those of a whole segment {token}"#),
    ("http.paths=/a,/a/", r#"http.paths = ["/a","/a/"] (--set): "/a/" is there twice; a trailing slash is the same path"#),
    ("http.paths=/{token}/{token}", "http.paths = [\"/{token}/{token}\"] (--set): \"/{token}/{token}\" must hold {token} only once\nhttp.paths = [\"/{token}/{token}\"] (--set): {token} needs auth.token, which is not set"),
    ("http.paths=/{token}", r#"http.paths = ["/{token}"] (--set): {token} needs auth.token, which is not set"#),
    ("http.max_body_bytes=0", "http.max_body_bytes = 0 (--set): must be at least 1"),
    ("http.max_body_bytes=16777217", "http.max_body_bytes = 16777217 (--set): must be at most 16777216"),
    ("http.max_head_bytes=8191", "http.max_head_bytes = 8191 (--set): must be at least 8192"),
    ("http.max_head_bytes=1048577", "http.max_head_bytes = 1048577 (--set): must be at most 1048576"),
    ("http.header_timeout_ms=0", "http.header_timeout_ms = 0 (--set): must be at least 1"),
    ("http.header_timeout_ms=5s", r#"http.header_timeout_ms = "5s" (--set): must be a whole number"#),
    ("http.header_timeout_ms=-1", r#"http.header_timeout_ms = "-1" (--set): must be a whole number"#),
    ("http.header_timeout_ms=4294967296", "http.header_timeout_ms = 4294967296 (--set): must be at most 4294967295"),
    ("http.answer_deadline_ms=20000", "http.answer_deadline_ms = 20000 (--set): must be at most 14000, because the sender gives up after 15 s"),
    ("http.answer_deadline_ms=5500", "http.answer_deadline_ms = 5500 (--set): must be more than limits.admission_timeout_ms + http.body_timeout_ms = 500 + 5000, or no time is left for Kafka"),
    ("http.unreadable=drop", r#"http.unreadable = "drop" (--set): must be `dead-letter` or `reject`"#),
    ("http.validation=lax", r#"http.validation = "lax" (--set): must be `tolerant` or `strict`"#),
    ("tls.key_file=", r#"tls.key_file = "" (--set): must not be empty"#),
    ("tls.key_file=/k", r#"tls.key_file = "/k" (--set): needs tls.certificate_file as well"#),
    ("tls.certificate_file=/c", r#"tls.certificate_file = "/c" (--set): needs tls.key_file as well"#),
    ("tls.client_ca_file=/a", r#"tls.client_ca_file = "/a" (--set): needs tls.certificate_file and tls.key_file"#),
    ("auth.token=", "auth.token = *** (--set): must not be empty"),
    ("auth.token=***", "auth.token = *** (--set): must be the secret itself, not the mask that stands for it"),
    ("auth.basic.username=u", "auth.basic.username = *** (--set): needs auth.basic.password as well"),
    ("auth.basic.password=p", "auth.basic.password = *** (--set): needs auth.basic.username as well"),
    ("auth.allowed_addresses=", r#"auth.allowed_addresses = [""] (--set): must hold addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32"#),
    ("auth.trusted_proxies=10.0.0.0/33", r#"auth.trusted_proxies = ["10.0.0.0/33"] (--set): must hold addresses such as 192.0.2.7 or networks such as 192.0.2.0/24 or 2001:db8::/32"#),
    ("auth.client_address=x-forwarded-for", r#"auth.client_address = "x-forwarded-for" (--set): needs auth.trusted_proxies, or any client could claim any address"#),
    ("auth.client_address=proxy-protocol", r#"auth.client_address = "proxy-protocol" (--set): needs auth.trusted_proxies, or any client could claim any address"#),
    ("auth.client_address=header", r#"auth.client_address = "header" (--set): must be one of `connection`, `x-forwarded-for`, `proxy-protocol`"#),
    ("limits.max_connections=0", "limits.max_connections = 0 (--set): must be at least 1"),
    ("limits.max_in_flight_bytes=1048575", "limits.max_in_flight_bytes = 1048575 (--set): must be at least http.max_body_bytes = 1048576, or the longest body is never admitted"),
    ("kafka.bootstrap_servers=", r#"kafka.bootstrap_servers = "" (--set): must not be empty"#),
    ("kafka.bootstrap_servers=a:1,b", r#"kafka.bootstrap_servers = "a:1,b" (--set): must be host:port, or several of them separated by commas"#),
    ("kafka.bootstrap_servers=a:0", r#"kafka.bootstrap_servers = "a:0" (--set): must be host:port, or several of them separated by commas"#),
    ("kafka.options.acks=1", r#"kafka.options.acks = "1" (--set): must not be set: an answer 200 promises that all in-sync replicas have the record"#),
    ("kafka.options.test.mock.num.brokers=1", r#"kafka.options.test.mock.num.brokers = "1" (--set): must not be set: it puts a mock in the place of Kafka"#),
    ("kafka.options.dr_msg_cb=1", r#"kafka.options.dr_msg_cb = "1" (--set): must not be set: the names of librdkafka's properties are lower-case words joined by dots, and callbacks cannot be set"#),
    ("kafka.options.lingr.ms=5", r#"kafka.options.lingr.ms = "5" (--set): librdkafka does not take it: No such configuration property: "lingr.ms""#),
    ("kafka.options.compression.type=zip", r#"kafka.options.compression.type = "zip" (--set): librdkafka does not take it: Invalid value "zip" for configuration property "compression.codec""#),
    ("kafka.options.sasl.password=***", "kafka.options.sasl.password = *** (--set): must be the secret itself, not the mask that stands for it"),
    ("topics.partitions=0", "topics.partitions = 0 (--set): must be at least 1"),
    ("topics.partitions=10001", "topics.partitions = 10001 (--set): must be at most 10000"),
    ("topics.replication_factor=32768", "topics.replication_factor = 32768 (--set): must be at most 32767"),
    ("topics.min_insync_replicas=4", "topics.min_insync_replicas = 4 (--set): must be at most topics.replication_factor = 3, or nothing can be written"),
    ("topics.command_status.key=name", r#"topics.command_status.key = "name" (--set): must be `request-id` or `device-id`"#),
    ("topics.dead_letter.name=a/b", r#"topics.dead_letter.name = "a/b" (--set): makes the topic "iot.a/b", but names of topics have 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', and are neither "." nor "..""#),
    ("topics.dead_letter.name=notifications", r#"topics.dead_letter.name = "notifications" (--set): makes the topic "iot.notifications", which another key names already; Kafka holds '.' and '_' for the same"#),
    ("admin.listen=127.0.0.1:8080", r#"admin.listen = "127.0.0.1:8080" (--set): must differ from http.listen = 0.0.0.0:8080"#),
    ("log.format=xml", r#"log.format = "xml" (--set): must be one of `text`, `json`, `auto`"#),
    ("log.level=INFO", r#"log.level = "INFO" (--set): must be one of `error`, `warn`, `info`, `debug`, `trace`"#),
    ("shutdown.deadline_ms=18000", "shutdown.deadline_ms = 18000 (--set): must be more than shutdown.announce_ms + http.answer_deadline_ms = 5000 + 13000, or accepted pushes are cut off"),
    ("shutdown.announce_ms=12000", "shutdown.deadline_ms = 25000 (default): must be more than shutdown.announce_ms + http.answer_deadline_ms = 12000 + 13000, or accepted pushes are cut off"),
];

/// Flags that set nothing, and what is said of each.
#[rustfmt::skip]
const FLAGS: &[(&str, &str)] = &[
    ("http.listen", "--set http.listen: must be key=value"),
    ("auth.token s3cret", "--set auth.token: must be key=value"),
    ("http.lisen=1", "http.lisen (--set): unknown key; did you mean http.listen?"),
    ("=1", " (--set): unknown key"),
    ("kafka.options=1", "kafka.options (--set): must be a section with keys, not a value"),
];

/// Variables that cannot be used, and what is said of each.
#[rustfmt::skip]
const VARIABLES: &[(&str, &str, &str)] = &[
    ("NORTHBRIDGE__HTTP__ANSWER_DEADLINE_MS", "20000", "http.answer_deadline_ms = 20000 (environment variable NORTHBRIDGE__HTTP__ANSWER_DEADLINE_MS): must be at most 14000, because the sender gives up after 15 s"),
    ("NORTHBRIDGE__HTTP__LISTN", "1", "NORTHBRIDGE__HTTP__LISTN (environment): unknown key; did you mean NORTHBRIDGE__HTTP__LISTEN?"),
    ("NORTHBRIDGE__AUTH__TOKENS_FILE", "/x", "NORTHBRIDGE__AUTH__TOKENS_FILE (environment): unknown key; did you mean NORTHBRIDGE__AUTH__TOKEN?"),
    ("NORTHBRIDGE__ZZZ", "1", "NORTHBRIDGE__ZZZ (environment): unknown key"),
    ("NORTHBRIDGE__HTTP", "1", "http (environment variable NORTHBRIDGE__HTTP): must be a section with keys, not a value"),
    ("NORTHBRIDGE__AUTH__TOKEN", "", "auth.token = *** (environment variable NORTHBRIDGE__AUTH__TOKEN): must not be empty"),
    ("NORTHBRIDGE__AUTH__TOKEN_FILE", "/nowhere/token", "auth.token (environment variable NORTHBRIDGE__AUTH__TOKEN_FILE): cannot read /nowhere/token: No such file or directory (os error 2)"),
    ("NORTHBRIDGE__KAFKA__OPTIONS__ACKS", "0", r#"kafka.options.acks = "0" (environment variable NORTHBRIDGE__KAFKA__OPTIONS__ACKS): must not be set: an answer 200 promises that all in-sync replicas have the record"#),
    ("NORTHBRIDGE__KAFKA__OPTIONS__LINGER_MS", "5", r#"kafka.options.linger_ms = "5" (environment variable NORTHBRIDGE__KAFKA__OPTIONS__LINGER_MS): must not be set: the names of librdkafka's properties are lower-case words joined by dots, and callbacks cannot be set"#),
];

/// Files that cannot be used: name, contents, and what is said of each.
#[rustfmt::skip]
const FILES: &[(&str, &str, &str)] = &[
    ("a.ini", "", "a.ini: must end in .toml, .yaml, .yml or .json"),
    ("a", "", "a: must end in .toml, .yaml, .yml or .json"),
    ("a.toml", "[log]\n[http\n", "a.toml: cannot be parsed: unclosed table, expected `]` at line 2"),
    ("a.toml", "x = 1\n\nauth.token = 's3cret", "a.toml: cannot be parsed: invalid literal string, expected `'` at line 3"),
    ("a.json", "{\n\"http\": }", "a.json: cannot be parsed: expected value at line 2 column 9"),
    ("a.yaml", "http:\n  a: [", "a.yaml: cannot be parsed: while parsing a node, did not find expected node content at byte 12 line 3 column 1"),
    ("a.yaml", "s3cret", "a.yaml: must hold sections with keys"),
    ("a.json", "[]", "a.json: must hold sections with keys"),
    ("a.toml", "htpp.listen = 1", "htpp (a.toml): unknown key; did you mean http?"),
    ("a.toml", "[auth.basic]\nuser = 's3cret'", "auth.basic.user (a.toml): unknown key; did you mean auth.basic.username?"),
    ("a.toml", "max_connections = 1", "max_connections (a.toml): unknown key; did you mean limits.max_connections?"),
    ("a.toml", "auth = 's3cret'", "auth (a.toml): must be a section with keys, not a value"),
    ("a.toml", "http.listen = 8080", "http.listen = 8080 (a.toml): must be a text"),
    ("a.toml", "http.max_body_bytes = 1.5", "http.max_body_bytes = 1.5 (a.toml): must be a whole number"),
    ("a.toml", "http.max_body_bytes = true", "http.max_body_bytes = true (a.toml): must be a whole number"),
    ("a.toml", "http.paths = 1", "http.paths = 1 (a.toml): must be a text or a list of texts"),
    ("a.toml", "http.paths = [1]", "http.paths = [1] (a.toml): must be a text or a list of texts"),
    ("a.toml", "http.paths = []", "http.paths = [] (a.toml): must name at least one path"),
    ("a.toml", "auth.token = 12345", "auth.token = *** (a.toml): must be a text or a list of texts"),
    ("a.toml", "auth.token = ['a', 'b', 'c']", "auth.token = *** (a.toml): must hold at most two secrets, the old and the new one"),
    ("a.toml", "auth.token = ['a', '']", "auth.token = *** (a.toml): must not be empty"),
    ("a.toml", "kafka.bootstrap_servers = [1]", "kafka.bootstrap_servers = [1] (a.toml): must be a text or a list of texts"),
    ("a.toml", "[kafka.options]\n'linger.ms' = [1]", "kafka.options.linger.ms = [1] (a.toml): must be a single value"),
    ("a.toml", "auth.basic = {username = 'a:b', password = 'c'}", "auth.basic.username = *** (a.toml): must not hold a colon, which ends the username in Basic credentials"),
    ("a.toml", "auth.basic = {username = ['a', 'b'], password = 'c'}", "auth.basic.username = *** (a.toml): must be one for all passwords, or as many as there are passwords"),
];
