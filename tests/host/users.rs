//! Users of a host: its directory and authenticator in place of the built-in accounts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use couple::{
    Backend, BackendBuilder, ErrorKind, Keyring, ManualClock, Principal,
    account::PurgeTokens,
    blobs::Blobs,
    core::{EmailAddress, mail::Message},
    http::{HttpOptions, ServeOptions, listen, router, router_with, serve},
    notify::{live::LiveOptions, mail::MemoryMailer},
    store::sql::SqliteOptions,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error as SocketError, Message as SocketMessage, client::IntoClientRequest as _},
};
use tower::ServiceExt as _;

use crate::host_users::HostUsers;

/// A host with its users, and the sessions of two of them.
pub(crate) struct Host {
    pub(crate) users: HostUsers,
    pub(crate) mailer: MemoryMailer,
    pub(crate) backend: Backend,
    app: Router,
    ana: String,
    ben: String,
}

impl Host {
    fn new() -> Self {
        Self::of(Backend::builder())
    }

    pub(crate) fn of(builder: BackendBuilder) -> Self {
        let (users, mailer) = (HostUsers::default(), MemoryMailer::new());
        let builder = builder.mailer(mailer.clone()).directory(users.clone()).authenticator(users.clone());
        let backend = builder.build().unwrap();
        let [ana, ben] = ["ana@example.org", "ben@example.org"].map(|email| users.sign_in(users.add(email)));
        let app = router(backend.clone());
        Self { users, mailer, backend, app, ana, ben }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let (head, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        (head.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub(crate) async fn call(&self, method: &str, path: &str, session: &str, body: Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("x-session", session);
        self.send(
            request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap(),
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str, session: &str) -> (u16, Value) {
        self.call("GET", path, session, Value::Null).await
    }

    pub(crate) async fn work(&self) {
        self.backend.worker().run_until_idle().await.unwrap();
    }

    /// Pairs the two users by an invite that is mailed to one of them.
    async fn pair(&self) {
        let (status, invite) =
            self.call("POST", "/v1/invites", &self.ana, json!({"email": "ben@example.org"})).await;
        assert_eq!(status, 201, "{invite}");
        self.work().await;
        let mails = self.mailer.sent();
        let mail = mails.last().expect("an addressed invite is mailed");
        assert_eq!(
            (mail.to.as_str(), mail.locale.as_ref().unwrap().to_string()),
            ("ben@example.org", "de".into())
        );
        let Message::Invitation { from, link, .. } = &mail.message else { panic!("{mail:?}") };
        assert_eq!(from.as_ref().map(ToString::to_string).as_deref(), Some("ana"));
        let accepted =
            self.call("POST", "/v1/invites/accept", &self.ben, json!({"token": link.expose()})).await;
        assert_eq!(accepted.0, 201, "{}", accepted.1);
        assert_eq!(accepted.1["couple"]["partner"]["display_name"], "ana");
    }

    pub(crate) async fn say(&self, session: &str, text: &str) {
        let body = json!({"client_id": text, "kind": "text", "body": {"text": text}});
        let (status, entry) = self.call("POST", "/v1/couple/entries", session, body).await;
        assert_eq!(status, 201, "{entry}");
    }

    /// Uploads a picture.
    pub(crate) async fn send_picture(&self, session: &str, purpose: &str) -> (u16, Value) {
        let pixels = image::RgbImage::from_fn(200, 200, |x, y| {
            image::Rgb([x, y, 7].map(|value| value.to_le_bytes()[0]))
        });
        let mut bytes = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        let request = Request::post(format!("/v1/media?purpose={purpose}")).header("x-session", session);
        self.send(request.body(Body::from(bytes.into_inner())).unwrap()).await
    }

    /// Uploads a picture and waits until it is ready; returns its id.
    pub(crate) async fn upload(&self, session: &str, purpose: &str) -> String {
        let (status, media) = self.send_picture(session, purpose).await;
        assert_eq!(status, 202, "{media}");
        self.work().await;
        media["id"].as_str().unwrap().to_owned()
    }

    /// Serves the routes; returns the address.
    fn serve(&self) -> SocketAddr {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let app = router_with(self.backend.clone(), HttpOptions::default());
        tokio::spawn(serve(listener, app, ServeOptions::default(), std::future::pending()));
        address
    }
}

/// Users without accounts pair, exchange entries and leave, on a store in memory and on a database.
async fn users_pair_talk_and_part(host: Host) {
    host.pair().await;
    host.say(&host.ana, "hello").await;
    let photo = host.upload(&host.ana, "photo").await;
    let body = json!({"client_id": "p", "kind": "photo", "body": {"media_id": photo}});
    assert_eq!(host.call("POST", "/v1/couple/entries", &host.ana, body).await.0, 201);
    let avatar = host.upload(&host.ben, "avatar").await;
    let set = host.call("PUT", "/v1/me/avatar", &host.ben, json!({"media_id": avatar})).await;
    assert_eq!(set.0, 204, "{}", set.1);
    let (_, page) = host.get("/v1/couple/entries?after=0", &host.ben).await;
    let kinds: Vec<_> = page["entries"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["paired", "text", "photo", "profile_changed"], "{page}");
    let (_, couple) = host.get("/v1/couple", &host.ana).await;
    assert_eq!(couple["partner"]["avatar"]["id"], avatar, "{couple}");
    assert_eq!(host.get(&format!("/v1/media/{photo}"), &host.ben).await.0, 200);
    assert_eq!(host.call("DELETE", "/v1/couple?block=true", &host.ana, Value::Null).await.0, 204);
    assert_eq!(host.get("/v1/couple/entries", &host.ben).await.0, 404);
    assert_eq!(host.get("/v1/blocks", &host.ana).await.1["blocks"][0]["display_name"], "ben");
    // An invite of a blocked user is not mailed.
    let before = host.mailer.sent().len();
    let invited = host.call("POST", "/v1/invites", &host.ben, json!({"email": "ana@example.org"})).await;
    assert_eq!(invited.0, 201, "{}", invited.1);
    host.work().await;
    assert_eq!(host.mailer.sent().len(), before);
    host.backend.close().await.unwrap();
}

#[tokio::test]
async fn users_of_a_host_pair_by_a_mailed_invite_talk_and_part() {
    users_pair_talk_and_part(Host::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    let builder = Backend::builder().store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
    users_pair_talk_and_part(Host::of(builder)).await;
}

#[tokio::test]
async fn built_in_accounts_are_absent() {
    let host = Host::new();
    assert_eq!(host.backend.accounts().unwrap_err().kind(), ErrorKind::Misconfigured);
    let built_in = Host { app: router(Backend::builder().build().unwrap()), ..Host::new() };
    let (_, built_in) = built_in.get("/v1/openapi.json", "").await;
    let (_, document) = host.get("/v1/openapi.json", "").await;
    let text = document.to_string();
    assert!(!text.contains("{{"), "a limit of the accounts is not filled in");
    let mut absent = 0;
    for (path, item) in built_in["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_of_accounts = operation["tags"] == json!(["accounts"]);
            assert_eq!(document["paths"][path][method].is_null(), is_of_accounts, "{method} {path}");
            if is_of_accounts {
                absent += 1;
                let path = path.replace("{id}", "0190aaaa-0000-7000-8000-000000000000");
                let (status, problem) = host.call(&method.to_uppercase(), &path, &host.ana, json!({})).await;
                assert_eq!((status, &problem["code"]), (404, &json!("not_found")), "{method} {path}");
            }
        }
    }
    assert!(absent > 15, "{absent}");
    for page in ["verify", "email", "password", "signin", "cancel"] {
        assert_eq!(host.get(&format!("/open/{page}"), "").await.0, 404, "{page}");
    }
    assert_eq!(host.get("/open/invite", "").await.0, 200);
    // Their jobs have no handlers, so that a host may handle one itself; with accounts it would be the second handler.
    let own = |builder: BackendBuilder| {
        builder.jobs(|jobs, _| jobs.with_fn(|_: PurgeTokens, _| async { Ok(()) })).build()
    };
    assert!(own(Backend::builder()).is_err());
    assert!(own(Backend::builder().directory(HostUsers::default())).is_ok());
}

#[tokio::test]
async fn refusal_is_401_and_a_failure_503_without_its_text() {
    let host = Host::new();
    host.pair().await;
    for path in ["/v1/couple", "/v1/couple/live?wait=0", "/v1/media?purpose=photo"] {
        let (status, problem) = host.get(path, "unknown").await;
        assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")), "{path}");
        host.users.fail(true);
        let (status, problem) = host.get(path, &host.ana).await;
        assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{path}");
        assert!(!problem.to_string().contains("driver"), "{problem}");
        host.users.fail(false);
        assert_eq!(host.get(path, &host.ana).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn configurations_that_authenticate_nobody_are_noticed() {
    let error = Backend::builder().authenticator(HostUsers::default()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    // A worker needs no authenticator; routes of such a backend refuse every caller.
    let backend = Backend::builder().directory(HostUsers::default()).build().unwrap();
    let request = Request::get("/v1/couple").header("authorization", "Bearer x").body(Body::empty()).unwrap();
    assert_eq!(router(backend).oneshot(request).await.unwrap().status(), 503);
}

/// Waits for the end of an event stream; returns what it sent.
async fn read_to_end(body: Body) -> String {
    let bytes = timeout(Duration::from_secs(5), to_bytes(body, 1 << 20)).await.expect("the stream ends");
    String::from_utf8_lossy(&bytes.unwrap()).into_owned()
}

#[tokio::test]
async fn live_streams_end_within_a_second_of_the_hosts_session() {
    let host = Host::new();
    host.pair().await;
    let other = host.users.sign_in(host.users.add("cleo@example.org"));
    let address = host.serve();
    let request = Request::get("/v1/couple/live?after=0").header("x-session", &host.ben);
    let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let mut events = host.app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut seen = String::new();
    while !seen.contains("caught_up") {
        seen.push_str(&String::from_utf8_lossy(&events.next().await.unwrap().unwrap()));
    }
    assert!(seen.contains("paired"), "{seen}");
    let request = Request::get("/v1/couple/live").header("x-session", &host.ana);
    let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let mut partner = host.app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    // A WebSocket of a page of the host, by its cookie, and a Socket.IO client without a token.
    let connect = async |path: &str, headers: &[(&'static str, String)]| {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        client_async(request, TcpStream::connect(address).await.unwrap()).await.map(|(socket, _)| socket)
    };
    let cookie = ("cookie", format!("a=b; session={}", host.ben));
    let own = ("origin", format!("http://{address}"));
    let mut socket = connect("/v1/couple/live", &[cookie.clone(), own.clone()]).await.unwrap();
    let io = "/socket.io/?EIO=4&transport=websocket";
    let mut client = connect(io, &[cookie.clone(), own]).await.unwrap();
    client.send(SocketMessage::text("40")).await.unwrap();
    for expected in ["0{", "40{"] {
        let mut packet = client.next().await.unwrap().unwrap().into_text().unwrap();
        while packet == "2" {
            // A ping, which may come at any time.
            packet = client.next().await.unwrap().unwrap().into_text().unwrap();
        }
        assert!(packet.starts_with(expected), "{packet}");
    }
    // The same from a page of another origin.
    let evil = ("origin", "https://evil.example".to_owned());
    let refused = connect("/v1/couple/live", &[cookie.clone(), evil.clone()]).await.unwrap_err();
    assert!(matches!(&refused, SocketError::Http(answer) if answer.status() == 401), "{refused}");
    let mut foreign = connect(io, &[cookie, evil]).await.unwrap();
    foreign.send(SocketMessage::text("40")).await.unwrap();
    assert!(foreign.next().await.unwrap().unwrap().into_text().unwrap().starts_with("0{"));
    let mut refused = foreign.next().await.unwrap().unwrap().into_text().unwrap();
    // A ping of the transport may arrive first.
    while refused == "2" {
        refused = foreign.next().await.unwrap().unwrap().into_text().unwrap();
    }
    assert!(refused.starts_with("44") && refused.contains("unauthenticated"), "{refused}");
    // A token in place of the header, as a browser sends it.
    let token = ("sec-websocket-protocol", format!("couple, {}", host.ana));
    drop(connect("/v1/couple/live", &[token]).await.unwrap());
    assert_eq!(host.get(&format!("/v1/couple/live?wait=0&access_token={}", host.ana), "").await.0, 200);

    assert!(host.users.checks() < 20);
    let ended = Instant::now();
    host.users.sign_out(&host.ben);
    let said = read_to_end(Body::from_stream(events)).await;
    assert!(said.contains("signed_out"), "{said}");
    for socket in [&mut socket, &mut client] {
        let mut bye = String::new();
        while !bye.contains("signed_out") {
            let message = timeout(Duration::from_secs(5), socket.next()).await.unwrap();
            bye = message.unwrap().unwrap().to_string();
        }
    }
    assert!(ended.elapsed() < Duration::from_secs(2), "{:?}", ended.elapsed());
    // The streams of other sessions continue.
    host.say(&host.ana, "still-here").await;
    let mut seen = String::new();
    while !seen.contains("still-here") {
        let piece = timeout(Duration::from_secs(5), partner.next()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    assert_eq!(host.get("/v1/couple/live?wait=0", &other).await.0, 404, "not in a couple");
}

#[tokio::test]
async fn streams_outlast_a_failure_of_the_authenticator() {
    let host = Host::new();
    host.pair().await;
    let request = Request::get("/v1/couple/live").header("x-session", &host.ben);
    let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let mut events = host.app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    while !String::from_utf8_lossy(&events.next().await.unwrap().unwrap()).contains("caught_up") {}
    host.users.fail(true);
    let checks = host.users.checks();
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(host.users.checks(), checks);
    host.users.fail(false);
    host.say(&host.ana, "hello").await;
    let piece = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&piece).contains("hello"));
}

/// Checks of sessions that do not return delay no read of the store, and no new stream.
#[tokio::test]
async fn reads_do_not_wait_for_the_authenticator() {
    let host = Host::of(Backend::builder().live(LiveOptions::default().with_max_concurrent_reads(1)));
    host.pair().await;
    let open = async |session: &str| {
        let request = Request::get("/v1/couple/live").header("x-session", session);
        let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
        let mut events = host.app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
        while !String::from_utf8_lossy(&events.next().await.unwrap().unwrap()).contains("caught_up") {}
        events
    };
    let ben = open(&host.ben).await;
    tokio::spawn(ben.for_each(|_| async {}));
    host.users.stall(&host.ben);
    let until_stalled = async |stalled: usize| {
        let stalls = async {
            while host.users.stalled() < stalled {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(4), stalls).await.expect("a check");
    };
    let open_another = async || {
        let started = Instant::now();
        let _ana = open(&host.ana).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    };
    // The watch of sessions.
    until_stalled(1).await;
    open_another().await;
    // The stream itself, before it delivers an entry: its last check was long ago.
    sleep(Duration::from_millis(2_100)).await;
    host.say(&host.ana, "hello").await;
    until_stalled(2).await;
    open_another().await;
}

#[tokio::test]
async fn cookies_do_not_authenticate_writes_from_other_origins() {
    let host = Host::new();
    let invite = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/v1/invites").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, body) = host.send(request.body(Body::from("{}")).unwrap()).await;
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let cookie = ("cookie", format!("session={}", host.ana));
    let cookie = (cookie.0, cookie.1.as_str());
    let refused = (401, "unauthenticated".to_owned());
    assert_eq!(invite(&[cookie, ("origin", "https://evil.example"), ("host", "my.app")]).await, refused);
    assert_eq!(invite(&[cookie, ("sec-fetch-site", "cross-site")]).await, refused);
    assert_eq!(invite(&[cookie, ("origin", "null")]).await, refused);
    assert_eq!(invite(&[cookie, ("origin", "https://my.app"), ("host", "my.app")]).await.0, 201);
    assert_eq!(invite(&[cookie, ("sec-fetch-site", "same-origin")]).await.0, 201);
    assert_eq!(invite(&[cookie]).await.0, 201, "an app sends no origin");
    let bearer = format!("Bearer {}", host.ana);
    assert_eq!(invite(&[("authorization", &bearer), ("origin", "https://evil.example")]).await.0, 201);
    // Reading is not refused: the browser does not give the response to the page.
    let request = Request::get("/v1/invites").header(cookie.0, cookie.1);
    assert_eq!(
        host.send(request.header("sec-fetch-site", "cross-site").body(Body::empty()).unwrap()).await.0,
        200
    );
}

#[tokio::test]
async fn signed_url_of_a_picture_ends_with_the_hosts_session() {
    let host = Host::new();
    host.pair().await;
    let photo = host.upload(&host.ana, "photo").await;
    let (_, media) = host.get(&format!("/v1/media/{photo}"), &host.ben).await;
    let url = media["renditions"][0]["signed_url"].as_str().unwrap();
    let path = url.strip_prefix("http://127.0.0.1:8080").unwrap();
    let load = async || host.send(Request::get(path).body(Body::empty()).unwrap()).await.0;
    assert_eq!(load().await, 200);
    host.users.fail(true);
    assert_eq!(load().await, 503);
    host.users.fail(false);
    host.users.sign_out(&host.ben);
    assert_eq!(load().await, 403);
    assert_eq!(host.get(&format!("/v1/media/{photo}/320"), &host.ben).await.0, 401);
}

#[tokio::test]
async fn expired_principal_is_refused() {
    let clock = Arc::new(ManualClock::default());
    let host = Host::of(Backend::builder().clock(clock.clone()));
    host.pair().await;
    let address = EmailAddress::parse("email", "ana@example.org").unwrap();
    let ana = host.backend.directory().find_by_email(address.key()).await.unwrap().unwrap();
    let expiry = host.backend.ports().now().plus(Duration::from_mins(1));
    let principal = Principal::new(ana, "own layer").with_expiry(expiry);
    // A layer of the host has authenticated the caller.
    let ask = async || {
        let request = Request::get("/v1/couple").extension(principal.clone()).body(Body::empty()).unwrap();
        host.send(request).await.0
    };
    assert_eq!(ask().await, 200);
    clock.advance(Duration::from_mins(1));
    assert_eq!(ask().await, 401);
}
