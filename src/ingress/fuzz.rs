//! What a stranger can send: the bytes of a connection, a compressed body, and what
//! proxies say about clients.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::answer::Refusal;
use super::body::decompress;
use super::client_address::{ClientAddresses, read_proxy_header};
use super::connection::Connections;
use super::handler::{Client, Handler};
use super::metrics::{PushMetrics, ServerMetrics};
use super::publisher::Publisher;
use super::strangers::Strangers;
use crate::config::{ClientAddress, Limits, Settings};
use crate::kafka::Producer;
use crate::kafka::failures::Failures;
use crate::kafka::metrics::{KafkaClientFamilies, ProducerMetrics};
use crate::metrics::Metrics;
use crate::process::last_errors::LastErrors;
use crate::spool::Storage;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// More than any answer to a connection of this size needs.
const ANSWER_BYTES_PER_BYTE: usize = 400;
/// Longer than every time limit of a connection. The clock is the runtime's own, and
/// jumps over whatever nothing happens in.
const LONG: Duration = Duration::from_secs(300);

/// The parts of an ingress whose Kafka never answers.
struct Ingress {
    runtime: Runtime,
    connections: Connections,
    strangers: Arc<Strangers>,
    push_metrics: Arc<PushMetrics>,
}

/// What decompresses one body after the other.
struct Decompression {
    runtime: Runtime,
    metrics: Arc<PushMetrics>,
    admission: Admission,
}

static DECOMPRESSION: LazyLock<Decompression> = LazyLock::new(|| {
    let metrics = Arc::new(PushMetrics::register(&Metrics::new(), false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Decompression {
        runtime: runtime.expect("a runtime"),
        admission: Admission::new(&Limits::default(), Arc::clone(&metrics)),
        metrics,
    }
});

static INGRESS: LazyLock<Mutex<Ingress>> = LazyLock::new(|| Mutex::new(Ingress::new()));

impl Ingress {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = "127.0.0.1:1".to_owned();
        let metrics = Metrics::new();
        let push_metrics = Arc::new(PushMetrics::register(&metrics, false));
        let client = KafkaClientFamilies::register(&metrics).client("ingress");
        let failures = Failures::new(&settings, &client, LastErrors::default());
        let producer_metrics = ProducerMetrics::register(&metrics);
        let producer = Producer::new(&settings, producer_metrics, client, failures);
        let cancel = CancellationToken::new();
        let deadline = settings.http.answer_deadline_ms.duration();
        let opened = Storage::open(&settings, producer.expect("a producer"), &metrics);
        let (storage, _) = opened.expect("no spool");
        let publisher = Publisher::new(storage, cancel.clone(), deadline);
        let handler = Handler::new(
            &settings,
            publisher,
            Arc::clone(&push_metrics),
            Arc::new(ServerMetrics::register(&metrics)),
            cancel,
            None,
        );
        let idle_grace = Duration::from_secs(1);
        Self {
            connections: Connections::new(&settings, idle_grace, Arc::new(handler), None),
            strangers: Strangers::new(0),
            push_metrics,
            runtime,
        }
    }
}

/// Serves a connection on which a client sends these bytes and then ends its side.
///
/// # Panics
///
/// Panics if a push is answered 200, if one is not settled in the end, if bytes stay
/// reserved, or if the answers are out of proportion.
pub fn connection(bytes: &[u8]) {
    let ingress = INGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    let answers = ingress.runtime.block_on(async {
        let (mut near, far) = duplex(64 * 1024);
        let entry = Arc::new(ingress.strangers.register());
        let client = Client {
            address: PEER,
            entry,
        };
        let send_and_read = async {
            let (mut reading, mut writing) = tokio::io::split(&mut near);
            let send = async {
                // The server may close the connection before it has read everything.
                let _ = writing.write_all(bytes).await;
                let _ = writing.shutdown().await;
            };
            let mut answers = Vec::new();
            let read = reading.read_to_end(&mut answers);
            let _ = tokio::join!(send, read);
            answers
        };
        let serve = ingress.connections.serve_stream(far, None, client);
        let (_reason, answers) = tokio::join!(serve, send_and_read);
        // What the handlers have spawned ends as well.
        sleep(LONG).await;
        answers
    });
    assert!(
        !answers.starts_with(b"HTTP/1.1 200"),
        "nothing can be stored"
    );
    assert!(answers.len() <= 1024 + ANSWER_BYTES_PER_BYTE * bytes.len());
    assert!(ingress.push_metrics.are_balanced(), "the books balance");
}

/// Decompresses a body. The first two bytes are the limit.
///
/// # Panics
///
/// Panics if a body exceeds its limit, if a body within it differs from what `flate2`
/// makes of it, or if bytes stay reserved.
pub fn body(bytes: &[u8]) {
    let Some((limit, gzip)) = bytes.split_first_chunk() else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes(*limit));
    let Decompression {
        runtime,
        metrics,
        admission,
    } = &*DECOMPRESSION;
    let received = runtime.block_on(async {
        let mut reservation = admission.reserve(None).await.expect("room");
        decompress(Bytes::copy_from_slice(gzip), limit, &mut reservation).await
    });
    let mut plain = Vec::new();
    let expected = MultiGzDecoder::new(gzip).read_to_end(&mut plain);
    match received {
        Ok(body) if body.corrupt_gzip => {
            assert_eq!(body.bytes, gzip);
            assert!(expected.is_err(), "flate2 reads it");
        }
        Ok(body) => {
            assert!(body.bytes.len() <= limit);
            assert!(expected.is_err() || body.bytes == plain);
        }
        Err(Refusal::BodyTooLarge { .. }) => assert!(expected.is_err() || plain.len() > limit),
        Err(refusal) => panic!("{refusal:?}"),
    }
    assert!(metrics.are_balanced());
}

/// Reads what a proxy says about a client: the first byte chooses how.
///
/// # Panics
///
/// Panics if a PROXY header takes bytes that are not its own, or if an address that only
/// an untrusted peer claims counts.
pub fn addresses(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    if choice % 2 == 0 {
        return proxy_header(bytes);
    }
    let mut auth = Settings::default().auth;
    auth.client_address = ClientAddress::XForwardedFor;
    auth.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
    let addresses = ClientAddresses::new(&auth);
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    assert_eq!(addresses.of_request(PEER, &headers), Some(PEER));
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let hops = headers.get_all("x-forwarded-for").iter();
    let texts = hops.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let is_empty = texts.map(<[u8]>::trim_ascii).all(<[u8]>::is_empty);
    if is_empty {
        assert_eq!(addresses.of_request(proxy, &headers), Some(proxy));
    } else {
        let _ = addresses.of_request(proxy, &headers);
    }
}

fn proxy_header(bytes: &[u8]) {
    let mut rest = bytes;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime
        .expect("a runtime")
        .block_on(read_proxy_header(&mut rest));
    let header = &bytes[..bytes.len() - rest.len()];
    if read.is_err() {
        return;
    }
    if header.starts_with(b"PROXY ") {
        assert!(header.ends_with(b"\r\n") && header.len() <= 107);
        assert_eq!(header.windows(2).filter(|pair| pair == b"\r\n").count(), 1);
    } else {
        let length = u16::from_be_bytes([header[14], header[15]]);
        assert_eq!(header.len(), 16 + usize::from(length));
    }
}
