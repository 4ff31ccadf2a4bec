//! Leaving tags out of a token.

use std::fmt;
use std::str::FromStr;

use trireme_identity::TagSet;

use crate::PatternError;

/// A pattern of tag keys: `key`, or `prefix*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    text: Box<str>,
    prefix: bool,
}

impl KeyPattern {
    /// Whether the key fits.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        if self.prefix { key.starts_with(&*self.text) } else { *self.text == *key }
    }
}

impl FromStr for KeyPattern {
    type Err = PatternError;

    fn from_str(pattern: &str) -> Result<Self, PatternError> {
        let (text, prefix) = pattern.strip_suffix('*').map_or((pattern, false), |text| (text, true));
        if text.is_empty() && !prefix {
            return Err(PatternError::EmptyKey);
        }
        if text.contains('*') {
            return Err(PatternError::MisplacedStar(pattern.chars().take(64).collect()));
        }
        if text.contains('=') || text.chars().any(char::is_control) {
            return Err(PatternError::BadText(pattern.chars().take(64).collect()));
        }
        Ok(Self { text: text.into(), prefix })
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

/// Which tags of a processing unit go into its token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilter {
    /// Keys to keep; `None` keeps all.
    pub include: Option<Vec<KeyPattern>>,
    /// Keys to leave out, also of those included.
    pub exclude: Vec<KeyPattern>,
}

/// The outcome of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The tags that stay.
    pub tags: TagSet,
    /// Whether some were left out.
    pub partial: bool,
}

impl TagFilter {
    /// Applies the filter.
    #[must_use]
    pub fn apply(&self, tags: &TagSet) -> Filtered {
        let kept: TagSet = tags.iter().filter(|tag| self.keeps(tag.key())).cloned().collect();
        Filtered { partial: kept.len() < tags.len(), tags: kept }
    }

    fn keeps(&self, key: &str) -> bool {
        let fits = |patterns: &[KeyPattern]| patterns.iter().any(|pattern| pattern.matches(key));
        self.include.as_deref().is_none_or(fits) && !fits(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filtered_tags_make_the_token_partial() {
        let tags = TagSet::parse(["role=web", "k8s.io/a=1", "k8s.io/b=2", "env=prod"]).unwrap();
        let all = TagFilter::default().apply(&tags);
        assert_eq!(all, Filtered { tags: tags.clone(), partial: false });
        let filter = TagFilter {
            include: Some(vec!["role".parse().unwrap(), "k8s.io/*".parse().unwrap()]),
            exclude: vec!["k8s.io/b".parse().unwrap()],
        };
        let some = filter.apply(&tags);
        assert_eq!((some.tags.to_string().as_str(), some.partial), ("role=web,k8s.io/a=1", true));
    }

    #[test]
    fn malformed_key_patterns_are_refused() {
        assert_eq!("".parse::<KeyPattern>(), Err(PatternError::EmptyKey));
        assert_eq!("a*b".parse::<KeyPattern>(), Err(PatternError::MisplacedStar("a*b".into())));
        assert_eq!("a=b".parse::<KeyPattern>(), Err(PatternError::BadText("a=b".into())));
        assert_eq!("*".parse::<KeyPattern>().unwrap().to_string(), "*");
    }
}
