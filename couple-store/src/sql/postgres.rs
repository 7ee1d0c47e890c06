//! PostgreSQL.

use std::time::Duration;

use couple_core::ErrorKind;
use sqlx::{ConnectOptions as _, Postgres, SqlStr, error::DatabaseError, postgres::PgConnectOptions};

use uuid::Uuid;

use super::{
    Dialect, SqlStore,
    dialect::{LockWait, count_up_returning, text_literal},
    dialect_text::Sql,
    job_batch::BatchStatements,
    migrate::Migration,
    server::{Server, ServerOptions},
};

/// Store in PostgreSQL (13 or newer).
pub type PostgresStore = SqlStore<Postgres>;
/// Settings of a store in PostgreSQL.
pub type PostgresOptions = ServerOptions<Postgres>;

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "initial",
        sql: include_str!("../../migrations/postgres/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "devices",
        sql: include_str!("../../migrations/postgres/0002_devices.sql"),
    },
    Migration {
        version: 3,
        name: "preferences",
        sql: include_str!("../../migrations/postgres/0003_preferences.sql"),
    },
    Migration { version: 4, name: "dates", sql: include_str!("../../migrations/postgres/0004_dates.sql") },
    Migration {
        version: 5,
        name: "digests",
        sql: include_str!("../../migrations/postgres/0005_digests.sql"),
    },
    Migration {
        version: 6,
        name: "widget_tokens",
        sql: include_str!("../../migrations/postgres/0006_widget_tokens.sql"),
    },
];

// Codes: postgresql.org/docs/current/errcodes-appendix.html
impl Dialect for Postgres {
    // The default of the server or of the role may be a stricter level, at which a transaction keeps the snapshot
    // from before a lock was granted.
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const BEGIN_READ: &'static str = Self::BEGIN;
    const NAME_QUOTE: char = '"';
    const TRANSACTION_TIMEOUT: Option<Duration> = Some(Duration::from_secs(2));
    const BY_PRIMARY_KEY: &'static str = "";
    // The number is "couple" in ASCII. The end of the transaction releases the lock.
    const LOCK: Option<Sql> =
        Some(sql!("SELECT CAST(CAST(pg_try_advisory_xact_lock(109321005624421) AS INT) AS BIGINT)"));
    const UNLOCK: Option<Sql> = None;

    fn lock_wait(wait: LockWait) -> Option<[&'static str; 2]> {
        // In milliseconds; 0 would disable the time-out.
        Some(match wait {
            LockWait::TimeOut => ["", ""],
            LockWait::Brief => ["", "; SET LOCAL lock_timeout = 50"],
            LockWait::Never => ["", "; SET LOCAL lock_timeout = 1"],
        })
    }
    fn literal(id: Uuid) -> String {
        format!("'{id}'::uuid")
    }
    fn literal_bytes(hex: &str) -> String {
        format!("'\\x{hex}'::bytea")
    }
    fn text_of(sql: Sql) -> &'static str {
        sql.postgres.numbered
    }
    fn count_up<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send + 'c {
        count_up_returning::<Self>(connection, sql, args)
    }
    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }
    fn kind_of(error: &dyn DatabaseError) -> ErrorKind {
        let code = error.code().unwrap_or_default();
        match &*code {
            "53300" | "53400" | "55P03" | "40001" | "40P01" => ErrorKind::Overloaded,
            "57014" => ErrorKind::TimedOut,
            "53100" => ErrorKind::Full,
            "25P03" | "25P04" | "25006" => ErrorKind::Unavailable, // closed because it was idle, read-only
            "3D000" | "3F000" | "42501" => ErrorKind::Misconfigured,
            "XX001" | "XX002" => ErrorKind::Corrupt,
            code if code.starts_with("57P") || code.starts_with("08") => ErrorKind::Unavailable,
            code if code.starts_with("28") => ErrorKind::Misconfigured, // authentication
            _ => ErrorKind::Internal,
        }
    }
    fn is_transient(error: &dyn DatabaseError) -> bool {
        // Serialization failure, deadlock, lock time-out, and a key that another transaction inserted between
        // our check and our insert: the next run finds it.
        matches!(error.code().as_deref(), Some("40001" | "40P01" | "55P03" | "23505"))
    }
    async fn interrupt_after(_: &mut Self::Connection, _: Duration) -> sqlx::Result<()> {
        Ok(())
    }
    async fn cancel_interrupt(_: &mut Self::Connection) -> sqlx::Result<()> {
        Ok(())
    }
    fn batch_statements(prefix: &str) -> BatchStatements {
        BatchStatements::new(prefix, true, "ON CONFLICT DO NOTHING")
    }
    fn existing_relations(schema: Option<&str>, names: &str) -> String {
        let place = match schema {
            Some(schema) => {
                let schema = text_literal(schema);
                format!("relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})")
            }
            None => "pg_table_is_visible(oid)".to_owned(),
        };
        format!("SELECT CAST(relname AS TEXT) FROM pg_class WHERE relname IN ({names}) AND {place}")
    }
}

impl Server for Postgres {
    const ENGINE_NAME: &'static str = "PostgreSQL";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const URL_OPTIONS: &'static [&'static str] = &[
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "statement-cache-capacity",
    ];
    // Locks are held for milliseconds; without lock_timeout the server looks for deadlocks only after a
    // second.
    const SESSION_SETUP: &'static [&'static str] = &[
        "SET default_transaction_isolation = 'read committed'; \
         SET statement_timeout = 2000; SET lock_timeout = 300; SET idle_in_transaction_session_timeout = 5000",
    ];
    const POOL_CHECK: &'static str = "SELECT CAST(CAST(current_setting('client_encoding') = 'UTF8' \
         AND current_setting('transaction_read_only') = 'off' AS INT) AS BIGINT)";
    const POOL_REQUIREMENT: &'static str =
        "connections of the host's pool must have the encoding UTF8 and must not be read-only";
    const VERSION_QUERY: Sql = sql!("SHOW server_version");

    fn check(version: &str) -> Result<(), String> {
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok());
        if major.unwrap_or(0) >= 13 {
            return Ok(());
        }
        Err(format!("PostgreSQL {version} is too old: 13 or newer is required"))
    }
    fn location(_: &PgConnectOptions, table: &str) -> String {
        let table = text_literal(table);
        format!(
            "SELECT COALESCE((SELECT CAST(nspname AS TEXT) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
             WHERE relname = {table} AND pg_table_is_visible(pg_class.oid)), CAST(current_schema() AS TEXT))"
        )
    }
    fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }
    fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
        Ok(url.parse::<PgConnectOptions>()?.statement_cache_capacity(256).disable_statement_logging())
    }
    fn address(options: &PgConnectOptions) -> String {
        format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""))
    }
}

impl ServerOptions<Postgres> {
    /// Sets the schema of the tables. Default: none, which is the first schema of the server's `search_path`.
    ///
    /// A schema that does not exist is created with the tables. Statements name it, so the `search_path` of
    /// connections does not matter and does not change. The name begins with a to z, has only a to z, 0 to 9 and
    /// `_`, and at most 31 characters. The prefix still applies; it can be empty in a separate schema.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.names.schema = Some(schema.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_by_name() {
        assert_eq!(Postgres::check("15.19 (Debian 15.19-0+deb12u1)"), Ok(()));
        let old = "PostgreSQL 12.22 is too old: 13 or newer is required".to_owned();
        assert_eq!(Postgres::check("12.22"), Err(old));
    }
}
