//! The deny-list file: what is refused although it verifies. One entry per line, `#` begins a comment:
//!
//! ```text
//! key 5f0c…     # a signing key: 64 hexadecimal digits, as `trireme keys show` prints them
//! token 90ab…   # one token: 32 hexadecimal digits, as flow records and logs name it
//! node node-b   # whatever this node issues
//! ```

mod append;
mod live;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use trireme_identity::NodeId;
use trireme_token::{DenyList, KeyId, TokenId};

pub use append::{Appended, append};
pub use live::{DenyListFile, DenyListStatus};

/// Why a deny-list file is not used or not changed.
#[derive(Debug, thiserror::Error)]
pub enum DenyFileError {
    /// A line says nothing that can be refused.
    #[error("{}:{line}: {problem}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it and what would be right.
        problem: EntryError,
    },
    /// The file cannot be read.
    #[error("cannot read the deny list {}; an empty file denies nothing", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file cannot be replaced.
    #[error("cannot write the deny list {}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why a text is no entry of a deny list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is not two words.
    #[error("an entry is `key <id>`, `token <id>` or `node <id>`")]
    Form,
    /// The first word is unknown.
    #[error("key, token or node is denied, not {0:?}")]
    Kind(String),
    /// The second word does not fit the first.
    #[error("no {kind}: {problem}")]
    Value {
        /// The first word.
        kind: &'static str,
        /// What is wrong with the second.
        problem: String,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A signing key.
    Key(KeyId),
    /// A token.
    Token(TokenId),
    /// A node.
    Node(NodeId),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key {id}"),
            Self::Token(id) => write!(f, "token {id}"),
            Self::Node(id) => write!(f, "node {id}"),
        }
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let mut words = text.split_whitespace();
        let (Some(kind), Some(value), None) = (words.next(), words.next(), words.next()) else {
            return Err(EntryError::Form);
        };
        match kind {
            "key" => read("key", value).map(Self::Key),
            "token" => read("token", value).map(Self::Token),
            "node" => read("node", value).map(Self::Node),
            other => Err(EntryError::Kind(other.chars().take(32).collect())),
        }
    }
}

fn read<T: FromStr<Err: fmt::Display>>(kind: &'static str, value: &str) -> Result<T, EntryError> {
    value.parse().map_err(|error: T::Err| EntryError::Value { kind, problem: error.to_string() })
}

/// Reads the text of a file; `path` only names it in errors.
///
/// # Errors
/// [`DenyFileError::Wrong`] for the first line that is no entry: a list that is understood only in part would be
/// taken for protection.
pub fn parse(path: &Path, text: &[u8]) -> Result<DenyList, DenyFileError> {
    let mut list = DenyList::default();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        // Ids are ASCII; whatever else stands in a line is shown as far as it can be.
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start_matches('\u{feff}').split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(Entry::Key(id)) => drop(list.keys.insert(id)),
            Ok(Entry::Token(id)) => drop(list.tokens.insert(id)),
            Ok(Entry::Node(id)) => drop(list.nodes.insert(id)),
            Err(problem) => {
                return Err(DenyFileError::Wrong { path: path.to_owned(), line: number + 1, problem });
            }
        }
    }
    Ok(list)
}

/// Reads a file.
///
/// # Errors
/// [`DenyFileError::Unreadable`], also when there is none, or [`DenyFileError::Wrong`].
pub fn load(path: &Path) -> Result<DenyList, DenyFileError> {
    let text =
        std::fs::read(path).map_err(|source| DenyFileError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

#[cfg(test)]
mod tests;
