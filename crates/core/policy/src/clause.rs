//! One condition on one key of a peer's tags.

use std::collections::BTreeSet;
use std::fmt;

use trireme_identity::TagSet;

/// Keys that stand for properties of the connection; no clause may test them and no tag of a peer counts under them.
const RESERVED_KEY_PREFIX: &str = "@port";

/// The values a clause compares with: whole values and beginnings of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Values {
    /// Values compared byte for byte.
    pub exact: BTreeSet<Box<str>>,
    /// Beginnings: a value matches if it starts with one of them.
    pub prefixes: BTreeSet<Box<str>>,
}

impl Values {
    /// Whether nothing could ever match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// Whether `value` is one of these.
    #[must_use]
    pub fn contain(&self, value: &str) -> bool {
        self.exact.contains(value) || self.prefixes.iter().any(|prefix| value.starts_with(&**prefix))
    }
}

/// What a clause asks of the values a peer has under the clause's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// At least one value of the peer is among these (Equal and Prefix).
    AnyOf(Values),
    /// No value of the peer is among these; true when the key is absent (NotEqual).
    NoneOf(Values),
    /// The peer has the key, with any value, also the empty one.
    Exists,
    /// The peer does not have the key.
    NotExists,
}

/// A condition `key op values`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clause {
    /// The key of the tags looked at.
    pub key: Box<str>,
    /// What their values must fulfil.
    pub test: Test,
}

impl Clause {
    /// Asks for one of `values` under `key`.
    #[must_use]
    pub fn equal<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            key: key.into(),
            test: Test::AnyOf(Values { exact: boxed(values), prefixes: BTreeSet::new() }),
        }
    }

    /// Asks for none of `values` under `key`; fulfilled when the key is absent.
    #[must_use]
    pub fn not_equal<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            key: key.into(),
            test: Test::NoneOf(Values { exact: boxed(values), prefixes: BTreeSet::new() }),
        }
    }

    /// Asks for a value under `key` that starts with one of `prefixes`.
    #[must_use]
    pub fn prefix<'a>(key: &str, prefixes: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            key: key.into(),
            test: Test::AnyOf(Values { exact: BTreeSet::new(), prefixes: boxed(prefixes) }),
        }
    }

    /// Asks for the presence of `key`.
    #[must_use]
    pub fn exists(key: &str) -> Self {
        Self { key: key.into(), test: Test::Exists }
    }

    /// Asks for the absence of `key`.
    #[must_use]
    pub fn not_exists(key: &str) -> Self {
        Self { key: key.into(), test: Test::NotExists }
    }

    /// Whether the key is one that only the connection itself may speak for.
    pub(crate) fn is_reserved(&self) -> bool {
        self.key.starts_with(RESERVED_KEY_PREFIX)
    }

    /// Judges the clause over the set of values the peer has under the key; never counts hits.
    ///
    /// `hidden` says that the peer may have tags under this key that it did not show.
    pub(crate) fn judge(&self, tags: &TagSet, hidden: bool) -> Truth {
        let mut values = tags.iter().filter(|tag| tag.key() == &*self.key).map(|tag| tag.value());
        let absent = if hidden { Truth::Unknown } else { Truth::Yes };
        match &self.test {
            Test::AnyOf(wanted) => Truth::from(values.any(|value| wanted.contain(value))),
            Test::Exists => Truth::from(values.next().is_some()),
            Test::NotExists => match values.next() {
                Some(_) => Truth::No,
                None => absent,
            },
            Test::NoneOf(unwanted) => {
                let mut present = false;
                for value in values {
                    present = true;
                    if unwanted.contain(value) {
                        return Truth::No;
                    }
                }
                if present { Truth::Yes } else { absent }
            }
        }
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values, one, many) = match &self.test {
            Test::Exists => return write!(f, "{} exists", self.key),
            Test::NotExists => return write!(f, "{} does not exist", self.key),
            Test::AnyOf(values) => (&self.key, values, "=", "in"),
            Test::NoneOf(values) => (&self.key, values, "!=", "not in"),
        };
        let words: Vec<String> = values
            .exact
            .iter()
            .map(|value| value.to_string())
            .chain(values.prefixes.iter().map(|prefix| format!("{prefix}*")))
            .collect();
        match words.as_slice() {
            [word] => write!(f, "{key} {one} {word}"),
            words => write!(f, "{key} {many} ({})", words.join(", ")),
        }
    }
}

/// Whether something is fulfilled, as far as the tags shown can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    /// It is not fulfilled.
    No,
    /// A tag the peer did not show could decide it.
    Unknown,
    /// It is fulfilled.
    Yes,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

fn boxed<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<Box<str>> {
    words.into_iter().map(Box::from).collect()
}
