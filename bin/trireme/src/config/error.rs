//! Errors of the configuration file, with their place in it.

use std::path::{Path, PathBuf};

/// What is wrong with a configuration file, where, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    path: PathBuf,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    key: Option<String>,
    message: String,
}

impl std::error::Error for ConfigError {}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        match &self.key {
            Some(key) => write!(f, ": {key}: {}", self.message),
            None => write!(f, ": {}", self.message),
        }
    }
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        let message = format!("cannot read the configuration: {source}");
        Self { path: path.to_owned(), place: None, key: None, message }
    }

    /// From the parser's error. The offending line itself is not quoted: it may hold a secret.
    pub(super) fn at(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let key = key_path(error);
        let mut message = error.message().trim_end().replace('\n', ", ");
        if key.as_deref().is_none_or(|key| key.starts_with("secrets")) {
            message = without_values(&message);
        }
        let place = error.span().map(|span| position(text, span.start));
        Self { path: path.to_owned(), place, key, message }
    }

    /// About a key of a table, or of the element of an array of tables.
    pub(super) fn of_key(
        path: &Path,
        text: &str,
        (table, index): (&str, Option<usize>),
        key: &str,
        message: String,
    ) -> Self {
        let place = toml::de::DeTable::parse(text).ok().and_then(|whole| {
            let found = whole.get_ref().get(table)?;
            let found = match index {
                Some(index) => found.get_ref().get(index)?,
                None => found,
            };
            Some(position(text, found.get_ref().get(key)?.span().start))
        });
        Self { path: path.to_owned(), place, key: Some(format!("{table}.{key}")), message }
    }

    /// About the unit with this index, found by its `[[pu]]` header.
    pub(super) fn in_unit(path: &Path, text: &str, index: usize, message: String) -> Self {
        let header = text.match_indices("[[pu]]").nth(index).map(|(at, _)| position(text, at));
        Self { path: path.to_owned(), place: header, key: Some("pu".to_owned()), message }
    }
}

/// The parser knows the key, but tells it only in the text it prints when it has no input to quote.
fn key_path(error: &toml::de::Error) -> Option<String> {
    let mut bare = error.clone();
    bare.set_input(None);
    let text = bare.to_string();
    let (_, key) = text.rsplit_once("\nin `")?;
    Some(key.trim_end().trim_end_matches('`').to_owned())
}

/// Cuts quoted values out of `invalid type: string "…", expected …`.
fn without_values(message: &str) -> String {
    for opening in ["invalid type: string \"", "invalid value: string \""] {
        if let (Some(start), Some(end)) = (message.find(opening), message.rfind("\", expected")) {
            let (head, tail) = (message.get(..start), message.get(end + 1..));
            if let (Some(head), Some(tail)) = (head, tail) {
                return format!("{head}invalid type: string{tail}");
            }
        }
    }
    message.to_owned()
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (line, column)
}
