//! Statements of the host in the transaction of a commit, when the process is killed.

use std::{collections::BTreeSet, path::Path, time::Duration};

use couple::{
    Backend, Keyring, Store,
    blobs::Blobs,
    core::{CommitError, Committed, Ports},
    pairing::{Couple, PairingChange},
    store::sql::{SqliteOptions, SqliteStore},
};
use sqlx::{Connection as _, Sqlite, SqliteConnection};
use tokio::time::sleep;

use crate::{
    killed_process::{KilledProcess, note, noted, random},
    stores::new_couple,
};

/// Table of the host, with the id of each couple.
const CREATE: &str = "CREATE TABLE host_couple (id VARCHAR(40) NOT NULL PRIMARY KEY)";

fn backend(store: impl Store) -> Backend {
    Backend::builder().store(store).blobs(Blobs::memory()).keys(Keyring::new([7; 32])).build().unwrap()
}

/// An engine, with a table of the host beside those of the store.
trait HostDatabase {
    async fn backend(database: &str) -> Backend;
    /// Creates the table of the host.
    async fn create(database: &str);
    /// Ids in the table of the host.
    async fn host_rows(database: &str) -> BTreeSet<String>;
    /// Founds a couple and inserts its id into the host's table, in one transaction.
    async fn found(ports: &Ports, couple: Couple) -> Result<Committed, CommitError>;
}

macro_rules! host_database {
    ($database:ty, $connection:ty, $store:ty, insert: $insert:literal, open: $open:expr, url: $url:expr) => {
        impl HostDatabase for $database {
            async fn backend(database: &str) -> Backend {
                backend($open(database).await)
            }
            async fn create(database: &str) {
                let mut connection = <$connection>::connect(&$url(database)).await.unwrap();
                sqlx::raw_sql(CREATE).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            async fn host_rows(database: &str) -> BTreeSet<String> {
                let mut connection = <$connection>::connect(&$url(database)).await.unwrap();
                let rows: Vec<String> = sqlx::query_scalar("SELECT id FROM host_couple")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
                rows.into_iter().collect()
            }
            async fn found(ports: &Ports, couple: Couple) -> Result<Committed, CommitError> {
                let id = couple.id.to_string();
                <$store>::commit_with_sql(
                    ports,
                    vec![PairingChange::Pair(couple).into()],
                    move |connection| {
                        let id = id.clone();
                        Box::pin(async move {
                            sqlx::query($insert).bind(id).execute(connection).await?;
                            Ok(())
                        })
                    },
                )
                .await
            }
        }
    };
}

host_database!(
    Sqlite, SqliteConnection, SqliteStore,
    insert: "INSERT INTO host_couple VALUES ($1)",
    open: async |path: &str| SqliteOptions::new(path).with_shared_file(true).open().await.unwrap(),
    url: |path: &str| format!("sqlite://{path}?mode=rwc")
);

#[cfg(feature = "server-tests")]
host_database!(
    sqlx::MySql, sqlx::MySqlConnection, couple::store::sql::MySqlStore,
    insert: "INSERT INTO host_couple VALUES (?)",
    open: async |url: &str| couple::store::sql::MySqlOptions::new(url).connect().await.unwrap(),
    url: |url: &str| url.to_owned()
);

#[cfg(feature = "server-tests")]
host_database!(
    sqlx::Postgres, sqlx::PgConnection, couple::store::sql::PostgresStore,
    insert: "INSERT INTO host_couple VALUES ($1)",
    open: async |url: &str| couple::store::sql::PostgresOptions::new(url).connect().await.unwrap(),
    url: |url: &str| url.to_owned()
);

/// Founds couples until the process is killed.
async fn work<D: HostDatabase>(folder: &Path, database: &str) {
    let backend = D::backend(database).await;
    KilledProcess::announce();
    let found = async || {
        loop {
            let couple = new_couple(backend.ports());
            let id = couple.id.to_string();
            note(folder, "intended", &id);
            if D::found(backend.ports(), couple).await.is_ok() {
                note(folder, "acknowledged", &id);
            }
        }
    };
    tokio::join!(found(), found(), found());
}

#[tokio::test]
#[ignore = "is the process that the other tests of this module start and kill"]
async fn process_that_writes() {
    let [folder, database] = KilledProcess::installation();
    let folder = Path::new(&folder);
    #[cfg(feature = "server-tests")]
    match database.split_once("://") {
        Some(("mysql", _)) => return work::<sqlx::MySql>(folder, &database).await,
        Some(_) => return work::<sqlx::Postgres>(folder, &database).await,
        None => {}
    }
    work::<Sqlite>(folder, &database).await;
}

/// Kills the process at random times; then the host has a row for each couple, and no other row.
async fn both_or_neither<D: HostDatabase>(database: Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = || folder.path().join("host.db").to_str().unwrap().to_owned();
    let database = database.unwrap_or_else(file);
    D::create(&database).await;
    // Migrate before the first kill.
    D::backend(&database).await.close().await.unwrap();
    let kills = std::env::var("COUPLE_HOOK_KILLS").map_or(20, |kills| kills.parse().unwrap());
    for _ in 0..kills {
        let process =
            KilledProcess::start("killed_statements::process_that_writes", folder.path(), &database);
        sleep(Duration::from_millis(random(150))).await;
        drop(process);
    }
    let backend = D::backend(&database).await;
    // A server may still roll back the last transactions of killed processes.
    sleep(Duration::from_secs(1)).await;
    let (intended, acknowledged) = (noted(folder.path(), "intended"), noted(folder.path(), "acknowledged"));
    let mut founded = BTreeSet::new();
    for id in intended {
        if backend.ports().store.couple(id.parse().unwrap()).await.unwrap().is_some() {
            founded.insert(id);
        }
    }
    assert!(founded.len() > kills / 2, "{} couples", founded.len());
    assert!(acknowledged.is_subset(&founded), "an acknowledged couple is lost");
    assert_eq!(D::host_rows(&database).await, founded);
    println!("{kills} kills, {} couples, {} of them acknowledged", founded.len(), acknowledged.len());
    backend.close().await.unwrap();
}

#[tokio::test]
async fn sqlite() {
    both_or_neither::<Sqlite>(None).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn mariadb() {
    let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
    both_or_neither::<sqlx::MySql>(Some(url)).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn postgres() {
    let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
    both_or_neither::<sqlx::Postgres>(Some(url)).await;
}
