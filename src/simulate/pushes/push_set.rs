//! A bitmap of push numbers: 125 KB for a million pushes.

/// A set of push numbers, such as those answered 200; one bit for each number
/// up to the highest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushSet {
    words: Vec<u64>,
    len: u64,
}

impl PushSet {
    /// Adds a number; has no effect if it is already in the set.
    pub(crate) fn insert(&mut self, number: u32) {
        let (word, bit) = position(number);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(is_new);
    }

    /// Returns whether the number is in the set.
    pub(crate) fn contains(&self, number: u32) -> bool {
        let (word, bit) = position(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Returns how many numbers the set holds, in constant time.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl FromIterator<u32> for PushSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut set = Self::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}

fn position(number: u32) -> (usize, u64) {
    let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
    (word, 1 << (number % 64))
}
