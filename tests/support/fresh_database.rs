//! New, empty databases on the servers that `./test` starts.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Database, Executor};

/// URL of a server, as set by `./test`.
pub(crate) fn url_of(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: ./test starts the servers and sets it"))
}

/// URL of a new, empty database on the server of the environment variable `variable`.
pub(crate) async fn fresh<D: Database>(variable: &str) -> String
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = url_of(variable);
    // The operating system reuses process ids, and databases of earlier runs are not removed.
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let name = format!("couple_{}_{since}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (base, _) = server.rsplit_once('/').unwrap();
    let mut connection = D::Connection::connect(&server).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    connection.close().await.unwrap();
    format!("{base}/{name}")
}
