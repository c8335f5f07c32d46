//! Pseudo-random numbers that follow from the seed alone.
//!
//! Does not know what a number decides; a salt of its own for each decision
//! keeps them independent of one another.

/// The decision that a number is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Salt {
    Repeat,
    Device,
    Application,
    Command,
    CommandDevice,
    CommandOrder,
    Service,
    Operation,
    SubOperation,
    CampaignStart,
    Failure,
    Retry,
    Oddity,
    OddityKind,
    Reading,
    Gateway,
    OtherDevice,
    Request,
}

/// The seed of a run, mixed so that neighbouring seeds share no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// 64 bits for one decision about one item.
    pub(super) fn number(self, salt: Salt, item: u64) -> u64 {
        #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
        let salt = salt as u64;
        mix(mix(self.0 ^ mix(salt)) ^ item)
    }

    /// A number below `bound`, which must not be 0.
    pub(super) fn below(self, salt: Salt, item: u64, bound: u64) -> u64 {
        self.number(salt, item) % bound
    }

    /// Returns true for about `percent` of all items.
    pub(super) fn chance(self, salt: Salt, item: u64, percent: u32) -> bool {
        self.below(salt, item, 100) < u64::from(percent)
    }

    /// 32 hexadecimal digits in five groups, the format of the platform's device ids.
    pub(super) fn uuid(self, salt: Salt, item: u64) -> String {
        let (high, low) = self.two_numbers(salt, item);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff,
        )
    }

    /// 24 hexadecimal digits, the format of the platform's operation ids.
    pub(super) fn object_id(self, salt: Salt, item: u64) -> String {
        let (high, low) = self.two_numbers(salt, item);
        format!("{high:016x}{:08x}", low >> 32)
    }

    fn two_numbers(self, salt: Salt, item: u64) -> (u64, u64) {
        let high = self.number(salt, item);
        (high, mix(high ^ item.rotate_left(32)))
    }
}

/// The finalizer of `SplitMix64`.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
