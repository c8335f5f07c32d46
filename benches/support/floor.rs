//! Floors of the ingress: the least code that receives the same pushes and writes the
//! same records, with a hyper server and a bare rdkafka producer.
//!
//! They read no body, limit nothing and count nothing: everything that the product adds
//! is missing here.

use std::fmt;
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, DeliveryResult, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::candidate::Candidate;
use crate::support::child::ChildGuard;

/// The flag that makes a benchmark run a floor.
const FLOOR: &str = "--floor";

/// How a floor answers, and what its producer is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor {
    /// Answers at once, whatever Kafka says; set like the product.
    Immediate,
    /// Answers on the delivery report; set like the product.
    Waiting,
    /// Answers on the delivery report; librdkafka's defaults, with a linger of 5 ms.
    Defaults,
    /// Answers on the delivery report; one request in flight to each broker.
    OneInFlight,
}

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

impl Floor {
    const ALL: [Self; 4] = [
        Self::Immediate,
        Self::Waiting,
        Self::Defaults,
        Self::OneInFlight,
    ];

    /// Starts it in a process of its own.
    pub(crate) fn start(self, bootstrap_servers: &str) -> (ChildGuard, Candidate) {
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        program.args([FLOOR, &self.to_string(), bootstrap_servers]);
        let mut process = ChildGuard::spawn(&program, Stdio::inherit());
        let mut address = String::new();
        let mut output = process.take_stdout().expect("its output");
        output.read_line(&mut address).expect("its first line");
        let candidate = Candidate {
            name: self.to_string(),
            pid: process.pid().to_string(),
            address: address.trim().parse().expect("an address"),
        };
        (process, candidate)
    }

    /// Runs as a floor until it is killed, if this process was started as one.
    pub(crate) fn run_if_started_as_one() {
        let arguments: Vec<String> = std::env::args().collect();
        if let [_, flag, floor, bootstrap_servers] = arguments.as_slice()
            && flag == FLOOR
        {
            let floor: Self = floor.parse().expect("a floor");
            floor.run(bootstrap_servers);
        }
    }

    fn run(self, bootstrap_servers: &str) {
        let config = self.config(bootstrap_servers);
        let producer = Arc::new(match self {
            Self::Immediate => Producer::Immediate(config.create().expect("a producer")),
            Self::Waiting | Self::Defaults | Self::OneInFlight => {
                let created = config.create_with_context(Reports);
                Producer::Waiting(created.expect("a producer"))
            }
        });
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

    fn config(self, bootstrap_servers: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap_servers)
            .set("acks", "all")
            .set("partitioner", "murmur2_random");
        if self == Self::Defaults {
            return config;
        }
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("compression.type", "none")
            .set("socket.nagle.disable", "true")
            .set("statistics.interval.ms", "5000");
        if self == Self::OneInFlight {
            config.set("max.in.flight.requests.per.connection", "1");
        }
        config
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Immediate => "immediate floor",
            Self::Waiting => "waiting floor",
            Self::Defaults => "defaults",
            Self::OneInFlight => "one in flight",
        })
    }
}

impl FromStr for Floor {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut floors = Self::ALL.into_iter();
        floors.find(|floor| floor.to_string() == name).ok_or(())
    }
}

enum Producer {
    Immediate(ThreadedProducer<DefaultProducerContext>),
    Waiting(ThreadedProducer<Reports>),
}

/// Tells each handler what became of its record.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // The load ends with its last answer.
        let _ = waiting.send(result.is_ok());
    }
}

async fn serve(stream: TcpStream, producer: Arc<Producer>) {
    stream.set_nodelay(true).expect("a TCP option");
    let service = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await?;
        let is_stored = producer.produce(&body.to_bytes()).await;
        let mut response = Response::new(Full::<Bytes>::default());
        if !is_stored {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok::<_, hyper::Error>(response)
    });
    let connection = hyper::server::conn::http1::Builder::new();
    // An error is normal: the load generator disconnects when it is done.
    let _ended = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Producer {
    async fn produce(&self, body: &[u8]) -> bool {
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
        match self {
            Self::Immediate(producer) => {
                let record = BaseRecord::to(topic).key(&key).payload(body);
                let sent = producer.send(record.headers(headers));
                sent.is_ok()
            }
            Self::Waiting(producer) => {
                let (sender, report) = oneshot::channel();
                let record = BaseRecord::with_opaque_to(topic, Box::new(sender));
                let sent = producer.send(record.key(&key).payload(body).headers(headers));
                sent.is_ok() && report.await.unwrap_or(false)
            }
        }
    }
}
