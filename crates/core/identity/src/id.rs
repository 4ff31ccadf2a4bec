//! Identifiers that appear on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest identifier, in bytes; keeps tokens inside their size budget.
const MAX_LEN: usize = 64;

/// Why a string is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string has no characters.
    #[error("an id must not be empty")]
    Empty,
    /// The string is longer than 64 bytes.
    #[error("an id has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// The string holds something else than letters, digits and `-._:/@`.
    #[error("an id holds only ASCII letters, digits and -._:/@, not {0:?}")]
    BadCharacter(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong(text.len()));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._:/@".contains(*c))) {
        Some(c) => Err(IdError::BadCharacter(c)),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 64 bytes of ASCII letters, digits and `-._:/@`.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// The name of a processing unit, as peers and flow records see it.
    PuId
}
identifier! {
    /// The name of a node: one running agent and its key.
    NodeId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_alphabet_or_length_are_refused() {
        assert_eq!("".parse::<PuId>(), Err(IdError::Empty));
        assert_eq!("a".repeat(65).parse::<PuId>(), Err(IdError::TooLong(65)));
        assert_eq!("a b".parse::<NodeId>(), Err(IdError::BadCharacter(' ')));
        assert_eq!("pod/web-0".parse::<PuId>().map(|id| id.to_string()), Ok("pod/web-0".into()));
    }
}
