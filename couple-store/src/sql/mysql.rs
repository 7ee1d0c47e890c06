//! MySQL and MariaDB.

use std::time::Duration;

use couple_core::ErrorKind;
use sqlx::{
    ConnectOptions as _, MySql, SqlStr, error::DatabaseError, mysql::MySqlConnectOptions,
    mysql::MySqlDatabaseError,
};

use uuid::Uuid;

use super::{
    Dialect, SqlStore,
    dialect::{ExecuteStatement as _, LockWait, text_literal},
    dialect_text::Sql,
    job_batch::BatchStatements,
    migrate::Migration,
    server::{Server, ServerOptions},
};

/// Store in MySQL (8.0 or newer) or MariaDB (10.6 or newer).
pub type MySqlStore = SqlStore<MySql>;
/// Settings of a store in MySQL or MariaDB.
pub type MySqlOptions = ServerOptions<MySql>;

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("../../migrations/mysql/0001_initial.sql") },
    Migration { version: 2, name: "devices", sql: include_str!("../../migrations/mysql/0002_devices.sql") },
    Migration {
        version: 3,
        name: "preferences",
        sql: include_str!("../../migrations/mysql/0003_preferences.sql"),
    },
    Migration { version: 4, name: "dates", sql: include_str!("../../migrations/mysql/0004_dates.sql") },
    Migration { version: 5, name: "digests", sql: include_str!("../../migrations/mysql/0005_digests.sql") },
    Migration {
        version: 6,
        name: "widget_tokens",
        sql: include_str!("../../migrations/mysql/0006_widget_tokens.sql"),
    },
];

/// SQL string literal of a name, in which a backslash would begin an escape sequence.
fn name_literal(name: &str) -> String {
    text_literal(&name.replace('\\', r"\\"))
}

fn number(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number)
}

// Error numbers: mariadb.com/kb/en/mariadb-error-codes, dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
impl Dialect for MySql {
    const BEGIN: &'static str = "BEGIN";
    const BEGIN_READ: &'static str = "BEGIN";
    const NAME_QUOTE: char = '`';
    const TRANSACTION_TIMEOUT: Option<Duration> = Some(Duration::from_secs(2));
    const BY_PRIMARY_KEY: &'static str = " FORCE INDEX (PRIMARY)";
    // Named lock of the server, released when the connection closes.
    const LOCK: Option<Sql> = Some(sql!("SELECT CAST(GET_LOCK(CONCAT('couple.', DATABASE()), 0) AS SIGNED)"));
    const UNLOCK: Option<Sql> = Some(sql!("SELECT RELEASE_LOCK(CONCAT('couple.', DATABASE()))"));

    fn lock_wait(wait: LockWait) -> Option<[&'static str; 2]> {
        // The minimum of MySQL is one second. In MariaDB SKIP LOCKED fails with error 1180 while the time-out is 0.
        const ONE_SECOND: &str = "SET SESSION innodb_lock_wait_timeout = 1; ";
        const ZERO: &str = "; SET @no_wait = 1 /*M! , SESSION innodb_lock_wait_timeout = 0 */";
        Some(match wait {
            LockWait::TimeOut => [ONE_SECOND, ""],
            LockWait::Brief | LockWait::Never => [ONE_SECOND, ZERO],
        })
    }
    fn literal(id: Uuid) -> String {
        format!("x'{}'", id.simple())
    }
    fn literal_bytes(hex: &str) -> String {
        format!("x'{hex}'")
    }
    fn text_of(sql: Sql) -> &'static str {
        sql.mysql.unnumbered
    }
    async fn count_up(
        connection: &mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> sqlx::Result<Option<i64>> {
        // MariaDB has no UPDATE … RETURNING; the value of LAST_INSERT_ID(…) is part of the response.
        let done = Self::execute(connection, sql, args).await?;
        Ok(i64::try_from(done.last_insert_id()).ok().filter(|_| done.rows_affected() == 1))
    }
    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }
    fn kind_of(error: &dyn DatabaseError) -> ErrorKind {
        match number(error) {
            1040 | 1203 | 1226 => ErrorKind::Overloaded, // too many connections
            1053 | 1077 | 1079 | 1152 | 1290 | 1792 | 1836 | 1927 | 2006 | 2013 => ErrorKind::Unavailable, // shutting down, killed, read-only
            1205 | 1213 | 1020 => ErrorKind::Overloaded, // locks
            1317 | 1969 | 3024 => ErrorKind::TimedOut,
            1021 | 1114 => ErrorKind::Full,
            1044 | 1045 | 1049 | 1142 | 1227 | 1698 | 3159 => ErrorKind::Misconfigured, // credentials, database, privileges
            1030 | 1034 | 1712 => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        }
    }
    fn is_transient(error: &dyn DatabaseError) -> bool {
        // Deadlock, lock time-out, changed since it was read, and a key that another transaction inserted
        // between our check and our insert: the next run finds it.
        matches!(number(error), 1213 | 1205 | 1020 | 1062)
    }
    async fn interrupt_after(_: &mut Self::Connection, _: Duration) -> sqlx::Result<()> {
        Ok(())
    }
    async fn cancel_interrupt(_: &mut Self::Connection) -> sqlx::Result<()> {
        Ok(())
    }
    fn batch_statements(prefix: &str) -> BatchStatements {
        BatchStatements::new(prefix, false, "ON DUPLICATE KEY UPDATE id = id")
    }
    fn existing_relations(database: Option<&str>, names: &str) -> String {
        let database = database.map_or_else(|| "DATABASE()".to_owned(), name_literal);
        format!(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = {database} AND table_name IN ({names})"
        )
    }
}

