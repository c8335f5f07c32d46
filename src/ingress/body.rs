//! Reading a body within its limits: size, time and memory.
//!
//! Whatever a client declares, no more than a step ahead of what has arrived
//! is reserved, and nothing above the limit is kept.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_ENCODING;

use super::admission::{Overloaded, Reservation};
use super::answer::Refusal;

/// How much of the body of a refused request is read and thrown away, so that
/// the client sees the answer instead of a broken connection.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// For how long at most.
const LINGER: Duration = Duration::from_secs(2);

/// How the bytes on the wire are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// RFC 1952.
    Gzip,
}

/// A body that arrived whole.
#[derive(Debug)]
pub struct Whole {
    /// The sender's bytes, decompressed where they could be.
    pub bytes: Bytes,
    /// Whether they claimed to be gzip and were not.
    pub corrupt: bool,
}

/// The encoding that the headers name.
///
/// # Errors
///
/// [`Refusal::UnsupportedEncoding`] for anything but `identity` and `gzip`.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(Encoding::Identity);
    };
    let name = value.as_bytes().trim_ascii();
    match values.next() {
        None if name.is_empty() || name.eq_ignore_ascii_case(b"identity") => Ok(Encoding::Identity),
        None if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
            Ok(Encoding::Gzip)
        }
        _ => Err(Refusal::UnsupportedEncoding),
    }
}

/// Whether the client declared more than the limit.
pub fn declared_too_large(body: &Incoming, limit: usize) -> bool {
    usize::try_from(body.size_hint().lower()).is_ok_and(|declared| declared > limit)
}

/// Reads a body to its end and decompresses it. At most `limit` bytes, before
/// and after; `reservation` covers them all, and in the end what is kept.
///
/// # Errors
///
/// The refusal that the client is to get.
pub async fn read(
    body: &mut Incoming,
    encoding: Encoding,
    limit: usize,
    reservation: &mut Reservation,
) -> Result<Whole, Refusal> {
    let bytes = collect(body, limit, reservation).await?;
    let whole = match encoding {
        Encoding::Identity => Whole {
            bytes,
            corrupt: false,
        },
        Encoding::Gzip => decompress(bytes, limit, reservation).await?,
    };
    reservation.shrink_to(whole.bytes.len());
    Ok(whole)
}

/// Reads what is left of a refused request's body in the background, for a
/// while: a connection that is closed over unread bytes is reset, and a reset
/// may overtake the answer.
pub fn linger(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let discard = async {
            let mut left = LINGER_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _too_slow = tokio::time::timeout(LINGER, discard).await;
    });
}

async fn collect(
    body: &mut Incoming,
    limit: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // The client is gone, or its framing is broken: it did not arrive whole.
        let frame = frame.map_err(|_| Refusal::Disconnected)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let total = first.len() + rest.len() + data.len();
        if total > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        reservation.cover(total).await?;
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(compact(first));
    }
    let mut joined = BytesMut::with_capacity(first.len() + rest.len());
    joined.extend_from_slice(&first);
    joined.unsplit(rest);
    Ok(joined.freeze())
}

/// A body in one piece is a slice of the connection's read buffer. A small one
/// would keep that whole buffer alive until Kafka has answered, many times its
/// own size; copying it is cheaper than that.
fn compact(bytes: Bytes) -> Bytes {
    const SMALL: usize = 4 * 1024;
    if bytes.len() <= SMALL {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

/// Decompresses in steps that are reserved before they are made, so that a
/// small body that claims to be huge costs a step, not its claim.
async fn decompress(
    bytes: Bytes,
    limit: usize,
    reservation: &mut Reservation,
) -> Result<Whole, Refusal> {
    const STEP: u64 = 64 * 1024;
    let mut plain = Vec::new();
    let mut decoder = MultiGzDecoder::new(bytes.as_ref());
    loop {
        match decoder.by_ref().take(STEP).read_to_end(&mut plain) {
            Ok(0) => {
                return Ok(Whole {
                    bytes: Bytes::from(plain),
                    corrupt: false,
                });
            }
            Ok(_) if plain.len() > limit => return Err(Refusal::BodyTooLarge { limit }),
            Ok(_) => reservation.cover(bytes.len() + plain.len()).await?,
            Err(_) => {
                return Ok(Whole {
                    bytes,
                    corrupt: true,
                });
            }
        }
    }
}

impl From<Overloaded> for Refusal {
    fn from(Overloaded: Overloaded) -> Self {
        Self::Overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_identity_and_gzip_are_taken_in_any_case() {
        let cases: [(&[&str], Result<Encoding, Refusal>); 8] = [
            (&[], Ok(Encoding::Identity)),
            (&["identity"], Ok(Encoding::Identity)),
            (&["Identity"], Ok(Encoding::Identity)),
            (&["gzip"], Ok(Encoding::Gzip)),
            (&[" GZIP "], Ok(Encoding::Gzip)),
            (&["br"], Err(Refusal::UnsupportedEncoding)),
            (&["gzip, gzip"], Err(Refusal::UnsupportedEncoding)),
            (&["gzip", "identity"], Err(Refusal::UnsupportedEncoding)),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(encoding(&headers), expected, "{values:?}");
        }
    }
}
