//! Some optional texts in one allocation.
//!
//! A state has several short texts, and there are millions of states: one
//! `String` for each text would cost more memory than the text, and more time
//! to copy.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A text of JSON, borrowed from it where it has no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// `N` texts, any of which may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts<const N: usize> {
    /// All that are there, one after the other.
    joined: Box<str>,
    /// Four bytes are enough: no record is so long.
    lengths: [Option<u32>; N],
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Texts<N> {
    /// Copies them.
    pub(super) fn of(texts: [Option<&str>; N]) -> Self {
        let bytes = texts.iter().flatten().map(|text| text.len()).sum();
        let mut joined = String::with_capacity(bytes);
        texts
            .iter()
            .flatten()
            .for_each(|text| joined.push_str(text));
        Self {
            joined: joined.into_boxed_str(),
            lengths: texts.map(|text| u32::try_from(text?.len()).ok()),
        }
    }

    /// All of them, in their order.
    pub(super) fn all(&self) -> [Option<&str>; N] {
        let mut rest = &*self.joined;
        self.lengths.map(|length| {
            let (text, after) = rest.split_at_checked(usize::try_from(length?).ok()?)?;
            rest = after;
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were_and_absent_is_not_empty() {
        for texts in [
            [Some("a"), None, Some("é"), Some("")],
            [None, Some(""), None, Some("last")],
            [None; 4],
        ] {
            assert_eq!(Texts::of(texts).all(), texts);
        }
    }
}
