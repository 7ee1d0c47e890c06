//! Stores, and the event buses, presence and rate limiters of one process or of many.
//!
//! | port | adapter | for |
//! |---|---|---|
//! | [`Store`](couple_core::Store) | [`MemoryStore`] | tests; the executable specification |
//! | | [`SqliteStore`](sql::SqliteStore) (feature `sqlite`) | one process, nothing to start |
//! | | [`MySqlStore`](sql::MySqlStore) (feature `mysql`) | many processes over MySQL or MariaDB |
//! | | [`PostgresStore`](sql::PostgresStore) (feature `postgres`) | many processes over PostgreSQL |
//! | [`RateLimiter`](couple_core::limits::RateLimiter) | [`MemoryLimits`] | one process |
//! | | [`RedisLimits`](redis::RedisLimits) (feature `redis`) | many processes |
//! | [`Bus`](couple_core::live::Bus) | [`MemoryBus`] | one process |
//! | | [`RedisBus`](redis::RedisBus) (feature `redis`) | many processes |
//! | | [`PostgresBus`](sql::PostgresBus) (feature `postgres`) | many processes over PostgreSQL, without Redis |
//! | [`Presence`](couple_core::live::Presence) | [`MemoryPresence`] | one process |
//! | | [`RedisPresence`](redis::RedisPresence) (feature `redis`) | many processes |
//! | a [`Keyring`](couple_core::Keyring) | [`KeyFile`] | what mailed codes are derived from |

mod key_file;
mod memory;
mod private_file;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod remote_bus;
#[cfg(feature = "sql")]
pub mod sql;

pub use key_file::KeyFile;
pub use memory::{MemoryBus, MemoryLimits, MemoryPresence, MemoryStore};
