use super::super::protocol;
use super::super::strangers::Strangers;
use super::*;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{sleep, timeout};

const TIMEOUTS: IdleTimeouts = IdleTimeouts {
    header: Duration::from_secs(5),
    keep_alive: Duration::from_secs(75),
    write: Duration::from_secs(10),
};

/// A connection on a paused clock, which advances only while all tasks wait.
struct Connection {
    activity: Arc<Activity>,
    server: Watched<DuplexStream>,
    client: DuplexStream,
}

impl Connection {
    fn http1() -> Self {
        Self::new(Protocol::Http1)
    }

    fn http2() -> Self {
        Self::new(Protocol::Http2)
    }

    fn new(protocol: Protocol) -> Self {
        let activity = new_activity();
        let (client, server) = duplex(64);
        let first = FirstBytes::default();
        let server = Watched::new(server, protocol, first, Arc::clone(&activity));
        Self {
            activity,
            server,
            client,
        }
    }

    async fn receive(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
        let mut received = vec![0; bytes.len()];
        self.server.read_exact(&mut received).await.unwrap();
        assert_eq!(received, bytes);
    }

    async fn request(&mut self, bytes: &[u8], duration: Duration) {
        self.receive(bytes).await;
        let _request = self.activity.request_started();
        sleep(duration).await;
    }
}

fn new_activity() -> Arc<Activity> {
    Activity::new(TIMEOUTS, Arc::new(Strangers::new(0).register()))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Why and after how many seconds from now the connection expires.
async fn expiry(activity: &Activity) -> (Expired, u64) {
    let start = Instant::now();
    let reason = timeout(seconds(86_400), activity.expired()).await.unwrap();
    (reason, start.elapsed().as_secs())
}

async fn stays_open(activity: &Activity, duration: Duration) -> bool {
    timeout(duration, activity.expired()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_expires_after_the_header_timeout() {
    let connection = Connection::http1();
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::HeadTimeout, 5));
}

#[tokio::test(start_paused = true)]
async fn bytes_do_not_extend_the_timeout_of_the_first_head() {
    let mut connection = Connection::http1();
    for byte in b"POST" {
        connection.receive(&[*byte]).await;
        sleep(seconds(1)).await;
    }
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::HeadTimeout, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_in_progress_keeps_the_connection_open() {
    let connection = Connection::http1();
    let _request = connection.activity.request_started();
    assert!(stays_open(&connection.activity, seconds(3600)).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_expires_after_the_keep_alive_timeout() {
    let mut connection = Connection::http1();
    connection.request(b"POST /", seconds(8)).await;
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::KeepAlive, 75));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_began_during_a_request_ends_on_time() {
    let connection = Connection::http1();
    let request = connection.activity.request_started();
    let activity = Arc::clone(&connection.activity);
    let waiting = tokio::spawn(async move { expiry(&activity).await });
    sleep(seconds(33)).await;
    drop(request);
    assert_eq!(waiting.await.unwrap(), (Expired::KeepAlive, 33 + 75));
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_later_head_starts_with_its_first_byte() {
    let mut connection = Connection::http1();
    connection.request(b"POST /", seconds(1)).await;
    sleep(seconds(40)).await;
    connection.receive(b"P").await;
    sleep(seconds(3)).await;
    connection.receive(b"OST").await;
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::HeadTimeout, 2));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_during_a_wait_expires_on_time() {
    let mut connection = Connection::http1();
    connection.request(b"POST /", seconds(1)).await;
    let activity = Arc::clone(&connection.activity);
    let waiting = tokio::spawn(async move { expiry(&activity).await });
    sleep(seconds(42)).await;
    connection.receive(b"POST").await;
    assert_eq!(waiting.await.unwrap(), (Expired::HeadTimeout, 42 + 5));
}

#[tokio::test(start_paused = true)]
async fn blank_lines_between_requests_do_not_begin_a_head() {
    let mut connection = Connection::http1();
    connection.request(b"POST /", seconds(1)).await;
    connection.receive(b"\r\n").await;
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::KeepAlive, 75));
}

#[tokio::test(start_paused = true)]
async fn a_body_does_not_count_as_a_head() {
    let mut connection = Connection::http1();
    let request = connection.activity.request_started();
    connection.receive(b"{\"notifyType\"").await;
    drop(request);
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::KeepAlive, 75));
}

