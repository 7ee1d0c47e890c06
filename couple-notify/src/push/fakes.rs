//! Push services for tests.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use couple_core::push::{Push, PushError, Pusher};

/// Pusher that keeps messages in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryPusher(Arc<Mutex<Vec<Push>>>);

impl MemoryPusher {
    /// Creates a pusher without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// All messages so far, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<Push> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Pusher for MemoryPusher {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(push.clone());
        Ok(())
    }
}
