//! Credentials: Basic, a token in the URL, both, rotation, all protections
//! combined; and that secrets never leak.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::protected_listener::{
    Headers, PATH, assert_counts, failed_start, push, push_http2, push_tls, tls_ingress,
};
use crate::support::certificates::Certificates;
use crate::support::http::get;
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

type Settings<'a> = &'a [(&'a str, &'a str)];

const BASIC: [(&str, &str); 2] = [
    ("auth.basic.username", "platform"),
    ("auth.basic.password", "open:sesame"),
];

#[test]
fn valid_basic_credentials_are_admitted_and_others_are_challenged() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&BASIC);
    let right = basic("platform:open:sesame");
    assert_eq!(
        status(&northbridge, PATH, &[("authorization", &right)]),
        200
    );
    let wrong = [
        None,
        Some(basic("platform:open")),
        Some(basic("platform:")),
        Some(basic("Platform:open:sesame")),
        Some(basic(":open:sesame")),
        Some("Basic".to_owned()),
        Some("Basic platform:open:sesame".to_owned()),
        Some(right.replace("Basic", "Bearer")),
    ];
    for shown in &wrong {
        let headers = shown.as_deref().map(|line| ("authorization", line));
        let answer = push(northbridge.address(), PATH, headers.as_slice());
        assert_eq!(answer.status, 401, "{shown:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/problem+json"));
    }
    assert_counts(&northbridge, &mock, 1, wrong.len());
}

#[test]
fn old_and_new_basic_credentials_are_valid_during_a_rotation() {
    let files = Secrets::new();
    let one_name = files.of(&["platform"]);
    let names = files.of(&["old-name", "new-name"]);
    let passwords = files.of(&["old-word", "new-word"]);
    let rows = [
        (&one_name, "platform:old-word", 200),
        (&one_name, "platform:new-word", 200),
        (&one_name, "platform:old-word\nnew-word", 401),
        (&names, "old-name:old-word", 200),
        (&names, "new-name:new-word", 200),
        (&names, "old-name:new-word", 401),
    ];
    let mock = Mock::start();
    for usernames in [&one_name, &names] {
        let northbridge = mock.ingress(&[
            ("auth.basic.username_file", text(usernames)),
            ("auth.basic.password_file", text(&passwords)),
        ]);
        for (_, credentials, expected) in rows.iter().filter(|row| row.0 == usernames) {
            let shown = basic(credentials);
            let found = status(&northbridge, PATH, &[("authorization", &shown)]);
            assert_eq!(found, *expected, "{credentials}");
        }
    }
}

#[test]
fn a_token_in_the_query_is_accepted() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[("auth.token", "s3cret/+")]);
    let rows = [
        ("/notifications?token=s3cret/+", 200),
        ("/notifications?token=s3cret%2F%2B", 200),
        ("/notifications/?app=1&token=s3cret/+", 200),
        ("/notifications?token=s3cret", 401),
        ("/notifications?token=", 401),
        ("/notifications?Token=s3cret/+", 401),
        ("/notifications", 401),
    ];
    check(&northbridge, &rows);
    assert_counts(&northbridge, &mock, 3, 4);
}

#[test]
fn a_token_in_the_path_is_accepted() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[
        ("auth.token", "s3cret"),
        ("http.paths", "/push/{token},/push/{token}/upgrades"),
    ]);
    let rows = [
        ("/push/s3cret", 200),
        ("/push/s3cret/", 200),
        ("/push/s3cret/upgrades", 200),
        ("/push/%733cret", 200),
        ("/push/wrong", 401),
        ("/push/wrong?token=s3cret", 401),
        ("/push/wrong/upgrades", 401),
        ("/push/{token}", 401),
        ("/push", 404),
        ("/push/", 404),
        ("/push/s3cret/other", 404),
    ];
    check(&northbridge, &rows);
    assert_counts(&northbridge, &mock, 4, 4);
}

#[test]
fn a_wrong_token_is_answered_401_without_a_challenge() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[("auth.token", "s3cret")]);
    let answer = push(northbridge.address(), PATH, &[]);
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, None)
    );
}

