//! Statements of the host in a commit of the back end.

use std::{sync::Arc, time::Duration};

use couple::{
    Backend, ErrorKind, Keyring,
    blobs::Blobs,
    core::{Change, CommitError, live::Topic},
    events::Event,
    media::MediaChange,
    pairing::PairingChange,
    store::sql::{SqliteOptions, SqliteStore},
    timeline::{NewEntry, TimelineChange},
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::stores::new_couple;

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
    let couple = new_couple(ports);
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
    let append = || {
        let entry = NewEntry::system("x-mood", None, None, ports.now());
        TimelineChange::Append { couple: id, entry }.into()
    };
    with_mood(vec![append()], "calm").await;
    timeout(Duration::from_secs(20), subscription.next()).await.expect("a notice");
    let stored = ports.store.couple(id).await.unwrap().unwrap();
    assert_eq!(stored.head_seq, 2, "the welcome of the listener and the mood");
    let moods: Vec<String> = sqlx::query_scalar("SELECT mood FROM mood").fetch_all(&pool).await.unwrap();
    assert_eq!(moods, ["happy", "calm"]);

    // The outcome of statements that end the transaction is unknown, so subscribers are notified.
    let ends = |sql: &'static str| {
        SqliteStore::commit_with_sql(ports, vec![append()], move |connection| {
            Box::pin(async move { Ok(sqlx::raw_sql(sql).execute(connection).await.map(drop)?) })
        })
    };
    let error = ends("COMMIT").await.unwrap_err();
    assert!(matches!(&error, CommitError::Failed(error) if error.kind() == ErrorKind::TimedOut), "{error:?}");
    timeout(Duration::from_secs(2), subscription.next()).await.expect("a notice");
    assert_eq!(ports.store.couple(id).await.unwrap().unwrap().head_seq, 3);
    backend.close().await.unwrap();
    // The pool of the host stays open.
    sqlx::raw_sql("DROP TABLE mood").execute(&pool).await.unwrap();
}

/// Readiness shows how often tasks of the store were restarted after a panic.
#[tokio::test]
async fn readiness_counts_restarts_of_writers() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    let backend =
        Backend::builder().store(store).blobs(Blobs::memory()).keys(Keyring::new([7; 32])).build().unwrap();
    let app = couple::http::router(backend.clone());
    let readiness = async || {
        let request = axum::http::Request::get("/readyz").body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    assert_eq!(readiness().await["writer_restarts"], 0);
    // A panic of the host's function ends no task.
    let panics =
        SqliteStore::commit_with_sql(backend.ports(), Vec::new(), |_| panic!("the host's function panics"));
    panics.await.unwrap_err();
    assert_eq!(readiness().await["writer_restarts"], 0);
    let (world, store) = (couple_conformance::World::default(), &backend.ports().store);
    let couple = world.stored_couple(store).await;
    let insert = |content: &str, bytes| {
        let mut media = world.photo(couple.id, couple.members[0], content);
        media.source.as_mut().unwrap().bytes = bytes;
        vec![MediaChange::Insert { media, most: i64::MAX }.into()]
    };
    store.commit(insert("first", 1)).await.unwrap();
    // The sum overflows, which panics in debug builds.
    store.commit(insert("overflow", i64::MAX)).await.unwrap_err();
    // The caller may have its error before the task is started again.
    backend.ports().commit(vec![PairingChange::Pair(new_couple(backend.ports())).into()]).await.unwrap();
    assert_eq!(readiness().await["writer_restarts"], 1);
    backend.close().await.unwrap();
}
