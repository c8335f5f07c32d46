//! Two HTTP clients: raw bytes on a socket for requests that no library would
//! send, and hyper for ordinary ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::TIMEOUT;

/// A complete response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body after the transfer coding was removed.
    pub body: Bytes,
}

impl Response {
    /// The header's value; `None` if it is missing or is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection on which a test writes arbitrary bytes.
#[derive(Debug)]
pub struct RawConnection {
    stream: BufReader<TcpStream>,
}

impl RawConnection {
    /// Connects without sending anything.
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("a listening address")
    }

    /// Like [`RawConnection::open`], for an address that may not be listening.
    pub fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Writes bytes; panics if the peer has closed the connection.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).expect("an open connection");
    }

    /// Writes bytes to a peer that may have closed the connection.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Closes only the sending side; responses can still be read.
    pub fn finish_writing(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Writes a complete POST with these headers and the body's length.
    pub fn write_post(&mut self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        self.write(post_head(path, headers, body.as_ref().len()));
        self.write(body);
    }

    /// Reads one response; an interim response (1xx) counts as one.
    pub fn read_response(&mut self) -> Response {
        self.try_read_response().expect("a response")
    }

    /// Like [`RawConnection::read_response`]; `None` if the peer closed or reset
    /// the connection before the first byte.
    pub fn try_read_response(&mut self) -> Option<Response> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let headers = self.headers();
        let body = self.body(status, &headers).into();
        Some(Response {
            status,
            headers,
            body,
        })
    }

    /// Reads the head of a response to HEAD, which has no body.
    pub fn read_response_head(&mut self) -> Response {
        let first = self.line().expect("a status line");
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        Response {
            status: status.expect("a status"),
            headers: self.headers(),
            body: Bytes::new(),
        }
    }

    /// Waits for the peer's next byte or close. Returns whether it closed the
    /// connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// Like [`RawConnection::is_closed`], but also accepts a reset, which is what
    /// a close becomes if the peer has left bytes unread.
    pub fn is_closed_or_reset(&mut self) -> bool {
        let read = self.stream.fill_buf();
        read.map_or_else(
            |error| error.kind() == std::io::ErrorKind::ConnectionReset,
            <[u8]>::is_empty,
        )
    }

    /// Reads exactly `length` bytes.
    pub fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        self.exactly(length)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("name: value");
            let name = hyper::header::HeaderName::try_from(name).expect("a header's name");
            headers.append(name, value.trim().parse().expect("a header's value"));
        }
        headers
    }

    /// Reads a body as RFC 9112, section 6.3, delimits it: none, chunked, by
    /// length, or until the connection closes.
    fn body(&mut self, status: u16, headers: &HeaderMap) -> Vec<u8> {
        if status < 200 || status == 204 || status == 304 {
            return Vec::new();
        }
        if headers.contains_key("transfer-encoding") {
            return self.chunks();
        }
        let length = headers.get("content-length");
        match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
            Some(length) => self.exactly(length),
            None => self.rest(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = self.line().expect("the size of a chunk");
            let size = usize::from_str_radix(&size, 16).expect("a size in hex");
            body.extend(self.exactly(size));
            self.line();
            if size == 0 {
                return body;
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).expect("the whole body");
        bytes
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream
            .read_to_end(&mut bytes)
            .expect("the body until the close");
        bytes
    }
}

/// The HTTP version that a [`Connection`] speaks from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113, section 3.3).
    Http2,
}

/// A persistent connection of hyper's client, driven by a task of its own.
#[derive(Debug)]
pub enum Connection {
    /// HTTP/1.1: one request at a time.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2: clones of the sender share one connection.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub async fn open(address: SocketAddr, version: Version) -> std::io::Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::over(stream, version)
            .await
            .map_err(std::io::Error::other)
    }

    /// Speaks HTTP over a stream that is already established, such as TLS.
    pub async fn over<S>(stream: S, version: Version) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        Ok(match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        })
    }

    /// Sends a request and reads the complete response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> hyper::Result<Response> {
        let uri = match self {
            Self::Http1(_) => path.to_owned(),
            // HTTP/2 carries the authority in a pseudo-header.
            Self::Http2(_) => format!("http://northbridge.test{path}"),
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/json");
        let request = match self {
            Self::Http1(_) => request.header("host", "northbridge.test"),
            Self::Http2(_) => request,
        };
        self.send(request.body(Full::new(body.into())).unwrap())
            .await
    }
}

/// Posts JSON over a new connection.
pub async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> Response {
    let connection = Connection::open(address, Version::Http1).await;
    connection.unwrap().post(path, body).await.unwrap()
}

/// The status of the answer to a push; `None` if there was none.
pub fn try_post(address: SocketAddr, path: &str, body: &str) -> Option<u16> {
    let mut connection = RawConnection::try_open(address).ok()?;
    let request = post_head(path, &[], body.len()) + body;
    connection.try_write(request).ok()?;
    let response = connection.try_read_response()?;
    Some(response.status)
}

/// The head of an HTTP/1.1 POST whose `Content-Length` is `length`.
pub fn post_head(path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: northbridge.test\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head + &format!("content-length: {length}\r\n\r\n")
}

/// Posts with these headers over a new connection, without an async runtime.
pub fn post_with(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    let mut connection = RawConnection::open(address);
    connection.write_post(path, headers, body);
    connection.read_response()
}

/// Gets a path over a new connection, without an async runtime; `None` if the
/// address is not listening or does not answer.
pub fn get(address: SocketAddr, path: &str) -> Option<Response> {
    let mut connection = RawConnection::try_open(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.try_write(request).ok()?;
    connection.try_read_response()
}