#[test]
fn old_and_new_tokens_are_valid_during_a_rotation() {
    let (mock, files) = (Mock::start(), Secrets::new());
    let tokens = files.of(&["old", "new"]);
    let northbridge = mock.ingress(&[
        ("auth.token_file", text(&tokens)),
        ("http.paths", "/notifications,/push/{token}"),
    ]);
    let rows = [
        ("/notifications?token=old", 200),
        ("/notifications?token=new", 200),
        ("/push/old", 200),
        ("/push/new", 200),
        ("/push/old%0Anew", 401),
        ("/push/oldnew", 401),
    ];
    check(&northbridge, &rows);
}

#[test]
fn basic_credentials_and_token_are_both_required_if_both_are_configured() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[BASIC[0], BASIC[1], ("auth.token", "s3cret")]);
    let right = basic("platform:open:sesame");
    let wrong = basic("platform:guess");
    let rows: [(&str, Headers<'_>, u16); 5] = [
        (
            "/notifications?token=s3cret",
            &[("authorization", &right)],
            200,
        ),
        (
            "/notifications?token=guess",
            &[("authorization", &right)],
            401,
        ),
        (
            "/notifications?token=s3cret",
            &[("authorization", &wrong)],
            401,
        ),
        ("/notifications?token=s3cret", &[], 401),
        ("/notifications", &[("authorization", &right)], 401),
    ];
    for (path, headers, expected) in rows {
        assert_eq!(status(&northbridge, path, headers), expected, "{path}");
    }
    assert_counts(&northbridge, &mock, 1, 4);
}

#[tokio::test]
async fn every_protection_is_enforced_if_all_are_combined() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let client_ca = certificates.ca_file();
    let northbridge = tls_ingress(
        &mock,
        &certificates,
        &[
            BASIC[0],
            BASIC[1],
            ("tls.client_ca_file", text(&client_ca)),
            ("auth.token", "s3cret"),
            ("auth.allowed_addresses", "192.0.2.0/24"),
            ("auth.client_address", "x-forwarded-for"),
            ("auth.trusted_proxies", "127.0.0.1"),
        ],
    );
    let credentials = ("authorization", &*basic("platform:open:sesame"));
    let inside = ("x-forwarded-for", "192.0.2.1");
    let outside = ("x-forwarded-for", "203.0.113.1");
    let with_token = "/notifications?token=s3cret";
    let rows: [(&str, Headers<'_>, u16); 4] = [
        (with_token, &[credentials, inside], 200),
        (PATH, &[credentials, inside], 401),
        (with_token, &[inside], 401),
        (with_token, &[credentials, outside], 403),
    ];
    for (path, headers, expected) in rows {
        let client = certificates.client_with_certificate();
        let pushed = push_tls(northbridge.address(), client, path, headers).await;
        assert_eq!(pushed.unwrap().status, expected, "{path} {headers:?}");
    }
    let without_certificate = certificates.client();
    let headers = [credentials, inside];
    let pushed = push_tls(
        northbridge.address(),
        without_certificate,
        with_token,
        &headers,
    )
    .await;
    assert!(pushed.is_err(), "without a client certificate");
    assert_counts(&northbridge, &mock, 1, 3);
}

// The drain waits for the clients' connections, which need a thread of their own.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_never_appear_in_logs_records_or_metrics() {
    let mock = Mock::start();
    let settings = [
        BASIC[0],
        ("auth.basic.password", "pass-hidden"),
        ("auth.token", "token-hidden"),
        ("http.paths", "/notifications,/push/{token}"),
        ("log.level", "trace"),
    ];
    let northbridge = mock.ingress(&settings);
    let right = basic("platform:pass-hidden");
    // A rejected credential may be the real one with a typo.
    let wrong = basic("platform:guess-hidden");
    let paths = [
        ("/push/token-hidden", &right, 200),
        ("/notifications?token=token-hidden", &right, 200),
        ("/push/guess-hidden", &right, 401),
        ("/notifications?token=guess-hidden", &wrong, 401),
        ("/other/token-hidden", &right, 404),
    ];
    let mut answers = Vec::new();
    for (path, credentials, expected) in paths {
        let headers = [("authorization", credentials.as_str())];
        for answer in [
            push(northbridge.address(), path, &headers),
            push_http2(northbridge.address(), path, &headers).await,
        ] {
            assert_eq!(answer.status, expected, "{path}");
            answers.push(format!("{:?} {}", answer.headers, answer.text()));
        }
    }
    let metrics = get(northbridge.admin_address(), "/metrics").unwrap().text();
    let records = mock.all_records();
    let log = whole_log(&northbridge);
    for message in ["\"push stored\"", "\"push refused\""] {
        assert!(log.contains(message), "the log has no {message}");
    }
    for shown in [metrics, log, answers.concat(), format!("{records:?}")] {
        for secret in ["hidden", &right, &wrong] {
            let encoded = secret.trim_start_matches("Basic ");
            assert!(!shown.contains(encoded), "{encoded} in {shown}");
        }
    }
    let mut sources: Vec<_> = records
        .iter()
        .map(|(_, record)| record.header("ce_source").unwrap())
        .collect();
    sources.sort_unstable();
    let [plain, with_token] = [PATH, "/push/%7Btoken%7D"];
    assert_eq!(sources, [plain, plain, with_token, with_token]);
}

