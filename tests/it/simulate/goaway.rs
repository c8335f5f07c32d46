//! An HTTP/2 listener that keeps closing its connections gracefully: GOAWAY names
//! the last request that it processes, and it answers all up to that one
//! (RFC 9113, section 6.8). It reads on until the client closes: closing a socket
//! with unread bytes resets it, and the client may then never read the GOAWAY.

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
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// A running listener; dropping it stops it.
pub(super) struct GoawayListener {
    address: SocketAddr,
    _runtime: Runtime,
}

impl GoawayListener {
    /// Sends GOAWAY on each connection after this many requests.
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

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(stream: TcpStream, requests: usize) {
    let stream = stream.into_std().unwrap();
    let mut same_socket = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let (received, limit_reached) = (AtomicUsize::new(0), Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        if received.fetch_add(1, Ordering::Relaxed) + 1 == requests {
            limit_reached.notify_one();
        }
        async move {
            let _body = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let builder = http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = limit_reached.notified() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
    while same_socket.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
}
