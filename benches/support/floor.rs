//! The floor of the ingress: the least code that receives the same pushes and
//! writes the same records. A hyper server that answers at once, and a plain
//! rdkafka producer with the product's settings whose delivery reports nobody
//! awaits.
//!
//! It reads no body, limits nothing, counts nothing, and loses what Kafka does
//! not acknowledge: everything that the product adds is missing here.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use tokio::net::{TcpListener, TcpStream};

type Producer = ThreadedProducer<DefaultProducerContext>;

/// The headers that the product writes for these pushes, with values of the
/// same sizes.
const HEADERS: [(&str, &str); 7] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "00112233445566778899aabbccddeeff"),
    ("ce_source", "/notifications"),
    ("ce_type", "messageConfirm"),
    ("ce_subject", "load0-device-10000"),
    ("ce_time", "2026-01-01T00:00:00.000Z"),
    ("content-type", "application/json"),
];

/// Prints its address, then serves until it is killed.
pub(crate) fn run(bootstrap_servers: &str) {
    let producer = Arc::new(producer(bootstrap_servers));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        println!("{}", listener.local_addr().expect("an address"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(stream, Arc::clone(&producer)));
        }
    });
}

async fn serve(stream: TcpStream, producer: Arc<Producer>) {
    stream.set_nodelay(true).expect("a TCP option");
    let service = service_fn(|request: Request<Incoming>| async {
        if let Ok(body) = request.into_body().collect().await {
            produce(&producer, &body.to_bytes());
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let connection = hyper::server::conn::http1::Builder::new();
    // An error is normal: the load generator disconnects when it is done.
    let _ended = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn produce(producer: &Producer, body: &[u8]) {
    let topic = if body.starts_with(br#"{"notifyType":"messageConfirm""#) {
        "iot.command-status"
    } else {
        "iot.upgrade-result"
    };
    let mut headers = OwnedHeaders::new_with_capacity(HEADERS.len());
    for (key, value) in HEADERS {
        let value = Some(value);
        headers = headers.insert(Header { key, value });
    }
    let key = format!("load0-request-{:05}", fastrand::u16(..));
    let record = BaseRecord::to(topic)
        .key(&key)
        .payload(body)
        .headers(headers);
    producer.send(record).expect("room in librdkafka's queue");
}

/// A producer with those of the product's settings that matter on a healthy
/// cluster.
fn producer(bootstrap_servers: &str) -> Producer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("compression.type", "none")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .set("statistics.interval.ms", "5000");
    config.create().expect("a producer")
}
