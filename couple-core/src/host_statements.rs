//! Statements of a host in the transaction of a commit.

use std::{any::Any, sync::Arc};

/// Statements of a host, which a store runs in the transaction of a commit.
///
/// Only the store that made them knows their type; another store refuses them. In couple-store,
/// `SqlStore::host_change` makes them for its database.
#[derive(Clone)]
pub struct HostStatements(Arc<dyn Any + Send + Sync>);

impl HostStatements {
    /// Wraps statements of a store.
    #[must_use]
    pub fn new<T: Send + Sync + 'static>(statements: T) -> Self {
        Self(Arc::new(statements))
    }

    /// The statements, if they are of type `T`.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl std::fmt::Debug for HostStatements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostStatements").finish_non_exhaustive()
    }
}

/// Equal if they are the same value.
impl PartialEq for HostStatements {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
