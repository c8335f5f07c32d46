//! Declares a closed list once: its variants, their order and their texts.
//!
//! Holds no list of its own.

/// Declares an enum of a closed list, with all its variants and the text of each.
macro_rules! closed_list {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $(#[doc = concat!("`", $label, "`.")] $variant,)+
        }

        impl $name {
            /// Every variant once, in the order of declaration.
            $vis const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant's position in [`Self::ALL`].
            $vis const fn index(self) -> usize {
                // The variants of an enum without fields are numbered from 0.
                #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
                {
                    self as usize
                }
            }

            /// The variant's text, which never changes: metric labels and stored records hold it.
            $vis const fn label(self) -> &'static str {
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
pub(crate) use closed_list;
