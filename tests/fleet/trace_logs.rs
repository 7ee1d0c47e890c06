//! Logs at their most verbose level contain no secret of an operator or of a user.
//!
//! Two processes, one for requests and one for jobs, use a database, Redis, an SMTP server and S3, all of them with credentials, while
//! users sign up, pair and talk over every transport, and clients send secrets in requests that are refused. Afterwards each engine fails,
//! because errors are logged, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Database, Executor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    ALONE, below,
    device::{Device, Protocol},
    engine::Engine,
    png, secret_search,
    smtp_server::SmtpServer,
    support::{self, Client, Server, code_in, free_address},
    until,
};

const ANA: &str = "ana@example.org";
const BEN: &str = "ben@example.org";
const NEW: &str = "new@example.org";
const PASSWORDS: [&str; 4] =
    ["mauve \"kettle\" orbit", "seven violet/otters", "amber lantern+fjord", "a wrong% password"];
const ENTRY: &str = "planted \"entry\" of 7% otters";
const MESSAGE: &str = "planted message of an invite";
const TITLE: &str = "planted title of a couple";
/// Display names of Ana and Ben.
const NAMES: [&str; 2] = ["Planted \"Ana\" 7%", "planted name of Ben"];
/// A coordinate of a signal.
const POINT: f64 = 0.731_625_487;
/// Part of every idempotency key.
const KEY: &str = "planted-idempotency-key";
/// Public key of a browser's subscription: the base point of P-256.
const PUSH_KEY: &str = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ecec\
                        bb6406837bf51f5";
/// Longest wait for a mail, a delivery or a line of a log.
const LIMIT: Duration = Duration::from_secs(60);

/// Kinds of all secrets.
const KINDS: [&str; 25] = [
    "access of a refused request",
    "address of a user",
    "code of an invite",
    "display name",
    "endpoint of a browser's subscription",
    "idempotency key",
    "key ring",
    "link of an invite",
    "mailed code",
    "mailed link",
    "message of an invite",
    "password of Redis",
    "password of SMTP",
    "password of a refused request",
    "password of a user",
    "password of the database",
    "point of a signal",
    "secret of S3",
    "secret of a browser's subscription",
    "signed URL",
    "text of an entry",
    "title of a couple",
    "token of a device",
    "token of a refused request",
    "token of a session",
];

/// Secrets with their kind.
#[derive(Default)]
struct Secrets(BTreeMap<Vec<u8>, String>);

impl Secrets {
    fn plant(&mut self, kind: &str, secret: impl Into<Vec<u8>>) {
        self.0.insert(secret.into(), kind.to_owned());
    }

    /// Plants and returns a new password with characters that each encoding represents differently.
    fn password(&mut self, kind: &str) -> String {
        let password = format!("Pw\"+/%{}", below(u64::MAX));
        self.plant(kind, &*password);
        password
    }

    /// Secrets that a log contains, with their kind and the line.
    fn found_in(&self, log: &Log) -> Vec<String> {
        let mut found = Vec::new();
        for (secret, kind) in &self.0 {
            for needle in secret_search::parts(secret).iter().flat_map(|part| encodings(part)) {
                if let Some(line) = log.line_with(&needle) {
                    found.push(format!("a {kind}, as {:?}, in the line: {line}", needle.text));
                }
            }
        }
        found
    }
}

/// A secret in one encoding.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Needle {
    text: String,
    /// Whether white space is ignored, as in a list of numbers or a hexadecimal dump.
    ignores_space: bool,
}

