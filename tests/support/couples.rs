//! Couples who are signed in, put into a store before the processes over it start.
#![allow(dead_code, reason = "each test uses its part")]

#[path = "../../benches/people/mod.rs"]
mod people;

use std::path::Path;

use couple::{
    Backend, OsEntropy, Store,
    store::{KeyFile, sql::SqliteOptions},
};

/// So many couples; the tokens of their people, two by two.
pub(crate) async fn seed(store: impl Store, key_file: &Path, couples: usize) -> Vec<String> {
    let keys = KeyFile::new(key_file).open(&OsEntropy).unwrap();
    let backend = Backend::builder().keys(keys).store(store).build().unwrap();
    let tokens = people::seed(backend.ports(), couples).await;
    backend.close().await.unwrap();
    tokens
}

/// The same in the folder of a server example that has not been started yet.
pub(crate) async fn seed_folder(folder: &Path, couples: usize) -> Vec<String> {
    let data = folder.join("couple-data");
    std::fs::create_dir(&data).unwrap();
    let store = SqliteOptions::new(data.join("couple.db")).open().await.unwrap();
    seed(store, &data.join("couple.key"), couples).await
}
