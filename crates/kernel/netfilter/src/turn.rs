//! One change of a namespace's rules at a time.

use std::collections::HashSet;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use trireme_netns::{Namespace, NamespaceError, NamespaceId};

/// Namespaces whose rules a thread of this process is changing.
static BUSY: LazyLock<Mutex<HashSet<NamespaceId>>> = LazyLock::new(Mutex::default);

/// Told when one is not busy any more.
static FREE: Condvar = Condvar::new();

/// Keeps the other threads of this process from changing the rules of the calling thread's namespace, until it is
/// dropped; what they list would be out of date when they write.
pub(crate) struct Turn {
    namespace: NamespaceId,
}

impl Turn {
    pub(crate) fn take() -> Result<Self, NamespaceError> {
        let namespace = Namespace::current()?.id();
        let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy =
            FREE.wait_while(busy, |busy| busy.contains(&namespace)).unwrap_or_else(PoisonError::into_inner);
        busy.insert(namespace);
        Ok(Self { namespace })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.namespace);
        FREE.notify_all();
    }
}
