//! Codes and links of invites: their shape, and one answer for each that does not work.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::world::{TestResponse, World};

/// Letters and digits without `I`, `L`, `O` and `U`, which look like others or form words.
const LETTERS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[tokio::test]
async fn invite_code_has_ten_unambiguous_random_letters() {
    let world = World::new();
    let mut letters_at = vec![BTreeSet::new(); 10];
    let mut codes = BTreeSet::new();
    // 40 accounts with ten invites each: the probability that a letter is missing at some position is 10 × 32 × (31/32)^400 = 0.001.
    for n in 0..40 {
        let token = world.join(&format!("p{n}@example.org")).await;
        for _ in 0..10 {
            let code = world.post("/v1/invites", &token, json!({})).await.text("code");
            let (left, right) = code.split_once('-').unwrap();
            assert_eq!((left.len(), right.len()), (5, 5), "{code}");
            for (letter, seen) in left.chars().chain(right.chars()).zip(&mut letters_at) {
                assert!(LETTERS.contains(letter), "{code}");
                seen.insert(letter);
            }
            assert!(codes.insert(code.clone()), "{code} is the code of two invites");
        }
    }
    // log2(32^10) = 50 bits, if every position has every letter.
    for (position, seen) in letters_at.iter().enumerate() {
        assert!(seen.len() >= LETTERS.len() - 1, "position {position} has {seen:?}");
    }
}

/// Parts of a response that a client can compare: status, body and headers without the request's id.
fn visible(answer: &TestResponse) -> (u16, Value, Vec<String>) {
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id")
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    (answer.status, answer.body.clone(), headers)
}

/// A stranger who guesses a code learns nothing about it, in whichever state its invite is.
#[tokio::test]
async fn invites_that_do_not_work_have_one_answer_for_strangers() {
    let world = World::new();
    let stranger = world.join("stranger@example.org").await;
    let ben = world.join("ben@example.org").await;
    let mut names = vec![
        ("unknown", json!({ "code": "AAAAA-AAAAA" })),
        ("unknown", json!({ "token": format!("invite_{}", "A".repeat(32)) })),
        ("unknown", json!({ "id": "0190aaaa-0000-7000-8000-000000000000" })),
    ];
    let mut add = |state, invite: &TestResponse| {
        names.push((state, json!({ "code": invite.text("code") })));
        names.push((state, json!({ "code": invite.text("code").to_lowercase().replace('-', " ") })));
        names.push((state, json!({ "token": invite.text("link") })));
        names.push((state, json!({ "id": invite.text("id") })));
    };
    let inviter = async |name: &str| world.join(&format!("{name}@example.org")).await;
    let invite = async |token: &str, body: Value| {
        let sent = world.post("/v1/invites", token, body).await;
        assert_eq!(sent.status, 201, "{}", sent.body);
        sent
    };

    let ana = inviter("expired").await;
    add("expired", &invite(&ana, json!({})).await);
    add("expired, to an address", &invite(&ana, json!({ "email": "other@example.org" })).await);
    world.later(Duration::from_hours(25));

    let ana = inviter("withdrawn").await;
    let sent = invite(&ana, json!({})).await;
    let path = format!("/v1/invites/{}", sent.text("id"));
    assert_eq!(world.call("DELETE", &path, Some(&ana), None).await.status, 204);
    add("withdrawn", &sent);

    let ana = inviter("declined").await;
    let sent = invite(&ana, json!({})).await;
    let declined = world.post("/v1/invites/decline", &ben, json!({ "code": sent.text("code") })).await;
    assert_eq!(declined.status, 204);
    add("declined", &sent);

    let ana = inviter("replaced").await;
    add("replaced", &invite(&ana, json!({ "email": "other@example.org" })).await);
    add("to another address", &invite(&ana, json!({ "email": "other@example.org" })).await);

    let ana = inviter("used").await;
    let (used, left) = (invite(&ana, json!({})).await, invite(&ana, json!({})).await);
    let accepted = world.post("/v1/invites/accept", &ben, json!({ "code": used.text("code") })).await;
    assert_eq!(accepted.status, 201);
    add("used", &used);
    add("closed by pairing", &left);

    // Blocks in both directions.
    let ana = inviter("blocks").await;
    world.pair(&ana, &stranger).await;
    assert_eq!(world.call("DELETE", "/v1/couple?block=true", Some(&ana), None).await.status, 204);
    add("of an inviter who blocks the stranger", &invite(&ana, json!({})).await);
    add(
        "addressed by an inviter who blocks",
        &invite(&ana, json!({ "email": "stranger@example.org" })).await,
    );
    let ana = inviter("blocked").await;
    world.pair(&ana, &stranger).await;
    assert_eq!(world.call("DELETE", "/v1/couple?block=true", Some(&stranger), None).await.status, 204);
    add("of a blocked inviter", &invite(&ana, json!({})).await);

    let ana = inviter("deleted").await;
    add("of an account that is deleted", &invite(&ana, json!({})).await);
    assert_eq!(world.call("DELETE", "/v1/me", Some(&ana), None).await.status, 202);

    for path in ["/v1/invites/preview", "/v1/invites/accept", "/v1/invites/decline"] {
        let mut expected = None;
        for (state, name) in &names {
            let answer = world.post(path, &stranger, name.clone()).await;
            assert_eq!(answer.said(), (404, "invite_not_found"), "{path}, {state}: {name}");
            let seen = visible(&answer);
            let expected = expected.get_or_insert_with(|| seen.clone());
            assert_eq!(*expected, seen, "{path}, {state}: {name}");
        }
    }
    assert_eq!(world.get("/v1/invites", &stranger).await.body["received"], json!([]));
}
