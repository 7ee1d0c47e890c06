//! Jobs of listeners when the process is killed between listener, commit and job.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use couple::{
    Backend, CoupleId, Keyring, Store,
    blobs::Blobs,
    events::Event,
    job::{Context, Job, Queue, WorkerOptions},
    pairing::PairingChange,
    store::sql::{MySqlOptions, PostgresOptions, SqliteOptions},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    killed_process::{KilledProcess, note, noted, random},
    stores::new_couple,
};

/// Job that the listener enqueues for each couple.
#[derive(Serialize, Deserialize)]
struct Tell {
    couple: CoupleId,
}

impl Job for Tell {
    const NAME: &'static str = "host.tell";
    const QUEUE: &'static str = "tells";
}

/// Files with ids of couples, and the database.
#[derive(Clone)]
struct Installation {
    folder: PathBuf,
    database: String,
}

impl Installation {
    async fn store(&self) -> Arc<dyn Store> {
        match self.database.split_once("://") {
            Some(("mysql", _)) => Arc::new(MySqlOptions::new(&self.database).connect().await.unwrap()),
            Some(_) => Arc::new(PostgresOptions::new(&self.database).connect().await.unwrap()),
            None => Arc::new(SqliteOptions::new(&self.database).open().await.unwrap()),
        }
    }

    async fn backend(&self) -> Backend {
        let worker = WorkerOptions::default()
            .with_lease(Duration::from_secs(1))
            .with_poll_interval(Duration::from_millis(100));
        let installation = self.clone();
        Backend::builder()
            .store(self.store().await)
            .blobs(Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .worker(worker)
            .queue(Queue::new("tells", 4))
            .on(|event, additions| match event {
                Event::CoupleFounded { couple } => additions.enqueue(&Tell { couple: couple.id }),
                _ => Ok(()),
            })
            .jobs(move |jobs, _| {
                let installation = installation.clone();
                jobs.with_fn(move |job: Tell, _: Context| {
                    let installation = installation.clone();
                    async move {
                        sleep(Duration::from_millis(random(5))).await;
                        note(&installation.folder, "told", &job.couple.to_string());
                        Ok(())
                    }
                })
            })
            .build()
            .unwrap()
    }
}

/// Founds couples and runs jobs until the process is killed.
#[tokio::test]
#[ignore = "is the process that the other tests of this module start and kill"]
async fn process_that_founds_couples() {
    let [folder, database] = KilledProcess::installation();
    let installation = Installation { folder: folder.into(), database };
    let backend = installation.backend().await;
    let _worker = backend.worker().start();
    KilledProcess::announce();
    let found = async || {
        loop {
            let ports = backend.ports();
            let couple = new_couple(ports);
            note(&installation.folder, "intended", &couple.id.to_string());
            let id = couple.id;
            if ports.commit(vec![PairingChange::Pair(couple).into()]).await.is_ok() {
                note(&installation.folder, "acknowledged", &id.to_string());
            }
        }
    };
    tokio::join!(found(), found(), found());
}

/// Kills the process at random times; then every couple has its job, and no job is without its couple.
async fn no_job_is_lost_and_none_is_without_its_couple(database: Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = || folder.path().join("couple.db").to_str().unwrap().to_owned();
    let database = database.unwrap_or_else(file);
    let installation = Installation { folder: folder.path().to_owned(), database };
    let kills = std::env::var("COUPLE_HOOK_KILLS").map_or(20, |kills| kills.parse().unwrap());
    for _ in 0..kills {
        let process = KilledProcess::start(
            "killed_hooks::process_that_founds_couples",
            &installation.folder,
            &installation.database,
        );
        sleep(Duration::from_millis(random(150))).await;
        drop(process);
    }
    let backend = installation.backend().await;
    let store = backend.ports().store.clone();
    // Jobs of killed processes run when their leases have ended.
    loop {
        backend.worker().run_until_idle().await.unwrap();
        let stats = store.queue_stats("tells", backend.ports().now()).await.unwrap();
        assert_eq!(stats.dead, 0);
        if (stats.ready, stats.waiting) == (0, 0) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let [intended, acknowledged, told] =
        ["intended", "acknowledged", "told"].map(|file| noted(&installation.folder, file));
    assert!(told.len() > kills / 2, "{} couples", told.len());
    let mut founded = BTreeSet::new();
    for id in intended {
        if store.couple(id.parse().unwrap()).await.unwrap().is_some() {
            founded.insert(id);
        }
    }
    assert!(acknowledged.is_subset(&founded), "an acknowledged couple is lost");
    assert_eq!(told, founded, "a job is lost, or ran without its couple");
    println!("{kills} kills, {} couples, {} of them acknowledged", founded.len(), acknowledged.len());
    backend.close().await.unwrap();
}

#[tokio::test]
async fn sqlite() {
    no_job_is_lost_and_none_is_without_its_couple(None).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn mariadb() {
    let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
    no_job_is_lost_and_none_is_without_its_couple(Some(url)).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn postgres() {
    let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
    no_job_is_lost_and_none_is_without_its_couple(Some(url)).await;
}
