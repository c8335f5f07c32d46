//! A record as bytes, with its headers as they were made when the push was received.

use bytes::Bytes;

use super::take;
use crate::record::KeyedRecord;
use crate::topics::Topic;

/// Appends a record to `buffer`; its topic is the slot's.
pub(super) fn encode(record: &KeyedRecord) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(record.value().len() + 512);
    match record.key() {
        Some(key) => {
            buffer.push(1);
            put(&mut buffer, key);
        }
        None => buffer.push(0),
    }
    put(&mut buffer, record.value());
    record.fold_headers(&mut buffer, |buffer, name, value| {
        put(buffer, name.as_bytes());
        put(buffer, value);
        buffer
    });
    buffer
}

/// `None` if these are not the bytes of a record.
pub(super) fn decode(topic: Topic, bytes: Vec<u8>) -> Option<KeyedRecord> {
    let all = Bytes::from(bytes);
    let mut rest = &all[..];
    let share = |bytes: &[u8]| all.slice_ref(bytes);
    let key = match take::<1>(&mut rest)? {
        [0] => None,
        _ => Some(share(get(&mut rest)?)),
    };
    let value = share(get(&mut rest)?);
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name = std::str::from_utf8(get(&mut rest)?).ok()?;
        headers.push((name.to_owned(), share(get(&mut rest)?)));
    }
    Some(KeyedRecord::kept(topic, key, value, headers))
}

fn put(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(bytes);
}

fn get<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(*take(bytes)?);
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::notification::{Rules, read};
    use crate::record::Arrival;

    fn headers(record: &KeyedRecord) -> Vec<(String, Vec<u8>)> {
        record.fold_headers(Vec::new(), |mut all, name, value| {
            all.push((name.to_owned(), value.to_vec()));
            all
        })
    }

    #[test]
    fn a_kept_record_is_the_one_that_was_made() {
        let body = Bytes::from_static(
            br#"{"notifyType":"messageConfirm","header":{"requestId":"r-1","from":"/devices/d-1/services/s","status":"sent","timestamp":"20260101T000000Z"}}"#,
        );
        let notification = read(&body, Rules::default()).unwrap();
        let arrival = Arrival {
            source: Bytes::from_static(b"/notifications"),
            received_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            traceparent: None,
        };
        let record = KeyedRecord::from_notification(&body, &notification, arrival);
        let bytes = encode(&record);
        let kept = decode(record.topic(), bytes.clone()).unwrap();
        assert_eq!(kept.topic(), record.topic());
        assert_eq!(kept.key(), record.key());
        assert_eq!(kept.value(), record.value());
        assert_eq!(headers(&kept), headers(&record));
        for end in 0..bytes.len() {
            // Never a panic; a shorter one may lack headers only where one ends.
            let _ = decode(record.topic(), bytes[..end].to_vec());
        }
    }
}
