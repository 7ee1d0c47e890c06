//! Every kind of token is redeemed once, also by fifty concurrent requests.

use std::{collections::BTreeMap, sync::Arc};

use couple::{
    Backend, Keyring, Store, blobs::Blobs, core::limits::Unlimited, core::mail::Message, http::HttpOptions,
    store::MemoryStore, store::sql::SqliteOptions,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::world::World;

const REQUESTS: usize = 50;
const ANA: &str = "ana@example.org";

/// Sends the request concurrently, each from one of the sessions. Returns the number of responses of each status.
async fn fifty(
    world: &Arc<World>,
    method: &'static str,
    path: &'static str,
    sessions: &[Option<String>],
    body: &Value,
) -> BTreeMap<u16, usize> {
    let start = Arc::new(Barrier::new(REQUESTS));
    let tasks: Vec<_> = sessions
        .iter()
        .cycle()
        .take(REQUESTS)
        .cloned()
        .map(|session| {
            let (world, start, body) = (world.clone(), start.clone(), body.clone());
            tokio::spawn(async move {
                start.wait().await;
                world.call(method, path, session.as_deref(), Some(body)).await.status
            })
        })
        .collect();
    let mut statuses = BTreeMap::new();
    for task in tasks {
        *statuses.entry(task.await.unwrap()).or_default() += 1;
    }
    statuses
}

/// Token of the link in the newest mail that cancels a change of address.
fn cancel_link(world: &World) -> String {
    let links = world.mailer.sent().into_iter().rev().find_map(|mail| match mail.message {
        Message::EmailChangeAsked { link, .. } => Some(link.expose().split_once('#').unwrap().1.to_owned()),
        _ => None,
    });
    links.unwrap()
}

async fn every_token_is_redeemed_once(store: impl Store) {
    let builder = Backend::builder().store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
    let world = Arc::new(World::of(builder.limits(Unlimited), HttpOptions::default()));
    let nobody = [None];
    let once = |good: u16, bad: u16| BTreeMap::from([(good, 1), (bad, REQUESTS - 1)]);

    // A sign-up, by its code and by its link.
    world.sign_up(ANA).await;
    let (code, _) = world.mailed(ANA);
    let by_code = json!({ "email": ANA, "code": code });
    let seen = fifty(&world, "POST", "/v1/accounts/verify", &nobody, &by_code).await;
    assert_eq!(seen, once(200, 422), "code of a sign-up");
    world.sign_up("ben@example.org").await;
    let by_link = json!({ "token": world.mailed("ben@example.org").1 });
    let seen = fifty(&world, "POST", "/v1/accounts/verify", &nobody, &by_link).await;
    assert_eq!(seen, once(200, 422), "link of a sign-up");

    // A sign-in, by its code and by its link.
    let ask = async |path: &str| {
        assert_eq!(world.open(path, json!({ "email": ANA })).await.status, 202);
        world.work().await;
        world.mailed(ANA)
    };
    let by_code = json!({ "email": ANA, "code": ask("/v1/sessions/code").await.0 });
    let seen = fifty(&world, "POST", "/v1/sessions", &nobody, &by_code).await;
    assert_eq!(seen, once(201, 401), "code of a sign-in");
    let by_link = json!({ "token": ask("/v1/sessions/code").await.1 });
    let seen = fifty(&world, "POST", "/v1/sessions", &nobody, &by_link).await;
    assert_eq!(seen, once(201, 422), "link of a sign-in");

    // A new password.
    let reset = json!({ "token": ask("/v1/password/forgot").await.1, "new_password": "mauve kettle orbit" });
    let seen = fifty(&world, "PUT", "/v1/password", &nobody, &reset).await;
    assert_eq!(seen, once(204, 422), "link for a new password");

    // A change of address, by its code, by its link, and its cancellation.
    let session = world.sign_in(ANA).await;
    let change = async |email: &str| {
        let asked = world.post("/v1/me/email", &session, json!({ "new_email": email })).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        world.work().await;
        world.mailed(email)
    };
    let by_code = json!({ "email": "by-code@example.org", "code": change("by-code@example.org").await.0 });
    let seen = fifty(&world, "POST", "/v1/me/email/verify", &[Some(session.clone())], &by_code).await;
    assert_eq!(seen, once(204, 422), "code of a change of address");
    let by_link = json!({ "token": change("by-link@example.org").await.1 });
    let seen = fifty(&world, "POST", "/v1/me/email/verify", &nobody, &by_link).await;
    assert_eq!(seen, once(204, 422), "link of a change of address");
    assert_eq!(world.get("/v1/me", &session).await.text("email"), "by-link@example.org");
    let (_, late) = change("cancelled@example.org").await;
    let cancel = json!({ "token": cancel_link(&world) });
    let seen = fifty(&world, "POST", "/v1/me/email/cancel", &nobody, &cancel).await;
    assert_eq!(seen, once(204, 422), "link that cancels a change of address");
    let seen = fifty(&world, "POST", "/v1/me/email/verify", &nobody, &json!({ "token": late })).await;
    assert_eq!(seen, BTreeMap::from([(422, REQUESTS)]), "link of a cancelled change");

    // An invite, by its code and by its link: each of the concurrent requests is by another account.
    let mut guests = Vec::new();
    for n in 0..REQUESTS {
        guests.push(Some(world.join(&format!("guest{n}@example.org")).await));
    }
    for form in ["code", "link"] {
        for (path, good) in [("/v1/invites/decline", 204), ("/v1/invites/accept", 201)] {
            let sent = world.post("/v1/invites", &session, json!({})).await;
            let name = if form == "link" { "token" } else { "code" };
            let seen = fifty(&world, "POST", path, &guests, &json!({ name: sent.text(form) })).await;
            assert_eq!(seen, once(good, 404), "{form} of an invite, {path}");
        }
        assert_eq!(world.call("DELETE", "/v1/couple", Some(&session), None).await.status, 204);
    }
    world.backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_token_is_redeemed_once_in_memory() {
    every_token_is_redeemed_once(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_token_is_redeemed_once_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    every_token_is_redeemed_once(store).await;
}
