//! Statements of the host in a commit of the back end.

use std::{sync::Arc, time::Duration};

use couple::{
    Backend, Keyring,
    blobs::Blobs,
    core::{Change, live::Topic},
    events::Event,
    pairing::{Couple, PairingChange},
    store::sql::{SqliteOptions, SqliteStore},
    timeline::{NewEntry, TimelineChange},
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::time::timeout;

/// A commit with statements reaches listeners and subscribers as any other commit.
#[tokio::test]
async fn commit_with_statements_has_listeners_and_notices() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("host.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE mood (couple BLOB, mood TEXT)").execute(&pool).await.unwrap();
    let store = Arc::new(SqliteOptions::of_pool(&pool).open().await.unwrap());
    let backend = Backend::builder()
        .store(store.clone())
        .blobs(Blobs::memory())
        .keys(Keyring::new([7; 32]))
        .on(|event, additions| match event {
            Event::CoupleFounded { .. } => {
                additions.append(NewEntry::system("x-welcome", None, None, additions.now()))
            }
            _ => Ok(()),
        })
        .build()
        .unwrap();
    let ports = backend.ports();
    let couple = Couple {
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
    };
    let id = couple.id;
    let with_mood = async |changes: Vec<Change>, mood: &'static str| {
        let committed = SqliteStore::commit_with_sql(ports, changes, move |connection| {
            Box::pin(async move {
                let insert = sqlx::query("INSERT INTO mood VALUES ($1, $2)").bind(id.as_uuid()).bind(mood);
                insert.execute(connection).await?;
                Ok(())
            })
        });
        assert_eq!(committed.await.unwrap().results().len(), 2, "the change and the statements");
    };
    with_mood(vec![PairingChange::Pair(couple).into()], "happy").await;
    let mut subscription = ports.bus.subscribe(vec![Topic::Couple(id)]).await;
    let entry = NewEntry::system("x-mood", None, None, ports.now());
    with_mood(vec![TimelineChange::Append { couple: id, entry }.into()], "calm").await;
    timeout(Duration::from_secs(20), subscription.next()).await.expect("a notice");
    let stored = ports.store.couple(id).await.unwrap().unwrap();
    assert_eq!(stored.head_seq, 2, "the welcome of the listener and the mood");
    let moods: Vec<String> = sqlx::query_scalar("SELECT mood FROM mood").fetch_all(&pool).await.unwrap();
    assert_eq!(moods, ["happy", "calm"]);
    backend.close().await.unwrap();
    // The pool of the host stays open.
    sqlx::raw_sql("DROP TABLE mood").execute(&pool).await.unwrap();
}
