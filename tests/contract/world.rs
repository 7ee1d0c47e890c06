//! A back end in memory with its mails and clock, and helpers for accounts in it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request},
};
use couple::{
    Backend, BackendBuilder, ManualClock,
    account::HashCost,
    core::{limits::RateLimiter, limits::Unlimited, mail::Message},
    http::HttpOptions,
    notify::mail::MemoryMailer,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{host_users::HostUsers, reference::assert_documented};

pub(crate) struct World {
    pub(crate) backend: Backend,
    pub(crate) mailer: MemoryMailer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) app: Router,
    /// Users of a host; none for the built-in accounts.
    pub(crate) host: Option<HostUsers>,
}

/// A picture whose pixels all differ.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x, y, (x / 256 + y / 256) * 40].map(|value| value.to_le_bytes()[0]))
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl TestResponse {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }
    /// Status and code together, for comparisons.
    pub(crate) fn said(&self) -> (u16, &str) {
        (self.status, self.code())
    }
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.body)).to_owned()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Unlimited)
    }

    pub(crate) fn with(limits: impl RateLimiter) -> Self {
        Self::of(Backend::builder().limits(limits), HttpOptions::default())
    }

    pub(crate) fn of(builder: BackendBuilder, options: HttpOptions) -> Self {
        Self::at(Arc::default(), builder.hash_cost(HashCost::FOR_TESTS), options)
    }

    /// As [`of`](Self::of), with a clock and with the builder's own cost of a password hash.
    pub(crate) fn at(clock: Arc<ManualClock>, builder: BackendBuilder, options: HttpOptions) -> Self {
        let mailer = MemoryMailer::new();
        let backend = builder.mailer(mailer.clone()).clock(clock.clone()).build().unwrap();
        let app = couple::http::router_with(backend.clone(), options);
        Self { backend, mailer, clock, app, host: None }
    }

    /// A host with its own users and sessions.
    pub(crate) fn of_host() -> Self {
        let users = HostUsers::default();
        let builder = Backend::builder().directory(users.clone()).authenticator(users.clone());
        Self { host: Some(users), ..Self::of(builder.limits(Unlimited), HttpOptions::default()) }
    }

    /// Ends a session.
    pub(crate) async fn end_session(&self, token: &str) {
        match &self.host {
            Some(users) => users.sign_out(token),
            None => {
                let ended = self.call("DELETE", "/v1/sessions/current", Some(token), None).await;
                assert_eq!(ended.status, 204);
            }
        }
    }

    pub(crate) fn later(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> TestResponse {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if head.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json")
            && let Some(code) = body["code"].as_str()
        {
            assert_documented(&method, &path, head.status.as_u16(), code).await;
        }
        TestResponse { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) async fn keyed(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
        key: Option<&str>,
    ) -> TestResponse {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.raw(request.body(body).unwrap()).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> TestResponse {
        self.keyed(method, path, token, body, None).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> TestResponse {
        self.call("GET", path, Some(token), None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> TestResponse {
        self.call("POST", path, Some(token), Some(body)).await
    }

    /// Request without a session.
    pub(crate) async fn open(&self, path: &str, body: Value) -> TestResponse {
        self.call("POST", path, None, Some(body)).await
    }

    /// Runs the worker until it is idle.
    pub(crate) async fn work(&self) {
        self.backend.worker().run_until_idle().await.unwrap();
    }

    /// Code and link token of the newest mail to an address that contains them.
    pub(crate) fn mailed(&self, email: &str) -> (String, String) {
        let mails = self.mailer.sent();
        let found = mails.iter().rev().filter(|mail| mail.to.as_str() == email).find_map(|mail| {
            let after = |link: &couple::Secret<String>| link.expose().split_once('#').unwrap().1.to_owned();
            match &mail.message {
                Message::ConfirmSignUp { code, link, .. }
                | Message::ConfirmEmail { code, link, .. }
                | Message::Invitation { code, link, .. } => Some((code.expose().clone(), after(link))),
                Message::SignInCode { code, link, .. } => Some((code.expose().clone(), after(link))),
                Message::SetPassword { link, .. } | Message::EmailChangeAsked { link, .. } => {
                    Some((String::new(), after(link)))
                }
                _ => None,
            }
        });
        found.unwrap_or_else(|| panic!("no code was mailed to {email}"))
    }

    pub(crate) fn mails_to(&self, email: &str) -> usize {
        self.mailer.sent().iter().filter(|mail| mail.to.as_str() == email).count()
    }

    pub(crate) async fn sign_up(&self, email: &str) {
        let name = email.split('@').next().unwrap();
        let answer = self.open("/v1/accounts", json!({ "email": email, "display_name": name })).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.work().await;
    }

    /// Signs up and confirms; returns the session's token.
    pub(crate) async fn join(&self, email: &str) -> String {
        if let Some(users) = &self.host {
            return users.sign_in(users.add(email));
        }
        self.sign_up(email).await;
        let (code, _) = self.mailed(email);
        let answer = self.open("/v1/accounts/verify", json!({ "email": email, "code": code })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["session"]["token"].as_str().unwrap().to_owned()
    }

    /// A caller without a proven address; returns the token that it presents.
    ///
    /// In a host, a session of a user without an address. The built-in accounts have no such session: then it is the token of a sign-up that
    /// is not confirmed.
    pub(crate) async fn unverified(&self, email: &str) -> String {
        if let Some(users) = &self.host {
            return users.sign_in(users.add_unverified("Hal"));
        }
        self.sign_up(email).await;
        self.mailed(email).1
    }

    /// Signs in with a mailed code; returns the session's token.
    pub(crate) async fn sign_in(&self, email: &str) -> String {
        self.open("/v1/sessions/code", json!({ "email": email })).await;
        self.work().await;
        let (code, _) = self.mailed(email);
        let answer = self.open("/v1/sessions", json!({ "email": email, "code": code })).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["session"]["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn join_with_password(&self, email: &str, password: &str) -> String {
        self.sign_up(email).await;
        let (code, _) = self.mailed(email);
        let body = json!({ "email": email, "code": code, "password": password });
        let answer = self.open("/v1/accounts/verify", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["session"]["token"].as_str().unwrap().to_owned()
    }

    /// Pairs two accounts.
    pub(crate) async fn pair(&self, one: &str, other: &str) {
        let sent = self.post("/v1/invites", one, json!({})).await;
        assert_eq!(sent.status, 201, "{}", sent.body);
        let answer = self.post("/v1/invites/accept", other, json!({ "code": sent.text("code") })).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// Creates a couple of two new accounts.
    pub(crate) async fn couple(&self, one: &str, other: &str) -> (String, String) {
        let tokens = (self.join(one).await, self.join(other).await);
        self.pair(&tokens.0, &tokens.1).await;
        tokens
    }

    /// Uploads bytes as a picture.
    pub(crate) async fn upload(&self, token: &str, query: &str, bytes: Vec<u8>) -> TestResponse {
        let request =
            Request::post(format!("/v1/media?{query}")).header("authorization", format!("Bearer {token}"));
        self.raw(request.body(Body::from(bytes)).unwrap()).await
    }

    /// Uploads a photo with this side length, and waits until it is ready; returns its id.
    pub(crate) async fn photo(&self, token: &str, side: u32) -> String {
        let answer = self.upload(token, "purpose=photo", png(side, side)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.work().await;
        answer.text("id")
    }

    pub(crate) async fn say(&self, token: &str, id: &str) -> i64 {
        let body = json!({ "client_id": id, "kind": "text", "body": { "text": id } });
        let answer = self.post("/v1/couple/entries", token, body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["seq"].as_i64().unwrap()
    }
}

/// Writer that keeps what is logged.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
