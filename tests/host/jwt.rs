//! Users of a host whose identity provider signs tokens, through the routes.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, BodyDataStream},
    extract::State,
    http::{Request, StatusCode},
    routing::get,
};
use couple::{
    AccountId, Backend, Error, Principal,
    core::live::SessionChecker,
    http::{HttpOptions, JwtAuthenticator, JwtKeys, ServeOptions, listen, router, router_with, serve},
};
use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt as _;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, advance, pause, resume, sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use tower::ServiceExt as _;

use crate::host_users::HostUsers;

pub(crate) const ISSUER: &str = "https://id.example.org/";
pub(crate) const AUDIENCE: &str = "love-api";
/// Maximum duration of a stream.
const LIFETIME: Duration = Duration::from_secs(4);

/// Identity provider of a host.
pub(crate) struct IdentityProvider(Ed25519KeyPair);

impl IdentityProvider {
    pub(crate) fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    pub(crate) fn jwks(&self) -> String {
        let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string()
    }

    /// Token of a person that ends after `lifetime`.
    pub(crate) fn token(&self, person: AccountId, session: &str, lifetime: Duration) -> String {
        #[expect(clippy::disallowed_methods, reason = "the provider is another program")]
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lifetime;
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": person.to_string(), "sid": session, "exp": end.as_secs_f64()
        });
        let parts = [json!({"alg": "EdDSA", "kid": "k"}), claims];
        let [header, claims] = parts.map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
        let message = format!("{header}.{claims}");
        let signature = BASE64URL_NOPAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

fn backend(keys: JwtKeys, users: &HostUsers) -> Backend {
    let authenticator = JwtAuthenticator::new(keys, ISSUER, AUDIENCE).with_clock_skew(Duration::ZERO);
    let authenticator = authenticator.with_lifetime(LIFETIME);
    Backend::builder().directory(users.clone()).authenticator(authenticator).build().unwrap()
}

async fn status(app: &Router, path: &str, token: &str) -> u16 {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
}

/// Sends a request that creates something; returns the response.
async fn send(app: &Router, path: &str, token: &str, body: Value) -> Value {
    let request = Request::post(path).header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").body(Body::from(body.to_string()));
    let answer = app.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "{path}");
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn tokens_authenticate_requests_and_streams_until_they_end() {
    let (provider, users) = (IdentityProvider::new(), HostUsers::default());
    let [ana, ben] = ["ana@example.org", "ben@example.org"].map(|email| users.add(email));
    let backend = backend(JwtKeys::from_json(&provider.jwks()).unwrap(), &users);
    let app = router(backend.clone());
    let minute = Duration::from_mins(1);
    let (token, partner) = (provider.token(ana, "a", minute), provider.token(ben, "b", minute));
    assert_eq!(status(&app, "/v1/invites", &token).await, 200);
    assert_eq!(status(&app, "/v1/invites", "nonsense").await, 401);
    assert_eq!(status(&app, "/v1/invites", &IdentityProvider::new().token(ana, "a", minute)).await, 401);
    assert_eq!(status(&app, "/v1/invites", &provider.token(ana, "a", Duration::ZERO)).await, 401);

    // An invite by link, and its acceptance.
    let invite = send(&app, "/v1/invites", &token, json!({})).await;
    send(&app, "/v1/invites/accept", &partner, json!({"code": invite["code"]})).await;

    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let served = router_with(backend, HttpOptions::default());
    tokio::spawn(serve(listener, served, ServeOptions::default(), std::future::pending()));
    // Time until a stream ends.
    let stream = async |token: &str| {
        let began = Instant::now();
        let mut request = format!("ws://{address}/v1/couple/live").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", format!("couple, {token}").parse().unwrap());
        let connection = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = client_async(request, connection).await.unwrap();
        let mut seen = String::new();
        let read = async {
            while !seen.contains("bye") {
                seen.push_str(&socket.next().await.unwrap().unwrap().to_string());
            }
        };
        timeout(Duration::from_secs(10), read).await.expect("the stream ends");
        assert!(seen.contains("caught_up") && seen.contains("draining"), "the client reconnects: {seen}");
        let close = socket.next().await.unwrap().unwrap();
        assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1012), "{close}");
        began.elapsed()
    };
    let short = provider.token(ana, "a", Duration::from_secs(2));
    let (with_token, with_lifetime) = tokio::join!(stream(&short), stream(&token));
    assert!(
        (Duration::from_millis(1_500)..Duration::from_millis(3_500)).contains(&with_token),
        "{with_token:?}"
    );
    assert!((LIFETIME..Duration::from_secs(7)).contains(&with_lifetime), "{with_lifetime:?}");
    assert_eq!(status(&app, "/v1/couple", &short).await, 401);
    assert_eq!(status(&app, "/v1/couple", &token).await, 200);
}

