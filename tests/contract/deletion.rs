//! Permanent deletion of an account, as its former partner sees it, on every kind of store.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use couple::{
    Backend, Keyring, Store,
    account::PurgeAccountsHandler,
    blobs::Blobs,
    core::{limits::Unlimited, mail::Message},
    http::HttpOptions,
    store::{MemoryStore, sql::SqliteOptions},
};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::World;

const PASSWORD: &str = "mauve kettle orbit";

/// Status and bytes of a rendition.
async fn load(world: &World, token: &str, path: &str) -> (u16, Vec<u8>) {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, to_bytes(answer.into_body(), 1 << 24).await.unwrap().to_vec())
}

/// Paths and bytes of all renditions of a picture.
async fn renditions(world: &World, token: &str, id: &str) -> Vec<(String, Vec<u8>)> {
    let view = world.get(&format!("/v1/media/{id}"), token).await;
    assert_eq!(view.status, 200, "{}", view.body);
    let mut all = Vec::new();
    for rendition in view.body["renditions"].as_array().unwrap() {
        let path = format!("/v1/media/{id}/{}", rendition["name"].as_str().unwrap());
        let (status, bytes) = load(world, token, &path).await;
        assert_eq!(status, 200, "{path}");
        all.push((path, bytes));
    }
    assert!(!all.is_empty(), "{}", view.body);
    all
}

/// Ana deletes her account; what Ben wrote and uploaded stays readable to him, byte for byte.
async fn partner_keeps_own_entries_and_pictures(store: impl Store) {
    let blobs = Blobs::memory();
    let builder =
        Backend::builder().store(store).blobs(blobs.clone()).keys(Keyring::new([7; 32])).limits(Unlimited);
    let world = World::of(builder, HttpOptions::default());
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    let ben = world.join_with_password("ben@example.org", PASSWORD).await;
    world.pair(&ana, &ben).await;
    let (hers, his) = (world.photo(&ana, 300).await, world.photo(&ben, 400).await);
    for (token, photo, text) in [(&ana, &hers, "hers"), (&ben, &his, "his")] {
        world.say(token, text).await;
        let entry =
            json!({ "client_id": format!("photo-{text}"), "kind": "photo", "body": { "media_id": photo } });
        assert_eq!(world.post("/v1/couple/entries", token, entry).await.status, 201);
    }
    let (before, other) = (renditions(&world, &ben, &his).await, renditions(&world, &ben, &hers).await);

    assert_eq!(world.call("DELETE", "/v1/me", Some(&ana), None).await.status, 202);
    world.later(Duration::from_hours(24 * 14 + 1));
    let purge = PurgeAccountsHandler::new(world.backend.ports().clone(), 20);
    let plan = purge.plan().await.unwrap();
    assert_eq!((plan.len(), plan[0].erases.len(), plan[0].pictures), (1, 1, 1), "{plan:?}");
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.unfinished, report.failed.len()), (1, 0, 0));
    world.work().await;
    let last = world.mailer.last_to("ana@example.org").unwrap();
    assert!(matches!(last.message, Message::Deleted), "{last:?}");

    let session = world.open("/v1/sessions", json!({"email": "ben@example.org", "password": PASSWORD})).await;
    let ben = session.body["session"]["token"].as_str().unwrap().to_owned();
    let export = world.get("/v1/me/export", &ben).await;
    let items = |part: &str, field: fn(&Value) -> &Value| -> Vec<String> {
        let all = export.body[part].as_array().unwrap().iter();
        all.map(|item| field(item).as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(items("entries", |entry| &entry["body"]["text"]), ["his", ""], "{}", export.body);
    assert_eq!(items("entries", |entry| &entry["body"]["media_id"]), ["", his.as_str()], "{}", export.body);
    assert_eq!(items("pictures", |picture| &picture["id"]), [his.as_str()], "{}", export.body);
    for (path, bytes) in before {
        assert!(load(&world, &ben, &path).await == (200, bytes), "{path} is not what it was");
    }
    for (path, _) in other {
        assert_eq!(load(&world, &ben, &path).await.0, 404, "{path} of the deleted account");
    }
    let names = blobs.list("").map_ok(|blob| blob.name).try_collect::<Vec<_>>().await.unwrap();
    assert!(names.iter().any(|name| name.contains(&his)), "{names:?}");
    assert!(!names.iter().any(|name| name.contains(&hers)), "{names:?}");
}

#[tokio::test]
async fn partner_of_a_deleted_account_keeps_own_entries_and_pictures_in_memory() {
    partner_keeps_own_entries_and_pictures(MemoryStore::new()).await;
}

#[tokio::test]
async fn partner_of_a_deleted_account_keeps_own_entries_and_pictures_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    partner_keeps_own_entries_and_pictures(store).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn partner_of_a_deleted_account_keeps_own_entries_and_pictures_in_mariadb() {
    let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
    let store = couple::store::sql::MySqlOptions::new(&url).connect().await.unwrap();
    partner_keeps_own_entries_and_pictures(store).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn partner_of_a_deleted_account_keeps_own_entries_and_pictures_in_postgres() {
    let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
    let store = couple::store::sql::PostgresOptions::new(&url).connect().await.unwrap();
    partner_keeps_own_entries_and_pictures(store).await;
}
