//! Policies written by hand: one YAML or JSON file for all processing units of a node.
//!
//! The format is specified in `docs/spec/policy.md`; an error names the line, the column and what would be right.

mod condition;
mod document;
mod error;
mod lower;
mod warning;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;

use trireme_identity::TagSet;
use trireme_policy::PuPolicy;

use document::Document;

pub use error::PolicyFileError;
pub use warning::Warning;

/// How a policy file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// Tells the format by the ending of a file's name: `.yaml`, `.yml` or `.json`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A policy file that has been read and checked as a whole.
#[derive(Debug)]
pub struct PolicyFile {
    document: Document,
    warnings: Vec<Warning>,
}

impl PolicyFile {
    /// Reads a file in the format its name ends with.
    ///
    /// # Errors
    /// [`PolicyFileError`] if the file cannot be read, or naming the first place that is wrong.
    pub fn load(path: &Path) -> Result<Self, PolicyFileError> {
        let name = path.display().to_string();
        let Some(format) = Format::of(path) else {
            return Err(PolicyFileError::UnknownFormat { name });
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, format, &name),
            Err(source) => Err(PolicyFileError::Unreadable { name, source }),
        }
    }

    /// Reads a text; `name` is what errors and warnings call it.
    ///
    /// # Errors
    /// [`PolicyFileError`] naming the first place that is wrong.
    pub fn parse(text: &str, format: Format, name: &str) -> Result<Self, PolicyFileError> {
        if format == Format::Json {
            // The shared reader is laxer than JSON, and knows the place of every value.
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .map_err(|error| PolicyFileError::from_json(name, &error))?;
        }
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| PolicyFileError::from_yaml(name, &error))?;
        document.check_names(name)?;
        document.check_exceptions(name)?;
        document.check_families(name)?;
        let warnings = warning::about(&document, name);
        Ok(Self { document, warnings })
    }

    /// The policy of a processing unit with these tags: the rules of every policy whose subject it is.
    #[must_use]
    pub fn policy_for(&self, tags: &TagSet) -> PuPolicy {
        lower::policy_for(&self.document, tags)
    }

    /// What an operator could misread as protection, in the order of the file.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The names of the policies whose subject a processing unit with these tags is, in the order of the file.
    pub fn selecting<'a>(&'a self, tags: &'a TagSet) -> impl Iterator<Item = &'a str> {
        self.document.selecting(tags).map(|policy| policy.name.value.as_str())
    }
}
