//! A dump of the database contains no secret that an attacker could use.
//!
//! A tour uses every operation of the document. All tables are dumped before and after the jobs of each request.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{body::Body, extract::ConnectInfo, http::Request};
use couple::{
    Backend, Keyring, Store,
    blobs::Blobs,
    core::{digest, limits::Unlimited, mail::Message},
    http::HttpOptions,
    notification::NotificationPolicy,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::{
    input::operations,
    secret_search,
    sql_database::SqlDatabase,
    world::{TestResponse, World, png},
};

const ANA: &str = "ana@example.org";
const BEN: &str = "ben@example.org";
const PASSWORDS: [&str; 4] =
    ["mauve kettle orbit", "seven violet otters", "amber lantern fjord", "a wrong password here"];
const CLIENT: &str = "198.51.100.77";
/// Part of every idempotency key of the tour.
const KEY: &str = "planted-idempotency-key";
/// Text of an entry, which the dump must contain.
const ENTRY: &str = "planted-entry";
/// Tables that no operation over HTTP fills within the tour: dead jobs have the payload of jobs, erasures are begun by a host.
const NOT_FILLED: [&str; 2] = ["couple_dead_job", "couple_erasure"];

/// A world over a database, with all that was dumped, called and answered.
struct Tour {
    world: World,
    database: SqlDatabase,
    operations: Vec<(String, String)>,
    called: Mutex<BTreeSet<(String, String)>>,
    /// Values with their column, as dumped.
    dumped: Mutex<BTreeSet<(String, String)>>,
    /// Secrets with their kind.
    secrets: Mutex<BTreeMap<String, String>>,
}

impl Tour {
    async fn new((store, database): (Arc<dyn Store>, SqlDatabase)) -> Self {
        let builder = Backend::builder().store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
        let policy = NotificationPolicy::default().with_digests(true);
        let builder = builder.limits(Unlimited).notifications(policy);
        let world = World::of(builder, HttpOptions::default());
        let operations =
            operations(&world).await.into_iter().map(|(method, path, _)| (method, path)).collect();
        let tour = Self {
            world,
            database,
            operations,
            called: Mutex::default(),
            dumped: Mutex::default(),
            secrets: Mutex::default(),
        };
        for password in PASSWORDS {
            tour.plant("password", password);
        }
        tour.plant("address of a client", CLIENT);
        tour.plant("idempotency key", KEY);
        tour
    }

    fn plant(&self, kind: &str, secret: &str) {
        self.secrets.lock().unwrap().insert(secret.to_owned(), kind.to_owned());
    }

    /// Plants codes and links of all mails.
    fn plant_from_mails(&self) {
        for mail in self.world.mailer.sent() {
            let (code, link) = match mail.message {
                Message::ConfirmSignUp { code, link, .. }
                | Message::SignInCode { code, link, .. }
                | Message::ConfirmEmail { code, link, .. }
                | Message::Invitation { code, link, .. } => (Some(code), link),
                Message::SetPassword { link, .. } | Message::EmailChangeAsked { link, .. } => (None, link),
                _ => continue,
            };
            self.plant("mailed link", link.expose());
            if let Some(code) = code {
                self.plant("mailed code", code.expose());
            }
        }
    }

    async fn dump(&self) {
        let dump = self.database.dump().await;
        self.dumped.lock().unwrap().extend(dump);
    }

    /// Records the operation of the document to which a request belongs.
    fn record(&self, method: &str, path: &str) {
        let path: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
        let is_match = |template: &str| {
            let template: Vec<&str> = template.split('/').collect();
            let fits = |(part, given): (&&str, &&str)| part.starts_with('{') || part == given;
            template.len() == path.len() && template.iter().zip(&path).all(fits)
        };
        let matches = self.operations.iter().filter(|(name, template)| name == method && is_match(template));
        // A literal path precedes a template.
        let found = matches.min_by_key(|(_, template)| template.matches('{').count()).cloned();
        self.called.lock().unwrap().extend(found);
    }

    /// Sends a request with an idempotency key and dumps the database before and after its jobs.
    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Body,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let key = format!("{KEY}-{}", self.called.lock().unwrap().len());
        let mut request = request.header("idempotency-key", key).body(body).unwrap();
        let peer: std::net::SocketAddr = format!("{CLIENT}:1").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = self.world.raw(request).await;
        self.dump().await;
        self.world.work().await;
        self.dump().await;
        if answer.status < 300 {
            self.record(method, path);
            secret_search::plant_from(&answer.body, &mut |kind, secret| self.plant(kind, secret));
        }
        self.plant_from_mails();
        answer
    }

    /// As [`send`](Self::send), with JSON, of which the response must be a success.
    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> TestResponse {
        let (headers, body): (&[_], _) = match body {
            Value::Null => (&[], Body::empty()),
            body => (&[("content-type", "application/json")], Body::from(body.to_string())),
        };
        let answer = self.send(method, path, token, headers, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer
    }

    /// Signs up with a code and a password; returns the token of the session.
    async fn join(&self, email: &str, password: &str) -> String {
        self.call("POST", "/v1/accounts", None, json!({ "email": email, "display_name": "A" })).await;
        self.call("POST", "/v1/accounts/verify/resend", None, json!({ "email": email })).await;
        let (code, _) = self.world.mailed(email);
        let body = json!({ "email": email, "code": code, "password": password });
        token_of(&self.call("POST", "/v1/accounts/verify", None, body).await)
    }

    async fn sign_in(&self, proof: Value) -> String {
        token_of(&self.call("POST", "/v1/sessions", None, proof).await)
    }
}

fn token_of(answer: &TestResponse) -> String {
    answer.body["session"]["token"].as_str().unwrap().to_owned()
}

/// Uses every operation of the document successfully.
async fn take(tour: &Tour) {
    let (none, world) = (Value::Null, &tour.world);
    for path in ["/healthz", "/readyz", "/v1/capabilities"] {
        tour.call("GET", path, None, none.clone()).await;
    }
    let ana = tour.join(ANA, PASSWORDS[0]).await;
    let ben = tour.join(BEN, PASSWORDS[0]).await;
    let (a, b) = (Some(ana.as_str()), Some(ben.as_str()));

    // Sign-ins by every proof, and wrong ones.
    let wrong = json!({ "email": ANA, "password": PASSWORDS[3] }).to_string();
    let headers = [("content-type", "application/json")];
    assert_eq!(tour.send("POST", "/v1/sessions", None, &headers, wrong.into()).await.status, 401);
    let second = tour.sign_in(json!({ "email": ANA, "password": PASSWORDS[0] })).await;
    for by_code in [true, false] {
        tour.call("POST", "/v1/sessions/code", None, json!({ "email": ANA })).await;
        let (code, link) = world.mailed(ANA);
        let proof = if by_code { json!({ "email": ANA, "code": code }) } else { json!({ "token": link }) };
        tour.sign_in(proof).await;
    }
    let sessions = tour.call("GET", "/v1/sessions", a, none.clone()).await;
    let other = sessions.body["sessions"].as_array().unwrap().iter().find(|one| one["current"] == false);
    let other = format!("/v1/sessions/{}", other.unwrap()["id"].as_str().unwrap());
    tour.call("DELETE", &other, a, none.clone()).await;
    let third = tour.sign_in(json!({ "email": ANA, "password": PASSWORDS[0] })).await;
    tour.call("DELETE", "/v1/sessions/current", Some(&third), none.clone()).await;
    drop(second);
    tour.call("DELETE", "/v1/sessions", a, none.clone()).await;

    // Invites, and a couple that ends with a block and is restored.
    let invite = tour.call("POST", "/v1/invites", a, json!({ "email": BEN, "message": "hello" })).await;
    tour.call("GET", "/v1/invites", b, none.clone()).await;
    tour.call("POST", "/v1/invites/preview", b, json!({ "id": invite.text("id") })).await;
    tour.call("POST", "/v1/invites/decline", b, json!({ "code": invite.text("code") })).await;
    let invite = tour.call("POST", "/v1/invites", a, json!({})).await;
    tour.call("DELETE", &format!("/v1/invites/{}", invite.text("id")), a, none.clone()).await;
    let invite = tour.call("POST", "/v1/invites", a, json!({})).await;
    tour.call("POST", "/v1/invites/accept", b, json!({ "token": invite.text("link") })).await;
    let text = json!({ "client_id": "1", "kind": "text", "body": { "text": ENTRY } });
    tour.call("POST", "/v1/couple/entries", a, text.clone()).await;
    tour.call("DELETE", "/v1/couple?block=true", a, none.clone()).await;
    let blocks = tour.call("GET", "/v1/blocks", a, none.clone()).await;
    let block = format!("/v1/blocks/{}", blocks.body["blocks"][0]["id"].as_str().unwrap());
    tour.call("DELETE", &block, a, none.clone()).await;
    let invite = tour.call("POST", "/v1/invites", a, json!({})).await;
    tour.call("POST", "/v1/invites/accept", b, json!({ "code": invite.text("code") })).await;
    for token in [a, b] {
        tour.call("PUT", "/v1/couple/previous", token, json!({ "wanted": true })).await;
    }
    tour.call("GET", "/v1/couple/previous/entries", a, none.clone()).await;
    tour.call("PATCH", "/v1/couple", a, json!({ "title": "Us" })).await;
    tour.call("GET", "/v1/couple", a, none.clone()).await;
    let date = json!({ "kind": "birthday", "title": "Mia", "date": "--05-04" });
    let date = tour.call("POST", "/v1/couple/dates", a, date).await;
    let date = format!("/v1/couple/dates/{}", date.text("id"));
    tour.call("GET", "/v1/couple/dates", b, none.clone()).await;
    tour.call("PATCH", &date, b, json!({ "title": "Maya" })).await;
    tour.call("DELETE", &date, a, none.clone()).await;

    // The timeline.
    let entry = tour.call("POST", "/v1/couple/entries", a, text).await;
    let entry = format!("/v1/couple/entries/{}", entry.body["seq"]);
    tour.call("GET", "/v1/couple/entries", b, none.clone()).await;
    tour.call("GET", &entry, b, none.clone()).await;
    tour.call("PATCH", &entry, a, json!({ "body": { "text": "edited" } })).await;
    tour.call("PUT", &format!("{entry}/reaction"), b, json!({ "emoji": "🦔" })).await;
    tour.call("DELETE", &format!("{entry}/reaction"), b, none.clone()).await;
    tour.call("DELETE", &entry, a, none.clone()).await;
    tour.call("POST", "/v1/couple/signals", a, json!({ "kind": "hug" })).await;
    tour.call("PUT", "/v1/couple/read", a, json!({ "seq": 1 })).await;
    tour.call("GET", "/v1/couple/live?after=0&wait=0", a, none.clone()).await;

    // Devices. Their tokens are stored, because a sender needs them.
    let device = json!({ "platform": "fcm", "token": "registered", "app": "org.example.app" });
    let path = "/v1/devices/0190aaaa-0000-7000-8000-000000000001";
    tour.call("PUT", path, a, device).await;
    tour.call("GET", "/v1/devices", a, none.clone()).await;
    tour.call("DELETE", path, a, none.clone()).await;

    tour.call("PATCH", "/v1/me/notifications", a, json!({ "digest_minutes": 60 })).await;
    tour.call("GET", "/v1/me/notifications", a, none.clone()).await;

    // A widget.
    let widget = tour.call("PUT", "/v1/me/widget-token", a, none.clone()).await.text("token");
    tour.call("GET", "/v1/glance", Some(&widget), none.clone()).await;
    tour.call("DELETE", "/v1/me/widget-token", a, none.clone()).await;

    // Pictures, in one request and in several.
    let photo = tour.send("POST", "/v1/media?purpose=photo", a, &[], png(300, 300).into()).await.text("id");
    let shown = json!({ "client_id": "p", "kind": "photo", "body": { "media_id": photo } });
    tour.call("POST", "/v1/couple/entries", a, shown).await;
    tour.call("GET", "/v1/media?purpose=photo", a, none.clone()).await;
    tour.call("GET", &format!("/v1/media/{photo}"), b, none.clone()).await;
    tour.call("GET", &format!("/v1/media/{photo}/320"), b, none.clone()).await;
    let avatar = tour.send("POST", "/v1/media?purpose=avatar", a, &[], png(200, 200).into()).await.text("id");
    tour.call("PUT", "/v1/me/avatar", a, json!({ "media_id": avatar })).await;
    tour.call("DELETE", "/v1/me/avatar", a, none.clone()).await;
    tour.call("DELETE", &format!("/v1/media/{photo}"), a, none.clone()).await;
    let tus = ("tus-resumable", "1.0.0");
    assert_eq!(tour.send("OPTIONS", "/v1/uploads", None, &[], Body::empty()).await.status, 204);
    let begin = [tus, ("upload-length", "9"), ("upload-metadata", "purpose cGhvdG8=")];
    let begun = tour.send("POST", "/v1/uploads", a, &begin, Body::empty()).await;
    let upload = format!("/v1/{}", begun.headers["location"].to_str().unwrap());
    let chunk = [tus, ("upload-offset", "0"), ("content-type", "application/offset+octet-stream")];
    assert_eq!(tour.send("PATCH", &upload, a, &chunk, "abc".into()).await.status, 204);
    assert_eq!(tour.send("HEAD", &upload, a, &[tus], Body::empty()).await.status, 200);
    assert_eq!(tour.send("DELETE", &upload, a, &[tus], Body::empty()).await.status, 204);

    // The account: profile, address, password, deletion.
    tour.call("GET", "/v1/me", a, none.clone()).await;
    tour.call("GET", "/v1/me/export", a, none.clone()).await;
    tour.call("PATCH", "/v1/me", a, json!({ "display_name": "Ana Maria" })).await;
    tour.call("POST", "/v1/me/email", a, json!({ "new_email": "never@example.org" })).await;
    let mails = world.mailer.sent();
    let cancel = mails.iter().rev().find_map(|mail| match &mail.message {
        Message::EmailChangeAsked { link, .. } => Some(link.expose().split_once('#').unwrap().1.to_owned()),
        _ => None,
    });
    tour.call("POST", "/v1/me/email/cancel", None, json!({ "token": cancel.unwrap() })).await;
    tour.call("POST", "/v1/me/email", a, json!({ "new_email": "new@example.org" })).await;
    let (code, _) = world.mailed("new@example.org");
    let proof = json!({ "email": "new@example.org", "code": code });
    tour.call("POST", "/v1/me/email/verify", a, proof).await;
    let change = json!({ "current_password": PASSWORDS[0], "new_password": PASSWORDS[1] });
    tour.call("PUT", "/v1/password", a, change).await;
    tour.call("POST", "/v1/password/forgot", None, json!({ "email": BEN })).await;
    let (_, reset) = world.mailed(BEN);
    tour.call("PUT", "/v1/password", None, json!({ "token": reset, "new_password": PASSWORDS[2] })).await;
    let last = tour.sign_in(json!({ "email": BEN, "password": PASSWORDS[2] })).await;
    tour.call("DELETE", "/v1/me", Some(&last), none).await;
}

/// Bytes as a text with one character for each, in lower case.
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// A secret in every encoding in which a column could hold it, in lower case.
fn encodings(secret: &[u8]) -> Vec<String> {
    let mut forms = vec![text_of(secret), HEXLOWER.encode(secret)];
    forms.extend(secret_search::base64(secret).iter().map(|text| text.to_ascii_lowercase()));
    forms
}

/// Texts from which an attacker could use a secret: the secret, its parts, and hashes of secrets that are short enough to guess.
fn needles(kind: &str, secret: &str) -> Vec<String> {
    let mut parts = secret_search::parts(secret.as_bytes());
    if kind == "address of a client" {
        // As the key of a rate limit.
        parts.insert(format!("ip:{secret}").into());
    }
    let mut forms: Vec<String> = parts.iter().flat_map(|part| encodings(part)).collect();
    if kind.contains("code") || kind == "password" || kind == "address of a client" {
        for part in &parts {
            forms.extend(encodings(&sha2::Sha256::digest(part)));
            forms.extend(encodings(digest(&[part]).as_bytes()));
        }
    }
    forms
}

/// Whether `value` contains `needle`, which with fewer than eight characters must be a whole word: numbers contain any six digits.
fn contains(value: &str, needle: &str) -> bool {
    let is_part = |next: Option<char>| next.is_some_and(|next| next.is_ascii_alphanumeric());
    let is_found = |before: &str, after: &str| {
        needle.len() >= 8 || !(is_part(before.chars().next_back()) || is_part(after.chars().next()))
    };
    secret_search::find(value, needle, is_found).is_some()
}

/// All values of a dump.
struct Values {
    /// Values with their column: each as it was dumped, and the bytes of which that is the hexadecimal form.
    of_columns: Vec<(String, String)>,
    /// All values, which are searched before those of each column.
    joined: String,
}

impl Values {
    fn new(dumped: BTreeSet<(String, String)>) -> Self {
        let mut of_columns = Vec::new();
        for (column, value) in dumped {
            let bytes = HEXLOWER.decode(value.strip_prefix("\\x").unwrap_or(&value).as_bytes());
            of_columns.extend(bytes.map(|bytes| (column.clone(), text_of(&bytes))));
            of_columns.push((column, value));
        }
        let joined = of_columns.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("\n");
        Self { of_columns, joined }
    }

    /// Columns with a value that contains one of the texts.
    fn columns_with(&self, needles: &[String]) -> BTreeSet<&str> {
        let found: Vec<&String> = needles.iter().filter(|needle| contains(&self.joined, needle)).collect();
        let holds = |value: &str| found.iter().any(|needle| contains(value, needle));
        let columns = self.of_columns.iter().filter(|(_, value)| holds(value));
        columns.map(|(column, _)| column.as_str()).collect()
    }
}

/// Names of all tables, from the migrations.
fn tables() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("couple-store/migrations/sqlite");
    let mut tables = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let created = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
        let names = created.map(|rest| rest.trim_start_matches("IF NOT EXISTS "));
        tables.extend(names.filter_map(|rest| rest.split([' ', '(']).next()).map(str::to_owned));
    }
    tables
}

