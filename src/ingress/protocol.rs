//! Which version of HTTP a connection speaks: decided once, before hyper sees
//! the first byte.
//!
//! ALPN decides under TLS (`tls`); in plaintext, and for a TLS client without
//! ALPN, the first bytes do. hyper could detect the version as well, but then
//! it reads the first head in two pieces and doubles its buffer for the second:
//! 8 KiB more for every HTTP/1 connection, for as long as it lives.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The version of HTTP on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Bytes that were read to detect the protocol, and that hyper has not read.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes {
    bytes: [u8; HTTP2_PREFACE.len()],
    received: usize,
    replayed: usize,
}

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4). No method of
/// HTTP/1 begins like it.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads a connection's first bytes until they identify its protocol. The
/// preface of HTTP/2 may arrive in pieces; for HTTP/1 the first piece is enough.
///
/// A client that closes before it has sent a whole preface counts as HTTP/1,
/// which ends such a connection without an answer.
pub(crate) async fn detect<S>(stream: &mut S) -> io::Result<(Protocol, FirstBytes)>
where
    S: AsyncRead + Unpin,
{
    let mut first = FirstBytes::default();
    loop {
        let count = stream.read(&mut first.bytes[first.received..]).await?;
        first.received += count;
        if count == 0 || !HTTP2_PREFACE.starts_with(first.received()) {
            return Ok((Protocol::Http1, first));
        }
        if first.received() == HTTP2_PREFACE {
            return Ok((Protocol::Http2, first));
        }
    }
}

impl FirstBytes {
    /// Moves as many of the bytes as fit into `buffer`. Returns whether it
    /// moved any.
    pub(crate) fn replay(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.bytes[self.replayed..self.received];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.replayed += count;
        count > 0
    }

    fn received(&self) -> &[u8] {
        &self.bytes[..self.received]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    /// The protocol of a client that sends `pieces` one by one and then closes,
    /// and the bytes read to detect it.
    async fn detected(pieces: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, mut server) = duplex(64);
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let ((), detected) = tokio::join!(sending, detect(&mut server));
        let (protocol, first) = detected.unwrap();
        (protocol, first.received().to_vec())
    }

    #[tokio::test]
    async fn the_first_bytes_identify_the_protocol() {
        let rows: [(&[&[u8]], Protocol); 8] = [
            (&[HTTP2_PREFACE], Protocol::Http2),
            (
                &[b"P", b"RI * HTTP/2.0\r\n\r", b"\nSM\r\n\r\n"],
                Protocol::Http2,
            ),
            (&[b"POST /notifications HTTP/1.1\r\n"], Protocol::Http1),
            (&[b"P", b"O"], Protocol::Http1),
            (&[b"PRI * HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"\r\nPOST / HTTP/1.1\r\n"], Protocol::Http1),
            (&[b"PRI * HT"], Protocol::Http1),
            (&[], Protocol::Http1),
        ];
        for (pieces, expected) in rows {
            let (protocol, received) = detected(pieces).await;
            assert_eq!(protocol, expected, "{pieces:?}");
            assert!(pieces.concat().starts_with(&received), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn the_bytes_read_are_replayed_once_and_in_order() {
        let (_, mut first) = detect(&mut &b"POST / HTTP/1.1\r\n\r\n"[..]).await.unwrap();
        let mut replayed = Vec::new();
        loop {
            let mut bytes = [0; 8];
            let mut buffer = ReadBuf::new(&mut bytes);
            if !first.replay(&mut buffer) {
                break;
            }
            replayed.extend_from_slice(buffer.filled());
        }
        assert_eq!(replayed, b"POST / HTTP/1.1\r\n\r\n");
    }
}
