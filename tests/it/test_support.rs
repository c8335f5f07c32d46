//! The test support itself: its HTTP clients, its load generator and its child
//! processes.

use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::child::{self, ChildGuard, is_alive};
use crate::support::http::{Connection, RawConnection, Version, get, post};
use crate::support::load::{Answer, Load, Until};
use crate::support::mock::Mock;
use crate::support::{bodies, northbridge};

#[test]
fn a_raw_connection_reads_pipelined_responses_one_by_one() {
    let mut connection = RawConnection::open(echo_server());
    let request = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\n";
    connection.write(format!("{request}one{request}two"));
    assert_eq!(connection.read_response().text(), "one");
    let second = connection.read_response();
    assert_eq!(
        (second.status, second.header("content-length")),
        (200, Some("3"))
    );
    assert_eq!(second.text(), "two");
    connection.finish_writing();
    assert!(connection.is_closed());
}

#[test]
fn a_raw_connection_reads_a_chunked_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connection = RawConnection::open(listener.local_addr().unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n2\r\nne\r\n0\r\n\r\n";
    server.write_all(answer.as_bytes()).unwrap();
    drop(server);
    assert_eq!(connection.read_response().text(), "one");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_connection_is_reused_over_either_http_version() {
    let server = echo_server();
    for version in [Version::Http1, Version::Http2] {
        let mut connection = Connection::open(server, version).await.unwrap();
        for body in ["one", "two"] {
            let answer = connection.post("/", body).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, body));
        }
    }
    assert_eq!(post(server, "/", "three").await.text(), "three");
}

#[test]
fn getting_from_an_address_that_is_not_listening_returns_none() {
    assert!(get("127.0.0.1:1".parse().unwrap(), "/").is_none());
}

#[test]
fn a_load_reports_every_push_once() {
    let load = Load {
        rate_per_s: 1000,
        until: Until::Pushes(100),
        ..Load::to(echo_server())
    };
    let report = load.start().finish();
    assert_eq!(
        report.answers().into_iter().collect::<Vec<_>>(),
        [("200".to_owned(), 100)]
    );
    let mut stored: Vec<_> = report.acknowledged().map(|push| &push.body[..]).collect();
    assert!(report.missing_from(stored.iter().copied()).is_empty());
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), 100);
    stored.pop();
    assert_eq!(report.missing_from(stored).len(), 1);
}

#[test]
fn a_load_reconnects_after_the_server_closes_a_connection() {
    let load = Load {
        path: "/close-every-tenth".to_owned(),
        rate_per_s: 1000,
        connections: 2,
        ..Load::to(echo_server())
    };
    let running = load.start();
    running.wait_for_answers(50);
    let report = running.stop();
    assert!(
        report
            .pushes
            .iter()
            .all(|push| push.answer == Answer::Status(200))
    );
}

#[test]
fn a_load_reports_unanswered_pushes() {
    let load = Load {
        until: Until::Pushes(3),
        ..Load::to("127.0.0.1:1".parse().unwrap())
    };
    let report = load.start().finish();
    assert_eq!(report.acknowledged().count(), 0);
    assert_eq!(report.pushes.len(), 3);
}

#[test]
fn generated_bodies_match_the_published_format() {
    let confirm: Value = serde_json::from_str(&bodies::message_confirm("r", "d", "sent")).unwrap();
    assert_eq!(confirm["header"]["requestId"], "r");
    assert_eq!(confirm["header"]["from"], "/devices/d/services/Switch");
    let upgrade: Value = serde_json::from_str(&bodies::upgrade_result("d", "o", "FAIL")).unwrap();
    assert_eq!(upgrade.as_object().unwrap().len(), 13);
    assert_eq!(upgrade["swUpgradeResult"], "FAIL");
}

#[test]
fn a_child_process_reports_its_exit_code() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exit $CODE"]).env("CODE", "75");
    assert_eq!(ChildGuard::spawn(&shell, Stdio::inherit()).wait(), 75);
}

#[test]
fn dropping_the_guard_kills_a_stopped_child() {
    let mut sleep = Command::new("sleep");
    sleep.arg("3600");
    let child = ChildGuard::spawn(&sleep, Stdio::inherit());
    let pid = child.pid();
    child.signal(Signal::STOP);
    assert!(is_alive(pid));
    drop(child);
    assert!(!is_alive(pid));
}

#[test]
fn metrics_are_parsed_by_name_and_labels() {
    let text = "# TYPE a counter\na{b=\"c d\"} 2\ne 0.5\n";
    let metrics = northbridge::parse_metrics(text);
    assert_eq!(metrics["a{b=\"c d\"}"].to_bits(), 2f64.to_bits());
    assert_eq!(metrics.len(), 2);
}

/// Starts a server that echoes request bodies until the test process ends.
fn echo_server() -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // The client closes at the end of the test; not a failure.
                    let _ = server
                        .serve_connection(TokioIo::new(stream), service_fn(echo))
                        .await;
                });
            }
        });
    });
    address.recv().unwrap()
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    let closes = request.uri().path() == "/close-every-tenth"
        && ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(10);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::builder();
    if closes {
        response = response.header("connection", "close");
    }
    Ok(response.body(Full::new(body)).unwrap())
}

#[test]
fn a_mock_cluster_goes_down_while_processes_start() {
    let mock = Mock::start();
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                child::run(&mut Command::new("true")).unwrap();
            }
        });
        for _ in 0..10 {
            mock.go_down();
            mock.come_back();
            thread::sleep(Duration::from_millis(10));
        }
        has_ended.store(true, Ordering::Relaxed);
    });
}
