//! A listener that retires its connections of HTTP/2 all the time, in order: it
//! says by GOAWAY which requests it takes, and answers those (RFC 9113, 6.8).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Serves until it is dropped.
pub(super) struct Retiring {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Retiring {
    /// Retires each connection after so many requests.
    pub(super) fn after(requests: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, requests));
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(stream: TcpStream, requests: usize) {
    let (taken, enough) = (AtomicUsize::new(0), Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        if taken.fetch_add(1, Ordering::Relaxed) + 1 == requests {
            enough.notify_one();
        }
        async move {
            let _whole = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let builder = http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = enough.notified() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
}
