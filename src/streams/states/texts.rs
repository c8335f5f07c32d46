//! Several optional texts in one allocation.
//!
//! A state has several short texts, and there are millions of states: a `String` for each text
//! would take more memory than the text itself, and more time to copy.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A JSON string, borrowed from the input unless it contains escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// `N` texts, any of which may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts<const N: usize> {
    /// All that are present, one after the other.
    joined: Box<str>,
    /// In bytes; a record never comes near the 4 GiB that `u32` can express.
    lengths: [Option<u32>; N],
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Texts<N> {
    /// Copies the texts.
    pub(super) fn new(texts: [Option<&str>; N]) -> Self {
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

    /// All texts, in the order in which [`Texts::new`] got them.
    pub(super) fn all(&self) -> [Option<&str>; N] {
        let mut rest = &*self.joined;
        self.lengths.map(|length| {
            let (text, after) = rest.split_at_checked(usize::try_from(length?).ok()?)?;
            rest = after;
            Some(text)
        })
    }

    /// The text at `position` in [`Texts::all`].
    pub(super) fn get(&self, position: usize) -> Option<&str> {
        let length = (*self.lengths.get(position)?)?;
        let start: u32 = self.lengths.iter().take(position).flatten().sum();
        let [start, length] = [start, length].map(usize::try_from);
        let (_, text_and_rest) = self.joined.split_at_checked(start.ok()?)?;
        text_and_rest.get(..length.ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_as_given_and_an_empty_one_is_not_absent() {
        for texts in [
            [Some("a"), None, Some("é"), Some("")],
            [None, Some(""), None, Some("last")],
            [None; 4],
        ] {
            let kept = Texts::new(texts);
            assert_eq!(kept.all(), texts);
            assert_eq!([0, 1, 2, 3].map(|position| kept.get(position)), texts);
        }
    }
}
