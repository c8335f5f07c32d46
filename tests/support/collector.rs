//! A collector of traces: a server of OTLP over HTTP, which reads what it is sent with
//! OpenTelemetry's own types.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::eventually;

/// A running collector; it ends with the test's process.
#[derive(Debug)]
pub struct Collector {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    status: u16,
    rejected_spans: u8,
    delay: Duration,
    requests: Vec<Received>,
}

/// A request that the collector has answered.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
}

/// A span, with its ids in hexadecimal digits.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
    pub name: String,
    pub kind: proto::span::SpanKind,
    pub attributes: Vec<(String, String)>,
    /// Trace and span of each.
    pub links: Vec<(String, String)>,
    pub is_error: bool,
    pub nanoseconds: u64,
}

impl Span {
    /// The value of an attribute, as text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut named = self.attributes.iter().filter(|(found, _)| found == name);
        named.next().map(|(_, value)| value.as_str())
    }
}

impl Collector {
    /// Listens on a free port, and accepts everything.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// Like [`Collector::start`], over TLS.
    pub fn start_with_tls(certificates: &Certificates) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(certificates.server()))))
    }

    fn listen(tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(Mutex::new(State {
            status: 200,
            rejected_spans: 0,
            delay: Duration::ZERO,
            requests: Vec::new(),
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a listener");
        let shared = Arc::clone(&state);
        thread::spawn(move || serve(listener, tls, shared));
        Self {
            scheme,
            address,
            state,
        }
    }

    /// The value of `telemetry.otlp_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Answers with this status from now on.
    pub fn set_status(&self, status: u16) {
        self.state().status = status;
    }

    /// Says in each answer that it rejected so many spans.
    pub fn reject_spans(&self, spans: u8) {
        self.state().rejected_spans = spans;
    }

    /// Answers only after this time.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.state().requests.clone()
    }

    /// The spans of all requests that were answered 200.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests();
        let accepted = requests.iter().filter(|request| request.status == 200);
        accepted.flat_map(Received::spans).collect()
    }

    /// Waits until there is a span of this name, and returns the first one.
    pub fn wait_for_span(&self, name: &str) -> Span {
        eventually(&format!("the collector has a span {name:?}"), || {
            self.spans().into_iter().find(|span| span.name == name)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Received {
    /// The attributes of the process that sent it.
    pub fn resource(&self) -> Vec<(String, String)> {
        let request = self.decoded();
        let resources = request.resource_spans.into_iter();
        let resources = resources.filter_map(|spans| spans.resource);
        resources
            .flat_map(|resource| texts(resource.attributes))
            .collect()
    }

    fn spans(&self) -> Vec<Span> {
        let request = self.decoded();
        let scopes = request.resource_spans.into_iter();
        let scopes = scopes.flat_map(|spans| spans.scope_spans);
        scopes.flat_map(|scope| scope.spans).map(span).collect()
    }

    fn decoded(&self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(self.body.clone()).expect("a message of OTLP")
    }
}

fn serve(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, state) = (tls.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                match tls {
                    None => serve_connection(stream, state).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve_connection(stream, state).await,
                        Err(error) => eprintln!("the collector's client: {error}"),
                    },
                }
            });
        }
    });
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    // A client may hang up at any time.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the whole body").to_bytes();
    let delay = state.lock().expect("a state").delay;
    tokio::time::sleep(delay).await;
    let mut state = state.lock().expect("a state");
    let status = state.status;
    state.requests.push(Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
        status,
    });
    // ExportTraceServiceResponse { partial_success: { rejected_spans } }
    let body = match state.rejected_spans {
        0 => Bytes::new(),
        spans => vec![0x0a, 2, 0x08, spans].into(),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status.try_into().expect("a status");
    Ok(response)
}

fn span(span: proto::Span) -> Span {
    let kind = span.kind();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind,
        links: span
            .links
            .iter()
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        is_error: span
            .status
            .is_some_and(|status| status.code() == proto::status::StatusCode::Error),
        nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
        attributes: texts(span.attributes),
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes
        .into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}

fn text(value: Option<AnyValue>) -> String {
    use any_value::Value;
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => {
            let texts: Vec<String> = list
                .values
                .into_iter()
                .map(|item| text(Some(item)))
                .collect();
            format!("[{}]", texts.join(","))
        }
        other => panic!("unexpected value {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}
