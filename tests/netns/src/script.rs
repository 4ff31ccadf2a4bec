//! Socket options that no safe interface of Rust offers.

use trireme_testkit::lab::{LabError, Namespace};

/// Runs a Python program inside a namespace and returns what it prints; `arguments` are its `sys.argv[1:]`.
///
/// # Errors
/// [`LabError::Command`] with its traceback if it fails.
pub fn python(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String, LabError> {
    let mut all = vec!["-c", program];
    all.extend_from_slice(arguments);
    namespace.run("python3", &all)
}
