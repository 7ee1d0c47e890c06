//! Every rate limit refuses each of the requests that it guards, by the right key.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{body::Body, extract::ConnectInfo, http::Request};
use couple::{
    Backend, Error, ManualClock,
    account::{AccountLimits, GuessLimits, HashCost, MailLimits},
    core::limits::{LimitKey, Limited, RateLimiter, Rule, rules},
    http::{HttpOptions, ProxyHeader},
    store::MemoryLimits,
};
use serde_json::{Value, json};

use crate::{
    input::{filled, operations},
    matrix::statuses,
    world::{TestResponse, World},
};

const PASSWORD: &str = "mauve kettle orbit";
const WRONG: &str = "seven violet otters";
const TARGET: &str = "ana@example.org";
const CLIENT: &str = "198.51.100.7";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Address of client number `n`, each in another network.
fn stranger(n: u32) -> String {
    format!("203.{}.{}.9", n / 250, n % 250)
}

/// Sender of a request.
#[derive(Clone, Copy, PartialEq)]
enum Caller {
    Nobody,
    Unpaired,
    /// Another account that is in no couple.
    Other,
    Member,
    Partner,
}
use Caller::{Member, Nobody, Other, Partner, Unpaired};

/// A request to send.
#[derive(Clone)]
struct Call {
    caller: Caller,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: String,
    ip: String,
}

impl Call {
    fn new(caller: Caller, method: &'static str, path: &'static str, body: &Value) -> Self {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Self { caller, method, path, headers: JSON, body, ip: CLIENT.to_owned() }
    }
    fn by(self, ip: String) -> Self {
        Self { ip, ..self }
    }
    fn with(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }
}

fn post(caller: Caller, path: &'static str, body: &Value) -> Call {
    Call::new(caller, "POST", path, body)
}

