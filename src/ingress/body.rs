//! Reads a body within its limits of size, time and memory.
//!
//! Whatever `Content-Length` promises, the memory reserved is never more than
//! one step ahead of the bytes that have arrived, and no body above the limit
//! is kept.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use encoding_rs::Encoding as Charset;
use flate2::bufread::GzDecoder;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_ENCODING;

use super::admission::{Overloaded, Reservation};
use super::answer::Refusal;

/// How much of a refused request's body is read and discarded.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    /// RFC 1952.
    Gzip,
}

/// A body that arrived to its end.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    /// Decompressed, or as received if `corrupt_gzip`.
    pub(crate) bytes: Bytes,
    /// `Content-Encoding` says gzip, and the bytes are not.
    pub(crate) corrupt_gzip: bool,
}

/// The encoding named by `Content-Encoding`. The name of a character set there, a
/// common mistake of senders, says nothing about the encoding.
///
/// # Errors
///
/// Returns [`Refusal::UnsupportedEncoding`] for anything but `identity`, `gzip` and
/// character sets, and for several encodings.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
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
        None if Charset::for_label(name).is_some() => Ok(Encoding::Identity),
        _ => Err(Refusal::UnsupportedEncoding),
    }
}

/// Returns whether `Content-Length` is above the limit, so that the body need
/// not be read to be refused.
pub(crate) fn declared_too_large(body: &Incoming, limit: usize) -> bool {
    usize::try_from(body.size_hint().lower()).is_ok_and(|declared| declared > limit)
}

/// Reads a body to its end and decompresses it.
///
/// `limit` bounds the bytes on the wire and the decompressed ones. `reservation`
/// grows ahead of both and ends at the size of the bytes that are kept.
///
/// # Errors
///
/// Returns [`Refusal::Disconnected`] if the body ends early,
/// [`Refusal::BodyTooLarge`] above the limit, and [`Refusal::Overloaded`] if
/// there is no memory left for it.
pub(crate) async fn read(
    body: &mut Incoming,
    encoding: Encoding,
    limit: usize,
    reservation: &mut Reservation,
) -> Result<ReceivedBody, Refusal> {
    let bytes = collect(body, limit, reservation).await?;
    let received = match encoding {
        Encoding::Identity => ReceivedBody {
            bytes,
            corrupt_gzip: false,
        },
        Encoding::Gzip => decompress(bytes, limit, reservation).await?,
    };
    reservation.shrink_to(received.bytes.len());
    Ok(received)
}

/// Reads and discards the rest of a refused request's body in the background.
///
/// Closing a connection that has unread bytes resets it (RFC 9112, 9.6), and
/// the reset can destroy the response before the client reads it.
pub(crate) fn discard_rest(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let discard = async {
            let mut left = MAX_DISCARDED_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _timed_out = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
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
        // The client disconnected, or broke the framing.
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

/// Copies a small body out of the connection's read buffer.
///
/// hyper hands out a body in one piece as a slice of that buffer. A small one
/// would keep all of it alive, many times its own size, until Kafka has
/// acknowledged the push; copying is cheaper.
fn compact(bytes: Bytes) -> Bytes {
    const SMALL_BYTES: usize = 4 * 1024;
    if bytes.len() <= SMALL_BYTES {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

/// Decompresses step by step and reserves memory for each, so that a gzip bomb
/// costs one step more than the limit, not what it expands to.
///
/// The data are one or more members (RFC 1952, 2.2); zeros after the last one are
/// the padding of a block device or a buffer.
pub(super) async fn decompress(
    bytes: Bytes,
    limit: usize,
    reservation: &mut Reservation,
) -> Result<ReceivedBody, Refusal> {
    const STEP_BYTES: u64 = 64 * 1024;
    let mut plain = Vec::new();
    let mut member = GzDecoder::new(bytes.as_ref());
    loop {
        match member.by_ref().take(STEP_BYTES).read_to_end(&mut plain) {
            Ok(0) => {
                let rest = member.into_inner();
                if rest.iter().all(|byte| *byte == 0) {
                    return Ok(ReceivedBody {
                        bytes: Bytes::from(plain),
                        corrupt_gzip: false,
                    });
                }
                member = GzDecoder::new(rest);
            }
            Ok(_) if plain.len() > limit => return Err(Refusal::BodyTooLarge { limit }),
            Ok(_) => reservation.cover(bytes.len() + plain.len()).await?,
            Err(_) => {
                return Ok(ReceivedBody {
                    bytes,
                    corrupt_gzip: true,
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
    fn only_identity_gzip_and_character_sets_are_supported_in_any_case() {
        let cases: [(&[&str], Result<Encoding, Refusal>); 12] = [
            (&[], Ok(Encoding::Identity)),
            (&["identity"], Ok(Encoding::Identity)),
            (&["Identity"], Ok(Encoding::Identity)),
            (&["gzip"], Ok(Encoding::Gzip)),
            (&[" GZIP "], Ok(Encoding::Gzip)),
            (&["UTF-8"], Ok(Encoding::Identity)),
            (&["utf8"], Ok(Encoding::Identity)),
            (&["GBK"], Ok(Encoding::Identity)),
            (&["gzip", "utf-8"], Err(Refusal::UnsupportedEncoding)),
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
