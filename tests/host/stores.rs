//! A new store of every engine, for tests that run on all of them, and couples to store in it.

use std::sync::Arc;

use couple::{
    Store,
    core::Ports,
    pairing::Couple,
    store::{MemoryStore, sql::SqliteOptions},
};

/// A couple of two new people, for a commit that pairs them.
pub(crate) fn new_couple(ports: &Ports) -> Couple {
    Couple {
        id: ports.new_id(),
        members: [0, 1].map(|_| ports.new_id()),
        since: ports.now(),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: None,
        restore: [false, false],
        head_seq: 0,
        read: [0, 0],
    }
}

/// Store of one test.
pub(crate) struct TestStore {
    pub(crate) store: Arc<dyn Store>,
    database: Database,
    /// Folder of the database file, removed at the end of the test.
    _folder: Option<tempfile::TempDir>,
}

impl TestStore {
    pub(crate) async fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), database: Database::Memory, _folder: None }
    }
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("couple.db");
        let store = SqliteOptions::new(&path).open().await.unwrap();
        Self { store: Arc::new(store), database: Database::Sqlite(path), _folder: Some(folder) }
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn mariadb() -> Self {
        let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
        let store = couple::store::sql::MySqlOptions::new(&url).connect().await.unwrap();
        Self { store: Arc::new(store), database: Database::MySql(url), _folder: None }
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn postgres() -> Self {
        let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
        let store = couple::store::sql::PostgresOptions::new(&url).connect().await.unwrap();
        Self { store: Arc::new(store), database: Database::Postgres(url), _folder: None }
    }
}

/// Where the rows of a [`TestStore`] are.
enum Database {
    Memory,
    Sqlite(std::path::PathBuf),
    #[cfg(feature = "server-tests")]
    MySql(String),
    #[cfg(feature = "server-tests")]
    Postgres(String),
}

/// Reads the columns of all tables by one query, and then each column by a query that `select` makes of column and table.
macro_rules! dump {
    ($pool:expr, $columns:expr, $select:expr) => {{
        let pool = $pool;
        let columns: Vec<(String, String)> = sqlx::query_as($columns).fetch_all(&pool).await.unwrap();
        let mut values = Vec::new();
        for (table, column) in columns {
            let select: String = $select(&column, &table);
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(select)).fetch_all(&pool).await.unwrap();
            let rows: Vec<Option<String>> = rows;
            let named = |value: String| (format!("{table}.{column}"), value.to_lowercase());
            values.extend(rows.into_iter().flatten().map(named));
        }
        pool.close().await;
        values
    }};
}

impl TestStore {
    /// Every value of every table, with its table and column: as text in PostgreSQL, in hexadecimal elsewhere. None for a store in memory.
    pub(crate) async fn dump(&self) -> Option<Vec<(String, String)>> {
        match &self.database {
            Database::Memory => None,
            Database::Sqlite(path) => Some(dump!(
                sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(path))
                    .await
                    .unwrap(),
                "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'",
                |column, table| format!("SELECT hex(CAST(\"{column}\" AS BLOB)) FROM \"{table}\"")
            )),
            #[cfg(feature = "server-tests")]
            Database::MySql(url) => Some(dump!(
                sqlx::MySqlPool::connect(url).await.unwrap(),
                "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR) FROM information_schema.columns \
                 WHERE table_schema = DATABASE()",
                |column, table| format!("SELECT HEX(CAST(`{column}` AS BINARY)) FROM `{table}`")
            )),
            #[cfg(feature = "server-tests")]
            Database::Postgres(url) => Some(dump!(
                sqlx::PgPool::connect(url).await.unwrap(),
                "SELECT table_name::text, column_name::text FROM information_schema.columns \
                 WHERE table_schema = 'public'",
                |column, table| format!("SELECT \"{column}\"::text FROM \"{table}\"")
            )),
        }
    }
}

/// Defines each of the tests on every engine; servers only with the feature `server-tests`.
macro_rules! on_every_store {
    ($($test:ident,)+) => {
        $crate::stores::on_every_store!(@engine memory: $($test,)+);
        $crate::stores::on_every_store!(@engine sqlite: $($test,)+);
        #[cfg(feature = "server-tests")]
        $crate::stores::on_every_store!(@engine mariadb: $($test,)+);
        #[cfg(feature = "server-tests")]
        $crate::stores::on_every_store!(@engine postgres: $($test,)+);
    };
    (@engine $engine:ident: $($test:ident,)+) => {
        mod $engine {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::stores::TestStore::$engine().await).await;
                }
            )+
        }
    };
}
pub(crate) use on_every_store;