/// Behaviour of a request beyond its limit.
#[derive(Clone, Copy, PartialEq)]
enum Beyond {
    /// 429 `rate_limited` with `Retry-After`.
    Refused,
    /// The same response as below the limit, and no mail to this address.
    NoMail(&'static str),
}

/// A rate limit, the requests that use it up, and others that take from the same bucket or from another one.
struct Row {
    rule: Rule,
    beyond: Beyond,
    uses: Box<dyn Fn(u32) -> Call>,
    same_bucket: Vec<Call>,
    other_bucket: Vec<Call>,
}

fn row(
    rule: Rule,
    uses: impl Fn(u32) -> Call + 'static,
    same_bucket: Vec<Call>,
    other_bucket: Vec<Call>,
) -> Row {
    Row { rule, beyond: Beyond::Refused, uses: Box::new(uses), same_bucket, other_bucket }
}

/// Rows of the limits of one kind of mail; `calls` are the requests for it, and `target` is an address that gets it.
fn mail_rows(limits: MailLimits, calls: fn(&str) -> Vec<Call>, target: &'static str) -> Vec<Row> {
    let first = move |email: &str| calls(email).swap_remove(0);
    let all = |email: &str, ip: &str| calls(email).into_iter().map(|call| call.by(ip.to_owned())).collect();
    let (other_client, other_email) = (all(target, "192.0.2.1"), all("other@example.org", CLIENT));
    let of_address = |rule| Row {
        rule,
        beyond: Beyond::NoMail(target),
        uses: Box::new(move |n| first(target).by(stranger(n))),
        same_bucket: all(target, "192.0.2.1"),
        other_bucket: Vec::new(),
    };
    vec![
        row(
            limits.per_client,
            move |n| first(&format!("p{n}@example.org")),
            all(target, CLIENT),
            other_client,
        ),
        row(limits.per_client_and_address, move |_| first(target), all(target, CLIENT), other_email),
        of_address(limits.per_address),
        of_address(limits.per_address_and_day),
    ]
}

/// Rows of the limits of one kind of guess; `calls` are the requests that make one.
fn guess_rows(limits: GuessLimits, calls: fn(&str) -> Vec<Call>) -> Vec<Row> {
    let first = move |email: &str| calls(email).swap_remove(0);
    let all = |email: &str, ip: &str| calls(email).into_iter().map(|call| call.by(ip.to_owned())).collect();
    vec![
        row(
            limits.per_client,
            move |n| first(&format!("p{n}@example.org")),
            all(TARGET, CLIENT),
            all(TARGET, "192.0.2.1"),
        ),
        row(
            limits.per_client_and_address,
            move |_| first(TARGET),
            all(TARGET, CLIENT),
            [all("other@example.org", CLIENT), all(TARGET, "192.0.2.1")].concat(),
        ),
    ]
}

fn sign_up_mails(email: &str) -> Vec<Call> {
    vec![
        post(Nobody, "/v1/accounts", &json!({ "email": email, "display_name": "A" })),
        post(Nobody, "/v1/accounts/verify/resend", &json!({ "email": email })),
    ]
}

fn sign_in_mails(email: &str) -> Vec<Call> {
    vec![post(Nobody, "/v1/sessions/code", &json!({ "email": email }))]
}

fn password_mails(email: &str) -> Vec<Call> {
    vec![post(Nobody, "/v1/password/forgot", &json!({ "email": email }))]
}

fn email_mails(email: &str) -> Vec<Call> {
    vec![post(Unpaired, "/v1/me/email", &json!({ "new_email": email, "current_password": PASSWORD }))]
}

fn passwords(email: &str) -> Vec<Call> {
    vec![post(Nobody, "/v1/sessions", &json!({ "email": email, "password": WRONG }))]
}

fn codes(email: &str) -> Vec<Call> {
    let body = json!({ "email": email, "code": "000000" });
    vec![
        post(Nobody, "/v1/sessions", &body),
        post(Nobody, "/v1/accounts/verify", &body),
        post(Unpaired, "/v1/me/email/verify", &body),
    ]
}

fn links() -> Vec<Call> {
    let reset = json!({ "token": "password_x", "new_password": PASSWORD });
    vec![
        post(Nobody, "/v1/sessions", &json!({ "token": "sign_in_x" })),
        post(Nobody, "/v1/accounts/verify", &json!({ "token": "sign_up_x" })),
        post(Nobody, "/v1/me/email/verify", &json!({ "token": "email_x" })),
        post(Nobody, "/v1/me/email/cancel", &json!({ "token": "cancel_x" })),
        Call::new(Nobody, "PUT", "/v1/password", &reset),
    ]
}

/// Requests of an account that repeat its password.
fn repeated_passwords(caller: Caller) -> Vec<Call> {
    let email = json!({ "new_email": "new@example.org", "current_password": WRONG });
    let password = json!({ "current_password": WRONG, "new_password": "another mauve kettle" });
    vec![Call::new(caller, "PUT", "/v1/password", &password), post(caller, "/v1/me/email", &email)]
}

/// Requests that name an invite in every form.
fn invite_names(caller: Caller) -> Vec<Call> {
    let link = format!("invite_{}", "A".repeat(32));
    let forms = [
        json!({ "code": "AAAAA-AAAAA" }),
        json!({ "token": link }),
        json!({ "id": "0190aaaa-0000-7000-8000-000000000000" }),
    ];
    let paths = ["/v1/invites/preview", "/v1/invites/accept", "/v1/invites/decline"];
    paths.into_iter().flat_map(|path| forms.each_ref().map(|form| post(caller, path, form))).collect()
}

const DATE: &str = "/v1/couple/dates/0190aaaa-0000-7000-8000-000000000000";

/// Requests of a member that write to the couple, its timeline or the member's profile.
fn writes(caller: Caller) -> Vec<Call> {
    let of = |method, path, body: Value| Call::new(caller, method, path, &body);
    vec![
        of("POST", "/v1/couple/signals", json!({ "kind": "hug" })),
        of("POST", "/v1/couple/entries", json!({ "client_id": "w", "kind": "hug", "body": {} })),
        of("PATCH", "/v1/couple/entries/2", json!({ "body": { "text": "new" } })),
        of("PUT", "/v1/couple/entries/2/reaction", json!({ "emoji": "🦔" })),
        of("DELETE", "/v1/couple/entries/2/reaction", Value::Null),
        of("DELETE", "/v1/couple/entries/2", Value::Null),
        of("PUT", "/v1/couple/read", json!({ "seq": 2 })),
        of("POST", "/v1/couple/dates", json!({ "kind": "birthday", "date": "--05-04" })),
        of("PATCH", DATE, json!({ "title": "New" })),
        of("DELETE", DATE, Value::Null),
        of("PATCH", "/v1/couple", json!({ "title": "Us" })),
        of("PUT", "/v1/couple/previous", json!({ "wanted": true })),
        of("PATCH", "/v1/me", json!({ "display_name": "New" })),
        of("PATCH", "/v1/me/notifications", json!({ "previews": true })),
        of("PUT", "/v1/me/avatar", json!({ "media_id": "0190aaaa-0000-7000-8000-000000000000" })),
        of("DELETE", "/v1/me/avatar", Value::Null),
        of("PUT", "/v1/me/widget-token", Value::Null),
        of("DELETE", "/v1/me/widget-token", Value::Null),
    ]
}

/// Requests that begin an upload.
fn uploads(caller: Caller) -> Vec<Call> {
    const TUS: &[(&str, &str)] =
        &[("tus-resumable", "1.0.0"), ("upload-length", "9"), ("upload-metadata", "purpose YXZhdGFy")];
    vec![
        post(caller, "/v1/media?purpose=avatar", &json!("no picture")).with(&[]),
        post(caller, "/v1/uploads", &Value::Null).with(TUS),
    ]
}

fn devices(caller: Caller) -> Vec<Call> {
    let path = "/v1/devices/0190aaaa-0000-7000-8000-000000000000";
    let device = json!({ "platform": "fcm", "token": "a", "app": "org.example.app" });
    vec![Call::new(caller, "PUT", path, &device), Call::new(caller, "DELETE", path, &Value::Null)]
}

fn append(caller: Caller) -> Call {
    const TUS: &[(&str, &str)] = &[
        ("tus-resumable", "1.0.0"),
        ("upload-offset", "0"),
        ("content-type", "application/offset+octet-stream"),
    ];
    Call::new(caller, "PATCH", "/v1/uploads/0190aaaa-0000-7000-8000-000000000000", &json!("x")).with(TUS)
}

fn rows() -> Vec<Row> {
    let limits = AccountLimits::default();
    let invite = |caller, email: &str| post(caller, "/v1/invites", &json!({ "email": email }));
    let code = |caller, code: &str| post(caller, "/v1/invites/preview", &json!({ "code": code }));
    let mut rows = mail_rows(limits.sign_up_mail, sign_up_mails, "pending@example.org");
    rows.extend(mail_rows(limits.sign_in_mail, sign_in_mails, TARGET));
    rows.extend(mail_rows(limits.password_mail, password_mails, TARGET));
    rows.extend(mail_rows(limits.email_mail, email_mails, "fresh@example.org"));
    rows.extend(guess_rows(limits.password, passwords));
    rows.extend(guess_rows(limits.code, codes));
    rows.extend([
        row(
            limits.password_per_address,
            |n| passwords(TARGET).remove(0).by(stranger(n)),
            vec![passwords(TARGET).remove(0).by("192.0.2.1".to_owned())],
            passwords("other@example.org"),
        ),
        row(
            limits.password_per_account,
            |n| repeated_passwords(Unpaired).remove(0).by(stranger(n)),
            repeated_passwords(Unpaired),
            repeated_passwords(Other),
        ),
        row(
            limits.link_per_client,
            |_| links().remove(0),
            links(),
            links().into_iter().map(|call| call.by("192.0.2.1".to_owned())).collect(),
        ),
        row(
            rules::INVITE_MAIL_PER_ADDRESS,
            move |n| invite(if n % 2 == 0 { Unpaired } else { Other }, "guest@example.org"),
            vec![invite(Unpaired, "GUEST@example.org"), invite(Other, "guest@example.org")],
            vec![invite(Unpaired, "other@example.org")],
        ),
        row(
            rules::INVITE_MAIL_PER_ACCOUNT_AND_ADDRESS,
            move |_| invite(Unpaired, "guest@example.org"),
            vec![invite(Unpaired, "GUEST@example.org")],
            vec![invite(Unpaired, "other@example.org"), invite(Other, "guest@example.org")],
        ),
        row(
            rules::INVITE_PER_ACCOUNT,
            move |n| invite(Unpaired, "guest@example.org").by(stranger(n)),
            vec![invite(Unpaired, "other@example.org"), post(Unpaired, "/v1/invites", &json!({}))],
            vec![invite(Other, "guest@example.org")],
        ),
        row(
            rules::CODE_PER_ACCOUNT,
            move |n| code(Unpaired, &format!("AAAAA-{n:05}")).by(stranger(n)),
            invite_names(Unpaired),
            invite_names(Other),
        ),
        row(
            rules::CODE_PER_CLIENT,
            move |n| code(if n % 2 == 0 { Unpaired } else { Other }, &format!("AAAAA-{n:05}")),
            invite_names(Partner),
            invite_names(Unpaired).into_iter().map(|call| call.by("192.0.2.1".to_owned())).collect(),
        ),
        row(
            rules::TRY_PER_CODE,
            // The same code in two ways of writing it.
            move |n| code(Unpaired, if n % 2 == 0 { "AAAAA-AAAAA" } else { "aaaaaaaaaa" }).by(stranger(n)),
            invite_names(Other).into_iter().filter(|call| call.body.contains("code")).collect(),
            vec![code(Other, "AAAAA-AAAAB")],
        ),
        row(
            rules::UPLOAD_PER_ACCOUNT,
            |n| uploads(Unpaired).remove(0).by(stranger(n)),
            uploads(Unpaired),
            uploads(Other),
        ),
        row(
            rules::APPEND_PER_ACCOUNT,
            |n| append(Unpaired).by(stranger(n)),
            vec![append(Unpaired)],
            vec![append(Other)],
        ),
        row(
            rules::DEVICE_PER_ACCOUNT,
            |n| devices(Unpaired).remove(0).by(stranger(n)),
            devices(Unpaired),
            devices(Other),
        ),
        row(
            rules::WRITE_PER_ACCOUNT,
            |n| writes(Member).remove(0).by(stranger(n)),
            writes(Member),
            writes(Partner),
        ),
    ]);
    rows
}

/// Rate limiter that enforces one rule, once it is armed.
struct OneRule {
    rule: Rule,
    is_armed: AtomicBool,
    limits: MemoryLimits,
}

#[async_trait]
impl RateLimiter for OneRule {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        // By name: a client's wider networks have the same rule with a larger burst.
        match self.is_armed.load(Ordering::SeqCst) && rule.name == self.rule.name {
            true => self.limits.take(rule, key).await,
            false => Ok(Ok(())),
        }
    }
}