/// A secret in every encoding that a log could use.
fn encodings(secret: &[u8]) -> BTreeSet<Needle> {
    let percent = |upper: bool| -> String {
        let each = |&byte: &u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ if upper => format!("%{byte:02X}"),
            _ => format!("%{byte:02x}"),
        };
        secret.iter().map(each).collect()
    };
    let mut texts = vec![percent(true), percent(false), percent(true).replace("%20", "+")];
    // Each byte encoded, as the settings of this test have it.
    texts.extend([
        secret.iter().map(|byte| format!("%{byte:02X}")).collect(),
        secret.iter().map(|byte| format!("%{byte:02x}")).collect(),
    ]);
    texts.push(secret.escape_ascii().to_string());
    if let Ok(text) = str::from_utf8(secret) {
        texts.push(text.to_owned());
        // Text within text: a JSON body in the debug form of a message, for example.
        let once = text.escape_debug().to_string();
        texts.push(once.escape_debug().to_string());
        texts.push(once);
    }
    texts.extend(secret_search::base64(secret));
    let mut needles: BTreeSet<_> =
        texts.into_iter().map(|text| Needle { text, ignores_space: false }).collect();
    let list = |each: fn(&u8) -> String| secret.iter().map(each).collect::<Vec<_>>().join(",");
    for text in [
        list(u8::to_string),
        list(|b| format!("{b:x}")),
        list(|b| format!("{b:02X}")),
        list(|b| format!("0x{b:02x}")),
        HEXLOWER.encode(secret),
        HEXLOWER.encode(secret).to_uppercase(),
    ] {
        needles.insert(Needle { text, ignores_space: true });
    }
    needles
}

/// The text of a log.
struct Log {
    text: String,
    /// The text without white space.
    dense: String,
}

impl Log {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), dense: text.split_whitespace().collect() }
    }

    async fn read(folder: &Path) -> Self {
        Self::new(&String::from_utf8_lossy(&tokio::fs::read(folder.join("server.log")).await.unwrap()))
    }

    /// A line that contains the secret.
    fn line_with(&self, needle: &Needle) -> Option<&str> {
        let text = if needle.ignores_space { &self.dense } else { &self.text };
        // The digits of a code. They have 12 digits as hexadecimal bytes, which do not occur by chance.
        let is_code = needle.text.len() < 12 && needle.text.bytes().all(|byte| byte.is_ascii_digit());
        let is_found = |before: &str, after: &str| !is_code || !is_part_of_number(before, after);
        let at = secret_search::find(text, &needle.text, is_found)?;
        if needle.ignores_space {
            // A text without white space has no lines: the characters before the secret name its source.
            let start = text[..at].char_indices().rev().nth(200).map_or(0, |(start, _)| start);
            return Some(&text[start..at + needle.text.len()]);
        }
        text[..at].rfind('\n').map_or(text.as_str(), |end| &text[end + 1..]).lines().next()
    }
}

/// Whether the digits between two texts are a part of a longer number, of a fraction, or of a hexadecimal id: these contain any six digits.
fn is_part_of_number(before: &str, after: &str) -> bool {
    let is_digit = |next: Option<char>| next.is_some_and(|next| next.is_ascii_digit());
    let is_fraction = |next: Option<char>, second: Option<char>| next == Some('.') && is_digit(second);
    let (mut backwards, mut forwards) = (before.chars().rev(), after.chars());
    let (previous, next) = (backwards.next(), forwards.next());
    if is_digit(next) || is_fraction(next, forwards.next()) {
        return true;
    }
    // An escape sequence before the digits, such as `%20` or `\x00`, separates them from the rest.
    if ends_with_escape(before) {
        return false;
    }
    if is_digit(previous) || is_fraction(previous, backwards.next()) {
        return true;
    }
    let is_word = |c: &char| c.is_ascii_alphanumeric();
    let word: String = before.chars().rev().take_while(is_word).collect();
    let word = word.strip_suffix("x0").unwrap_or(&word);
    let rest: String = after.chars().take_while(is_word).collect();
    // The digits of a code and two more. Ids of the library and of its dependencies are at least so long.
    word.len() + rest.len() >= 2 && word.chars().chain(rest.chars()).all(|c| c.is_ascii_hexdigit())
}

