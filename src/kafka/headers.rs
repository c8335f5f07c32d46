//! Reads and writes record headers in librdkafka's types. Their names are in
//! `crate::headers`.

use rdkafka::message::{Header, Headers, OwnedHeaders};

use crate::headers::is_internal;
use crate::record::KeyedRecord;

/// As many as a record can have: the `CloudEvents` attributes, `content-type`,
/// `traceparent`, and the two of a dead letter.
const MAX_RECORD_HEADERS: usize = 10;

/// The headers of a record, as librdkafka sends them.
pub fn of_record(record: &KeyedRecord) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(MAX_RECORD_HEADERS);
    record.fold_headers(headers, |headers, key, value| {
        let value = Some(value);
        headers.insert(Header { key, value })
    })
}

/// The only header of a state.
pub(crate) fn of_state(json: &[u8]) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header {
        key: crate::headers::STATE,
        value: Some(json),
    })
}

/// Appends text headers in this order.
pub(crate) fn append(headers: OwnedHeaders, texts: &[(&str, &str)]) -> OwnedHeaders {
    texts.iter().fold(headers, |headers, &(key, text)| {
        let value = Some(text);
        headers.insert(Header { key, value })
    })
}

/// Returns the value of the first header with this name.
pub(crate) fn first<'a>(headers: Option<&'a impl Headers>, name: &str) -> Option<&'a [u8]> {
    let mut named = headers?.iter().filter(|header| header.key == name);
    named.next()?.value
}

/// Copies the headers that the original record had before northbridge made a
/// dead letter of it.
pub(crate) fn originals<'a>(
    headers: impl IntoIterator<Item = Header<'a, &'a [u8]>>,
) -> OwnedHeaders {
    headers
        .into_iter()
        .filter(|header| !is_internal(header.key))
        .fold(OwnedHeaders::new(), OwnedHeaders::insert)
}