/// A world with all callers.
struct Fixture {
    world: World,
    tokens: [String; 4],
}

impl Fixture {
    async fn new(clock: Arc<ManualClock>, limits: impl RateLimiter, options: HttpOptions) -> Self {
        let builder = Backend::builder().limits(limits).hash_cost(HashCost::FOR_TESTS);
        let world = World::at(clock, builder, options);
        let unpaired = world.join_with_password("eve@example.org", PASSWORD).await;
        let other = world.join_with_password("fay@example.org", PASSWORD).await;
        let member = world.join_with_password(TARGET, PASSWORD).await;
        let partner = world.join("ben@example.org").await;
        world.pair(&member, &partner).await;
        world.say(&member, "hello").await;
        world.sign_up("pending@example.org").await;
        Self { world, tokens: [unpaired, other, member, partner] }
    }

    async fn send(&self, call: &Call) -> TestResponse {
        let mut request = Request::builder().method(call.method).uri(call.path);
        if call.caller != Nobody {
            let [unpaired, other, member, partner] = &self.tokens;
            let token = match call.caller {
                Unpaired | Nobody => unpaired,
                Other => other,
                Member => member,
                Partner => partner,
            };
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(call.body.clone())).unwrap();
        request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::new(call.ip.parse().unwrap(), 1)));
        self.world.raw(request).await
    }

    /// Sends a request, and reports whether it was within the limit.
    async fn is_within(&self, row: &Row, call: &Call) -> bool {
        let what = format!("{}: {} {} {}", row.rule.name, call.method, call.path, call.body);
        let answer = match row.beyond {
            Beyond::Refused => self.send(call).await,
            Beyond::NoMail(target) => {
                let sent = self.world.mails_to(target);
                let answer = self.send(call).await;
                assert_eq!(answer.status, 202, "{what}: {}", answer.body);
                self.world.work().await;
                return self.world.mails_to(target) > sent;
            }
        };
        if answer.status != 429 {
            return true;
        }
        assert_eq!(answer.code(), "rate_limited", "{what}");
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        let refill = row.rule.period.as_secs_f64() / f64::from(row.rule.burst);
        assert!(wait >= 1 && Duration::from_secs(wait - 1).as_secs_f64() < refill, "{what}: {wait} s");
        false
    }
}

