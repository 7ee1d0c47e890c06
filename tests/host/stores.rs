//! A new store of every engine, for tests that run on all of them, and couples to store in it.

use std::sync::Arc;

use couple::{Store, core::Ports, pairing::Couple, store::MemoryStore};

use crate::sql_database::SqlDatabase;

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
    /// None for a store in memory.
    database: Option<SqlDatabase>,
}

impl TestStore {
    pub(crate) async fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), database: None }
    }
    pub(crate) async fn sqlite() -> Self {
        SqlDatabase::sqlite().await.into()
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn mariadb() -> Self {
        SqlDatabase::mariadb().await.into()
    }
    #[cfg(feature = "server-tests")]
    pub(crate) async fn postgres() -> Self {
        SqlDatabase::postgres().await.into()
    }

    /// Every value of every table, see [`SqlDatabase::dump`]. None for a store in memory.
    pub(crate) async fn dump(&self) -> Option<Vec<(String, String)>> {
        match &self.database {
            Some(database) => Some(database.dump().await),
            None => None,
        }
    }
}

impl From<(Arc<dyn Store>, SqlDatabase)> for TestStore {
    fn from((store, database): (Arc<dyn Store>, SqlDatabase)) -> Self {
        Self { store, database: Some(database) }
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
