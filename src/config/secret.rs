//! A text that is never shown.

use std::fmt;

use serde::{Serialize, Serializer};

/// What `Debug` and `config print` show instead of a secret.
pub(crate) const MASK: &str = "***";

/// A text that is neither empty nor [`MASK`], and that `Debug` and `Serialize`
/// show as [`MASK`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself, to compare with; it must not be written anywhere.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// An empty secret would protect nothing, and neither would the mask, which
    /// everybody knows, if printed settings were loaded again.
    pub(super) fn check(text: &str) -> Result<(), &'static str> {
        match text {
            "" => Err("must not be empty"),
            MASK => Err("must be the secret itself, not the mask that is printed instead"),
            _ => Ok(()),
        }
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::check(&text).map(|()| Self(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expose_shows_a_secret() {
        let secret = Secret::try_from("s3cret".to_owned()).unwrap();
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""***""#);
        assert_eq!(secret.expose(), "s3cret");
    }
}