/// Whether a text ends with a character that is encoded as in a URL, a byte string or JSON, and ends with a digit or letter.
fn ends_with_escape(text: &str) -> bool {
    let is_code = |(sign, digits): (&str, usize)| {
        let split = text.len().checked_sub(digits).and_then(|at| text.split_at_checked(at));
        split.is_some_and(|(start, code)| {
            start.ends_with(sign) && code.bytes().all(|digit| digit.is_ascii_hexdigit())
        })
    };
    text.ends_with("\\0") || [("%", 2), ("\\x", 2), ("\\u", 4)].into_iter().any(is_code)
}

/// A secret with other random characters at its end.
fn altered(secret: &str) -> String {
    let kept = secret.len().checked_sub(16).unwrap();
    format!("{}{:016x}", &secret[..kept], below(u64::MAX))
}

/// Users who use the processes, and all secrets that they and the operator have.
struct Story {
    client: Client,
    smtp: SmtpServer,
    secrets: Secrets,
    calls: usize,
    /// Number of mails to each address that were read.
    read: BTreeMap<String, usize>,
}

impl Story {
    /// Sends a request, repeatedly until the response is other than 503; it must be a success.
    async fn call(&mut self, method: &str, path: &str, token: Option<&str>, body: Value) -> Value {
        self.calls += 1;
        let key = format!("{KEY}-{}", self.calls);
        let content = (!body.is_null()).then_some(&body);
        let answer = self.client.call(method, path, token, content, Some(&key)).await;
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        secret_search::plant_from(&answer.body, &mut |kind, secret| self.secrets.plant(kind, secret));
        answer.body
    }

    /// Waits for the next mail with a link to an address; returns its code, or an empty text, and the token of its link.
    async fn mail(&mut self, to: &str) -> (String, String) {
        let read = self.read.entry(to.to_owned()).or_default();
        let started = Instant::now();
        let (mail, link) = loop {
            assert!(started.elapsed() < LIMIT, "no mail to {to}");
            let Some(mail) = self.smtp.mails_to(to).into_iter().nth(*read) else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            *read += 1;
            // A notice has none.
            let is_link = |word: &&str| word.starts_with("http") && word.contains('#');
            let link = mail.split_whitespace().find(is_link).map(str::to_owned);
            if let Some(link) = link {
                break (mail, link);
            }
        };
        self.secrets.plant("mailed link", &*link);
        let code = code_in(&mail).unwrap_or_default();
        if !code.is_empty() {
            self.secrets.plant("mailed code", &*code);
        }
        (code, link.split_once('#').unwrap().1.to_owned())
    }

    async fn join(&mut self, email: &str, name: &str, password: &str) -> String {
        self.call("POST", "/v1/accounts", None, json!({ "email": email, "display_name": name })).await;
        let (code, _) = self.mail(email).await;
        let proof = json!({ "email": email, "code": code, "password": password });
        token_of(&self.call("POST", "/v1/accounts/verify", None, proof).await)
    }

    async fn sign_in(&mut self, proof: Value) -> String {
        token_of(&self.call("POST", "/v1/sessions", None, proof).await)
    }

