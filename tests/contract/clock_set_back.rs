//! The wall clock is set back while accounts, jobs, uploads and live connections are in use.
//!
//! Everything that expires does so later by the amount by which the clock was set back. Jobs that were queued before wait until the clock
//! shows their time again; new jobs are not delayed. Nothing is lost or done twice.

use std::time::Duration;

use axum::body::Body;
use couple::{
    Backend, Clock as _, Keyring, Store, Timestamp,
    blobs::Blobs,
    http::{HttpOptions, ServeOptions},
    store::{MemoryStore, sql::SqliteOptions},
};
use serde_json::{Value, json};

use crate::{
    socket::{Served, frame},
    tus,
    world::{World, png},
};

const PASSWORD: &str = "mauve kettle orbit";
const JUMP: Duration = Duration::from_hours(48);

fn world(store: impl Store) -> World {
    let builder = Backend::builder().store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
    World::of(builder, HttpOptions::default())
}

impl World {
    fn earlier(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.clock.set(Timestamp::from_micros(self.clock.now().micros() - by));
    }

    /// Signs up without running jobs.
    async fn ask_to_join(&self, email: &str) {
        let body = json!({ "email": email, "display_name": "Someone" });
        assert_eq!(self.open("/v1/accounts", body).await.status, 202);
    }

    async fn is_ready(&self, token: &str, picture: &str) -> bool {
        self.get(&format!("/v1/media/{picture}"), token).await.body["state"] == "ready"
    }
}

