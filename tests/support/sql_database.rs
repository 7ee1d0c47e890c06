//! New SQL databases for tests, with a dump of every value in them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use couple::{Store, store::sql::SqliteOptions};

enum Place {
    Sqlite(std::path::PathBuf),
    #[cfg(feature = "server-tests")]
    MySql(String),
    #[cfg(feature = "server-tests")]
    Postgres(String),
}

/// A new database.
pub(crate) struct SqlDatabase {
    place: Place,
    /// Folder of the database file, removed at the end of the test.
    _folder: Option<tempfile::TempDir>,
}

impl SqlDatabase {
    pub(crate) async fn sqlite() -> (Arc<dyn Store>, Self) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("couple.db");
        let store = SqliteOptions::new(&path).open().await.unwrap();
        (Arc::new(store), Self { place: Place::Sqlite(path), _folder: Some(folder) })
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn mariadb() -> (Arc<dyn Store>, Self) {
        let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
        let store = couple::store::sql::MySqlOptions::new(&url).connect().await.unwrap();
        (Arc::new(store), Self { place: Place::MySql(url), _folder: None })
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn postgres() -> (Arc<dyn Store>, Self) {
        let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
        let store = couple::store::sql::PostgresOptions::new(&url).connect().await.unwrap();
        (Arc::new(store), Self { place: Place::Postgres(url), _folder: None })
    }
}

/// Reads the columns of all tables by one query, and all their values by one more, which joins a query by `select` for each column.
macro_rules! dump {
    ($pool:expr, $columns:expr, $select:expr) => {{
        let pool = $pool;
        let columns: Vec<(String, String)> = sqlx::query_as($columns).fetch_all(&pool).await.unwrap();
        let select = |(table, column): &(String, String)| -> String { $select(table, column) };
        let all = columns.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
        let rows = sqlx::query_as(sqlx::AssertSqlSafe(all)).fetch_all(&pool).await.unwrap();
        let rows: Vec<(String, Option<String>)> = rows;
        pool.close().await;
        rows.into_iter().filter_map(|(column, value)| Some((column, value?.to_lowercase()))).collect()
    }};
}

impl SqlDatabase {
    /// Every value of every table, with its table and column: as text in PostgreSQL, in hexadecimal elsewhere. In lower case.
    pub(crate) async fn dump(&self) -> Vec<(String, String)> {
        match &self.place {
            Place::Sqlite(path) => dump!(
                sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(path))
                    .await
                    .unwrap(),
                "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'",
                |table, column| format!(
                    "SELECT '{table}.{column}', hex(CAST(\"{column}\" AS BLOB)) FROM \"{table}\""
                )
            ),
            #[cfg(feature = "server-tests")]
            Place::MySql(url) => dump!(
                sqlx::MySqlPool::connect(url).await.unwrap(),
                "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR) FROM information_schema.columns \
                 WHERE table_schema = DATABASE()",
                |table, column| format!(
                    "SELECT '{table}.{column}', HEX(CAST(`{column}` AS BINARY)) FROM `{table}`"
                )
            ),
            #[cfg(feature = "server-tests")]
            Place::Postgres(url) => dump!(
                sqlx::PgPool::connect(url).await.unwrap(),
                "SELECT table_name::text, column_name::text FROM information_schema.columns \
                 WHERE table_schema = 'public'",
                |table, column| format!("SELECT '{table}.{column}', \"{column}\"::text FROM \"{table}\"")
            ),
        }
    }
}