#[test]
fn invalid_credentials_settings_fail_the_start_and_name_the_key() {
    let files = Secrets::new();
    let (empty, blank) = (files.of(&[]), files.of(&["", ""]));
    let three = files.of(&["hidden-1", "hidden-2", "hidden-3"]);
    let two = files.of(&["hidden-1", "hidden-2"]);
    let missing = files.directory.path().join("missing");
    let username = BASIC[0];
    let rows: [(Settings<'_>, &[&str]); 13] = [
        (&[("auth.token", "")], &["auth.token", "must not be empty"]),
        (
            &[username, ("auth.basic.password", "")],
            &["auth.basic.password", "must not be empty"],
        ),
        (
            &[("auth.token_file", text(&empty))],
            &["auth.token", "must not be empty"],
        ),
        (
            &[("auth.token_file", text(&blank))],
            &["auth.token", "must not be empty"],
        ),
        (
            &[("auth.token_file", text(&missing))],
            &["auth.token", text(&missing), "cannot read"],
        ),
        (
            &[("auth.token_file", text(files.directory.path()))],
            &["auth.token", text(files.directory.path()), "cannot read"],
        ),
        (
            &[username, ("auth.basic.password_file", text(&missing))],
            &["auth.basic.password", text(&missing), "cannot read"],
        ),
        (
            &[("auth.token_file", text(&three))],
            &["auth.token", "at most two"],
        ),
        (&[username], &["auth.basic.username", "auth.basic.password"]),
        (
            &[("auth.basic.password", "hidden")],
            &["auth.basic.password", "auth.basic.username"],
        ),
        (
            &[
                ("auth.basic.username", "hidden:name"),
                ("auth.basic.password", "hidden"),
            ],
            &["auth.basic.username", "colon"],
        ),
        (
            &[
                ("auth.basic.username_file", text(&two)),
                ("auth.basic.password", "hidden"),
            ],
            &["auth.basic.username", "as many as there are passwords"],
        ),
        (
            &[("http.paths", "/push/{token}")],
            &["http.paths", "auth.token"],
        ),
    ];
    for (settings, expected) in rows {
        let message = failed_start(settings);
        for part in expected {
            assert!(message.contains(part), "{part} not in {message}");
        }
        assert!(!message.contains("hidden"), "{message}");
    }
}

/// Secret files with one secret per line.
struct Secrets {
    directory: TempDir,
}

impl Secrets {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn of(&self, lines: &[&str]) -> PathBuf {
        let count = fs::read_dir(self.directory.path()).unwrap().count();
        let file = self.directory.path().join(format!("secrets-{count}"));
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&file, lines.concat()).unwrap();
        file
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

fn status(northbridge: &Northbridge, path: &str, headers: Headers<'_>) -> u16 {
    push(northbridge.address(), path, headers).status
}

fn check(northbridge: &Northbridge, rows: &[(&str, u16)]) {
    for (path, expected) in rows {
        assert_eq!(status(northbridge, path, &[]), *expected, "{path}");
    }
}

/// Drains the process and returns its complete log.
fn whole_log(northbridge: &Northbridge) -> String {
    northbridge.signal(Signal::TERM);
    northbridge.wait_for_message("drained; all accepted pushes are settled");
    assert_eq!(northbridge.wait(), 0);
    northbridge.log().join("\n")
}