    /// Performs all that users do, with live connections over every protocol. Returns Ana's token and a signed URL.
    async fn run(&mut self, server: &Server) -> (String, String) {
        let (none, wrong) = (Value::Null, json!({ "email": ANA, "password": PASSWORDS[3] }));
        let ana = self.join(ANA, NAMES[0], PASSWORDS[0]).await;
        self.join(BEN, NAMES[1], PASSWORDS[0]).await;
        assert_eq!(self.client.call("POST", "/v1/sessions", None, Some(&wrong), None).await.status, 401);
        for by_code in [true, false] {
            self.call("POST", "/v1/sessions/code", None, json!({ "email": ANA })).await;
            let (code, link) = self.mail(ANA).await;
            let proof =
                if by_code { json!({ "email": ANA, "code": code }) } else { json!({ "token": link }) };
            self.sign_in(proof).await;
        }
        let change = json!({ "current_password": PASSWORDS[0], "new_password": PASSWORDS[1] });
        self.call("PUT", "/v1/password", Some(&ana), change).await;
        self.call("POST", "/v1/password/forgot", None, json!({ "email": BEN })).await;
        let (_, link) = self.mail(BEN).await;
        self.call("PUT", "/v1/password", None, json!({ "token": link, "new_password": PASSWORDS[2] })).await;
        let ana = self.sign_in(json!({ "email": ANA, "password": PASSWORDS[1] })).await;
        let ben = self.sign_in(json!({ "email": BEN, "password": PASSWORDS[2] })).await;
        let (a, b) = (Some(ana.as_str()), Some(ben.as_str()));

        let invite = json!({ "email": BEN, "message": MESSAGE });
        let invite = self.call("POST", "/v1/invites", a, invite).await;
        self.mail(BEN).await;
        self.call("POST", "/v1/invites/accept", b, json!({ "code": invite["code"] })).await;

        self.call("PATCH", "/v1/couple", a, json!({ "title": TITLE })).await;
        self.register_devices(&ana).await;

        let devices =
            Protocol::ALL.map(|protocol| Device::start(protocol, vec![server.address], ben.clone(), None));
        let entry = json!({ "client_id": "1", "kind": "text", "body": { "text": ENTRY } });
        let entry = self.call("POST", "/v1/couple/entries", a, entry).await;
        for device in &devices {
            let arrived = || device.when(ENTRY).is_some();
            until(&format!("an entry over {:?}", device.protocol), LIMIT, arrived).await;
        }
        let entry = format!("/v1/couple/entries/{}", entry["seq"]);
        self.call("PATCH", &entry, a, json!({ "body": { "text": format!("{ENTRY}, edited") } })).await;
        let point = json!({ "kind": "thumb", "body": { "x": POINT, "y": POINT } });
        self.call("POST", "/v1/couple/signals", a, point).await;

        let id = self.client.upload(&ana, "photo", &png(7)).await;
        let (path, uploaded) = (format!("/v1/media/{id}"), Instant::now());
        let media = loop {
            let media = self.call("GET", &path, b, none.clone()).await;
            if media["state"] == "ready" {
                break media;
            }
            assert!(uploaded.elapsed() < LIMIT, "the picture is not decoded");
            sleep(Duration::from_millis(50)).await;
        };
        let photo = json!({ "client_id": "2", "kind": "photo", "body": { "media_id": id } });
        self.call("POST", "/v1/couple/entries", a, photo).await;
        let mut urls = Vec::new();
        find_urls(&media, &mut urls);
        assert!(!urls.is_empty(), "no signed URL: {media}");
        for url in &urls {
            let answer = self.client.send("GET", path_of(url), None, None, &[]).await.unwrap();
            // A size that is not made in time has the status 503.
            assert!([200, 503].contains(&answer.status().as_u16()), "{answer:?}");
            // The body was not read, so the connection cannot be used again.
            self.client = Client::new(server.address);
        }

        self.call("POST", "/v1/me/email", a, json!({ "new_email": NEW })).await;
        self.mail(ANA).await;
        let (code, _) = self.mail(NEW).await;
        self.call("POST", "/v1/me/email/verify", a, json!({ "email": NEW, "code": code })).await;
        self.call("GET", "/v1/me/export", a, none.clone()).await;
        self.call("DELETE", "/v1/me", b, none).await;
        (ana, urls.remove(0))
    }

    /// Registers an app and a browser for push messages.
    async fn register_devices(&mut self, token: &str) {
        let [app, endpoint, secret] =
            ["app", "endpoint", "secret"].map(|kind| format!("planted-{kind}-{:016x}", below(u64::MAX)));
        self.secrets.plant("token of a device", &*app);
        self.secrets.plant("endpoint of a browser's subscription", &*endpoint);
        self.secrets.plant("secret of a browser's subscription", &secret.as_bytes()[..16]);
        let key = HEXLOWER.decode(PUSH_KEY.as_bytes()).unwrap();
        let keys = json!({
            "p256dh": BASE64URL_NOPAD.encode(&key),
            "auth": BASE64URL_NOPAD.encode(&secret.as_bytes()[..16]),
        });
        let endpoint = format!("https://push.example.org/send/{endpoint}");
        for (id, device) in [
            (1, json!({ "platform": "fcm", "token": app, "app": "org.example.app" })),
            (2, json!({ "platform": "web_push", "subscription": { "endpoint": endpoint, "keys": keys } })),
        ] {
            let path = format!("/v1/devices/0190aaaa-0000-7000-8000-00000000000{id}");
            self.call("PUT", &path, Some(token), device).await;
        }
    }