#[tokio::test]
async fn used_up_rate_limit_refuses_each_of_its_requests_and_no_other() {
    for row in rows() {
        let name = row.rule.name;
        let clock = Arc::<ManualClock>::default();
        let limits = MemoryLimits::new(clock.clone());
        let limiter = Arc::new(OneRule { rule: row.rule, is_armed: AtomicBool::new(false), limits });
        let fixture = Fixture::new(clock, limiter.clone(), HttpOptions::default()).await;
        limiter.is_armed.store(true, Ordering::SeqCst);
        for n in 0..row.rule.burst {
            assert!(fixture.is_within(&row, &(row.uses)(n)).await, "{name}: request {n} is within the limit");
        }
        let next = (row.uses)(row.rule.burst);
        assert!(!fixture.is_within(&row, &next).await, "{name} does not limit {} {}", next.method, next.path);
        for call in &row.same_bucket {
            let what = format!("{} {} {}", call.method, call.path, call.body);
            assert!(!fixture.is_within(&row, call).await, "{name} does not limit {what}");
        }
        for call in &row.other_bucket {
            let what = format!("{} {} {} of {}", call.method, call.path, call.body, call.ip);
            assert!(fixture.is_within(&row, call).await, "{name} limits {what}, which has another key");
        }
        fixture.world.later(row.rule.period.div_f64(f64::from(row.rule.burst)) + Duration::from_secs(1));
        assert!(fixture.is_within(&row, &next).await, "{name} gives a token after the time of one refill");
    }
}

