//! The four tiers and who may reach whom.

use std::fmt;

use serde::Serialize;

/// A tier of the application; `External` belongs to no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tier {
    External,
    Frontend,
    Backend,
    Database,
}

impl Tier {
    pub(super) const ALL: [Self; 4] = [Self::External, Self::Frontend, Self::Backend, Self::Database];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Frontend => "frontend",
            Self::Backend => "backend",
            Self::Database => "database",
        }
    }

    /// The identity of its workloads.
    pub(super) fn tags(self) -> [String; 2] {
        [format!("tier={self}"), "app=three-tier".to_owned()]
    }

    /// Where its program listens.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::External | Self::Frontend | Self::Backend => 80,
            Self::Database => 6379,
        }
    }

    /// Who reaches this tier, by its ingress rules; nobody selects `External`, so everyone does.
    const fn clients(self) -> &'static [Self] {
        match self {
            Self::External => &Self::ALL,
            Self::Frontend => &[Self::Frontend],
            Self::Backend => &[Self::Frontend, Self::Backend],
            Self::Database => &[Self::Backend, Self::Database],
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What became, or should become, of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Access {
    Allow,
    Deny,
}

/// The matrix that the policy must produce.
pub(super) fn expected(from: Tier, to: Tier) -> Access {
    if to.clients().contains(&from) { Access::Allow } else { Access::Deny }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_one_of_the_original_demonstration() {
        let letter = |from, to| match expected(from, to) {
            Access::Allow => 'A',
            Access::Deny => 'D',
        };
        let rows = Tier::ALL.map(|from| Tier::ALL.map(|to| letter(from, to)).iter().collect::<String>());
        assert_eq!(rows, ["ADDD", "AAAD", "ADAA", "ADDA"]);
    }
}