    /// Sends secrets in requests that are refused: malformed ones, and ones with wrong credentials.
    async fn send_refused(&mut self, server: &Server, token: &str, url: &str) {
        let passwords: Vec<_> =
            (0..7).map(|_| self.secrets.password("password of a refused request")).collect();
        let tokens: Vec<_> = (0..8).map(|_| altered(token)).collect();
        for token in &tokens {
            self.secrets.plant("token of a refused request", &**token);
        }
        let wrong_url = altered(url);
        self.secrets.plant("access of a refused request", &*wrong_url);
        let wrong_access = wrong_url.split_once("access=").unwrap().1;

        let mut cut_off = json!({ "email": ANA, "password": passwords[0] }).to_string();
        cut_off.pop();
        let form = format!("email=x%40example.org&password={}", percent_encoded(&passwords[1]));
        let json = "application/json";
        for (path, kind, body, status) in [
            ("/v1/sessions", json, cut_off, 400),
            ("/v1/sessions", "application/x-www-form-urlencoded", form, 415),
            // Values of a wrong type, an unknown field, an unknown token.
            ("/v1/sessions", json, json!({ "email": ANA, "password": [passwords[2]] }).to_string(), 422),
            ("/v1/sessions", json, json!({ "email": 7, "password": passwords[3] }).to_string(), 422),
            ("/v1/accounts/verify", json, json!({ "code": 7, "password": passwords[4] }).to_string(), 422),
            ("/v1/sessions", json, json!({ "email": ANA, &*passwords[5]: "x" }).to_string(), 422),
            ("/v1/sessions", json, json!({ "token": tokens[0] }).to_string(), 422),
        ] {
            let mut client = Client::new(server.address);
            let answer = client.send_bytes("POST", path, None, Some((kind, body.into())), &[]).await.unwrap();
            assert_eq!(answer.status(), status, "{path}: {answer:?}");
        }
        let basic = format!("Basic {}", BASE64_NOPAD.encode(format!("ana:{}", passwords[6]).as_bytes()));
        let offered = format!("couple, {}", tokens[4]);
        let upgrade = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", &*offered),
        ];
        /// Names and values.
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let requests: [(String, Option<&str>, Headers<'_>, u16); 7] = [
            ("/v1/me".to_owned(), Some(&tokens[1]), &[], 401),
            ("/v1/me".to_owned(), None, &[("authorization", &*basic)], 401),
            (format!("/v1/couple/live?wait=0&access_token={}", tokens[2]), None, &[], 401),
            (format!("/v1/couple/live?wait=x&access_token={}", tokens[3]), None, &[], 422),
            ("/v1/couple/live".to_owned(), None, &upgrade, 401),
            (format!("/no/such/route/{}", tokens[5]), None, &[], 404),
            (format!("{}?access={wrong_access}", path_of(url).split('?').next().unwrap()), None, &[], 403),
        ];
        for (path, token, headers, status) in requests {
            let answer = Client::new(server.address).send("GET", &path, token, None, headers).await.unwrap();
            assert_eq!(answer.status(), status, "{path}: {answer:?}");
        }
        let live = Device::start(Protocol::SocketIo, vec![server.address], tokens[6].clone(), None);
        until("a refusal over Socket.IO", LIMIT, || !live.log.lock().unwrap().faults.is_empty()).await;
        // Not a request at all.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET /v1/me HTTP/1.1\r\nauthorization: Bearer {}\u{1}\r\n\r\n", tokens[7]);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    }
}

fn token_of(answer: &Value) -> String {
    answer["session"]["token"].as_str().unwrap().to_owned()
}

fn find_urls(body: &Value, urls: &mut Vec<String>) {
    match body {
        Value::Object(fields) => {
            urls.extend(fields.get("signed_url").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| find_urls(value, urls));
        }
        Value::Array(values) => values.iter().for_each(|value| find_urls(value, urls)),
        _ => {}
    }
}

/// Path and query of a signed URL.
fn path_of(url: &str) -> &str {
    &url[url.find("/v1/").unwrap()..]
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Runs statements of the administrator of a database server.
async fn administer<D: Database>(url: &str, statements: &[String])
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    let mut connection = D::Connection::connect(url).await.unwrap();
    for statement in statements {
        connection.execute(AssertSqlSafe(statement.clone())).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// Sets the password of a Redis server; returns its URL.
fn protect(redis: &Engine, password: &str) -> String {
    let set = |arguments: &[&str]| {
        let port = redis.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port, "acl", "setuser"]).args(arguments).output();
        assert_eq!(output.unwrap().stdout, b"OK\n");
    };
    set(&["couple", "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    set(&["default", "off"]);
    format!("redis://couple:{}@127.0.0.1:{}", percent_encoded(password), redis.port)
}

/// `database` has the user `couple` with `password`, and the database `planted`.
async fn logs_contain_no_secret(mut database: Engine, scheme: &str, password: String, mut secrets: Secrets) {
    let (folder, smtp) = (tempfile::tempdir().unwrap(), SmtpServer::start().await);
    let (mut redis, mut s3) = (Engine::start("redis").await, Engine::start("s3").await);
    let database_url =
        format!("{scheme}://couple:{}@127.0.0.1:{}/planted", percent_encoded(&password), database.port);
    let redis_url = protect(&redis, &secrets.password("password of Redis"));
    let smtp_password = secrets.password("password of SMTP");
    let smtp_url = format!("smtp://couple:{}@{}?tls=none", percent_encoded(&smtp_password), smtp.address);
    let s3_secret = secrets.password("secret of S3");
    let s3_url = format!("http://127.0.0.1:{}", s3.port);
    let key: Vec<u8> = (0..32).map(|_| u8::try_from(below(256)).unwrap()).collect();
    let key_file = folder.path().join("couple.key");
    std::fs::write(&key_file, &key).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    secrets.plant("key ring", key);
    for password in PASSWORDS {
        secrets.plant("password of a user", password);
    }
    for address in [ANA, BEN, NEW] {
        secrets.plant("address of a user", address);
    }
    for (kind, text) in [
        ("text of an entry", ENTRY),
        ("message of an invite", MESSAGE),
        ("title of a couple", TITLE),
        ("display name", NAMES[0]),
        ("display name", NAMES[1]),
        ("idempotency key", KEY),
    ] {
        secrets.plant(kind, text);
    }
    secrets.plant("point of a signal", POINT.to_string());

    let start = |role| {
        let settings = [
            ("COUPLE_DATABASE_URL", &*database_url),
            ("COUPLE_DATABASE_CONNECTIONS", "6"),
            ("COUPLE_REDIS_URL", &redis_url),
            ("COUPLE_KEY_FILE", "couple.key"),
            ("COUPLE_MAIL", &smtp_url),
            ("COUPLE_MAIL_FROM", "app@example.org"),
            ("COUPLE_BLOBS", "s3://couple/trace"),
            ("AWS_ENDPOINT_URL", &s3_url),
            ("AWS_ACCESS_KEY_ID", "couple"),
            ("AWS_SECRET_ACCESS_KEY", &s3_secret),
            ("COUPLE_ROLE", role),
            ("RUST_LOG", "trace"),
        ];
        Server::spawn(&support::binary(), folder.path(), free_address(), &settings)
    };
    let server = start("api");
    let mut client = Client::new(server.address);
    // Repeated until the schema is there.
    assert_eq!(client.call("GET", "/readyz", None, None, None).await.status, 200);
    let _worker = start("worker");
    let mut story = Story { client, smtp, secrets, calls: 0, read: BTreeMap::new() };
    let (token, url) = story.run(&server).await;
    story.send_refused(&server, &token, &url).await;
    let sign_in = BASE64_NOPAD.encode(format!("\0couple\0{smtp_password}").as_bytes());
    let sign_ins = story.smtp.sign_ins();
    assert!(sign_ins.iter().any(|line| line.contains(&sign_in)), "not signed in to SMTP: {sign_ins:?}");

    // Each engine fails, and the processes report it.
    let Story { mut client, smtp, secrets, .. } = story;
    drop(smtp);
    let address = json!({ "email": NEW });
    assert!(client.call("POST", "/v1/sessions/code", None, Some(&address), None).await.status < 300);
    until_logged(folder.path(), "job is deferred").await;
    s3.kill();
    let content = Some(("application/octet-stream", png(8).into()));
    let uploaded = Client::new(server.address)
        .send_bytes("POST", "/v1/media?purpose=photo", Some(&token), content, &[])
        .await
        .unwrap();
    assert_eq!(uploaded.status(), 503, "{uploaded:?}");
    let started = Instant::now();
    while !Log::read(folder.path()).await.text.contains("the blob store of pictures failed") {
        assert!(started.elapsed() < LIMIT, "the failure of S3 is not logged");
        client.once("GET", "/readyz", None, None, &[]).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    redis.kill();
    let proof = json!({ "email": NEW, "password": PASSWORDS[1] });
    client.call("POST", "/v1/sessions", None, Some(&proof), None).await;
    until_logged(folder.path(), "Redis failed").await;
    database.kill();
    let answer = client.once("POST", "/v1/sessions", None, Some(&proof), &[]).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    until_logged(folder.path(), "could not claim jobs").await;
    let mut late = start("worker");
    let started = Instant::now();
    while late.is_running() {
        assert!(started.elapsed() < LIMIT, "a process without a database does not end");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!late.wait().success());

    let log = Log::read(folder.path()).await;
    for line in [" TRACE ", " DEBUG ", "sqlx", "/v1/couple/entries"] {
        assert!(log.text.contains(line), "the log lacks {line}");
    }
    let kinds: BTreeSet<&str> = secrets.0.values().map(String::as_str).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS));
    let found = secrets.found_in(&log);
    assert!(found.is_empty(), "the log contains {}", found.join("\n"));
}

/// Waits for a text in the log of the processes.
async fn until_logged(folder: &Path, text: &str) {
    let started = Instant::now();
    while !Log::read(folder).await.text.contains(text) {
        assert!(started.elapsed() < LIMIT, "no line with {text:?} in the log");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_logs_over_mariadb_redis_smtp_and_s3_contain_no_secret() {
    let _alone = ALONE.lock().await;
    let (engine, mut secrets) = (Engine::start("mariadb").await, Secrets::default());
    let password = secrets.password("password of the database");
    let statements = [
        "CREATE DATABASE planted".to_owned(),
        format!("CREATE USER couple@'%' IDENTIFIED BY '{password}'"),
        "GRANT ALL ON planted.* TO couple@'%'".to_owned(),
    ];
    let admin = format!("mysql://root@127.0.0.1:{}/mysql", engine.port);
    administer::<sqlx::MySql>(&admin, &statements).await;
    logs_contain_no_secret(engine, "mysql", password, secrets).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_logs_over_postgres_redis_smtp_and_s3_contain_no_secret() {
    let _alone = ALONE.lock().await;
    // Only the administrator needs no password.
    let (folder, mut secrets) = (tempfile::tempdir().unwrap(), Secrets::default());
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "host all root 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        .unwrap();
    #[cfg(unix)]
    for path in [folder.path(), &hosts] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let engine = Engine::start_with("postgres", &["-c", &format!("hba_file={}", hosts.display())]).await;
    let password = secrets.password("password of the database");
    let statements = [
        format!("CREATE ROLE couple LOGIN PASSWORD '{password}'"),
        "CREATE DATABASE planted OWNER couple".to_owned(),
    ];
    let admin = format!("postgres://root@127.0.0.1:{}/postgres", engine.port);
    administer::<sqlx::Postgres>(&admin, &statements).await;
    logs_contain_no_secret(engine, "postgres", password, secrets).await;
}

/// The search finds a secret in every form in which a log may have it.
#[test]
fn search_finds_a_secret_in_every_encoding() {
    let (secret, mut secrets) = ("Pw\"+/% 1", Secrets::default());
    secrets.plant("password", secret);
    let bytes = secret.as_bytes();
    let body = json!({ "password": secret }).to_string();
    for line in [
        format!("it is {secret}."),
        format!("{secret:?}"),
        format!("{body:?}"),
        format!("{bytes:?}"),
        format!("{bytes:#?}"),
        format!("{bytes:x?}"),
        format!("{bytes:02X?}"),
        format!("{:?}", bytes::Bytes::from_static(b"GET Pw\"+/% 1")),
        json!({ "bytes": bytes }).to_string(),
        "https://host/Pw%22%2B%2F%25%201/x".to_owned(),
        "https://host/Pw%22%2b%2f%25%201/x".to_owned(),
        "password=Pw%22%2B%2F%25+1&x".to_owned(),
        "5077222b2f252031".to_owned(),
        "(5077222B2F252031)".to_owned(),
        "redis://u:%50%77%22%2B%2F%25%20%31@host".to_owned(),
        "redis://u:%50%77%22%2b%2f%25%20%31@host".to_owned(),
        "00000000  50 77 22 2b 2f 25 20 31  |Pw......|".to_owned(),
        "00000000: 5077 222B 2F25 2031".to_owned(),
        BASE64_NOPAD.encode(secret.as_bytes()),
        BASE64_NOPAD.encode(format!("ab{secret}").as_bytes()),
        data_encoding::BASE64.encode(format!("abcd:{secret}:x").as_bytes()),
        data_encoding::BASE64URL.encode(format!("abcde:{secret}").as_bytes()),
    ] {
        assert!(
            !secrets.found_in(&Log::new(&format!("first\n{line}\nlast"))).is_empty(),
            "not found in {line}"
        );
    }
    assert_eq!(secrets.found_in(&Log::new("first\nPw\"+/%\n 1\nlast")), Vec::<String>::new());

    let mut secrets = Secrets::default();
    secrets.plant("mailed code", "123456");
    for line in [
        "code: 123456",
        "code=123456 x",
        "code123456",
        "Your code is 123456.",
        "...123456...",
        "{\"code\":\"123456\"}",
        r#"text: "Hello,\n123456\nBye""#,
        r#"text: "Hello,\r\n123456\r\nBye""#,
        r"\t123456\t",
        r#"b"\x00\x06123456\0""#,
        r#"b"\0123456\0""#,
        r#"{"text":"\u0020123456"}"#,
        "Your%20code%20123456%20x",
        "\u{1b}[3m123456\u{1b}[0m",
        "[49, 50, 51, 52, 53, 54]",
        "20 31 32 33 34 35 36 0a",
        "2031 3233 3435 360a",
        "20313233343536",
    ] {
        assert!(!secrets.found_in(&Log::new(line)).is_empty(), "not found in {line}");
    }
    for line in [
        "2026-01-01T00:00:00.123456Z",
        "took 0.123456 s",
        "id 01234567",
        "took 5.123456ms",
        "123456.5 s",
        "0190a123-456a-7000-8000-ab123456cdef",
        "span 0xab123456",
    ] {
        assert_eq!(secrets.found_in(&Log::new(line)), Vec::<String>::new());
    }
}