#[tokio::test(start_paused = true)]
async fn the_keep_alive_timeout_starts_with_the_end_of_the_last_request() {
    let connection = Connection::http1();
    let long = connection.activity.request_started();
    let short = connection.activity.request_started();
    drop(short);
    assert!(stays_open(&connection.activity, seconds(3600)).await);
    drop(long);
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::KeepAlive, 75));
}

#[tokio::test(start_paused = true)]
async fn http2_has_the_header_timeout_for_its_first_request() {
    let mut connection = Connection::http2();
    connection.receive(b"the preface").await;
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::HeadTimeout, 5));
}

#[tokio::test(start_paused = true)]
async fn http2_pings_neither_begin_a_head_nor_extend_the_keep_alive_timeout() {
    let mut connection = Connection::http2();
    connection.receive(b"the preface").await;
    connection.request(b"a request", seconds(1)).await;
    for _ in 0..7 {
        sleep(seconds(10)).await;
        connection.receive(b"a ping").await;
    }
    let expiry = expiry(&connection.activity).await;
    assert_eq!(expiry, (Expired::KeepAlive, 5));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_expires_even_during_a_request() {
    let mut connection = Connection::http1();
    let _request = connection.activity.request_started();
    let writing = async {
        connection.server.write_all(&[0; 65]).await.unwrap();
    };
    let expiry = tokio::select! {
        () = writing => panic!("64 bytes are all that fit"),
        expiry = expiry(&connection.activity) => expiry,
    };
    assert_eq!(expiry, (Expired::WriteStalled, 10));
}

#[tokio::test(start_paused = true)]
async fn the_nearest_of_two_deadlines_counts() {
    let mut connection = Connection::http1();
    connection.request(b"POST /", seconds(1)).await;
    let writing = async {
        connection.server.write_all(&[0; 65]).await.unwrap();
    };
    let expiry = tokio::select! {
        () = writing => panic!("64 bytes are all that fit"),
        expiry = expiry(&connection.activity) => expiry,
    };
    assert_eq!(expiry, (Expired::WriteStalled, 10));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_keeps_its_connection() {
    let mut connection = Connection::http1();
    let _request = connection.activity.request_started();
    let activity = Arc::clone(&connection.activity);
    let writing = tokio::spawn(async move {
        connection.server.write_all(&[0; 80]).await.unwrap();
    });
    let reading = tokio::spawn(async move {
        for _ in 0..80 {
            sleep(seconds(9)).await;
            connection.client.read_u8().await.unwrap();
        }
    });
    assert!(stays_open(&activity, seconds(3600)).await);
    writing.await.unwrap();
    reading.await.unwrap();
}

/// Serves a connection with hyper, as the listener does. Returns the client's end.
fn serve(activity: &Arc<Activity>) -> DuplexStream {
    let (client, mut server) = duplex(64);
    let activity = Arc::clone(activity);
    tokio::spawn(async move {
        let (protocol, first) = protocol::detect(&mut server).await.unwrap();
        let server = Watched::new(server, protocol, first, Arc::clone(&activity));
        let answer = service_fn(move |request: Request<Incoming>| {
            let guard = activity.request_started();
            async move {
                let _guard = guard;
                request.into_body().collect().await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().header_read_timeout(None);
        let builder = match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_only(),
        };
        let connection = builder.serve_connection(TokioIo::new(server), answer);
        connection.await.unwrap();
    });
    client
}

async fn read_answer(client: &mut DuplexStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn hyper_reads_nothing_between_requests_that_looks_like_a_head() {
    let activity = new_activity();
    let mut client = serve(&activity);
    for _ in 0..3 {
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\n")
            .await
            .unwrap();
        client
            .write_all(b"Content-Length: 4\r\n\r\n{")
            .await
            .unwrap();
        sleep(seconds(20)).await;
        client.write_all(b"  }").await.unwrap();
        read_answer(&mut client).await;
        sleep(seconds(60)).await;
        assert!(stays_open(&activity, seconds(14)).await);
    }
    assert_eq!(expiry(&activity).await, (Expired::KeepAlive, 1));
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_idle_between_requests_too() {
    let activity = new_activity();
    let client = TokioIo::new(serve(&activity));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), client);
    let (mut sender, driver) = handshake.await.unwrap();
    tokio::spawn(driver);
    for _ in 0..3 {
        let request = Request::post("http://a/").body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert!(answer.status().is_success());
        answer.collect().await.unwrap();
        sleep(seconds(60)).await;
        assert!(stays_open(&activity, seconds(14)).await);
    }
    assert_eq!(expiry(&activity).await, (Expired::KeepAlive, 1));
}
