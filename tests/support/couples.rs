//! Couples with sessions, created in a store before the server processes start.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../../benches/people/mod.rs"]
mod people;

use std::path::Path;

use couple::{
    Backend, Clock as _, OsEntropy, Secret, Store, SystemClock,
    pairing::Side,
    store::{KeyFile, sql::SqliteOptions},
    timeline::{Body, NewEntry, TimelineChange},
};

/// Creates couples; returns the tokens of their members, two by two.
pub(crate) async fn seed(store: impl Store, key_file: &Path, couples: usize) -> Vec<String> {
    let keys = KeyFile::new(key_file).open(&OsEntropy).unwrap();
    let backend =
        Backend::builder().blobs(couple::blobs::Blobs::memory()).keys(keys).store(store).build().unwrap();
    let tokens = people::seed(backend.ports(), couples).await;
    backend.close().await.unwrap();
    tokens
}

/// Creates couples in the folder of a server example that was not started yet.
pub(crate) async fn seed_folder(folder: &Path, couples: usize) -> Vec<String> {
    let data = folder.join("couple-data");
    std::fs::create_dir(&data).unwrap();
    let store = SqliteOptions::new(data.join("couple.db")).open().await.unwrap();
    seed(store, &data.join("couple.key"), couples).await
}

/// Appends entries to the log of an account's couple, in such a folder.
pub(crate) async fn fill(folder: &Path, token: &str, entries: usize, text: &str) {
    let data = folder.join("couple-data");
    let store = SqliteOptions::new(data.join("couple.db")).open().await.unwrap();
    let keys = KeyFile::new(data.join("couple.key")).open(&OsEntropy).unwrap();
    let backend =
        Backend::builder().blobs(couple::blobs::Blobs::memory()).keys(keys).store(store).build().unwrap();
    let (_, account) =
        backend.accounts().unwrap().authenticate(&Secret::new(token.to_owned())).await.unwrap();
    let (at, _) = backend.timeline().membership(account.id).await.unwrap();
    let append = |n| TimelineChange::Append {
        couple: at.couple,
        entry: NewEntry {
            author: Some(Side::First),
            client_id: Some(format!("fill-{n}")),
            kind: "text".to_owned(),
            body: Some(Body::from_stored(format!(r#"{{"text":"{text}"}}"#))),
            target: None,
            at: SystemClock.now(),
        },
    };
    for first in (0..entries).step_by(500) {
        let changes = (first..entries.min(first + 500)).map(|n| append(n).into()).collect();
        backend.ports().store.commit(changes).await.unwrap();
    }
    backend.close().await.unwrap();
}
