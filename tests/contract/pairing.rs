//! Pairing: invites, couples, blocks, restoring an earlier timeline.

use std::{sync::Arc, time::Duration};

use couple::core::mail::Message;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_accepts_create_one_couple() {
    let world = Arc::new(World::new());
    let ana = world.join("ana@example.org").await;
    let code = world.post("/v1/invites", &ana, json!({})).await.text("code");
    let mut people = Vec::new();
    for n in 0..20 {
        people.push(world.join(&format!("p{n}@example.org")).await);
    }
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let (world, token, code) = (world.clone(), people[n % 20].clone(), code.clone());
            tokio::spawn(async move {
                let answer = world.post("/v1/invites/accept", &token, json!({ "code": code })).await;
                (n % 20, answer.status, answer.body["couple"]["id"].to_string())
            })
        })
        .collect();
    let mut couples = std::collections::HashSet::new();
    for task in tasks {
        let (who, status, couple) = task.await.unwrap();
        match status {
            // A repeat by the successful account returns the same couple.
            201 => drop(couples.insert((who, couple))),
            status => assert!(matches!(status, 404 | 409), "{status}"),
        }
    }
    assert_eq!(couples.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_invites_become_one_couple_and_both_succeed() {
    for round in 0..20 {
        let world = Arc::new(World::new());
        let emails = ["ana@example.org", "ben@example.org"];
        let tokens = [world.join(emails[0]).await, world.join(emails[1]).await];
        let tasks: Vec<_> = (0..2)
            .map(|n| {
                let (world, token) = (world.clone(), tokens[n].clone());
                tokio::spawn(async move {
                    world.post("/v1/invites", &token, json!({ "email": emails[1 - n] })).await.status
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 201, "round {round}");
        }
        let mut couples = Vec::new();
        for token in &tokens {
            couples.push(world.get("/v1/couple", token).await.text("id"));
        }
        assert_eq!(couples[0], couples[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_invites_of_three_accounts_create_one_couple() {
    let world = Arc::new(World::new());
    let emails = ["ana@example.org", "ben@example.org", "cleo@example.org"];
    let mut tokens = Vec::new();
    for email in emails {
        tokens.push(world.join(email).await);
    }
    let tasks: Vec<_> = (0..99)
        .map(|n| {
            let (world, token, to) = (world.clone(), tokens[n % 3].clone(), emails[(n + 1 + n / 50) % 3]);
            tokio::spawn(
                async move { world.post("/v1/invites", &token, json!({ "email": to })).await.status },
            )
        })
        .collect();
    for task in tasks {
        let status = task.await.unwrap();
        assert!(matches!(status, 201 | 409), "{status}");
    }
    let mut paired = Vec::new();
    for token in &tokens {
        let answer = world.get("/v1/couple", token).await;
        if answer.status == 200 {
            paired.push((
                answer.text("id"),
                answer.body["partner"]["id"].to_string(),
                answer.body["me"]["id"].to_string(),
            ));
        }
    }
    assert!(paired.is_empty() || paired.len() == 2, "{paired:?}");
    if let [one, other] = paired.as_slice() {
        assert_eq!((&one.0, &one.1, &one.2), (&other.0, &other.2, &other.1));
    }
}

#[tokio::test]
async fn pairing_ends_other_invites_of_both_members() {
    let world = World::new();
    let (ana, ben, cleo) = (
        world.join("ana@example.org").await,
        world.join("ben@example.org").await,
        world.join("cleo@example.org").await,
    );
    let spare = world.post("/v1/invites", &ana, json!({})).await.text("code");
    let bens = world.post("/v1/invites", &ben, json!({})).await.text("code");
    world.pair(&ana, &ben).await;
    for code in [spare, bens] {
        let answer = world.post("/v1/invites/accept", &cleo, json!({ "code": code })).await;
        assert_eq!(answer.said(), (404, "invite_not_found"));
        let answer = world.post("/v1/invites/preview", &cleo, json!({ "code": code })).await;
        assert_eq!(answer.said(), (404, "invite_not_found"));
    }
    assert_eq!(world.get("/v1/invites", &ana).await.body["sent"], json!([]));
    assert_eq!(world.post("/v1/invites", &ana, json!({})).await.said(), (409, "already_paired"));
}

#[tokio::test]
async fn outcome_of_an_invite_is_hidden_from_other_accounts() {
    let world = World::new();
    let (ana, ben, cleo) = (
        world.join("ana@example.org").await,
        world.join("ben@example.org").await,
        world.join("cleo@example.org").await,
    );
    let make = async |body| world.post("/v1/invites", &ana, body).await;
    let withdrawn = make(json!({})).await;
    let path = format!("/v1/invites/{}", withdrawn.text("id"));
    assert_eq!(world.call("DELETE", &path, Some(&cleo), None).await.said(), (404, "invite_not_found"));
    assert_eq!(world.call("DELETE", &path, Some(&ana), None).await.status, 204);
    let declined = make(json!({})).await;
    world.post("/v1/invites/decline", &ben, json!({"code": declined.text("code")})).await;
    let addressed = make(json!({"email": "ben@example.org"})).await;
    let expired = make(json!({})).await;
    let own = world.post("/v1/invites/accept", &ana, json!({"code": expired.text("code")})).await;
    assert_eq!(own.said(), (409, "own_invite"));
    world.later(Duration::from_hours(25));
    let mut answers = Vec::new();
    for code in [withdrawn, declined, addressed, expired].map(|invite| invite.text("code")) {
        answers.push(world.post("/v1/invites/accept", &cleo, json!({ "code": code })).await.body);
    }
    answers.push(world.post("/v1/invites/accept", &cleo, json!({"code": "AAAAA-AAAAA"})).await.body);
    assert!(
        answers.iter().all(|answer| *answer == answers[0] && answer["code"] == "invite_not_found"),
        "{answers:?}"
    );
    // The account to which it was addressed may know that it has expired.
    let received = world.get("/v1/invites", &ben).await;
    assert_eq!(received.body["received"], json!([]));
}

#[tokio::test]
async fn addressed_invite_works_for_its_addressee_only() {
    let world = World::new();
    let (ana, ben, cleo) = (
        world.join("ana@example.org").await,
        world.join("ben@example.org").await,
        world.join("cleo@example.org").await,
    );
    let sent = world.post("/v1/invites", &ana, json!({"email": "BEN@example.org", "message": "hey"})).await;
    world.work().await;
    let (code, link) = world.mailed("BEN@example.org");
    assert_eq!(code, sent.text("code"));
    for reference in [json!({"code": code}), json!({"token": link}), json!({"id": sent.text("id")})] {
        assert_eq!(
            world.post("/v1/invites/accept", &cleo, reference).await.said(),
            (404, "invite_not_found")
        );
    }
    // An id works only for an invite that is addressed to the account.
    let open = world.post("/v1/invites", &ana, json!({})).await.text("id");
    assert_eq!(
        world.post("/v1/invites/preview", &ben, json!({"id": open})).await.said(),
        (404, "invite_not_found")
    );
    let listed = world.get("/v1/invites", &ben).await;
    assert_eq!(listed.body["received"][0]["message"], "hey");
    let accepted = world.post("/v1/invites/accept", &ben, json!({"id": sent.text("id")})).await;
    assert_eq!(accepted.status, 201);
    let again = world.post("/v1/invites/accept", &ben, json!({"code": code})).await;
    assert_eq!((again.status, &again.body), (201, &accepted.body), "a repeat returns the same couple");
    let own = world.post("/v1/invites", &cleo, json!({"email": "cleo@example.org"})).await;
    assert_eq!(own.said(), (409, "own_invite"));
}

/// Everyone can invite any address, and a name can be an advertisement.
#[tokio::test]
async fn invite_mail_has_text_of_the_inviter_only_for_an_address_with_an_account() {
    let world = World::new();
    let (ana, _) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    world.call("PATCH", "/v1/me", Some(&ana), Some(json!({"locale": "de-AT"}))).await;
    for (email, known) in [("ben@example.org", true), ("stranger@example.org", false)] {
        let invite = json!({"email": email, "message": "hey"});
        assert_eq!(world.post("/v1/invites", &ana, invite).await.status, 201);
        world.work().await;
        let mail = world.mailer.last_to(email).unwrap();
        let Message::Invitation { from, message, .. } = mail.message else { panic!("{mail:?}") };
        assert_eq!(from.map(|from| from.to_string()), known.then(|| "ana".to_owned()), "{email}");
        assert_eq!(message.map(|message| message.to_string()), known.then(|| "hey".to_owned()), "{email}");
        // A recipient without an account reads the language of the inviter, probably.
        let locale = mail.locale.map(|locale| locale.to_string());
        assert_eq!(locale, (!known).then(|| "de-AT".to_owned()), "{email}");
    }
}

#[tokio::test]
async fn inviter_is_told_once_that_the_invite_was_accepted() {
    let told = |world: &World| {
        let mails = world.mailer.sent().into_iter();
        let told = mails.filter_map(|mail| match mail.message {
            Message::InviteAccepted { partner } => Some((mail.to.to_string(), partner.to_string())),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let to_ana = vec![("ana@example.org".to_owned(), "ben".to_owned())];
    let world = World::new();
    world.couple("ana@example.org", "ben@example.org").await;
    world.work().await;
    assert_eq!(told(&world), to_ana);
    // A crossing invite accepts the first one.
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    world.post("/v1/invites", &ana, json!({"email": "ben@example.org"})).await;
    assert_eq!(world.post("/v1/invites", &ben, json!({"email": "ana@example.org"})).await.status, 201);
    world.work().await;
    assert_eq!(told(&world), to_ana);
    // A couple that has ended before the mail is sent is not announced.
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ana), None).await.status, 204);
    world.work().await;
    assert!(told(&world).is_empty());
}

#[tokio::test]
async fn block_is_answered_like_an_unknown_invite() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    assert_eq!(world.call("DELETE", "/v1/couple?block=true", Some(&ana), None).await.status, 204);
    let mails = world.mails_to("ana@example.org");
    // Ben's invite is accepted by the server as usual, and Ana does not see it.
    let sent = world.post("/v1/invites", &ben, json!({"email": "ana@example.org"})).await;
    assert_eq!(sent.status, 201, "{}", sent.body);
    world.work().await;
    assert_eq!(world.mails_to("ana@example.org"), mails);
    assert_eq!(world.get("/v1/invites", &ana).await.body["received"], json!([]));
    // Ben has a code of Ana's: it is answered like a wrong code.
    let code = world.post("/v1/invites", &ana, json!({})).await.text("code");
    for path in ["/v1/invites/preview", "/v1/invites/accept", "/v1/invites/decline"] {
        assert_eq!(world.post(path, &ben, json!({ "code": code })).await.said(), (404, "invite_not_found"));
    }
    let blocks = world.get("/v1/blocks", &ana).await;
    let id = blocks.body["blocks"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.get("/v1/blocks", &ben).await.body["blocks"], json!([]));
    assert_eq!(world.call("DELETE", &format!("/v1/blocks/{id}"), Some(&ana), None).await.status, 204);
    assert_eq!(world.post("/v1/invites/accept", &ben, json!({ "code": code })).await.status, 201);
}

#[tokio::test]
async fn new_partner_sees_no_old_entries_and_former_couple_can_restore_them() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "before").await;
    world.call("DELETE", "/v1/couple", Some(&ben), None).await;
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    let page = world.get("/v1/couple/entries?after=0", &cleo).await;
    assert_eq!(page.body["entries"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/couple", &cleo).await.body["previous"], serde_json::Value::Null);
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;

    world.pair(&ben, &ana).await;
    let want = async |token: &str, wanted: bool| {
        world.call("PUT", "/v1/couple/previous", Some(token), Some(json!({ "wanted": wanted }))).await
    };
    let old = async |token: &str| world.get("/v1/couple/previous/entries?after=0", token).await;
    assert_eq!(old(&ana).await.said(), (404, "no_previous"));
    assert_eq!(want(&ana, true).await.body["previous"], json!({"wanted": true, "restored": false}));
    assert_eq!(old(&ana).await.said(), (404, "no_previous"));
    assert_eq!(want(&ben, true).await.body["previous"], json!({"wanted": true, "restored": true}));
    for (token, author) in [(&ana, "me"), (&ben, "partner")] {
        let page = old(token).await;
        assert_eq!(page.body["entries"][1]["body"]["text"], "before");
        assert_eq!(page.body["entries"][1]["author"], author);
    }
    want(&ana, false).await;
    assert_eq!(old(&ben).await.said(), (404, "no_previous"));
}

#[tokio::test]
async fn late_repeat_does_not_reach_another_couple() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let invite = world.post("/v1/invites", &ana, json!({})).await.text("code");
    let accept = async || {
        world
            .keyed("POST", "/v1/invites/accept", Some(&ben), Some(json!({ "code": invite })), Some("a"))
            .await
    };
    let old = accept().await.body["couple"]["id"].as_str().unwrap().to_owned();
    let entry = json!({"client_id": "e", "kind": "text", "body": {"text": "for Ben alone"}});
    let say =
        async || world.keyed("POST", "/v1/couple/entries", Some(&ana), Some(entry.clone()), Some("e")).await;
    assert_eq!(say().await.status, 201);
    world.call("DELETE", "/v1/couple?block=true", Some(&ana), None).await;
    // The former partner learns nothing from a repeat.
    assert_eq!(accept().await.said(), (404, "not_paired"));
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    assert_eq!(say().await.said(), (404, "not_paired"));
    let request = axum::http::Request::post("/v1/couple/entries")
        .header("authorization", format!("Bearer {ana}"))
        .header("content-type", "application/json")
        .header("couple-id", old)
        .body(axum::body::Body::from(json!({"client_id": "f", "kind": "hug", "body": {}}).to_string()))
        .unwrap();
    assert_eq!(world.raw(request).await.said(), (404, "not_paired"));
    let page = world.get("/v1/couple/entries?after=0", &cleo).await;
    assert_eq!(page.body["entries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn choice_to_restore_for_another_couple_is_refused() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "before").await;
    let old = world.get("/v1/couple", &ana).await.text("id");
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    world.pair(&ana, &ben).await;
    let new = world.get("/v1/couple", &ana).await.text("id");
    let restore = async |couple: &str| {
        let request = axum::http::Request::put("/v1/couple/previous")
            .header("authorization", format!("Bearer {ana}"))
            .header("content-type", "application/json")
            .header("couple-id", couple);
        world.raw(request.body(axum::body::Body::from(r#"{"wanted":true}"#)).unwrap()).await
    };
    for couple in [old.as_str(), "no-id", ""] {
        assert_eq!(restore(couple).await.said(), (404, "not_paired"), "{couple:?}");
    }
    assert_eq!(world.get("/v1/couple", &ana).await.body["previous"]["wanted"], false);
    assert_eq!(restore(&new).await.body["previous"]["wanted"], true);
}

#[tokio::test]
async fn late_repeat_of_leaving_does_not_end_a_later_couple() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let old = world.get("/v1/couple", &ana).await.text("id");
    let leave = async |query: &str, couple: Option<&str>, key: Option<&str>| {
        let mut request = axum::http::Request::delete(format!("/v1/couple{query}"))
            .header("authorization", format!("Bearer {ana}"));
        for (name, value) in [("couple-id", couple), ("idempotency-key", key)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        world.raw(request.body(axum::body::Body::empty()).unwrap()).await
    };
    assert_eq!(leave("", Some("no-id"), None).await.said(), (404, "not_paired"));
    assert_eq!(leave("", None, Some("k")).await.status, 204);
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    // Repeats by key and by couple.
    assert_eq!(leave("", None, Some("k")).await.status, 204);
    assert_eq!(leave("", Some(&old), None).await.status, 204);
    assert_eq!(leave("?block=true", None, Some("k")).await.said(), (422, "idempotency_key_reused"));
    let new = world.get("/v1/couple", &ana).await.text("id");
    assert_ne!(new, old);
    // A couple of other accounts is answered like an unknown one.
    world.call("DELETE", "/v1/couple", Some(&ben), None).await;
    let stranger = world.couple("dan@example.org", "eve@example.org").await.0;
    let other = world.get("/v1/couple", &stranger).await.text("id");
    assert_eq!(leave("", Some(&other), None).await.said(), (404, "not_paired"));
    // A block is applied even if the partner has left first.
    assert_eq!(world.get("/v1/blocks", &ana).await.body["blocks"], json!([]));
    assert_eq!(leave("?block=true", Some(&old), None).await.status, 204);
    assert_eq!(world.get("/v1/blocks", &ana).await.body["blocks"].as_array().unwrap().len(), 1);
    assert_eq!(leave("", Some(&new), None).await.status, 204);
    assert_eq!(world.get("/v1/couple", &ana).await.said(), (404, "not_paired"));
}

#[tokio::test]
async fn deletion_request_withdraws_invites_and_ends_pairing() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let code = world.post("/v1/invites", &ana, json!({})).await.text("code");
    let addressed = world.post("/v1/invites", &ana, json!({ "email": "ben@example.org" })).await.text("id");
    assert_eq!(world.call("DELETE", "/v1/me", Some(&ana), None).await.status, 202);
    world.work().await;
    assert_eq!(world.get("/v1/invites", &ben).await.body["received"], json!([]));
    for reference in [json!({ "code": code }), json!({ "id": addressed })] {
        for path in ["/v1/invites/preview", "/v1/invites/accept", "/v1/invites/decline"] {
            let answer = world.post(path, &ben, reference.clone()).await;
            assert_eq!(answer.said(), (404, "invite_not_found"), "{path}");
        }
    }
    // A pending invite in the other direction does not cross a withdrawn one.
    let crossing = world.post("/v1/invites", &ben, json!({ "email": "ana@example.org" })).await;
    assert_eq!((crossing.status, crossing.body["couple"].is_null()), (201, true));
    world.work().await;
    // A sign-in cancels the deletion.
    let ana = world.sign_in("ana@example.org").await;
    let answer = world.post("/v1/invites/accept", &ana, json!({ "id": crossing.text("id") })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}
