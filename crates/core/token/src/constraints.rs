//! Which tags a node may claim.

use std::fmt;
use std::str::FromStr;

use trireme_identity::{Tag, TagSet};

/// Why a text is not a tag pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing stands before the `=`, or there is nothing at all.
    #[error("a tag pattern needs a key: key, key=value or key=prefix*")]
    EmptyKey,
    /// A `*` elsewhere than at the end of the value.
    #[error("in the tag pattern {0:?} a * may stand only at the end of the value")]
    MisplacedStar(String),
    /// Longer than any tag or with control characters.
    #[error("the tag pattern {0:?} is too long or holds control characters")]
    BadText(String),
}

/// A pattern of allowed tags: `key` (any value), `key=value`, or `key=prefix*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagPattern {
    key: Box<str>,
    value: ValuePattern,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum ValuePattern {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl TagPattern {
    /// Whether the tag fits.
    #[must_use]
    pub fn matches(&self, tag: &Tag) -> bool {
        *self.key == *tag.key()
            && match &self.value {
                ValuePattern::Any => true,
                ValuePattern::Exact(value) => **value == *tag.value(),
                ValuePattern::Prefix(prefix) => tag.value().starts_with(&**prefix),
            }
    }
}

impl FromStr for TagPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (key, value) = match text.split_once('=') {
            None => (text, ValuePattern::Any),
            Some((key, value)) => (
                key,
                value.strip_suffix('*').map_or_else(
                    || ValuePattern::Exact(value.into()),
                    |prefix| ValuePattern::Prefix(prefix.into()),
                ),
            ),
        };
        if key.is_empty() {
            return Err(PatternError::EmptyKey);
        }
        let part = match &value {
            ValuePattern::Any => "",
            ValuePattern::Exact(part) | ValuePattern::Prefix(part) => part,
        };
        if key.contains('*') || part.contains('*') {
            return Err(PatternError::MisplacedStar(text.chars().take(64).collect()));
        }
        if Tag::new(key, part).is_err() {
            return Err(PatternError::BadText(text.chars().take(64).collect()));
        }
        Ok(Self { key: key.into(), value })
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.value {
            ValuePattern::Any => Ok(()),
            ValuePattern::Exact(value) => write!(f, "={value}"),
            ValuePattern::Prefix(prefix) => write!(f, "={prefix}*"),
        }
    }
}

/// An allow-list of tags, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Constraints {
    /// Every tag may be claimed.
    #[default]
    Unrestricted,
    /// Only tags that fit one of these; with an empty list, no tag at all.
    Allow(Vec<TagPattern>),
}

impl Constraints {
    /// Parses a list of patterns.
    ///
    /// # Errors
    /// The first [`PatternError`] met.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        patterns.into_iter().map(str::parse).collect::<Result<_, _>>().map(Self::Allow)
    }

    /// Whether the tag may be claimed.
    #[must_use]
    pub fn permits(&self, tag: &Tag) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Allow(patterns) => patterns.iter().any(|pattern| pattern.matches(tag)),
        }
    }

    /// The first tag that may not be claimed.
    pub(crate) fn first_violation<'a>(&self, tags: &'a TagSet) -> Option<&'a Tag> {
        tags.iter().find(|tag| !self.permits(tag))
    }

    /// The patterns as text; `None` if everything is allowed.
    pub(crate) fn to_texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Unrestricted => None,
            Self::Allow(patterns) => Some(patterns.iter().map(TagPattern::to_string).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(patterns: &[&str], tag: &str) -> bool {
        Constraints::parse(patterns.iter().copied()).unwrap().permits(&tag.parse().unwrap())
    }

    #[test]
    fn patterns_allow_a_key_a_value_or_a_prefix() {
        assert!(permits(&["role"], "role=web") && permits(&["role"], "role="));
        assert!(permits(&["role=web"], "role=web") && !permits(&["role=web"], "role=web2"));
        assert!(permits(&["app=shop-*"], "app=shop-1") && !permits(&["app=shop-*"], "app=shop"));
        assert!(permits(&["a=*"], "a=") && !permits(&["role"], "roles=web") && !permits(&[], "a=b"));
        assert!(Constraints::Unrestricted.permits(&"a=b".parse().unwrap()));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        assert_eq!("".parse::<TagPattern>(), Err(PatternError::EmptyKey));
        assert_eq!("=x".parse::<TagPattern>(), Err(PatternError::EmptyKey));
        assert_eq!("a=b*c".parse::<TagPattern>(), Err(PatternError::MisplacedStar("a=b*c".into())));
        assert_eq!("a*=b".parse::<TagPattern>(), Err(PatternError::MisplacedStar("a*=b".into())));
        assert_eq!("a=\n".parse::<TagPattern>(), Err(PatternError::BadText("a=\n".into())));
    }

    #[test]
    fn patterns_print_as_they_are_written() {
        for text in ["role", "role=", "role=web", "role=web*", "role=*"] {
            assert_eq!(text.parse::<TagPattern>().unwrap().to_string(), text);
        }
    }
}
