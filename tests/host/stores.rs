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
    /// Folder of the database file, removed at the end of the test.
    _folder: Option<tempfile::TempDir>,
}

impl TestStore {
    pub(crate) async fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), _folder: None }
    }
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
        Self { store: Arc::new(store), _folder: Some(folder) }
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn mariadb() -> Self {
        let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
        let store = couple::store::sql::MySqlOptions::new(&url).connect().await.unwrap();
        Self { store: Arc::new(store), _folder: None }
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn postgres() -> Self {
        let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
        let store = couple::store::sql::PostgresOptions::new(&url).connect().await.unwrap();
        Self { store: Arc::new(store), _folder: None }
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