/// Sessions of a host that can be revoked, which records how many are asked for at a time.
#[derive(Clone, Default)]
struct Sessions {
    revoked: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl SessionChecker for Sessions {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        self.asked.lock().unwrap().push(principals.len());
        let revoked = self.revoked.lock().unwrap();
        let is_valid = |one: &Principal| !revoked.iter().any(|name| Some(name.as_str()) == one.session());
        Ok(principals.iter().map(is_valid).collect())
    }
}

#[tokio::test]
async fn revoked_session_is_asked_for_once_and_signs_out() {
    let (provider, users, sessions) = (IdentityProvider::new(), HostUsers::default(), Sessions::default());
    let [ana, ben] = ["ana@example.org", "ben@example.org"].map(|email| users.add(email));
    let keys = JwtKeys::from_json(&provider.jwks()).unwrap();
    let authenticator = JwtAuthenticator::new(keys, ISSUER, AUDIENCE).with_sessions(sessions.clone());
    let backend = Backend::builder().directory(users).authenticator(authenticator).build().unwrap();
    let app = router(backend);
    let hour = Duration::from_hours(1);
    let token = provider.token(ana, "a", hour);
    let invite = send(&app, "/v1/invites", &token, json!({})).await;
    let accept = json!({"code": invite["code"]});
    send(&app, "/v1/invites/accept", &provider.token(ben, "b", hour), accept).await;

    // Requests of one session with the same token, whose lifetimes end at different times, and with another token.
    let mut streams = Vec::new();
    for token in [&token, &token, &provider.token(ana, "a", 2 * hour), &provider.token(ana, "a", hour / 2)] {
        let request = Request::get("/v1/couple/live").header("authorization", format!("Bearer {token}"));
        let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
        let mut events = app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
        until(&mut events, "caught_up").await;
        streams.push(events);
    }
    sessions.asked.lock().unwrap().clear();
    sleep(Duration::from_millis(2_500)).await;
    let asked = sessions.asked.lock().unwrap().clone();
    assert!((2..=3).contains(&asked.len()) && asked.iter().all(|count| *count == 1), "{asked:?}");
    // The session of a closed stream is followed by the others.
    streams.pop();
    sessions.revoked.lock().unwrap().push("a".to_owned());
    for events in &mut streams {
        assert!(until(events, "bye").await.contains("signed_out"));
    }
    assert_eq!(status(&app, "/v1/couple", &token).await, 401);
}

/// Reads an event stream up to a text; returns what was read.
async fn until(events: &mut BodyDataStream, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let piece = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    seen
}

#[tokio::test]
async fn unreachable_keys_are_503_and_never_401() {
    let (provider, users) = (IdentityProvider::new(), HostUsers::default());
    let token = provider.token(users.add("ana@example.org"), "a", Duration::from_mins(5));
    let document: Arc<Mutex<Option<String>>> = Arc::default();
    let answer = |State(document): State<Arc<Mutex<Option<String>>>>| async move {
        document.lock().unwrap().clone().ok_or(StatusCode::BAD_GATEWAY)
    };
    let jwks = Router::new().route("/jwks", get(answer)).with_state(document.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, jwks).await });

    let app = router(backend(JwtKeys::from_url(&url).unwrap(), &users));
    let again = async || {
        // The next fetch is due.
        pause();
        advance(Duration::from_secs(10)).await;
        resume();
        status(&app, "/v1/invites", &token).await
    };
    assert_eq!(status(&app, "/v1/invites", &token).await, 503);
    assert_eq!(again().await, 503);
    *document.lock().unwrap() = Some(provider.jwks());
    assert_eq!(again().await, 200);
    *document.lock().unwrap() = None;
    assert_eq!(again().await, 200);
    assert_eq!(status(&app, "/v1/invites", "nonsense").await, 401);
    // The issuer may have a new key for this token.
    let new = IdentityProvider::new().token(users.add("ben@example.org"), "b", Duration::from_mins(5));
    let request = Request::get("/v1/invites").header("authorization", format!("Bearer {new}"));
    let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
}

/// Log of a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn tokens_of_unknown_keys_do_not_fill_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || writer.clone());
    let _log = tracing::subscriber::set_default(log.finish());
    let (provider, users) = (IdentityProvider::new(), HostUsers::default());
    let issuer = Router::new().route("/jwks", get(provider.jwks()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, issuer).await });
    let app = router(backend(JwtKeys::from_url(&url).unwrap(), &users));
    let ana = users.add("ana@example.org");
    let unknown = IdentityProvider::new().token(ana, "a", Duration::from_mins(5));
    assert_eq!(status(&app, "/v1/invites", &unknown).await, 401, "the set was fetched for it");
    for _ in 0..20 {
        assert_eq!(status(&app, "/v1/invites", &unknown).await, 503);
    }
    tracing::warn!("end of the test");
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.lines().count() == 1 && log.contains("end of the test"), "{log}");
}