async fn dump_holds_no_usable_secret(database: (Arc<dyn Store>, SqlDatabase)) {
    let tour = Tour::new(database).await;
    take(&tour).await;

    let called = tour.called.lock().unwrap().clone();
    let all: BTreeSet<_> = tour.operations.iter().cloned().collect();
    assert_eq!(all.difference(&called).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "not called");
    let values = Values::new(tour.dumped.lock().unwrap().clone());

    // The dump has the rows of every table, and the search finds texts and digests in it.
    let filled: BTreeSet<String> =
        values.of_columns.iter().map(|(column, _)| column.split('.').next().unwrap().to_owned()).collect();
    let missing: Vec<_> = tables().difference(&filled).cloned().collect();
    assert_eq!(missing, NOT_FILLED, "tables without a row");
    assert!(values.columns_with(&encodings(ENTRY.as_bytes())).contains("couple_entry.body"));
    let secrets = tour.secrets.lock().unwrap().clone();
    let is_session = |(_, kind): &(&String, &String)| kind.as_str() == "token of a session";
    for (token, _) in secrets.iter().filter(is_session) {
        let stored = encodings(digest(&[token.as_bytes()]).as_bytes());
        let columns = values.columns_with(&stored);
        assert!(columns.iter().any(|column| column.starts_with("couple_session.")), "{columns:?}");
    }

    let kinds: BTreeSet<&str> = secrets.values().map(String::as_str).collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    for (secret, kind) in &secrets {
        let columns = values.columns_with(&needles(kind, secret));
        assert!(columns.is_empty(), "a {kind} is in {columns:?}: {secret}");
    }
    tour.world.backend.close().await.unwrap();
}

#[tokio::test]
async fn dump_of_sqlite_holds_no_usable_secret() {
    dump_holds_no_usable_secret(SqlDatabase::sqlite().await).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn dump_of_mariadb_holds_no_usable_secret() {
    dump_holds_no_usable_secret(SqlDatabase::mariadb().await).await;
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn dump_of_postgres_holds_no_usable_secret() {
    dump_holds_no_usable_secret(SqlDatabase::postgres().await).await;
}
