use chrono::SecondsFormat;

use super::*;

#[test]
fn a_timestamp_is_read_in_every_known_format_and_in_no_other() {
    let cases = [
        ("20151212T121212Z", Some("2015-12-12T12:12:12Z")),
        ("20151212T121212.123Z", Some("2015-12-12T12:12:12.123Z")),
        ("20151212T121212123Z", Some("2015-12-12T12:12:12.123Z")),
        ("20151212T121212.000Z", Some("2015-12-12T12:12:12Z")),
        ("2015-12-12T12:12:12Z", Some("2015-12-12T12:12:12Z")),
        ("2015-12-12T14:12:12+02:00", Some("2015-12-12T12:12:12Z")),
        ("20161231T235960Z", Some("2016-12-31T23:59:60Z")),
        ("2015-12-12T12:12:12.5Z", Some("2015-12-12T12:12:12.500Z")),
        ("2015-12-12T12:12:60.250Z", Some("2015-12-12T12:12:60.250Z")),
        ("20151212T121212.1234Z", None),
        ("20151212T121212.12Z", None),
        ("20151212T121261Z", None),
        ("2015+212T121212Z", None),
        ("2015-12-12T12:12:1", None),
        ("2015121T121212Z", None),
        ("20151312T121212Z", None),
        ("20151212T121212", None),
        ("20151212 121212Z", None),
        ("1449922332", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("0000-01-01T00:00:00+01:00", None),
        ("", None),
    ];
    for (text, expected) in cases {
        let written = Timestamp::from_push(text).map(|time| time.to_string());
        assert_eq!(written.as_deref(), expected, "{text:?}");
    }
}

#[test]
fn a_receipt_is_the_readable_header_else_the_records_timestamp_else_1970() {
    let header: Option<&[u8]> = Some(b"2026-01-02T03:04:05.678Z");
    let bad: Option<&[u8]> = Some(b"yesterday");
    let not_text: Option<&[u8]> = Some(b"\xff");
    let cases = [
        (header, Some(0), "2026-01-02T03:04:05.678Z"),
        (bad, Some(1_500), "1970-01-01T00:00:01.500Z"),
        (not_text, Some(0), "1970-01-01T00:00:00.000Z"),
        (None, Some(i64::MAX), "1970-01-01T00:00:00.000Z"),
        (None, None, "1970-01-01T00:00:00.000Z"),
    ];
    for (ce_time, timestamp, expected) in cases {
        assert_eq!(
            ReceivedAt::of_record(ce_time, timestamp).to_string(),
            expected
        );
    }
}

#[test]
fn a_receipt_keeps_any_fraction_and_reads_back_the_same() {
    for text in [
        "2026-01-02T03:04:05.000Z",
        "2026-01-02T03:04:05.678901Z",
        "2026-01-02T03:04:05.678901234Z",
    ] {
        let receipt = ReceivedAt::of_record(Some(text.as_bytes()), None);
        let json = serde_json::to_string(&receipt).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<ReceivedAt>(&json).unwrap(), receipt);
    }
}

#[test]
fn a_duration_is_never_negative() {
    let early = Timestamp::from_push("20260101T000000Z").unwrap();
    let late = Timestamp::from_push("20260101T000001.500Z").unwrap();
    assert!((late.seconds_since(early) - 1.5).abs() < f64::EPSILON);
    assert!(early.seconds_since(late).abs() < f64::EPSILON);
}

#[test]
fn every_time_is_written_as_chrono_writes_it_and_reads_back_the_same() {
    let whole = -62_167_219_200_000_000_000_i128..253_402_300_800_000_000_000;
    let times = whole.step_by(86_400_000_000_000 * 97 + 3_661_001_002_003);
    for nanos in times {
        let (seconds, nanos) = (
            nanos.div_euclid(1_000_000_000),
            nanos.rem_euclid(1_000_000_000),
        );
        let nanos = u32::try_from(nanos).unwrap();
        for nanos in [
            0,
            nanos / 1_000_000 * 1_000_000,
            nanos / 1_000 * 1_000,
            nanos,
        ] {
            let seconds = i64::try_from(seconds).unwrap();
            let time = DateTime::from_timestamp(seconds, nanos).unwrap();
            let text = Timestamp(time).to_string();
            assert_eq!(text, time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            assert_eq!(from_written(text.as_bytes()), Some(time));
        }
    }
}
