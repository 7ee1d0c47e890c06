//! Side channels: response times and logs do not reveal secrets.

use std::time::Duration;

use couple::{Backend, account::HashCost, core::limits::Unlimited, notify::mail::MemoryMailer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Log, World};

const PASSWORD: &str = "mauve kettle orbit";

/// Ratio of the median response times for a known and an unknown address, requested in turn.
async fn ratio(world: &World, path: &str, extra: &Value, samples: usize) -> f64 {
    let mut took = [Vec::new(), Vec::new()];
    for n in 0..samples {
        for (who, email) in ["ana@example.org".to_owned(), format!("no{n:04}@example.org")].iter().enumerate()
        {
            let mut body = extra.clone();
            body["email"] = email.as_str().into();
            let started = Instant::now();
            world.open(path, body).await;
            took[who].push(started.elapsed());
        }
    }
    let [known, unknown] = took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64()
    });
    known / unknown
}

/// Maximum number of rounds in which other programs on the machine may disturb a measurement.
const MAX_ROUNDS: usize = 5;

/// Medians differ by at most a tenth, in one of the rounds: a response time that reveals an account does so in each.
#[tokio::test]
async fn response_time_does_not_reveal_an_account() {
    let mut world = World::new();
    world.join_with_password("ana@example.org", PASSWORD).await;
    for (path, extra) in [
        ("/v1/accounts", json!({"display_name": "A"})),
        ("/v1/accounts/verify/resend", json!({})),
        ("/v1/sessions/code", json!({})),
        ("/v1/password/forgot", json!({})),
        ("/v1/sessions", json!({"code": "000000"})),
    ] {
        let mut seen = Vec::new();
        while !seen.iter().any(|ratio| (0.9..=1.1).contains(ratio)) {
            assert!(seen.len() < MAX_ROUNDS, "{path}: known to unknown {seen:?}");
            // Fewer wrong codes than an address may get in a day: the unknown addresses differ.
            let samples = if path == "/v1/sessions" { 90 } else { 500 };
            world.later(Duration::from_hours(25));
            seen.push(ratio(&world, path, &extra, samples).await);
        }
    }
    // With the real cost of a hash: one hash is computed, with or without an account or a password.
    let mailer = MemoryMailer::new();
    let builder = Backend::builder().mailer(mailer.clone()).clock(world.clock.clone()).limits(Unlimited);
    world.backend = builder.hash_cost(HashCost::RECOMMENDED).build().unwrap();
    world.mailer = mailer;
    world.app = couple::http::router(world.backend.clone());
    world.join_with_password("ana@example.org", PASSWORD).await;
    let wrong = json!({"password": "wrong password here"});
    let mut seen = Vec::new();
    while !seen.iter().any(|ratio| (0.9..=1.1).contains(ratio)) {
        assert!(seen.len() < MAX_ROUNDS, "sign-in: known to unknown {seen:?}");
        // Fewer wrong passwords than an account may get in a day: beyond it, no hash is computed.
        world.later(Duration::from_hours(25));
        seen.push(ratio(&world, "/v1/sessions", &wrong, 60).await);
    }
}

#[tokio::test]
async fn log_at_its_most_verbose_contains_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // Tests on other threads may have cached that no subscriber is interested.
    tracing::callsite::rebuild_interest_cache();
    let world = World::new();
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    let (code, link) = world.mailed("ana@example.org");
    world.open("/v1/sessions", json!({"email": "ana@example.org", "password": "not the right one"})).await;
    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    let invite = world.post("/v1/invites", &ana, json!({})).await;
    let ben = world.join("ben@example.org").await;
    world.post("/v1/invites/accept", &ben, json!({"code": invite.text("code")})).await;
    let entry = json!({"client_id": "a", "kind": "text", "body": {"text": "nobody else's business"}});
    world.post("/v1/couple/entries", &ana, entry).await;
    world.get("/v1/couple/live?after=0&wait=0", &ben).await;
    world.work().await;
    let (_, reset) = world.mailed("ana@example.org");
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/v1/couple/entries"), "something is logged");
    let secrets = [&ana, &ben, &code, &link, &reset, &invite.text("code"), &invite.text("link")];
    for secret in secrets.into_iter().map(String::as_str).chain([PASSWORD, "not the right one", "business"]) {
        assert!(secret.is_empty() || !text.contains(secret), "{secret} is in the log");
    }
}
