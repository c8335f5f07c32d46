//! `traceparent`: which span a request or a record continues (W3C Trace Context,
//! version 00).

use std::num::NonZero;

use bytes::Bytes;

/// The bit of the flags that says that the span is recorded.
const SAMPLED: u8 = 0b01;
/// The bits that a child takes over: sampled, and random trace id (level 2).
const INHERITED: u8 = 0b11;

/// A span, as others know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanContext {
    pub(super) trace_id: NonZero<u128>,
    pub(super) span_id: NonZero<u64>,
    flags: u8,
}

impl SpanContext {
    /// The first span of a trace, which is recorded.
    pub(super) fn root() -> Self {
        Self {
            trace_id: random(|| NonZero::new(fastrand::u128(..))),
            span_id: random_span_id(),
            flags: SAMPLED,
        }
    }

    /// Another span of the same trace.
    pub(super) fn child(&self) -> Self {
        Self {
            span_id: random_span_id(),
            flags: self.flags & INHERITED,
            ..*self
        }
    }

    /// Reads a header. A later version is read like 00, but for `ff`, which is none, and
    /// neither id is zero.
    pub(crate) fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        if !is_well_formed(header) || text.starts_with("ff") {
            return None;
        }
        Some(Self {
            trace_id: NonZero::new(u128::from_str_radix(&text[3..35], 16).ok()?)?,
            span_id: NonZero::new(u64::from_str_radix(&text[36..52], 16).ok()?)?,
            flags: u8::from_str_radix(&text[53..], 16).ok()?,
        })
    }

    /// Returns whether the span is recorded.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of the header that makes others continue the span.
    pub(crate) fn header(&self) -> Bytes {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}").into()
    }
}

/// Returns whether a header has the form of version 00.
pub(crate) fn is_well_formed(header: &[u8]) -> bool {
    let dashes = [2, 35, 52];
    header.len() == 55
        && header.iter().enumerate().all(|(position, byte)| {
            if dashes.contains(&position) {
                *byte == b'-'
            } else {
                matches!(byte, b'0'..=b'9' | b'a'..=b'f')
            }
        })
}

fn random_span_id() -> NonZero<u64> {
    random(|| NonZero::new(fastrand::u64(..)))
}

fn random<T>(mut draw: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(id) = draw() {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED_PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = SpanContext::parse(SAMPLED_PARENT).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.header(), SAMPLED_PARENT);
        let child = context.child();
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.span_id, context.span_id);
        assert_eq!(SpanContext::parse(&child.header()), Some(child));
    }

    #[test]
    fn a_header_that_names_no_span_is_not_read() {
        for header in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "",
        ] {
            assert_eq!(SpanContext::parse(header.as_bytes()), None, "{header}");
        }
    }
}
