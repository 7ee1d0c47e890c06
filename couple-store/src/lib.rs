//! Where a couple is kept, and what counts and calls within one process.
//!
//! | port | adapter | for |
//! |---|---|---|
//! | [`Store`](couple_core::Store) | [`MemoryStore`] | tests; the executable specification |
//! | | [`SqliteStore`](sql::SqliteStore) (feature `sqlite`) | one process, nothing to start |
//! | [`RateLimiter`](couple_core::limits::RateLimiter) | [`MemoryLimits`] | one process |
//! | [`Bus`](couple_core::live::Bus) | [`MemoryBus`] | one process |
//! | a [`Keyring`](couple_core::Keyring) | [`KeyFile`] | what mailed codes are derived from |

mod key_file;
mod memory;
#[cfg(feature = "sqlite")]
pub mod sql;

pub use key_file::KeyFile;
pub use memory::{MemoryBus, MemoryLimits, MemoryStore};