async fn everything_continues_and_what_was_queued_waits(store: impl Store) {
    let served = Served::answering(world(store), HttpOptions::default(), ServeOptions::default());
    let world = &served.world;
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    let ben = world.join("ben@example.org").await;
    world.pair(&ana, &ben).await;
    world.say(&ana, "before").await;
    let keyed = json!({ "client_id": "keyed", "kind": "text", "body": { "text": "keyed" } });
    let repeat = || world.keyed("POST", "/v1/couple/entries", Some(&ana), Some(keyed.clone()), Some("key"));
    assert_eq!(repeat().await.status, 201);
    let repeated = repeat().await;
    world.sign_up("dora@example.org").await;
    let eve = world.join("eve@example.org").await;
    let invite = world.post("/v1/invites", &eve, json!({})).await.text("code");
    let bytes = png(300, 300);
    let upload = tus::begin(world, &ana, bytes.len()).await;
    let (part, rest) = bytes.split_at(1_000);
    assert_eq!(tus::patch(world, &ana, &upload, 0, Body::from(part.to_vec())).await.status, 204);
    // Queued, and not done: a mail and a picture.
    world.ask_to_join("cem@example.org").await;
    let queued = world.upload(&ana, "purpose=photo", png(50, 50)).await.text("id");
    let mut socket = served.connect(&ben, "?after=0").await.unwrap();
    while frame(&mut socket).await["type"] != "caught_up" {}

    world.earlier(JUMP);
    world.work().await;
    assert_eq!(world.mails_to("cem@example.org"), 0, "queued work waits for its time");
    // Sessions, live connections and the order of entries.
    for (token, text) in [(&ana, "after"), (&ben, "answer")] {
        let seq = world.say(token, text).await;
        let received = frame(&mut socket).await;
        assert_eq!(
            (&received["entry"]["seq"], &received["entry"]["body"]["text"]),
            (&json!(seq), &json!(text))
        );
    }
    let page = world.get("/v1/couple/entries?after=0", &ben).await;
    let texts = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().unwrap().iter();
        entries.filter_map(|entry| entry["body"]["text"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(texts(&page.body), ["before", "keyed", "after", "answer"], "{}", page.body);
    // An idempotency key is still known.
    let again = repeat().await;
    assert_eq!((again.status, &again.body), (repeated.status, &repeated.body));
    // Mailed codes and invites of before, once each.
    let (code, _) = world.mailed("dora@example.org");
    let verify = json!({ "email": "dora@example.org", "code": code });
    let joined = world.open("/v1/accounts/verify", verify.clone()).await;
    assert_eq!(joined.status, 200, "{}", joined.body);
    assert_eq!(world.open("/v1/accounts/verify", verify).await.status, 422);
    let dora = joined.body["session"]["token"].as_str().unwrap().to_owned();
    let accept = json!({ "code": invite });
    assert_eq!(world.post("/v1/invites/accept", &dora, accept).await.status, 201);
    // New sessions, mails and pictures: limits and jobs do not wait for the old time.
    let signed_in =
        world.open("/v1/sessions", json!({ "email": "ana@example.org", "password": PASSWORD })).await;
    assert_eq!(signed_in.status, 201, "{}", signed_in.body);
    let new_session = signed_in.body["session"]["token"].as_str().unwrap().to_owned();
    world.join("fay@example.org").await;
    let photo = world.photo(&ana, 60).await;
    assert!(world.is_ready(&new_session, &photo).await, "a new picture");
    // An upload continues where it was.
    assert_eq!(tus::at(world, &ana, &upload).await, (200, Some(part.len())));
    let done = tus::patch(world, &ana, &upload, part.len(), Body::from(rest.to_vec())).await;
    assert_eq!(done.status, 204, "{}", done.body);
    world.work().await;

    // The clock is right again.
    world.later(JUMP + Duration::from_secs(1));
    world.work().await;
    assert_eq!(world.mails_to("cem@example.org"), 1, "the mail of before was sent once");
    assert!(world.is_ready(&ana, &queued).await, "the picture of before");
    for token in [&ana, &ben, &dora, &new_session] {
        assert_eq!(world.get("/v1/me", token).await.status, 200);
    }
    // The mail of the sign-up, and for two users that their invite was accepted.
    for (email, mails) in [("ana", 2), ("ben", 1), ("dora", 1), ("eve", 2), ("fay", 1)] {
        assert_eq!(world.mails_to(&format!("{email}@example.org")), mails, "mails to {email}");
    }
    assert_eq!(world.backend.ports().store.dead_jobs(None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn clock_set_back_delays_queued_work_and_loses_nothing_in_memory() {
    everything_continues_and_what_was_queued_waits(MemoryStore::new()).await;
}

#[tokio::test]
async fn clock_set_back_delays_queued_work_and_loses_nothing_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    everything_continues_and_what_was_queued_waits(store).await;
}

/// The clock jumps by up to an hour in either direction before every request.
#[tokio::test]
async fn clock_that_jumps_back_and_forth_loses_and_doubles_nothing() {
    let world = world(MemoryStore::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (mut random, mut latest) = (0x9e37_79b9_7f4a_7c15_u64, world.clock.now());
    let (mut texts, mut addresses) = (Vec::new(), Vec::new());
    for n in 0..120 {
        // xorshift64.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let by = Duration::from_secs(random % 3_600);
        if random & (1 << 40) == 0 {
            world.later(by);
        } else {
            world.earlier(by);
        }
        latest = latest.max(world.clock.now());
        match n % 3 {
            0 => {
                let text = format!("entry-{n}");
                world.say(if n % 2 == 0 { &ana } else { &ben }, &text).await;
                texts.push(text);
            }
            1 => {
                addresses.push(format!("user{n}@example.org"));
                world.ask_to_join(addresses.last().unwrap()).await;
            }
            _ => world.work().await,
        }
    }
    world.clock.set(latest.plus(Duration::from_secs(1)));
    world.work().await;
    for address in &addresses {
        assert_eq!(world.mails_to(address), 1, "mails to {address}");
    }
    let mut after = 0;
    let mut read = Vec::new();
    loop {
        let page = world.get(&format!("/v1/couple/entries?after={after}&limit=20"), &ana).await;
        let entries = page.body["entries"].as_array().unwrap().clone();
        let Some(last) = entries.last() else { break };
        after = last["seq"].as_i64().unwrap();
        read.extend(entries.iter().filter_map(|entry| entry["body"]["text"].as_str().map(str::to_owned)));
    }
    assert_eq!(read, texts);
    assert_eq!(world.backend.ports().store.dead_jobs(None, 9).await.unwrap(), []);
}
