//! A way to write down a closed list once: its variants, their order and their texts.
//!
//! Knows no list of its own.

/// Declares a closed list: an enum, all its variants, and the text of each, written down once.
macro_rules! closed_list {
    ($(#[$meta:meta])* pub enum $name:ident { $($variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("`", $label, "`.")] $variant,)+
        }

        impl $name {
            /// Every variant, each once.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant's place in [`Self::ALL`].
            pub const fn index(self) -> usize {
                // A list without fields numbers its variants from 0.
                #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
                {
                    self as usize
                }
            }

            /// The variant's text: lasting, and fit for a metric label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.label())
            }
        }
    };
}
pub(super) use closed_list;