/// Names of rules in the source: texts with `_per_`, as every name has.
fn names_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, names);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let quoted = text.split('"').skip(1).step_by(2);
            let is_name = |text: &&str| {
                text.contains("_per_") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            names.extend(quoted.filter(is_name).map(str::to_owned));
        }
    }
}

#[test]
fn every_rate_limit_has_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for source in ["src", "couple-core/src", "couple-media/src", "couple-notify/src", "couple-store/src"] {
        names_in(&root.join(source), &mut names);
    }
    assert!(names.contains("write_per_account"), "{names:?}");
    let tested: BTreeSet<String> = rows().iter().map(|row| row.rule.name.to_owned()).collect();
    assert_eq!(names, tested, "rules in the source, and rules with a row");
}

/// Rate limiter that records the names of the rules that it is asked for.
#[derive(Default)]
struct Recorder(Mutex<BTreeSet<&'static str>>);

#[async_trait]
impl RateLimiter for Recorder {
    async fn take(&self, rule: &Rule, _: &LimitKey) -> Result<Result<(), Limited>, Error> {
        self.0.lock().unwrap().insert(rule.name);
        Ok(Ok(()))
    }
}

/// Operations that write and have no rate limit: each removes a thing of which another operation limits the number.
const WITHOUT_LIMIT: [(&str, &str); 9] = [
    ("DELETE", "/v1/sessions"),
    ("DELETE", "/v1/sessions/{id}"),
    ("DELETE", "/v1/sessions/current"),
    ("DELETE", "/v1/me"),
    ("DELETE", "/v1/invites/{id}"),
    ("DELETE", "/v1/blocks/{id}"),
    ("DELETE", "/v1/couple"),
    ("DELETE", "/v1/media/{id}"),
    ("DELETE", "/v1/uploads/{upload}"),
];

#[tokio::test]
async fn every_operation_that_writes_has_a_rate_limit() {
    let mut without = BTreeSet::new();
    let recorder = Arc::new(Recorder::default());
    let operations = operations(&World::new()).await;
    for (method, path, _) in
        operations.iter().filter(|(method, ..)| !["GET", "HEAD", "OPTIONS"].contains(&method.as_str()))
    {
        let fixture = Fixture::new(Arc::default(), recorder.clone(), HttpOptions::default()).await;
        let body = match (method.as_str(), path.as_str()) {
            // A request that changes nothing takes no token.
            ("PATCH", "/v1/me") => json!({ "display_name": "New" }),
            ("PATCH", "/v1/couple") => json!({ "title": "Us" }),
            _ => statuses(method, path).unwrap().1,
        };
        recorder.0.lock().unwrap().clear();
        for token in &fixture.tokens {
            let place = filled(path).replace("{upload}", "0190aaaa-0000-7000-8000-000000000000");
            let place = if path == "/v1/media" { format!("{place}?purpose=avatar") } else { place };
            let mut request = Request::builder().method(method.as_str()).uri(place);
            request = request.header("authorization", format!("Bearer {token}"));
            request = match path.starts_with("/v1/uploads") {
                true => append(Member)
                    .headers
                    .iter()
                    .chain(uploads(Member)[1].headers)
                    .fold(request, |request, (name, value)| request.header(*name, *value)),
                false => request.header("content-type", "application/json"),
            };
            let mut request = request.body(Body::from(body.to_string())).unwrap();
            let peer: std::net::SocketAddr = format!("{CLIENT}:1").parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            fixture.world.raw(request).await;
        }
        if recorder.0.lock().unwrap().is_empty() {
            without.insert((method.as_str(), path.as_str()));
        }
    }
    assert_eq!(without, BTreeSet::from(WITHOUT_LIMIT));
}

/// A world in which one rule is enforced, with the requests so far not counted.
async fn limited_by(rule: Rule, options: HttpOptions) -> Fixture {
    let clock = Arc::<ManualClock>::default();
    let limits = MemoryLimits::new(clock.clone());
    let limiter = Arc::new(OneRule { rule, is_armed: AtomicBool::new(false), limits });
    let fixture = Fixture::new(clock, limiter.clone(), options).await;
    limiter.is_armed.store(true, Ordering::SeqCst);
    fixture
}

/// Address number `n` without an account: each allows fewer wrong proofs a day than a client.
fn unknown(n: u32) -> String {
    format!("p{n}@example.org")
}

/// A client that can prove one address cannot reset its count of wrong proofs.
#[tokio::test]
async fn success_does_not_clear_failures_of_a_client() {
    let limits = AccountLimits::default();
    let code_of = |n| post(Unpaired, "/v1/invites/preview", &json!({ "code": format!("AAAAA-{n:05}") }));
    type Wrong = Box<dyn Fn(u32) -> Call>;
    let cases: [(Rule, Wrong, &str); 6] = [
        (limits.password.per_client, Box::new(|n| passwords(&unknown(n)).remove(0)), "password"),
        (limits.password.per_client_and_address, Box::new(|_| passwords(TARGET).remove(0)), "password"),
        (limits.code.per_client, Box::new(|n| codes(&unknown(n)).remove(0)), "code"),
        (limits.code.per_client_and_address, Box::new(|_| codes(TARGET).remove(0)), "code"),
        (limits.link_per_client, Box::new(|_| links().remove(0)), "link"),
        (rules::CODE_PER_CLIENT, Box::new(code_of), "invite"),
    ];
    for (rule, wrong, proof) in cases {
        let fixture = limited_by(rule, HttpOptions::default()).await;
        fixture.world.open("/v1/sessions/code", json!({ "email": TARGET })).await;
        fixture.world.work().await;
        let (code, link) = fixture.world.mailed(TARGET);
        let invite = fixture.world.post("/v1/invites", &fixture.tokens[1], json!({})).await.text("code");
        let right = match proof {
            "password" => post(Nobody, "/v1/sessions", &json!({ "email": TARGET, "password": PASSWORD })),
            "code" => post(Nobody, "/v1/sessions", &json!({ "email": TARGET, "code": code })),
            "link" => post(Nobody, "/v1/sessions", &json!({ "token": link })),
            _ => post(Unpaired, "/v1/invites/accept", &json!({ "code": invite })),
        };
        // A mailed code ends after five wrong ones.
        for n in 0..4 {
            assert!([401, 404, 422].contains(&fixture.send(&wrong(n)).await.status), "{} {n}", rule.name);
        }
        assert_eq!(fixture.send(&right).await.status, 201, "{}", rule.name);
        for n in 5..rule.burst {
            assert!([401, 404, 422].contains(&fixture.send(&wrong(n)).await.status), "{} {n}", rule.name);
        }
        assert_eq!(fixture.send(&wrong(rule.burst)).await.status, 429, "{}", rule.name);
    }
}

/// An IPv6 /64 is one client, and an IPv4-mapped address is its IPv4 address.
#[tokio::test]
async fn addresses_of_one_client_share_a_rate_limit() {
    let rule = AccountLimits::default().password.per_client;
    for (addresses, other) in [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"], "2001:db8:9:2::1"),
        (["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
    ] {
        let fixture = limited_by(rule, HttpOptions::default()).await;
        let from = |ip: &str, n| passwords(&unknown(n)).remove(0).by(ip.to_owned());
        for (n, address) in (0..rule.burst).zip(addresses.iter().cycle()) {
            assert_eq!(fixture.send(&from(address, n)).await.status, 401, "{n}");
        }
        for address in addresses {
            assert_eq!(fixture.send(&from(address, 999)).await.status, 429, "{address}");
        }
        assert_eq!(fixture.send(&from(other, 999)).await.status, 401, "{other}");
    }
}

/// Without a trusted proxy no header changes the client's address; with one, only the right-most address of the configured header counts.
#[tokio::test]
async fn client_cannot_choose_its_address_by_a_header() {
    let rule = AccountLimits::default().password.per_client;
    let trusted = |header| {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        HttpOptions::default().with_trusted_proxies(proxies).with_proxy_header(header)
    };
    let (for_, forwarded) = (ProxyHeader::XForwardedFor, ProxyHeader::Forwarded);
    // The header in which a client forges addresses, with a place for a number, and what the proxy adds.
    for (options, peer, name, forged, added) in [
        (HttpOptions::default(), CLIENT, "x-forwarded-for", "203.0.113.#", ""),
        (HttpOptions::default(), CLIENT, "forwarded", "for=203.0.113.#", ""),
        (HttpOptions::default(), CLIENT, "x-real-ip", "203.0.113.#", ""),
        (trusted(for_), CLIENT, "x-forwarded-for", "203.0.113.#", ""),
        (trusted(for_), "10.0.0.1", "x-forwarded-for", "203.0.113.#", ", 198.51.100.7"),
        (trusted(for_), "10.0.0.1", "x-forwarded-for", "203.0.113.#", ", 198.51.100.7, 10.0.0.2"),
        (trusted(for_), "10.0.0.1", "forwarded", "for=203.0.113.#", ""),
        (trusted(for_), "10.0.0.1", "x-real-ip", "203.0.113.#", ""),
        (trusted(forwarded), CLIENT, "forwarded", "for=203.0.113.#", ""),
        (trusted(forwarded), "10.0.0.1", "forwarded", "for=203.0.113.#", ", for=198.51.100.7"),
        (
            trusted(forwarded),
            "10.0.0.1",
            "forwarded",
            "for=203.0.113.#;by=\"",
            ", for=198.51.100.7;proto=https",
        ),
        (trusted(forwarded), "10.0.0.1", "x-forwarded-for", "203.0.113.#", ""),
    ] {
        let fixture = limited_by(rule, options).await;
        let send = async |n: u32, added: &str| {
            let body = json!({ "email": unknown(n), "password": WRONG });
            let mut request = Request::post("/v1/sessions")
                .header("content-type", "application/json")
                .header(name, format!("{}{added}", forged.replace('#', &n.to_string())))
                .body(Body::from(body.to_string()))
                .unwrap();
            let peer = std::net::SocketAddr::new(peer.parse().unwrap(), 1);
            request.extensions_mut().insert(ConnectInfo(peer));
            fixture.world.raw(request).await.status
        };
        for n in 0..rule.burst {
            assert_eq!(send(n, added).await, 401, "{name}: {forged}{added} {n}");
        }
        assert_eq!(send(rule.burst, added).await, 429, "{name}: {forged}{added} from {peer}");
        if added.contains("198.51.100.7") {
            let other = added.replace("198.51.100.7", "198.51.100.8");
            assert_eq!(send(0, &other).await, 401, "another client behind the proxy");
        }
    }
}