impl Server for MySql {
    const ENGINE_NAME: &'static str = "MySQL or MariaDB";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const URL_OPTIONS: &'static [&'static str] = &[
        "ssl-mode",
        "ssl-ca",
        "ssl-cert",
        "ssl-key",
        "charset",
        "collation",
        "socket",
        "statement-cache-capacity",
    ];
    const SESSION_SETUP: &'static [&'static str] = &[
        // At the default level, which locks gaps between rows, enqueuing deadlocks with claiming.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        // A text that is too long is an error and is never truncated.
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION innodb_lock_wait_timeout = 1",
        // MariaDB executes the first comment, MySQL the second.
        "SET SESSION /*M! max_statement_time = 2, SESSION idle_transaction_timeout = 5, */ \
         /*!80000 max_execution_time = 2000, SESSION */ autocommit = 1",
    ];
    const POOL_CHECK: &'static str =
        // MariaDB executes the first comment, MySQL the second.
        "SELECT CAST(@@autocommit = 1 AND @@character_set_client = 'utf8mb4' \
         /*M! AND @@tx_read_only = 0 */ /*!80000 AND @@transaction_read_only = 0 */ AS SIGNED)";
    const POOL_REQUIREMENT: &'static str = "connections of the host's pool must have autocommit = 1 and the \
                                            character set utf8mb4, and must not be read-only";
    const VERSION_QUERY: Sql = sql!("SELECT VERSION()");

    fn check(version: &str) -> Result<(), String> {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let (least, name) =
            if version.contains("MariaDB") { ((10, 6), "MariaDB") } else { ((8, 0), "MySQL") };
        if found >= least {
            return Ok(());
        }
        Err(format!("{name} {version} is too old: {}.{} or newer is required", least.0, least.1))
    }
    fn location(options: &MySqlConnectOptions, _: &str) -> String {
        format!("SELECT {}", options.get_database().map_or_else(|| "DATABASE()".to_owned(), name_literal))
    }
    fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }
    fn options(url: &str) -> sqlx::Result<MySqlConnectOptions> {
        Ok(url.parse::<MySqlConnectOptions>()?.statement_cache_capacity(256).disable_statement_logging())
    }
    fn address(options: &MySqlConnectOptions) -> String {
        format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_by_name() {
        assert_eq!(MySql::check("10.11.19-MariaDB-deb12"), Ok(()));
        assert_eq!(MySql::check("8.0.36"), Ok(()));
        let old = "MariaDB 10.5.29-MariaDB is too old: 10.6 or newer is required".to_owned();
        assert_eq!(MySql::check("10.5.29-MariaDB"), Err(old));
        assert_eq!(
            MySql::check("5.7.44"),
            Err("MySQL 5.7.44 is too old: 8.0 or newer is required".to_owned())
        );
    }
}
