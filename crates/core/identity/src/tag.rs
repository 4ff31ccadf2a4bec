//! Tags and ordered sets of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest key or value, in bytes (a Kubernetes label key has at most 317).
const MAX_PART_LEN: usize = 512;

/// Why a string is not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// There is no `=` between key and value.
    #[error("a tag is written key=value, {0:?} has no '='")]
    NoEquals(String),
    /// Nothing stands before the `=`.
    #[error("a tag needs a key before the '='")]
    EmptyKey,
    /// Key or value is longer than 512 bytes.
    #[error("a tag's key and value have at most {MAX_PART_LEN} bytes each, {0:?} has {1}")]
    TooLong(String, usize),
    /// A control character would corrupt logs and reports.
    #[error("a tag holds no control characters")]
    ControlCharacter,
}

/// One attribute of an identity, written `key=value`; the value may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag {
    key: Box<str>,
    value: Box<str>,
}

impl Tag {
    /// Builds a tag from its two parts.
    ///
    /// # Errors
    /// [`TagError`] if the key is empty or holds `=`, or a part is too long or holds control characters.
    pub fn new(key: &str, value: &str) -> Result<Self, TagError> {
        if key.is_empty() {
            return Err(TagError::EmptyKey);
        }
        if key.contains('=') {
            return Err(TagError::NoEquals(key.to_owned()));
        }
        for part in [key, value] {
            if part.len() > MAX_PART_LEN {
                return Err(TagError::TooLong(part.chars().take(32).collect(), part.len()));
            }
            if part.chars().any(char::is_control) {
                return Err(TagError::ControlCharacter);
            }
        }
        Ok(Self { key: key.into(), value: value.into() })
    }

    /// The part before the first `=`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The part after the first `=`.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The length of `key=value` in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.key.len() + 1 + self.value.len()
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(TagError::NoEquals(text.chars().take(32).collect()));
        };
        Self::new(key, value)
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;

    fn try_from(text: String) -> Result<Self, TagError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.to_string()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// An ordered list of tags without duplicates; a key may have several values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Tag>", into = "Vec<Tag>")]
pub struct TagSet(Vec<Tag>);

impl TagSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a tag unless it is already there; tells whether it was new.
    pub fn insert(&mut self, tag: Tag) -> bool {
        let new = !self.0.contains(&tag);
        if new {
            self.0.push(tag);
        }
        new
    }

    /// The tags in insertion order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tag> {
        self.0.iter()
    }

    /// How many tags there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tag.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every value of `key`, in order.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |tag| tag.key() == key).map(Tag::value)
    }

    /// Whether some tag has this key.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.0.iter().any(|tag| tag.key() == key)
    }

    /// Parses a list of `key=value` strings.
    ///
    /// # Errors
    /// The first [`TagError`] met.
    pub fn parse<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Self, TagError> {
        tags.into_iter().map(str::parse).collect()
    }
}

impl FromIterator<Tag> for TagSet {
    fn from_iter<I: IntoIterator<Item = Tag>>(tags: I) -> Self {
        let mut set = Self::new();
        for tag in tags {
            set.insert(tag);
        }
        set
    }
}

impl From<Vec<Tag>> for TagSet {
    fn from(tags: Vec<Tag>) -> Self {
        tags.into_iter().collect()
    }
}

impl From<TagSet> for Vec<Tag> {
    fn from(set: TagSet) -> Self {
        set.0
    }
}

impl<'a> IntoIterator for &'a TagSet {
    type Item = &'a Tag;
    type IntoIter = std::slice::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tag) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{tag}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_removed_and_order_is_kept() {
        let set = TagSet::parse(["role=b", "role=a", "role=b", "env="]).unwrap();
        assert_eq!(set.to_string(), "role=b,role=a,env=");
        assert_eq!(set.values("role").collect::<Vec<_>>(), ["b", "a"]);
        assert!(set.contains_key("env") && !set.contains_key("rol"));
    }

    #[test]
    fn malformed_tags_are_named() {
        assert_eq!("role".parse::<Tag>(), Err(TagError::NoEquals("role".into())));
        assert_eq!("=x".parse::<Tag>(), Err(TagError::EmptyKey));
        assert_eq!("a=\n".parse::<Tag>(), Err(TagError::ControlCharacter));
        assert_eq!("a=b=c".parse::<Tag>().map(|t| t.value().to_owned()), Ok("b=c".to_owned()));
        assert!(matches!(Tag::new("k", &"v".repeat(513)), Err(TagError::TooLong(_, 513))));
    }
}
