//! A host with its own users that uses only pairing and the timeline.
//!
//! Users are known by their ids and verified addresses, and the host has its own axum routes and authentication.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use couple::{
    AccountId, Backend, Error, OsEntropy, RequestContext, Secret, SystemClock,
    core::{DisplayName, EmailAddress, EmailKey},
    http::Problem,
    pairing::{Contact, Directory, InviteOutcome, InviteRef, NewInvite, Person, Profile},
    timeline::{Append, Page},
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
    async fn contact(&self, id: AccountId) -> Result<Option<Contact>, Error> {
        let user = self.0.values().find(|(person, _)| person.id == id);
        let email = user.and_then(|(person, _)| person.email.clone());
        Ok(email.map(|email| Contact { email, locale: None, time_zone: None }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        let mine = |person: &Person| person.email.as_ref().is_some_and(|address| address.key() == email);
        Ok(self.0.values().find(|(person, _)| mine(person)).map(|(person, _)| person.id))
    }
}

#[derive(Clone)]
struct Host {
    users: Arc<Users>,
    backend: Backend,
}

impl Host {
    /// Authenticates the caller, by whatever means the host has.
    fn who(&self, headers: &HeaderMap) -> Result<Person, Problem> {
        let name = headers.get("x-user").and_then(|name| name.to_str().ok()).unwrap_or_default();
        let user = self.users.0.get(name).ok_or_else(|| Problem::new("unauthenticated"))?;
        Ok(user.0.clone())
    }
}

// A `Problem` of a failed service has no text of a driver: it is only logged.

async fn invite(State(host): State<Host>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let person = host.who(&headers)?;
    let sent =
        host.backend.pairings().invite(&RequestContext::default(), &person, &NewInvite::default()).await?;
    Ok(match sent {
        InviteOutcome::Pending(sent) => Json(json!({ "code": sent.code.expose() })),
        InviteOutcome::Paired(_) => Json(json!({ "paired": true })),
    })
}

async fn accept(
    State(host): State<Host>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Problem> {
    let code = Secret::new(body["code"].as_str().unwrap_or_default().to_owned());
    let person = host.who(&headers)?;
    let invite = InviteRef::Code(code);
    let couple = host.backend.pairings().accept(&RequestContext::default(), &person, &invite).await?;
    Ok(Json(json!({ "couple": couple.id.to_string() })))
}

async fn say(
    State(host): State<Host>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Problem> {
    let entry = Append { couple: None, client_id: "1".into(), kind: "text".into(), body };
    let author = host.who(&headers)?.id;
    let done = host.backend.timeline().append(&RequestContext::default(), author, &entry).await?;
    Ok(Json(json!({ "seq": done.entry.seq })))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut users = HashMap::new();
    for name in ["ana", "ben"] {
        let id = AccountId::new(&SystemClock, &OsEntropy);
        let email = EmailAddress::parse("email", &format!("{name}@example.org")).ok();
        users.insert(name.to_owned(), (Person { id, email }, name.to_owned()));
    }
    let users = Arc::new(Users(users));
    let host = Host { backend: Backend::builder().directory(users.clone()).build()?, users };
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
    let page = host.backend.timeline().page(ben, Page::After(0), 50, Some("text")).await?;
    println!("Ben reads: {}", page[0].entry.body.as_ref().map_or("", |body| body.as_str()));
    Ok(())
}
