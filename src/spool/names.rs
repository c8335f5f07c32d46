//! The names of a spool's files.
//!
//! `segment-1-00000000000000000007-9f86d081884c7d65`: what it is, the version of its
//! format, its number, and the number that its checks cover.

use std::fmt;

/// The version of the format of entries and of what they hold.
const VERSION: u32 = 1;

/// Held locked by the process that owns the spool.
pub(super) const LOCK: &str = "lock";

const DAMAGED: &str = "damaged-";
const REJECTED: &str = "rejected-";

/// What a file of entries holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pushes.
    Segment,
    /// What has been delivered.
    Progress,
}

/// The name of a file of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) kind: Kind,
    /// Files of one kind are in the order of their numbers.
    pub(super) number: u64,
    pub(super) salt: u64,
}

/// What the name of a file in the directory says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Entries(Name),
    /// What was damaged, or rejected by Kafka.
    SetAside,
    /// A file of entries in another version of the format.
    OtherVersion,
    /// Not a file of entries.
    Other,
}

impl Name {
    pub(super) fn new(kind: Kind, number: u64) -> Self {
        let salt = fastrand::u64(..);
        Self { kind, number, salt }
    }
}

impl Kind {
    const ALL: [Self; 2] = [Self::Segment, Self::Progress];

    fn text(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Progress => "progress",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, number, salt } = self;
        write!(f, "{}-{VERSION}-{number:020}-{salt:016x}", kind.text())
    }
}

/// The file of the bytes at a place of a segment that are no entry.
pub(super) fn damaged(segment: &str, place: u64) -> String {
    format!("{DAMAGED}{segment}-{place}")
}

/// The file of a record that Kafka rejected. An empty log counts its entries anew, so the
/// sequence number alone would name another one some day.
pub(super) fn rejected(sequence: u64, received_ms: u64) -> String {
    format!("{REJECTED}{sequence:020}-{received_ms}")
}

/// Returns what a file is, by its name.
pub(super) fn parse(name: &str) -> Named {
    if name.starts_with(DAMAGED) || name.starts_with(REJECTED) {
        return Named::SetAside;
    }
    let parts: Vec<&str> = name.split('-').collect();
    let [kind, version, number, salt] = parts[..] else {
        return Named::Other;
    };
    let kind = Kind::ALL.into_iter().find(|known| known.text() == kind);
    let version: Option<u32> = version.parse().ok();
    let (Some(kind), Some(version)) = (kind, version) else {
        return Named::Other;
    };
    if version != VERSION {
        return Named::OtherVersion;
    }
    match (number.parse(), u64::from_str_radix(salt, 16)) {
        (Ok(number), Ok(salt)) => Named::Entries(Name { kind, number, salt }),
        _ => Named::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_file_is() {
        let name = Name {
            kind: Kind::Segment,
            number: 7,
            salt: 0x9f86_d081_884c_7d65,
        };
        let text = "segment-1-00000000000000000007-9f86d081884c7d65";
        assert_eq!(name.to_string(), text);
        assert_eq!(parse(text), Named::Entries(name));
        let newer = "segment-2-00000000000000000007-9f86d081884c7d65-extra";
        assert_eq!(parse(&newer[..newer.len() - 6]), Named::OtherVersion);
        for other in [LOCK, "notes.txt", "segment-1-x-1", newer] {
            assert_eq!(parse(other), Named::Other, "{other}");
        }
        for aside in [damaged(text, 12), rejected(7, 1_700_000_000_000)] {
            assert_eq!(parse(&aside), Named::SetAside, "{aside}");
        }
    }
}
