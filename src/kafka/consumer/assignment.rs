//! Reads a `ConsumerProtocolAssignment`, the bytes in which a group's leader
//! tells a member which partitions it has.
//!
//! Knows the wire format (`ConsumerProtocolAssignment.json` in Kafka's sources)
//! and nothing of groups.

use bytes::Buf;

/// Returns whether an assignment has partitions of this topic.
///
/// Bytes that do not parse count as such an assignment: acting on a group whose
/// protocol is unknown would do more harm than leaving it alone.
pub(super) fn may_include(assignment: &[u8], topic: &str) -> bool {
    !assignment.is_empty() && includes(assignment, topic).unwrap_or(true)
}

/// The layout is an `int16` version, then an array of topics, each a string and
/// an array of `int32` partitions; user data follows. Every length is big-endian
/// and signed. Returns `None` if the bytes do not follow it.
fn includes(mut assignment: &[u8], topic: &str) -> Option<bool> {
    assignment.try_get_i16().ok()?;
    for _ in 0..assignment.try_get_i32().ok()? {
        let length = usize::try_from(assignment.try_get_i16().ok()?).ok()?;
        let (name, rest) = assignment.split_at_checked(length)?;
        assignment = rest;
        let partitions = usize::try_from(assignment.try_get_i32().ok()?).ok()?;
        assignment = assignment.get(partitions.checked_mul(size_of::<i32>())?..)?;
        if name == topic.as_bytes() && partitions > 0 {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 0, topics with their partitions, no user data.
    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (name, partitions) in topics {
            bytes.extend(i16::try_from(name.len()).unwrap().to_be_bytes());
            bytes.extend(name.bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            for partition in *partitions {
                bytes.extend(partition.to_be_bytes());
            }
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn an_assignment_includes_a_topic_if_it_names_partitions_of_it() {
        let includes = |topics: &[(&str, &[i32])]| may_include(&assignment(topics), "a");
        assert!(includes(&[("a", &[0, 5])]));
        assert!(includes(&[("b", &[1, 2, 3]), ("a", &[0])]));
        assert!(!includes(&[("a", &[])]));
        assert!(!includes(&[("b", &[1, 2, 3])]));
        assert!(!includes(&[]));
        assert!(!may_include(&[], "a"));
    }

    #[test]
    fn malformed_bytes_count_as_an_assignment() {
        let whole = assignment(&[("b", &[1, 2, 3]), ("c", &[0])]);
        // The four bytes of the user data are never read.
        let read = whole.len() - 4;
        for length in 1..read {
            assert!(
                may_include(&whole[..length], "a"),
                "{length} of {read} bytes"
            );
        }
        assert!(may_include(&[0, 0, 0, 0, 0, 1, 0xff, 0xff], "a"));
        assert!(may_include(
            &[0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff],
            "a"
        ));
        assert!(may_include(
            &[0, 0, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff],
            "a"
        ));
    }
}
