//! Signature checks, which leave the engine as jobs.

use std::sync::Arc;

use trireme_identity::time::WallTime;
use trireme_token::{Verified, Verifier, VerifyError};

/// One signature check.
#[derive(Debug)]
pub struct VerifyJob {
    pub(crate) id: u64,
    pub(crate) token: Arc<[u8]>,
    pub(crate) credential: Arc<[u8]>,
    pub(crate) now: WallTime,
}

impl VerifyJob {
    /// Checks the token; takes some tens of microseconds.
    ///
    /// `verifier` is the one of the [`Secrets`](crate::Secrets) in force.
    #[must_use]
    pub fn run(self, verifier: &Verifier) -> VerifyDone {
        let Self { id, token, credential, now } = self;
        VerifyDone { id, result: verifier.verify(&token, &credential, now) }
    }
}

/// The result of a [`VerifyJob`].
#[derive(Debug)]
pub struct VerifyDone {
    pub(crate) id: u64,
    pub(crate) result: Result<Verified, VerifyError>,
}
