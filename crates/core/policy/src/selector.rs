//! A set of conditions that must hold together.

use std::fmt;

use trireme_identity::TagSet;

use crate::Clause;
use crate::clause::Truth;

/// The AND of its clauses; without clauses it selects every peer that has an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The conditions; their order and repetitions mean nothing.
    pub clauses: Vec<Clause>,
}

impl Selector {
    /// Selects what fulfils every one of `clauses`.
    #[must_use]
    pub fn new(clauses: impl IntoIterator<Item = Clause>) -> Self {
        Self { clauses: clauses.into_iter().collect() }
    }

    /// Whether a tag set that hides nothing fulfils every clause; what chooses the subject of a policy.
    #[must_use]
    pub fn matches(&self, tags: &TagSet) -> bool {
        self.clauses.iter().all(|clause| clause.judge(tags, false) == Truth::Yes)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.clauses.is_empty() {
            return f.write_str("any identity");
        }
        for (index, clause) in self.clauses.iter().enumerate() {
            if index > 0 {
                f.write_str(" and ")?;
            }
            write!(f, "{clause}")?;
        }
        Ok(())
    }
}
