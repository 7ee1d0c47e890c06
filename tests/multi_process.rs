//! Several processes over one database, with Redis or PostgreSQL's notifications.
//!
//! Any of them serves any request, and one may die.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints its figures")]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::{path::Path, process::Command, time::Duration};

use engine::Engine;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use support::{Client, Server, code_in, free_address, mails_to};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// Settings of every process: one database, one Redis or none, one key.
struct Common {
    folder: tempfile::TempDir,
    database: String,
    redis: Option<String>,
}

impl Common {
    fn settings(&self) -> Vec<(&str, &str)> {
        vec![
            ("COUPLE_DATABASE_URL", &self.database),
            ("COUPLE_DATABASE_CONNECTIONS", "6"),
            ("COUPLE_REDIS_URL", self.redis.as_deref().unwrap_or("")),
            ("COUPLE_KEY_FILE", "couple.key"),
            ("COUPLE_LIMITS", "off"),
            ("RUST_LOG", "warn"),
        ]
    }
    fn folder(&self) -> &Path {
        self.folder.path()
    }
    async fn server(&self, role: &'static str) -> Server {
        let mut settings = self.settings();
        settings.push(("COUPLE_ROLE", role));
        let server = Server::spawn(&support::binary(), self.folder(), free_address(), &settings);
        // A worker has no listener.
        if !role.starts_with("worker") {
            server.until_ready().await;
        }
        server
    }
    fn migrate(&self) -> String {
        let out = Command::new(support::binary())
            .arg("--migrate-only")
            .current_dir(self.folder())
            .env_clear()
            .envs(self.settings())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

/// Signs up at one process and confirms at another; a third writes the mail.
async fn join(common: &Common, [one, other]: [&Server; 2], name: &str) -> String {
    let email = format!("{name}@example.org");
    let body = json!({ "email": email, "display_name": name });
    let answer = Client::new(one.address).call("POST", "/v1/accounts", None, Some(&body), Some(name)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let started = Instant::now();
    let code = loop {
        if let Some(code) = mails_to(common.folder(), &email).iter().find_map(|mail| code_in(mail)) {
            break code;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no mail came");
        sleep(Duration::from_millis(10)).await;
    };
    println!("the mail came after {} ms", started.elapsed().as_millis());
    let body = json!({ "email": email, "code": code });
    let answer =
        Client::new(other.address).call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["session"]["token"].as_str().unwrap().to_owned()
}

async fn post(server: &Server, token: &str, path: &str, body: Value) -> Value {
    let answer = Client::new(server.address).call("POST", path, Some(token), Some(&body), None).await;
    assert!(answer.status < 300, "{answer:?}");
    answer.body
}

async fn poll(server: &Server, token: &str, query: &str) -> Value {
    let path = format!("/v1/couple/live?{query}");
    let answer = Client::new(server.address).call("GET", &path, Some(token), None, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Waits for the first frame in the background; gives the poll time to begin.
async fn waits(server: &Server, token: &str) -> JoinHandle<Value> {
    let (address, token) = (server.address, token.to_owned());
    let waiting = tokio::spawn(async move {
        Client::new(address).call("GET", "/v1/couple/live?wait=20", Some(&token), None, None).await.body["frames"][0].clone()
    });
    sleep(Duration::from_millis(200)).await;
    waiting
}

/// Carrier of notices between processes.
enum Carrier {
    Redis(Engine),
    /// Another connection to the database, which kills those of the bus.
    Postgres(PgConnection),
}

impl Carrier {
    /// Kills Redis, or the bus's connections to PostgreSQL.
    async fn harm(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Postgres(connection) => {
                let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                           WHERE datname = current_database() AND application_name = 'couple bus'";
                let cut: i64 = sqlx::query_scalar(cut).fetch_one(connection).await.unwrap();
                assert!(cut > 0, "the bus has no connection");
            }
        }
    }
    async fn mend(&mut self) {
        match self {
            Self::Redis(redis) => redis.again().await,
            Self::Postgres(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn follows(server: &Server, token: &str) -> Socket {
    let url = format!("ws://{}/v1/couple/live?presence=off", server.address);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    assert!(hears(&mut socket, "caught_up", Duration::from_secs(5)).await);
    socket
}

/// Whether a frame that contains a word arrives.
async fn hears(socket: &mut Socket, word: &str, within: Duration) -> bool {
    let received = async {
        while let Some(Ok(message)) = socket.next().await {
            if message.to_text().is_ok_and(|text| text.contains(word)) {
                return true;
            }
        }
        false
    };
    timeout(within, received).await.unwrap_or(false)
}

/// Both members touch the same point at different processes: both get a `thumb_kiss`.
async fn kiss(servers: [&Server; 2], tokens: [&str; 2]) {
    let mut by_ana = follows(servers[0], tokens[0]).await;
    let mut by_ben = follows(servers[1], tokens[1]).await;
    let thumb = r#"{"type":"signal","kind":"thumb","body":{"x":0.25,"y":0.75}}"#;
    let moment = Duration::from_secs(3);
    // On a busy machine the two may be too far apart in time: then they are repeated.
    for _ in 0..10 {
        by_ana.send(Message::text(thumb)).await.unwrap();
        if !hears(&mut by_ben, r#""from":"partner","kind":"thumb""#, moment).await {
            continue;
        }
        by_ben.send(Message::text(thumb)).await.unwrap();
        let both =
            tokio::join!(hears(&mut by_ana, "thumb_kiss", moment), hears(&mut by_ben, "thumb_kiss", moment));
        if both == (true, true) {
            return;
        }
    }
    panic!("no kiss in ten attempts");
}

/// Workers start, die and stop while pictures are uploaded; all are rendered and served.
async fn pictures(common: &Common, servers: [&Server; 2], [ana, ben]: [&str; 2]) {
    let mut first = common.server("worker:media").await;
    let mut ids = Vec::new();
    for n in 0..12 {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_fn(900, 600, |x, y| {
            image::Rgb([x.to_le_bytes()[0], y.to_le_bytes()[0], n])
        });
        pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        let mut client = Client::new(servers[usize::from(n % 2)].address);
        ids.push(client.upload(ana, "photo", &bytes.into_inner()).await);
    }
    first.kill();
    let started = Instant::now();
    let workers = [common.server("worker:media").await, common.server("worker:media").await];
    let mut client = Client::new(servers[1].address);
    for (n, id) in ids.iter().enumerate() {
        let path = format!("/v1/media/{id}");
        // Jobs of the killed worker run again when its lease has expired.
        while client.call("GET", &path, Some(ana), None, None).await.body["state"] != "ready" {
            assert!(started.elapsed() < Duration::from_secs(120), "{id} is not ready");
            sleep(Duration::from_millis(100)).await;
        }
        let mut shows = Client::new(servers[n % 2].address);
        let answer = shows.call("GET", &format!("{path}/320"), Some(ben), None, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    println!("12 pictures were ready {} ms after their worker was killed", started.elapsed().as_millis());
    drop(workers);
}

async fn day(common: Common, mut carrier: Carrier) {
    assert!(common.migrate().contains("up to date"));
    // The second run has nothing to migrate.
    assert!(common.migrate().contains("up to date"));
    let mut one = common.server("api").await;
    let (other, _worker) = (common.server("api").await, common.server("worker:mail").await);
    let ana = join(&common, [&one, &other], "ana").await;
    let ben = join(&common, [&other, &one], "ben").await;
    let invite = post(&one, &ana, "/v1/invites", json!({})).await;
    let code = invite["code"].as_str().unwrap_or_else(|| panic!("{invite}"));
    post(&other, &ben, "/v1/invites/accept", json!({ "code": code })).await;
    pictures(&common, [&one, &other], [&ana, &ben]).await;

    // Ben polls at one process, Ana writes at the other.
    let mut cursor = poll(&one, &ben, "after=0&wait=0").await["cursor"].as_str().unwrap().to_owned();
    for n in 0..5 {
        let query = format!("after={cursor}&wait=20");
        let (address, token) = (one.address, ben.clone());
        let waiting = tokio::spawn(async move {
            let path = format!("/v1/couple/live?{query}");
            let answer = Client::new(address).call("GET", &path, Some(&token), None, None).await;
            (answer.body, Instant::now())
        });
        sleep(Duration::from_millis(200)).await;
        let written = Instant::now();
        let entry = json!({ "client_id": format!("a-{n}"), "kind": "text", "body": { "text": format!("hello {n}") } });
        post(&other, &ana, "/v1/couple/entries", entry).await;
        let (received, received_at) = waiting.await.unwrap();
        assert_eq!(received["frames"][0]["entry"]["body"]["text"], format!("hello {n}"), "{received}");
        let took = received_at.duration_since(written);
        println!("received at the other process after {} ms", took.as_millis());
        assert!(took < Duration::from_secs(2), "{took:?}");
        cursor = received["cursor"].as_str().unwrap().to_owned();
    }

    // One process dies: the other continues from the same cursor.
    one.kill();
    let entry = json!({ "client_id": "b-1", "kind": "text", "body": { "text": "still there?" } });
    post(&other, &ben, "/v1/couple/entries", entry).await;
    let received = poll(&other, &ben, &format!("after={cursor}&wait=0")).await;
    assert_eq!(received["frames"][0]["entry"]["body"]["text"], "still there?", "{received}");

    // The carrier of notices dies repeatedly: requests continue, and notices are delivered again once it is back.
    let third = common.server("api").await;
    let (mut written, mut slowest) = (1, Duration::ZERO);
    for n in 0..20 {
        carrier.harm().await;
        let started = Instant::now();
        for m in 0..3 {
            let entry = json!({ "client_id": format!("r-{n}-{m}"), "kind": "text", "body": { "text": "x" } });
            post(&other, &ana, "/v1/couple/entries", entry).await;
            written += 1;
        }
        slowest = slowest.max(started.elapsed() / 3);
        carrier.mend().await;
    }
    println!(
        "20 outages of notices: {} entries written, the slowest {} ms",
        written - 1,
        slowest.as_millis()
    );
    let entries = poll(&third, &ben, &format!("after={cursor}&wait=0")).await;
    let seen = entries["frames"].as_array().unwrap().len();
    assert!(seen >= 20, "a page of the written entries, {seen}");
    let back = Instant::now();
    loop {
        let cursor = {
            let mut cursor = cursor.clone();
            loop {
                let page = poll(&third, &ben, &format!("after={cursor}&wait=0")).await;
                cursor = page["cursor"].as_str().unwrap().to_owned();
                if page["frames"].as_array().unwrap().is_empty() {
                    break cursor;
                }
            }
        };
        let (address, token, query) = (third.address, ben.clone(), format!("after={cursor}&wait=20"));
        let waiting = tokio::spawn(async move {
            let path = format!("/v1/couple/live?{query}");
            Client::new(address).call("GET", &path, Some(&token), None, None).await;
        });
        sleep(Duration::from_millis(200)).await;
        let id = format!("k-{}", back.elapsed().as_millis());
        post(
            &other,
            &ana,
            "/v1/couple/entries",
            json!({ "client_id": id, "kind": "text", "body": { "text": "y" } }),
        )
        .await;
        if tokio::time::timeout(Duration::from_secs(1), waiting).await.is_ok() {
            break;
        }
        assert!(back.elapsed() < Duration::from_secs(5), "no notice is delivered 5 s after it is back");
    }

    kiss([&other, &third], [&ana, &ben]).await;

    // Presence reaches a client at another process, with Redis only; a sign-out at one process ends a stream at the other.
    let by_ben = waits(&third, &ben).await;
    if matches!(carrier, Carrier::Redis(_)) {
        let by_ana = waits(&other, &ana).await;
        let received = by_ben.await.unwrap();
        assert_eq!(received, json!({ "type": "presence", "presence": "here" }), "{received}");
        presence_ends_with_the_last_connection([&other, &third], &ana, &ben).await;
        by_ana.abort();
    }
    let mut by_ana = follows(&other, &ana).await;
    let left = Instant::now();
    let answer =
        Client::new(third.address).call("DELETE", "/v1/sessions/current", Some(&ana), None, None).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(hears(&mut by_ana, "signed_out", Duration::from_secs(2)).await, "the session has ended");
    println!("stream ended at the other process after {} ms", left.elapsed().as_millis());
    endings([&other, &third], &ben).await;
}

/// A member with connections to two processes is present until both have ended, and away a few seconds later.
async fn presence_ends_with_the_last_connection([other, third]: [&Server; 2], ana: &str, ben: &str) {
    let follow = |server: &Server| {
        let (address, token) = (server.address, ben.to_owned());
        tokio::spawn(async move {
            loop {
                Client::new(address).call("GET", "/v1/couple/live?wait=40", Some(&token), None, None).await;
            }
        })
    };
    let seen = async || {
        let answer = Client::new(other.address).call("GET", "/v1/couple", Some(ana), None, None).await;
        answer.body["partner"]["presence"].as_str().unwrap().to_owned()
    };
    let by_ben = [follow(other), follow(third)];
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen().await, "here");
    by_ben[1].abort();
    let closed = Instant::now();
    while closed.elapsed() < Duration::from_secs(8) {
        assert_eq!(seen().await, "here", "after {:?}", closed.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    by_ben[0].abort();
    let closed = Instant::now();
    while seen().await == "here" {
        assert!(closed.elapsed() < Duration::from_secs(10), "still present");
        sleep(Duration::from_millis(100)).await;
    }
    println!("away {} ms after the last connection was closed", closed.elapsed().as_millis());
    assert!(closed.elapsed() > Duration::from_secs(2), "{:?}", closed.elapsed());
}

/// The stream at the other process ends with its session, a password change, or the couple.
async fn endings([other, third]: [&Server; 2], ben: &str) {
    let (address, moment) = (third.address, Duration::from_secs(2));
    let call = async |method: &str, path: &str, token: Option<&str>, body: Option<Value>| {
        let answer = Client::new(address).call(method, path, token, body.as_ref(), None).await;
        assert!(answer.status < 300, "{answer:?}");
        answer.body
    };
    let token = |answer: Value| answer["session"]["token"].as_str().unwrap().to_owned();
    let password = "four words of a kind";
    call("PUT", "/v1/password", Some(ben), Some(json!({ "new_password": password }))).await;
    let sign_in = async || {
        let body = json!({ "email": "ben@example.org", "password": password });
        token(call("POST", "/v1/sessions", None, Some(body)).await)
    };
    let (ended, ends) = (sign_in().await, sign_in().await);
    let mut by_ended = follows(other, &ended).await;
    call("DELETE", "/v1/sessions", Some(&ends), None).await;
    assert!(hears(&mut by_ended, "signed_out", moment).await, "ended by another session");

    let mut by_one = follows(other, &sign_in().await).await;
    let change = json!({ "new_password": "five other words of a kind", "current_password": password });
    let goes_on = token(call("PUT", "/v1/password", Some(&ends), Some(change)).await);
    assert!(hears(&mut by_one, "signed_out", moment).await, "the password was changed");

    let mut by_last = follows(other, &goes_on).await;
    call("DELETE", "/v1/couple", Some(&goes_on), None).await;
    assert!(hears(&mut by_last, "not_paired", moment).await, "the couple ended");
}

async fn day_with_redis(engine: Engine) {
    let redis = Engine::start("redis").await;
    let url = Some(format!("redis://127.0.0.1:{}", redis.port));
    let folder = tempfile::tempdir().unwrap();
    day(Common { folder, database: engine.fresh(), redis: url }, Carrier::Redis(redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_mariadb_and_redis() {
    day_with_redis(Engine::start("mariadb").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_postgres_and_redis() {
    day_with_redis(Engine::start("postgres").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_postgres_alone() {
    let postgres = Engine::start("postgres").await;
    let (folder, database) = (tempfile::tempdir().unwrap(), postgres.fresh());
    let carrier = Carrier::Postgres(PgConnection::connect(&database).await.unwrap());
    day(Common { folder, database, redis: None }, carrier).await;
}
