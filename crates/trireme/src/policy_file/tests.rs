//! The policy file format: what it means, and what it says about mistakes.

mod meaning;
mod mistakes;

use super::{Format, PolicyFile};

fn yaml(text: &str) -> Result<PolicyFile, String> {
    PolicyFile::parse(text, Format::Yaml, "policy.yaml").map_err(|error| error.to_string())
}
