//! Logs do not reveal secrets.

use serde_json::json;

use crate::world::{Log, World};

const PASSWORD: &str = "mauve kettle orbit";

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
