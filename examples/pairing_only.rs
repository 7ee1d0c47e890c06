//! A host with its own users that uses only pairing and the timeline.
//!
//! Users are known by their ids and verified addresses, and the host has its own axum routes and authentication.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use couple::{
    AccountId, Backend, Error, RequestContext, Secret,
    core::{DisplayName, EmailAddress, EmailKey},
    pairing::{Directory, InviteOutcome, InviteRef, NewInvite, PairingPolicy, Pairings, Person, Profile},
    timeline::{Append, Page, Timeline},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Users of the host.
struct Users(HashMap<String, (Person, String)>);

#[async_trait]
impl Directory for Users {
    async fn profile(&self, id: AccountId) -> Result<Option<Profile>, Error> {
        let user = self.0.values().find(|(person, _)| person.id == id);
        Ok(user.map(|(_, name)| Profile { display_name: DisplayName::from_stored(name.clone()) }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        let mine = |person: &Person| person.email.as_ref().is_some_and(|address| address.key() == email);
        Ok(self.0.values().find(|(person, _)| mine(person)).map(|(person, _)| person.id))
    }
}

#[derive(Clone)]
struct Host {
    users: Arc<Users>,
    pairings: Pairings,
    timeline: Timeline,
}

impl Host {
    /// Authenticates the caller, by whatever means the host has.
    fn who(&self, headers: &HeaderMap) -> Person {
        let name = headers.get("x-user").and_then(|name| name.to_str().ok()).unwrap_or_default();
        self.users.0[name].0.clone()
    }
}

async fn invite(State(host): State<Host>, headers: HeaderMap) -> Json<Value> {
    let person = host.who(&headers);
    match host.pairings.invite(&RequestContext::default(), &person, &NewInvite::default()).await {
        Ok(InviteOutcome::Pending(sent)) => Json(json!({ "code": sent.code.expose() })),
        Ok(InviteOutcome::Paired(_)) => Json(json!({ "paired": true })),
        Err(failure) => Json(json!({ "error": failure.to_string() })),
    }
}

async fn accept(State(host): State<Host>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    let code = Secret::new(body["code"].as_str().unwrap_or_default().to_owned());
    let person = host.who(&headers);
    match host.pairings.accept(&RequestContext::default(), &person, &InviteRef::Code(code)).await {
        Ok(couple) => Json(json!({ "couple": couple.id.to_string() })),
        Err(failure) => Json(json!({ "error": failure.to_string() })),
    }
}

async fn say(State(host): State<Host>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    let entry = Append { couple: None, client_id: "1".into(), kind: "text".into(), body };
    match host.timeline.append(&RequestContext::default(), host.who(&headers).id, &entry).await {
        Ok(done) => Json(json!({ "seq": done.entry.seq })),
        Err(failure) => Json(json!({ "error": failure.to_string() })),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::builder().build()?;
    let ports = backend.ports().clone();
    let mut users = HashMap::new();
    for name in ["ana", "ben"] {
        let id = AccountId::new(&*ports.clock, &*ports.entropy);
        let email = EmailAddress::parse("email", &format!("{name}@example.org")).ok();
        users.insert(name.to_owned(), (Person { id, email }, name.to_owned()));
    }
    let users = Arc::new(Users(users));
    let host = Host {
        pairings: Pairings::new(ports.clone(), users.clone(), PairingPolicy::default()),
        timeline: Timeline::new(ports),
        users,
    };
    let app = Router::new()
        .route("/invite", post(invite))
        .route("/accept", post(accept))
        .route("/say", post(say))
        .with_state(host.clone());

    let ask = async |user: &str, path: &str, body: Value| -> Result<Value, Box<dyn std::error::Error>> {
        let request = axum::http::Request::post(path)
            .header("x-user", user)
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))?;
        let answer = app.clone().oneshot(request).await?;
        Ok(serde_json::from_slice(&axum::body::to_bytes(answer.into_body(), 1 << 20).await?)?)
    };
    let invite = ask("ana", "/invite", json!({})).await?;
    let couple = ask("ben", "/accept", json!({ "code": invite["code"] })).await?;
    println!("a couple: {}", couple["couple"]);
    ask("ana", "/say", json!({ "text": "hello" })).await?;
    let ben = host.users.0["ben"].0.id;
    let page = host.timeline.page(ben, Page::After(0), 50, Some("text")).await?;
    println!("Ben reads: {}", page[0].entry.body.as_ref().map_or("", |body| body.as_str()));
    Ok(())
}
