//! What is wrong with a policy file, where, and what would be right.

use serde_saphyr::Error as YamlError;

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The name does not tell the format.
    #[error("{name}: a policy file's name ends with .yaml, .yml or .json")]
    UnknownFormat {
        /// The file.
        name: String,
    },
    /// The file cannot be read.
    #[error("{name}: cannot read the policy file")]
    Unreadable {
        /// The file.
        name: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{name}:{line}:{column}: {message}")]
    Wrong {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// The column in characters, from 1.
        column: u64,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl PolicyFileError {
    pub(super) fn from_json(name: &str, error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        Self::Wrong {
            name: name.to_owned(),
            line: u64::try_from(line).unwrap_or(u64::MAX),
            column: u64::try_from(column).unwrap_or(u64::MAX),
            message: format!("not JSON: {what}"),
        }
    }

    pub(super) fn from_yaml(name: &str, error: &YamlError) -> Self {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        Self::Wrong { name: name.to_owned(), line, column, message: describe(error, line, column) }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest keeps the words of the YAML library")]
fn describe(error: &YamlError, line: u64, column: u64) -> String {
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => match nearest(field, expected) {
            Some(known) => format!("unknown field {field:?}, did you mean {known:?}?"),
            None => format!("unknown field {field:?}; known here: {}", expected.join(", ")),
        },
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            let found = if variant == "~" { "nothing" } else { &format!("{variant:?}") };
            format!("expected one of: {}; found {found}", expected.join(", "))
        }
        YamlError::SerdeMissingField { field, .. } => {
            format!("the field {field:?} is missing: {}", remedy(field))
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            let found = if unexpected == "unit value" { "nothing" } else { unexpected };
            format!("expected {expected}, found {found}")
        }
        YamlError::Message { msg, .. } => msg.clone(),
        YamlError::Unexpected { expected, .. } => match *expected {
            "sequence start" => "expected a list, as in [a, b], or [] for none".to_owned(),
            "mapping start" => "expected fields, as in name: value".to_owned(),
            "string scalar" => "expected a single value".to_owned(),
            other => format!("expected {other}"),
        },
        YamlError::InvalidScalar { ty, .. } => match *ty {
            "u32" => "expected a whole number from 0 to 4294967295".to_owned(),
            "boolean" => "expected true or false".to_owned(),
            other => format!("expected {other}"),
        },
        YamlError::NullIntoString { .. } => "expected a text, found nothing".to_owned(),
        YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => "expected one word".to_owned(),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} is given twice"),
        YamlError::MultipleDocuments { .. } => {
            "a policy file holds one document: remove the second ---".to_owned()
        }
        YamlError::Eof { .. } => {
            "the file is empty: it needs at least apiVersion: trireme/v1 and policies: []".to_owned()
        }
        other => {
            let text = other.to_string();
            let what = text.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&text);
            format!("cannot be read as YAML: {what}")
        }
    }
}

/// What to write for a field that must not be missing.
fn remedy(field: &str) -> &'static str {
    match field {
        "apiVersion" => "write apiVersion: trireme/v1",
        "policies" => "write policies: [] for none",
        "name" => "write name: and a name for reports, as in name: frontend",
        "subject" => {
            "write the tags of the units it is about, as in subject: {tier: frontend}, or {} for all of them"
        }
        "from" => {
            "write the peers, as in from: [{tier: frontend}], or from: [{}] for every peer with an identity"
        }
        "to" => "write the peers, as in to: [{tier: backend}], or to: [{}] for every peer with an identity",
        "networks" => "write the networks, as in networks: [10.0.0.0/8]",
        _ => "write it",
    }
}

/// The known word that takes the fewest single-letter edits, if it is near enough to be meant.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|known| (distance(word, known), *known)).min()?;
    (near.0 <= word.chars().count().div_ceil(3).min(2)).then_some(near.1)
}

/// Levenshtein's distance, with letter case as no difference.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        let mut next = vec![left];
        for (target, above) in other.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(*target != letter);
            left = replaced.min(left + 1).min(above + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
