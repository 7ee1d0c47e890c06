//! Bounces and complaints retire an address until its owner confirms it again.

use std::sync::{Arc, Mutex};

use couple::{
    Backend,
    core::limits::Unlimited,
    events::Event,
    http::HttpOptions,
    mail::{Message, ReportOutcome, RetireReason},
};
use serde_json::{Value, json};

use crate::world::World;

const ANA: &str = "ana@example.net";

macro_rules! corpus {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../couple-notify/tests/feedback/", $name, ".eml")))),*]
    };
}

/// World whose listener keeps the retired addresses.
fn world() -> (World, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = told.clone();
    let builder = Backend::builder().limits(Unlimited).on(move |event, _| {
        if let Event::AddressRetired(retired) = event {
            assert!(retired.account.is_some());
            kept.lock().unwrap().push(format!("{} {}", retired.email, retired.reason.as_str()));
        }
        Ok(())
    });
    (World::of(builder, HttpOptions::default()), told)
}

/// Message-ID of the newest mail to Ana.
fn message_id(world: &World) -> String {
    format!("{}@localhost", world.mailer.last_to(ANA).unwrap().id)
}

async fn report(world: &World, text: &str, message_id: &str) -> ReportOutcome {
    let raw = text.replace("MESSAGE-ID", message_id).replace('\n', "\r\n");
    world.backend.mail().feedback(raw.as_bytes()).await.unwrap()
}

/// `email_retired` of `GET /v1/me`.
async fn me(world: &World, token: &str) -> Value {
    let answer = world.get("/v1/me", token).await;
    assert_eq!(answer.status, 200);
    answer.body["email_retired"].clone()
}

/// Asks for a code by mail and signs in with it.
async fn confirm_again(world: &World) {
    assert_eq!(world.open("/v1/sessions/code", json!({ "email": ANA })).await.status, 202);
    world.work().await;
    let mail = world.mailer.last_to(ANA).unwrap();
    let Message::SignInCode { code, .. } = &mail.message else { panic!("{mail:?}") };
    let body = json!({ "email": ANA, "code": code.expose() });
    assert_eq!(world.open("/v1/sessions", body).await.status, 201);
}

#[tokio::test]
async fn permanent_failure_or_complaint_retires_the_address_until_it_is_confirmed_again() {
    let (world, told) = world();
    let token = world.join_with_password(ANA, "a long enough password").await;
    assert_eq!(me(&world, &token).await, Value::Null);
    let reports = corpus![
        "postfix",
        "exim",
        "exim_4_84",
        "exchange",
        "gmail",
        "gmail_forwarded",
        "qmail",
        "headers_only",
        "arf_abuse",
        "arf_outlook",
    ];
    for (name, text) in reports {
        let reason = if name.starts_with("arf") { RetireReason::Complained } else { RetireReason::Bounced };
        let outcome = report(&world, text, &message_id(&world)).await;
        let ReportOutcome::Retired(retired) = &outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!((retired.email.as_str(), retired.reason), (ANA, reason), "{name}");
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [format!("{ANA} {}", reason.as_str())]);
        assert_eq!(report(&world, text, &message_id(&world)).await, ReportOutcome::AlreadyRetired, "{name}");
        assert!(told.lock().unwrap().is_empty(), "{name}");
        assert_eq!(me(&world, &token).await, reason.as_str(), "{name}");
        confirm_again(&world).await;
        assert_eq!(me(&world, &token).await, Value::Null, "{name}");
    }
}

#[tokio::test]
async fn retired_address_gets_no_mail_and_its_account_stays() {
    let (world, _) = world();
    let token = world.join_with_password(ANA, "a long enough password").await;
    let [(_, postfix)] = corpus!["postfix"];
    report(&world, postfix, &message_id(&world)).await;
    let before = world.mails_to(ANA);
    // An invite, a new device and a changed password.
    let ben = world.join("ben@example.org").await;
    assert_eq!(world.post("/v1/invites", &ben, json!({ "email": ANA })).await.status, 201);
    let body = json!({ "email": ANA, "password": "a long enough password" });
    assert_eq!(world.open("/v1/sessions", body).await.status, 201);
    let change =
        json!({ "current_password": "a long enough password", "new_password": "another long password" });
    assert_eq!(world.call("PUT", "/v1/password", Some(&token), Some(change)).await.status / 100, 2);
    world.work().await;
    assert_eq!(world.mails_to(ANA), before);
    // Mails to other addresses go on.
    assert!(world.mails_to("ben@example.org") > 0);
    confirm_again(&world).await;
    assert_eq!(world.mails_to(ANA), before + 1);
    let cleo = world.join("cleo@example.org").await;
    assert_eq!(world.post("/v1/invites", &cleo, json!({ "email": ANA })).await.status, 201);
    world.work().await;
    assert_eq!(world.mails_to(ANA), before + 2, "invites are mailed again");
}

#[tokio::test]
async fn other_and_forged_reports_change_nothing() {
    let (world, told) = world();
    let ana = world.join(ANA).await;
    world.join("eve@example.org").await;
    let id = message_id(&world);
    for (name, text) in corpus!["postfix_delayed", "postfix_expired", "postfix_delivered", "qmail_expired"] {
        assert_eq!(report(&world, text, &id).await, ReportOutcome::Temporary, "{name}");
    }
    for (name, text) in corpus!["arf_not_spam", "arf_auth_failure", "arf_redacted", "out_of_office"] {
        assert_eq!(report(&world, text, &id).await, ReportOutcome::Unknown, "{name}");
    }
    // Eve knows only the Message-IDs of her own mails.
    let of_eve = world.mailer.last_to("eve@example.org").unwrap().id;
    let (job, code) = id.split_once('@').unwrap().0.rsplit_once('.').unwrap();
    let last = if code.ends_with('A') { 'B' } else { 'A' };
    let changed = format!("{job}.{}{last}@localhost", &code[..code.len() - 1]);
    let forged = [
        format!("{of_eve}@localhost"),
        format!("{job}@localhost"),
        changed,
        format!("{}.{code}@localhost", of_eve.split('.').next().unwrap()),
        String::new(),
    ];
    for message_id in &forged {
        for (name, text) in corpus!["postfix", "exim_4_84", "qmail", "gmail", "arf_abuse"] {
            let outcome = report(&world, text, message_id).await;
            assert_eq!(outcome, ReportOutcome::Unknown, "{name} with {message_id}");
        }
    }
    for raw in [&b""[..], b"\0\xff", b"From: x\r\n\r\n", &[b'a'; 1 << 21]] {
        assert_eq!(world.backend.mail().feedback(raw).await.unwrap(), ReportOutcome::Unknown);
    }
    assert_eq!(me(&world, &ana).await, Value::Null);
    assert!(told.lock().unwrap().is_empty());
}
