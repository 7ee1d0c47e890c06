//! Accounts: sign-up, sign-in, sessions, passwords, change of address, deletion.

use std::{collections::HashSet, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use couple::{
    account::PasswordHash,
    core::{account::PurgeAccountsHandler, mail::Message},
    store::MemoryLimits,
};
use serde_json::json;
use sha2::Digest as _;
use tower::ServiceExt as _;

use crate::world::World;

const PASSWORD: &str = "mauve kettle orbit";
const OTHER: &str = "seven violet otters";

#[tokio::test]
async fn responses_do_not_reveal_whether_an_address_has_an_account() {
    let world = World::new();
    world.join_with_password("ana@example.org", PASSWORD).await;
    for (path, extra) in [
        ("/v1/accounts", json!({"display_name": "A"})),
        ("/v1/accounts/verify/resend", json!({})),
        ("/v1/sessions/code", json!({})),
        ("/v1/password/forgot", json!({})),
        ("/v1/sessions", json!({"password": "wrong password here"})),
        ("/v1/sessions", json!({"code": "000000"})),
        ("/v1/accounts/verify", json!({"code": "000000"})),
    ] {
        let mut answers = Vec::new();
        for email in ["ana@example.org", "nobody@example.org"] {
            let mut body = extra.clone();
            body["email"] = email.into();
            let answer = world.open(path, body).await;
            let headers: HashSet<String> = answer.headers.keys().map(ToString::to_string).collect();
            answers.push((answer.status, answer.body, headers));
        }
        assert_eq!(answers[0], answers[1], "{path}");
    }
    world.work().await;
    let told = world.mailer.sent();
    for mail in told.iter().filter(|mail| mail.to.as_str() == "nobody@example.org") {
        assert!(
            matches!(mail.message, Message::ConfirmSignUp { .. }),
            "an unknown address gets only the mail of the sign-up"
        );
    }
    assert!(
        told.iter()
            .any(|m| m.to.as_str() == "ana@example.org" && matches!(m.message, Message::AlreadySignedUp))
    );
}

/// The policy of a mailed page admits its own style and script by their hashes, and nothing else inline.
#[tokio::test]
async fn mailed_pages_allow_no_other_inline_code() {
    let world = World::new();
    for page in ["verify", "email", "cancel", "signin", "password", "invite"] {
        let request = Request::get(format!("/open/{page}")).body(Body::empty()).unwrap();
        let response = world.app.clone().oneshot(request).await.unwrap();
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(!policy.contains("unsafe") && policy.starts_with("default-src 'none';"), "{policy}");
        let html = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let html = std::str::from_utf8(&html).unwrap();
        for (element, directive) in [("style", "style-src"), ("script", "script-src")] {
            let (_, rest) = html.split_once(&format!("<{element}>")).unwrap();
            let (text, rest) = rest.split_once(&format!("</{element}>")).unwrap();
            assert!(!rest.contains(&format!("<{element}")), "one {element}: {html}");
            let hash = data_encoding::BASE64.encode(&sha2::Sha256::digest(text));
            assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{policy}");
        }
        assert!(!html.contains(" style=") && !html.contains(" onclick="), "{html}");
    }
}

#[tokio::test]
async fn link_confirms_like_a_code_and_opening_it_changes_nothing() {
    let world = World::new();
    world.sign_up("ana@example.org").await;
    let (code, link) = world.mailed("ana@example.org");
    for _ in 0..3 {
        assert_eq!(world.call("GET", "/open/verify", None, None).await.status, 200);
        assert_eq!(world.call("HEAD", "/open/verify", None, None).await.status, 200);
    }
    let answer = world.open("/v1/accounts/verify", json!({"token": link})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // The code of the same mail also signs in once, to the same account.
    let again = world.open("/v1/accounts/verify", json!({"email": "ana@example.org", "code": code})).await;
    assert_eq!((again.status, &again.body["account"]["id"]), (200, &answer.body["account"]["id"]));
    for body in [json!({"token": link}), json!({"email": "ana@example.org", "code": code})] {
        assert_eq!(world.open("/v1/accounts/verify", body).await.said(), (422, "invalid_token"));
    }
    let used = world.open("/v1/accounts/verify", json!({"token": link})).await;
    assert_eq!(used.body["detail"], "this link was used already");
}

#[tokio::test]
async fn code_and_link_of_one_mail_sign_in_once_each_in_either_order() {
    let world = World::new();
    let sign_in = async |body| world.open("/v1/sessions", body).await.status;
    world.join_with_password("ana@example.org", PASSWORD).await;
    for code_first in [true, false] {
        world.open("/v1/sessions/code", json!({"email": "ana@example.org"})).await;
        world.work().await;
        let (code, link) = world.mailed("ana@example.org");
        let mut proofs = [json!({"email": "ana@example.org", "code": code}), json!({"token": link})];
        if !code_first {
            proofs.reverse();
        }
        for proof in &proofs {
            assert_eq!(sign_in(proof.clone()).await, 201);
        }
        for proof in proofs {
            assert!(sign_in(proof).await >= 400);
        }
    }
    // The second one works only within the lifetime of the code, and not after a change of password.
    for (email, wait, change) in [("late@example.org", 600, false), ("new@example.org", 0, true)] {
        world.sign_up(email).await;
        let (code, link) = world.mailed(email);
        let body = json!({"email": email, "code": code, "password": PASSWORD});
        let answer = world.open("/v1/accounts/verify", body).await;
        let session = answer.body["session"]["token"].as_str().unwrap().to_owned();
        if change {
            let body = json!({"current_password": PASSWORD, "new_password": OTHER});
            assert_eq!(world.call("PUT", "/v1/password", Some(&session), Some(body)).await.status, 200);
        }
        world.later(Duration::from_secs(wait));
        let late = world.open("/v1/accounts/verify", json!({"token": link})).await;
        assert_eq!(late.said(), (422, "invalid_token"));
    }
}

#[tokio::test]
async fn account_has_the_name_of_the_confirmed_sign_up() {
    let world = World::new();
    let sign_up = async |email: &str, name: &str| {
        world.open("/v1/accounts", json!({"email": email, "display_name": name, "locale": "en"})).await;
        world.work().await;
        world.later(Duration::from_secs(1));
    };
    let named = async |body: serde_json::Value| {
        let answer = world.open("/v1/accounts/verify", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["account"]["display_name"].as_str().unwrap().to_owned()
    };
    // The first sign-up's mail is used, although another sign-up followed.
    sign_up("ana@example.org", "Ana").await;
    let (code, _) = world.mailed("ana@example.org");
    sign_up("ana@example.org", "WIN at https://evil.example").await;
    assert_eq!(named(json!({"email": "ana@example.org", "code": code})).await, "Ana");
    // Fields of the confirmation take precedence over those of the sign-ups.
    sign_up("cleo@example.org", "WIN").await;
    let (code, _) = world.mailed("cleo@example.org");
    let body = json!({"email": "cleo@example.org", "code": code, "display_name": "Cleo", "locale": "pt-BR"});
    let answer = world.open("/v1/accounts/verify", body).await;
    assert_eq!(
        (&answer.body["account"]["display_name"], &answer.body["account"]["locale"]),
        (&json!("Cleo"), &json!("pt-BR"))
    );
}

#[tokio::test]
async fn second_mail_does_not_invalidate_the_first() {
    let world = World::new();
    world.sign_up("ana@example.org").await;
    let (first, _) = world.mailed("ana@example.org");
    world.later(Duration::from_secs(60));
    world.open("/v1/accounts/verify/resend", json!({"email": "ana@example.org"})).await;
    world.work().await;
    let (second, link) = world.mailed("ana@example.org");
    assert_ne!(first, second);
    let answer = world.open("/v1/accounts/verify", json!({"email": "ana@example.org", "code": first})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        world.open("/v1/accounts/verify", json!({"token": link})).await.said(),
        (422, "invalid_token")
    );
}

#[tokio::test]
async fn code_expires_after_ten_minutes_and_after_five_attempts() {
    let world = World::new();
    world.sign_up("ana@example.org").await;
    let (code, link) = world.mailed("ana@example.org");
    let verify = async |code: &str| {
        world.open("/v1/accounts/verify", json!({"email": "ana@example.org", "code": code})).await.status
    };
    world.later(Duration::from_secs(601));
    assert_eq!(verify(&code).await, 422);
    world.sign_up("ana@example.org").await;
    let (code, _) = world.mailed("ana@example.org");
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        assert_eq!(verify(wrong).await, 422);
    }
    assert_eq!(verify(&code).await, 422, "the sixth attempt");
    // The link is an independent proof.
    assert_eq!(world.open("/v1/accounts/verify", json!({"token": link})).await.status, 200);
}

#[tokio::test]
async fn owner_is_told_of_a_sign_in_by_password_from_a_new_device() {
    let world = World::new();
    world.join_with_password("ana@example.org", PASSWORD).await;
    let told = || {
        let mails = world.mailer.sent().into_iter();
        let told = mails.filter_map(|mail| match mail.message {
            Message::NewDevice { device, .. } => Some((mail.to.to_string(), device.map(|d| d.to_string()))),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let sign_in = async |device: Option<&str>, password: &str| {
        let mut request = Request::post("/v1/sessions").header("content-type", "application/json");
        if let Some(device) = device {
            request = request.header("user-agent", device);
        }
        let body = json!({"email": "ana@example.org", "password": password}).to_string();
        let status =
            world.app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap().status();
        world.work().await;
        status.as_u16()
    };
    // The session of the sign-up has no name of a device either.
    assert_eq!(sign_in(None, PASSWORD).await, 201);
    assert_eq!(sign_in(Some("Phone"), "a wrong password").await, 401);
    assert!(told().is_empty(), "{:?}", told());
    for _ in 0..2 {
        assert_eq!(sign_in(Some("Phone"), PASSWORD).await, 201);
    }
    assert_eq!(told(), [("ana@example.org".to_owned(), Some("Phone".to_owned()))]);
    // The owner of a mailbox needs no mail about a code that the mailbox has received.
    world.sign_in("ana@example.org").await;
    assert_eq!(told().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_requests_use_a_token_once() {
    let world = std::sync::Arc::new(World::new());
    world.join_with_password("ana@example.org", PASSWORD).await;
    world.open("/v1/sessions/code", json!({"email": "ana@example.org"})).await;
    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    world.work().await;
    let (mut reset, mut code) = (String::new(), String::new());
    for mail in world.mailer.sent() {
        match mail.message {
            Message::SetPassword { link, .. } => reset = link.expose().split_once('#').unwrap().1.to_owned(),
            Message::SignInCode { code: mailed, .. } => code = mailed.expose().clone(),
            _ => {}
        }
    }
    world.sign_up("new@example.org").await;
    let (_, verify) = world.mailed("new@example.org");
    for (method, path, body, good) in [
        ("POST", "/v1/sessions", json!({"email": "ana@example.org", "code": code}), 201),
        ("PUT", "/v1/password", json!({"token": reset, "new_password": OTHER}), 204),
        ("POST", "/v1/accounts/verify", json!({"token": verify}), 200),
    ] {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (world, body) = (world.clone(), body.clone());
                tokio::spawn(async move { world.call(method, path, None, Some(body)).await.status })
            })
            .collect();
        let mut succeeded = 0;
        for task in tasks {
            succeeded += usize::from(task.await.unwrap() == good);
        }
        assert_eq!(succeeded, 1, "{path}");
    }
}

#[tokio::test]
async fn token_of_one_kind_is_refused_as_another() {
    let world = World::new();
    let session = world.join_with_password("ana@example.org", PASSWORD).await;
    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    world.work().await;
    let (_, reset) = world.mailed("ana@example.org");
    world.sign_up("new@example.org").await;
    let (_, verify) = world.mailed("new@example.org");
    world.post("/v1/me/email", &session, json!({"new_email": "ana2@example.org"})).await;
    world.work().await;
    let (_, email) = world.mailed("ana2@example.org");
    let invite = world.post("/v1/invites", &session, json!({})).await.text("link");
    let invite = invite.split_once('#').unwrap().1.to_owned();
    let all = [&session, &reset, &verify, &email, &invite];
    for token in all {
        for wrong in ["", " ", "null", &"x".repeat(5_000), &format!("{token}x"), &token[1..]] {
            assert_eq!(world.open("/v1/accounts/verify", json!({"token": wrong})).await.status, 422);
            if !wrong.contains(' ') && !wrong.is_empty() {
                assert_eq!(world.get("/v1/me", wrong).await.status, 401);
            }
        }
        if token != &session {
            assert_eq!(world.get("/v1/me", token).await.status, 401);
        }
        if token != &verify {
            assert_eq!(world.open("/v1/accounts/verify", json!({"token": token})).await.status, 422);
        }
        if token != &email {
            assert_eq!(world.open("/v1/me/email/verify", json!({"token": token})).await.status, 422);
        }
        if token != &reset {
            let body = json!({"token": token, "new_password": OTHER});
            assert_eq!(world.call("PUT", "/v1/password", None, Some(body)).await.status, 422);
        }
    }
}

#[tokio::test]
async fn password_is_set_changed_and_reset() {
    let world = World::new();
    for (weak, why) in
        [("short", "too_short"), ("passwordpassword", "too_common"), (&*"x y".repeat(500), "too_long")]
    {
        world.sign_up("weak@example.org").await;
        let (code, _) = world.mailed("weak@example.org");
        let body = json!({"email": "weak@example.org", "code": code, "password": weak});
        let answer = world.open("/v1/accounts/verify", body).await;
        assert_eq!((answer.status, answer.body["errors"][0]["code"].as_str()), (422, Some(why)));
    }
    let first = world.join_with_password("ana@example.org", PASSWORD).await;
    let sign_in = async |password: &str| {
        world.open("/v1/sessions", json!({"email": "Ana@Example.org", "password": password})).await
    };
    assert_eq!(sign_in(OTHER).await.said(), (401, "invalid_credentials"));
    let second = sign_in(PASSWORD).await;
    assert_eq!(second.status, 201);
    let second = second.body["session"]["token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);

    let change = async |token: &str, body| world.call("PUT", "/v1/password", Some(token), Some(body)).await;
    let wrong = change(&second, json!({"current_password": OTHER, "new_password": OTHER})).await;
    assert_eq!(wrong.said(), (401, "invalid_credentials"));
    let without = change(&second, json!({"new_password": OTHER})).await;
    assert_eq!(without.said(), (422, "invalid_field"));
    let changed = change(&second, json!({"current_password": PASSWORD, "new_password": OTHER})).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let third = changed.body["session"]["token"].as_str().unwrap().to_owned();
    for ended in [&first, &second] {
        assert_eq!(world.get("/v1/me", ended).await.status, 401);
    }
    assert_eq!(world.get("/v1/me", &third).await.status, 200);
    assert_eq!(sign_in(PASSWORD).await.status, 401);

    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    world.work().await;
    let (_, reset) = world.mailed("ana@example.org");
    let body = json!({"token": reset, "new_password": PASSWORD});
    assert_eq!(world.call("PUT", "/v1/password", None, Some(body)).await.status, 204);
    assert_eq!(world.get("/v1/me", &third).await.status, 401);
    assert_eq!(sign_in(PASSWORD).await.status, 201);
    world.work().await;
    let told = world.mailer.sent().iter().filter(|m| matches!(m.message, Message::PasswordChanged)).count();
    assert_eq!(told, 2);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_and_expire() {
    let world = World::new();
    let one = world.join_with_password("ana@example.org", PASSWORD).await;
    let body = json!({"email": "ana@example.org", "password": PASSWORD});
    let mut tokens = Vec::new();
    for _ in 0..3 {
        world.later(Duration::from_secs(1));
        let signed = world.open("/v1/sessions", body.clone()).await;
        tokens.push(signed.body["session"]["token"].as_str().unwrap().to_owned());
    }
    let listed = world.get("/v1/sessions", &one).await.body["sessions"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 4);
    assert_eq!(listed.iter().filter(|session| session["current"] == true).count(), 1);
    let newest = listed[0]["id"].as_str().unwrap();
    let end = format!("/v1/sessions/{newest}");
    assert_eq!(world.call("DELETE", &end, Some(&one), None).await.status, 204);
    assert_eq!(world.call("DELETE", &end, Some(&one), None).await.said(), (404, "session_not_found"));
    assert_eq!(world.get("/v1/me", &tokens[2]).await.status, 401);
    // A session of another account is not found.
    let ben = world.join("ben@example.org").await;
    let theirs = world.get("/v1/sessions", &ben).await.body["sessions"][0]["id"].as_str().unwrap().to_owned();
    let answer = world.call("DELETE", &format!("/v1/sessions/{theirs}"), Some(&one), None).await;
    assert_eq!(answer.said(), (404, "session_not_found"));
    assert_eq!(world.call("DELETE", "/v1/sessions", Some(&one), None).await.status, 204);
    assert_eq!(world.get("/v1/me", &tokens[0]).await.status, 401);
    assert_eq!(world.get("/v1/me", &one).await.status, 200);
    // A session that is used lives up to a year; one that is not used for a month expires.
    for _ in 0..12 {
        world.later(Duration::from_hours(24 * 29));
        assert_eq!(world.get("/v1/me", &one).await.status, 200);
    }
    world.later(Duration::from_hours(24 * 29));
    assert_eq!(world.get("/v1/me", &one).await.status, 401);
    world.later(Duration::from_hours(24 * 40));
    assert_eq!(world.get("/v1/me", &ben).await.status, 401);
}

#[tokio::test]
async fn address_is_changed_by_its_new_owner_only() {
    let world = World::new();
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    world.join("ben@example.org").await;
    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    world.work().await;
    let (_, old_reset) = world.mailed("ana@example.org");
    // Two concurrent changes; an address that is in use gets only a note.
    for to in ["one@example.org", "two@example.org", "ben@example.org"] {
        let body = json!({"new_email": to, "current_password": PASSWORD});
        assert_eq!(world.post("/v1/me/email", &ana, body).await.status, 202);
    }
    world.work().await;
    let (one_code, one_link) = world.mailed("one@example.org");
    let (two_code, _) = world.mailed("two@example.org");
    let confirm = async |body| world.post("/v1/me/email/verify", &ana, body).await.status;
    if one_code != two_code {
        assert_eq!(confirm(json!({"email": "one@example.org", "code": two_code})).await, 422);
    }
    assert_eq!(confirm(json!({"email": "two@example.org", "code": two_code})).await, 204);
    assert_eq!(world.get("/v1/me", &ana).await.body["email"], "two@example.org");
    world.work().await;
    assert!(
        world
            .mailer
            .sent()
            .iter()
            .any(|m| m.to.as_str() == "ana@example.org" && matches!(m.message, Message::EmailChanged))
    );
    let new = world.mailer.last_to("two@example.org").unwrap();
    assert!(matches!(new.message, Message::EmailConfirmed), "{new:?}");
    // A link that was mailed to the old address no longer opens the account.
    let body = json!({"token": old_reset, "new_password": OTHER});
    assert_eq!(world.call("PUT", "/v1/password", None, Some(body)).await.said(), (422, "invalid_token"));
    // One change cancels the others that were requested before it.
    let late = world.open("/v1/me/email/verify", json!({"token": one_link})).await;
    assert_eq!(late.said(), (422, "invalid_token"));
    assert_eq!(world.get("/v1/me", &ana).await.body["email"], "two@example.org");
    // Without the password, a recent sign-in is needed.
    world.later(Duration::from_secs(601));
    let stale = world.post("/v1/me/email", &ana, json!({"new_email": "x@example.org"})).await;
    assert_eq!(stale.said(), (403, "recent_sign_in_required"));
    assert_eq!(world.get("/v1/me/export", &ana).await.said(), (403, "recent_sign_in_required"));
    assert_eq!(
        world.call("DELETE", "/v1/me", Some(&ana), None).await.said(),
        (403, "recent_sign_in_required")
    );
}

#[tokio::test]
async fn account_can_be_restored_until_its_deletion_is_due() {
    let world = World::new();
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    let ben = world.join("ben@example.org").await;
    world.pair(&ana, &ben).await;
    world.say(&ana, "hers").await;
    world.say(&ben, "his").await;
    assert_eq!(world.call("DELETE", "/v1/me", Some(&ana), None).await.status, 202);
    assert_eq!(world.get("/v1/me", &ana).await.status, 401);
    let purge = PurgeAccountsHandler::new(world.backend.ports().clone(), 10);
    world.later(Duration::from_hours(24 * 13));
    assert_eq!(purge.plan().await.unwrap(), []);
    let back = world.open("/v1/sessions", json!({"email": "ana@example.org", "password": PASSWORD})).await;
    assert_eq!(back.status, 201);
    assert_eq!(back.body["account"]["deletion_due"], serde_json::Value::Null);
    let ana = back.body["session"]["token"].as_str().unwrap().to_owned();
    assert_eq!(world.get("/v1/couple", &ana).await.status, 200);

    world.call("DELETE", "/v1/me", Some(&ana), None).await;
    world.later(Duration::from_hours(24 * 14 + 1));
    // A dry run lists the accounts, and changes nothing.
    let plan = purge.plan().await.unwrap();
    assert_eq!((plan.len(), plan[0].erases.len(), plan[0].ends.is_some()), (1, 1, true));
    assert_eq!(purge.plan().await.unwrap(), plan);
    let handler: &dyn couple::job::Handler<couple::core::account::PurgeAccounts> = &purge;
    let context = couple::job::Context {
        id: couple::core::JobId::new(&*world.clock, &couple::OsEntropy),
        attempt: 1,
        enqueued_at: couple::Clock::now(&*world.clock),
    };
    handler.run(couple::core::account::PurgeAccounts {}, &context).await.unwrap();
    assert_eq!(purge.plan().await.unwrap(), []);
    let gone = world.open("/v1/sessions", json!({"email": "ana@example.org", "password": PASSWORD})).await;
    assert_eq!(gone.said(), (401, "invalid_credentials"));
    // Ben's couple has ended, and his entries are still his.
    world.open("/v1/sessions/code", json!({"email": "ben@example.org"})).await;
    world.work().await;
    let (code, _) = world.mailed("ben@example.org");
    let ben = world.open("/v1/sessions", json!({"email": "ben@example.org", "code": code})).await;
    let ben = ben.body["session"]["token"].as_str().unwrap().to_owned();
    assert_eq!(world.get("/v1/couple", &ben).await.said(), (404, "not_paired"));
    let export = world.get("/v1/me/export", &ben).await;
    let entries = export.body["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{}", export.body);
    assert_eq!(entries[0]["body"]["text"], "his");
    assert_eq!(export.body["account"]["email"], "ben@example.org");
    // The address can be used again.
    world.join("ana@example.org").await;
}

#[tokio::test]
async fn repeat_with_an_idempotency_key_returns_the_first_response() {
    let world = World::new();
    let body = json!({"email": "ana@example.org", "display_name": "Ana"});
    for _ in 0..3 {
        let answer = world.keyed("POST", "/v1/accounts", None, Some(body.clone()), Some("k1")).await;
        assert_eq!(answer.status, 202);
    }
    world.work().await;
    assert_eq!(world.mails_to("ana@example.org"), 1, "a repeat sends no mail");
    let other = json!({"email": "ana@example.org", "display_name": "Anna"});
    let answer = world.keyed("POST", "/v1/accounts", None, Some(other), Some("k1")).await;
    assert_eq!(answer.said(), (422, "idempotency_key_reused"));
    let (code, _) = world.mailed("ana@example.org");
    let verify = json!({"email": "ana@example.org", "code": code});
    let first = world.keyed("POST", "/v1/accounts/verify", None, Some(verify.clone()), Some("k2")).await;
    let again = world.keyed("POST", "/v1/accounts/verify", None, Some(verify.clone()), Some("k2")).await;
    assert_eq!((first.status, &first.body), (200, &again.body));
    let ana = first.body["session"]["token"].as_str().unwrap().to_owned();
    let invite = world.keyed("POST", "/v1/invites", Some(&ana), Some(json!({})), Some("k3")).await;
    let again = world.keyed("POST", "/v1/invites", Some(&ana), Some(json!({})), Some("k3")).await;
    assert_eq!(invite.body, again.body);
    // The key of another account does not repeat the request.
    let ben = world.join("ben@example.org").await;
    let theirs = world.keyed("POST", "/v1/invites", Some(&ben), Some(json!({})), Some("k3")).await;
    assert_ne!(theirs.body["id"], invite.body["id"]);
    let bad = world.keyed("POST", "/v1/invites", Some(&ana), Some(json!({})), Some(&"x".repeat(256))).await;
    assert_eq!(bad.said(), (400, "invalid_idempotency_key"));
}

#[tokio::test]
async fn password_attempts_are_limited_per_address() {
    let clock = std::sync::Arc::new(couple::ManualClock::default());
    let world = World::with(MemoryLimits::new(clock.clone()));
    world.join_with_password("ana@example.org", PASSWORD).await;
    let guess =
        async |email: &str| world.open("/v1/sessions", json!({"email": email, "password": OTHER})).await;
    let mut limited = 0;
    for _ in 0..15 {
        let answer = guess("ana@example.org").await;
        if answer.status == 429 {
            assert_eq!(answer.code(), "rate_limited");
            assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            limited += 1;
        }
    }
    assert_eq!(limited, 5);
    assert_eq!(guess("ANA@EXAMPLE.ORG").await.status, 429, "the same address in another spelling");
    assert_eq!(guess("ben@example.org").await.status, 401);
    clock.advance(Duration::from_mins(15));
    assert_eq!(guess("ana@example.org").await.status, 401);
}

#[tokio::test]
async fn leaked_database_contains_no_usable_secrets() {
    let world = World::new();
    let token = world.join_with_password("ana@example.org", PASSWORD).await;
    world.open("/v1/password/forgot", json!({"email": "ana@example.org"})).await;
    world.open("/v1/sessions/code", json!({"email": "ana@example.org"})).await;
    let invite = world.post("/v1/invites", &token, json!({})).await;
    let store = &world.backend.ports().store;
    let email = couple::core::EmailAddress::parse("email", "ana@example.org").unwrap();
    let account = store.account_by_email(email.key()).await.unwrap().unwrap();
    let mut dump = format!(
        "{account:?} {:?} {:?}",
        account.password.as_ref().map(PasswordHash::as_str),
        store.invites_of(account.id).await
    );
    dump.push_str(&format!("{:?}", store.sessions_of(account.id).await));
    world.work().await;
    for kind in [couple::core::account::TokenKind::SignIn, couple::core::account::TokenKind::Password] {
        dump.push_str(&format!(
            "{:?}",
            store.open_tokens(kind, email.key(), couple::Timestamp::default()).await
        ));
    }
    let (_, reset) = world.mailed("ana@example.org");
    let code = invite.text("code");
    for secret in [token.as_str(), PASSWORD, &reset, &code, &code.replace('-', "")] {
        assert!(secret.is_empty() || !dump.contains(secret), "{secret} is in the dump");
    }
}

#[tokio::test]
async fn password_change_cancels_a_change_of_address() {
    let world = World::new();
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    // An attacker with the victim's phone requests two changes: one mail is sent, the other is still queued.
    world.post("/v1/me/email", &ana, json!({"new_email": "evil@example.org"})).await;
    world.work().await;
    let (_, link) = world.mailed("evil@example.org");
    world.post("/v1/me/email", &ana, json!({"new_email": "evil2@example.org"})).await;
    let body = json!({"current_password": PASSWORD, "new_password": OTHER});
    let changed = world.call("PUT", "/v1/password", Some(&ana), Some(body)).await;
    let ana = changed.body["session"]["token"].as_str().unwrap().to_owned();
    world.work().await;
    assert_eq!(world.mails_to("evil2@example.org"), 0);
    let late = world.open("/v1/me/email/verify", json!({ "token": link })).await;
    assert_eq!(late.said(), (422, "invalid_token"));
    assert_eq!(world.get("/v1/me", &ana).await.body["email"], "ana@example.org");
}

#[tokio::test]
async fn end_of_the_session_cancels_its_change_of_address() {
    for all in [false, true] {
        let world = World::new();
        let owner = world.join_with_password("ana@example.org", PASSWORD).await;
        let body = json!({"email": "ana@example.org", "password": PASSWORD});
        let stolen = world.open("/v1/sessions", body).await;
        let id = stolen.body["session"]["id"].as_str().unwrap().to_owned();
        let stolen = stolen.body["session"]["token"].as_str().unwrap().to_owned();
        // One mail is sent, the other is still queued.
        world.post("/v1/me/email", &stolen, json!({"new_email": "evil@example.org"})).await;
        world.work().await;
        let (_, link) = world.mailed("evil@example.org");
        world.post("/v1/me/email", &stolen, json!({"new_email": "evil2@example.org"})).await;
        let path = if all { "/v1/sessions".to_owned() } else { format!("/v1/sessions/{id}") };
        assert_eq!(world.call("DELETE", &path, Some(&owner), None).await.status, 204);
        world.work().await;
        assert_eq!(world.mails_to("evil2@example.org"), 0);
        let late = world.open("/v1/me/email/verify", json!({"token": link})).await;
        assert_eq!(late.said(), (422, "invalid_token"));
        assert_eq!(world.get("/v1/me", &owner).await.body["email"], "ana@example.org");
        // The owner's own request continues.
        world.post("/v1/me/email", &owner, json!({"new_email": "ana2@example.org"})).await;
        world.work().await;
        let (_, link) = world.mailed("ana2@example.org");
        assert_eq!(world.open("/v1/me/email/verify", json!({"token": link})).await.status, 204);
    }
}

#[tokio::test]
async fn old_address_is_notified_of_a_change_and_can_cancel_it() {
    let world = World::new();
    let ana = world.join_with_password("ana@example.org", PASSWORD).await;
    let ask = async || {
        world.post("/v1/me/email", &ana, json!({"new_email": "new@example.org"})).await;
        world.work().await;
        let asked = world.mailer.sent().into_iter().rev().find_map(|mail| match mail.message {
            Message::EmailChangeAsked { link, .. } if mail.to.as_str() == "ana@example.org" => Some(link),
            _ => None,
        });
        let link = asked.unwrap().expose().clone();
        assert!(link.contains("/open/cancel#"), "{link}");
        link.split_once('#').unwrap().1.to_owned()
    };
    let cancel = ask().await;
    let (code, confirm) = world.mailed("new@example.org");
    // Opening the page changes nothing.
    for method in ["GET", "HEAD"] {
        assert_eq!(world.call(method, "/open/cancel", None, None).await.status, 200);
    }
    assert_eq!(world.open("/v1/me/email/cancel", json!({"token": cancel})).await.status, 204);
    let late = world.open("/v1/me/email/verify", json!({"token": confirm})).await;
    assert_eq!(late.said(), (422, "invalid_token"));
    let late =
        world.post("/v1/me/email/verify", &ana, json!({"email": "new@example.org", "code": code})).await;
    assert_eq!(late.said(), (422, "invalid_token"));
    let again = world.open("/v1/me/email/cancel", json!({"token": cancel})).await;
    assert_eq!(again.said(), (422, "invalid_token"));
    // A confirmed change cannot be cancelled any more; code and link both confirm.
    let cancel = ask().await;
    let (code, confirm) = world.mailed("new@example.org");
    assert_eq!(world.open("/v1/me/email/cancel", json!({"token": confirm})).await.status, 422);
    assert_eq!(world.open("/v1/me/email/verify", json!({"token": confirm})).await.status, 204);
    let second =
        world.post("/v1/me/email/verify", &ana, json!({"email": "new@example.org", "code": code})).await;
    assert_eq!(second.status, 204);
    let late = world.open("/v1/me/email/cancel", json!({"token": cancel})).await;
    assert_eq!(late.said(), (422, "invalid_token"));
    assert_eq!(world.get("/v1/me", &ana).await.body["email"], "new@example.org");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_with_one_key_get_the_same_response() {
    let world = std::sync::Arc::new(World::new());
    world.sign_up("ana@example.org").await;
    let (code, _) = world.mailed("ana@example.org");
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let (world, code) = (world.clone(), code.clone());
            tokio::spawn(async move {
                let body = json!({"email": "ana@example.org", "code": code});
                let answer = world.keyed("POST", "/v1/accounts/verify", None, Some(body), Some("k")).await;
                (answer.status, answer.body["session"]["token"].to_string())
            })
        })
        .collect();
    let mut answers = HashSet::new();
    for task in tasks {
        answers.insert(task.await.unwrap());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().next().unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_concurrent_with_a_password_change_leaves_no_session() {
    for _ in 0..10 {
        let world = std::sync::Arc::new(World::new());
        let ana = world.join_with_password("ana@example.org", PASSWORD).await;
        let sign_ins: Vec<_> = (0..20)
            .map(|_| {
                let world = world.clone();
                let body = json!({"email": "ana@example.org", "password": PASSWORD});
                tokio::spawn(async move { world.open("/v1/sessions", body).await })
            })
            .collect();
        let body = json!({"current_password": PASSWORD, "new_password": OTHER});
        let changed = world.call("PUT", "/v1/password", Some(&ana), Some(body)).await;
        assert_eq!(changed.status, 200);
        for sign_in in sign_ins {
            let answer = sign_in.await.unwrap();
            if let Some(token) = answer.body["session"]["token"].as_str() {
                assert_eq!(
                    world.get("/v1/me", token).await.status,
                    401,
                    "the session of the old password is still valid"
                );
            }
        }
    }
}
