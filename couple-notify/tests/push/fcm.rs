//! Requests to FCM are as Google's reference of FCM HTTP v1 and of OAuth for service accounts demands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple_core::{
    Clock as _, ErrorKind, ManualClock, Secret,
    push::{
        Alert, Destination, LiveActivity, LiveActivityEvent, Payload, Push, Pusher as _, Surface, Urgency,
    },
};
use couple_notify::push::{ConnectionOptions, Fcm};
use ring::{rsa, signature::RSA_PKCS1_2048_8192_SHA256};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{
    alert,
    jwt::verify,
    object, outcome,
    server::{PushServer, Received, Reply},
};

/// Key that was made for this test: `ring` does not generate RSA keys.
pub(crate) const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDAxBJt3sCTTMWE\n\
qtDX6uzADERsXpJiaVtdFwf74cVwPermNSTm0Xj4C/vkhejnEY7brmF8jb6PtEhI\n\
J900EJBBwX5jpDW621HrBgiLGDEHaY3XpPtDRchT26ZdxBM9YaJgFDT6z7EEY09L\n\
ESRlDBaxd0qiv0hQUrC2AI7k9X8EnURm8WNdzelgwQXk1ID3pANLsvqegtCczSnO\n\
lqyz+N2sVh0+w6+9+BNaK10/sKIG4Y5Bwp5CovQYGoDRJ+MRPNxgSgzBjfO4wdq6\n\
LwvjwslinVI8LnW40RlwWiDGlNg5uo4U3i9WSJnlOtaBGuvNJVvXD9ff66fD679d\n\
n5FC5E21AgMBAAECggEADrutsOoSi++VNSOdHLOe7rrBTAsaYx0sV3wYJx9FaOPC\n\
nV+4d0/RUBwSX5AAkhCce5vjZZKr2u3rjGBHnuAZNn1kfJcjaCm1JCJs6rypmqht\n\
p+q7LZQa0JX8LDR9R/a7Y16IAhd3rx8sA0/HGVYIMf4tHS1DiKgZS3/VbBh7Yc3F\n\
YbtEn/0M24Y7lyAFJjTyHDG8g/q36673jSb4KuQ8Q4mJDai1ux9kR5B36+QBuHcV\n\
fvGnfoeyC+m/j8dhDs8teO8TAk/cOA7mvzqkKDTqBg16dUI7sxtXKp2YPv+qHFz3\n\
PnQGtYghWFzcZvJahyc9rNeqkrXdroiKIEpiCyso4QKBgQDjzd4XmBkB+wUFF6cL\n\
JttAAdK8IZ8akO5rf3jGIvYHky9hvzLT6ATixCWCGh6Fyz+5syPMOWPdY8jmKwR+\n\
ZRuj+hsq2QLL9rkc+bmihSNux7t4USbIu6Jd2qXF6GWf586KDTi/vFytynGsHuFf\n\
n8VeP5Ks87I51JjKvBzJBStirQKBgQDYn/4rj6anEvxkswe6fj1tHQLO1NWcRHPQ\n\
Per7EV+xDnrgiqsburP/7va0B+FzJL7pqc1bgdoEyRRADwPRHSssBnsjddASp43W\n\
H6crytCCD+TXK/PzPsCHqUqEcILg0lo5hL6szNVWvel6U5G8WJ/IOxF2PJhEDpdA\n\
13R0cmeAKQKBgHUVlpTh49iUwBvB8GVW71GSnlF7pl7tJt2xgs2zomh6SdwffWxU\n\
0E4NKooYCqARuwsi+783sBBV/Sfv7DtalD5Pii8XosxaXwJ5h+P0MiX6GmzYqOp7\n\
JhS/EH0L2U+6wPlLmmNR2QCqEIq6xHN1lue+HREvn+cBUhbBYLohIg9xAoGBAJBR\n\
1zYSWEcLARfdppJ6tFXTdCFz7nRTrozYE4r9QjFlojuiZujsdCtYewfqECt0GbT2\n\
qZgDZMq3ZERhPHu+4RpNnxA610r2UiqLoAYu8scT67Pm1noCHqbDBKBDjQ5XVkDn\n\
zVi2hpNppvkWYAuJR7pQkAujxxXgWqiaYj2KUqYxAoGAOJdHugVNA9ZNH/LmWvZb\n\
KdWufKDeo61mzmDFT4Za8vZ+gZxMl7nc3a1I1Y2oAQegVzPAjD/uCiJ5OgW8ohV8\n\
mUMs0CmA9WAp9iCclPekb2Xw5etQaYXcqwlcjfwf4IjPUyyDNskPFojvJAkuLy8v\n\
NNqxafflwDGZhKuYXd2UxRs=\n\
-----END PRIVATE KEY-----\n\
";

/// Public key of [`RSA_KEY`].
#[cfg(feature = "server-tests")]
pub(crate) const RSA_PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwMQSbd7Ak0zFhKrQ1+rs\n\
wAxEbF6SYmlbXRcH++HFcD3q5jUk5tF4+Av75IXo5xGO265hfI2+j7RISCfdNBCQ\n\
QcF+Y6Q1uttR6wYIixgxB2mN16T7Q0XIU9umXcQTPWGiYBQ0+s+xBGNPSxEkZQwW\n\
sXdKor9IUFKwtgCO5PV/BJ1EZvFjXc3pYMEF5NSA96QDS7L6noLQnM0pzpass/jd\n\
rFYdPsOvvfgTWitdP7CiBuGOQcKeQqL0GBqA0SfjETzcYEoMwY3zuMHaui8L48LJ\n\
Yp1SPC51uNEZcFogxpTYObqOFN4vVkiZ5TrWgRrrzSVb1w/X3+unw+u/XZ+RQuRN\n\
tQIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

pub(crate) fn account(token_uri: &str) -> String {
    json!({
        "type": "service_account",
        "project_id": "couple-test",
        "private_key_id": "key-1",
        "private_key": RSA_KEY,
        "client_email": "push@couple-test.iam.gserviceaccount.example",
        "token_uri": token_uri,
    })
    .to_string()
}

struct Provider {
    fcm: Fcm,
    /// Google's service for tokens, and FCM.
    server: PushServer,
    clock: Arc<ManualClock>,
}

impl Provider {
    /// FCM with the answers of `answer`; its n-th access token is `token-n`, which is valid for an hour.
    async fn new<A, F>(answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send,
    {
        let grants = Arc::new(AtomicUsize::new(0));
        let server = PushServer::start(move |request: Received| {
            let (answer, grants) = (answer.clone(), grants.clone());
            async move {
                if request.path != "/token" {
                    return answer(request).await;
                }
                let n = grants.fetch_add(1, Ordering::SeqCst) + 1;
                let body = json!({
                    "access_token": format!("token-{n}"), "expires_in": 3599, "token_type": "Bearer"
                });
                Reply::json(200, &body)
            }
        })
        .await;
        Self::with(server)
    }

    fn with(server: PushServer) -> Self {
        let clock = Arc::new(ManualClock::default());
        let fcm = Fcm::new(&account(&format!("{}/token", server.url())), &server.options())
            .unwrap()
            .with_server(&server.url())
            .unwrap()
            .with_clock(clock.clone());
        Self { fcm, server, clock }
    }

    async fn accepting() -> Self {
        Self::new(|_| async { Reply::json(200, &json!({ "name": "projects/couple-test/messages/1" })) }).await
    }

    async fn request(&self, push: &Push) -> Received {
        self.fcm.push(push).await.unwrap();
        self.server.last()
    }

    /// Requests for access tokens.
    fn grants(&self) -> Vec<Received> {
        self.server.requests().into_iter().filter(|request| request.path == "/token").collect()
    }
}

pub(crate) fn android() -> Destination {
    Destination::Fcm {
        token: Secret::new("bk3RNwTe3H0:CI2k".to_owned()),
        app: "org.example.couple".to_owned(),
    }
}

#[tokio::test]
async fn alert_is_a_notification_message_with_data() {
    let provider = Provider::accepting().await;
    let mut push = alert(android());
    push.payload = Payload::Alert(Alert {
        title: "Zoë".to_owned(),
        body: "You have a new message".to_owned(),
        badge: Some(3),
        sound: true,
        thread: Some("couple".to_owned()),
        data: object(json!({ "entry": 17, "kind": "text", "nested": { "a": true } })),
    });
    push.collapse = Some("couple-17".to_owned());
    push.expires_at = Some(provider.clock.now().plus(Duration::from_millis(3_600_500)));
    let request = provider.request(&push).await;
    assert_eq!((&*request.method, &*request.path), ("POST", "/v1/projects/couple-test/messages:send"));
    assert_eq!(request.header("authorization"), "Bearer token-1");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(
        request.json(),
        json!({ "message": {
            "token": "bk3RNwTe3H0:CI2k",
            "notification": { "title": "Zoë", "body": "You have a new message" },
            "data": { "entry": "17", "kind": "text", "nested": r#"{"a":true}"# },
            "android": {
                "priority": "HIGH",
                "ttl": "3600s",
                "collapse_key": "couple-17",
                "notification": { "tag": "couple-17", "notification_count": 3, "sound": "default" },
            },
        } })
    );
}

#[tokio::test]
async fn other_messages_contain_data_only() {
    let provider = Provider::accepting().await;
    let mut push = alert(android());
    push.urgency = Urgency::Normal;
    push.payload = Payload::Background { data: object(json!({ "seq": 5 })) };
    assert_eq!(
        provider.request(&push).await.json(),
        json!({ "message": {
            "token": "bk3RNwTe3H0:CI2k",
            "data": { "seq": "5" },
            "android": { "priority": "NORMAL", "ttl": "0s" },
        } })
    );
    for (surface, name) in [(Surface::Widget, "widget"), (Surface::Control, "control")] {
        push.payload = Payload::Reload { surface };
        assert_eq!(provider.request(&push).await.json()["message"]["data"], json!({ "reload": name }));
    }
    push.expires_at = Some(provider.clock.now().plus(Duration::from_hours(24 * 365)));
    assert_eq!(provider.request(&push).await.json()["message"]["android"]["ttl"], "2419200s");
    push.payload = Payload::Reload { surface: Surface::LiveActivityStart };
    assert_eq!(outcome(&provider.fcm.push(&push).await), "refused");
    push.payload = Payload::LiveActivity(LiveActivity {
        event: LiveActivityEvent::Update,
        content: Map::new(),
        at: provider.clock.now(),
        stale_at: None,
        alert: None,
    });
    assert_eq!(outcome(&provider.fcm.push(&push).await), "refused");
}

#[tokio::test]
async fn access_token_is_requested_with_a_signed_assertion() {
    let provider = Provider::accepting().await;
    provider.fcm.push(&alert(android())).await.unwrap();
    let grant = &provider.grants()[0];
    assert_eq!(grant.method, "POST");
    assert_eq!(grant.header("content-type"), "application/x-www-form-urlencoded");
    let form: Vec<_> = url::form_urlencoded::parse(&grant.body).collect();
    assert_eq!(form[0], ("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into()));
    assert_eq!((form.len(), &*form[1].0), (2, "assertion"));
    let key = rsa_key();
    let (header, claims) = verify(&form[1].1, &RSA_PKCS1_2048_8192_SHA256, key.public().as_ref());
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": "key-1" }));
    let now = provider.clock.now().micros() / 1_000_000;
    assert_eq!(
        claims,
        json!({
            "iss": "push@couple-test.iam.gserviceaccount.example",
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": format!("{}/token", provider.server.url()),
            "iat": now,
            "exp": now + 3600,
        })
    );
}

fn rsa_key() -> rsa::KeyPair {
    use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
    let der = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY.as_bytes()).unwrap();
    rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap()
}

#[tokio::test]
async fn access_token_is_fetched_once_and_replaced_before_it_expires() {
    let provider = Provider::accepting().await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let fcm = provider.fcm.clone();
        tasks.spawn(async move { outcome(&fcm.push(&alert(android())).await) });
    }
    assert_eq!(tasks.join_all().await, vec!["sent"; 20]);
    assert_eq!(provider.grants().len(), 1);
    provider.clock.advance(Duration::from_mins(54));
    assert_eq!(provider.request(&alert(android())).await.header("authorization"), "Bearer token-1");
    provider.clock.advance(Duration::from_mins(1));
    assert_eq!(provider.request(&alert(android())).await.header("authorization"), "Bearer token-2");
}

#[tokio::test]
async fn refused_access_token_is_replaced_once() {
    let provider = Provider::new(|request: Received| async move {
        match request.header("authorization") {
            "Bearer token-1" | "Bearer token-3" | "Bearer token-4" => Reply::status(401),
            _ => Reply::status(200),
        }
    })
    .await;
    assert_eq!(outcome(&provider.fcm.push(&alert(android())).await), "sent");
    assert_eq!(outcome(&provider.fcm.push(&alert(android())).await), "sent");
    assert_eq!(provider.grants().len(), 2);
    provider.clock.advance(Duration::from_hours(1));
    assert_eq!(outcome(&provider.fcm.push(&alert(android())).await), "unavailable for 300 s");
    assert_eq!(provider.grants().len(), 4);
}

#[tokio::test]
async fn failed_grants_are_shared_and_recover() {
    let failures = Arc::new(AtomicUsize::new(0));
    for (status, body, expected) in [
        (503, json!(null), "unavailable for 9 s"),
        (429, json!(null), "unavailable for 9 s"),
        (
            400,
            json!({ "error": "invalid_grant", "error_description": "Invalid JWT" }),
            "unavailable for 300 s",
        ),
        (200, json!({ "access_token": "line\nbreak", "expires_in": 3599 }), "unavailable"),
        (200, json!({}), "unavailable"),
    ] {
        let left = failures.clone();
        left.store(1, Ordering::SeqCst);
        let server = PushServer::start(move |request: Received| {
            let fails = request.path == "/token"
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            let reply = if fails {
                Reply::json(status, &body).with_header("retry-after", "9")
            } else {
                Reply::json(200, &json!({ "access_token": "token", "expires_in": 3599 }))
            };
            async { reply }
        })
        .await;
        let provider = Provider::with(server);
        assert_eq!(outcome(&provider.fcm.push(&alert(android())).await), expected);
        assert_eq!(outcome(&provider.fcm.push(&alert(android())).await), "sent");
    }
}

#[tokio::test]
async fn each_fcm_response_maps_to_its_outcome() {
    let error = |status: &str, details: Value| json!({ "error": { "status": status, "details": details } });
    let code = |code: &str| json!([{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code }]);
    let field = |field: &str| {
        json!([
            { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT" },
            { "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{ "field": field }] },
        ])
    };
    for (status, body, delay, expected) in [
        (200, json!({}), None, "sent"),
        (404, error("NOT_FOUND", code("UNREGISTERED")), None, "gone"),
        (404, error("NOT_FOUND", json!([])), None, "unavailable for 300 s"),
        (400, error("INVALID_ARGUMENT", field("message.token")), None, "gone"),
        (400, error("INVALID_ARGUMENT", field("message.android.ttl")), None, "refused"),
        (400, error("INVALID_ARGUMENT", code("INVALID_ARGUMENT")), None, "refused"),
        (400, json!("nonsense"), None, "refused"),
        (403, error("PERMISSION_DENIED", code("SENDER_ID_MISMATCH")), None, "misconfigured"),
        (429, error("RESOURCE_EXHAUSTED", code("QUOTA_EXCEEDED")), None, "unavailable for 60 s"),
        (429, error("RESOURCE_EXHAUSTED", code("QUOTA_EXCEEDED")), Some("5"), "unavailable for 5 s"),
        (500, error("INTERNAL", code("INTERNAL")), None, "unavailable"),
        (503, error("UNAVAILABLE", code("UNAVAILABLE")), Some("5"), "unavailable for 5 s"),
    ] {
        let answer = body.clone();
        let provider =
            Provider::new(move |_| {
                let reply = Reply::json(status, &answer);
                async move {
                    delay.into_iter().fold(reply, |reply, delay| reply.with_header("retry-after", delay))
                }
            })
            .await;
        let sent = provider.fcm.push(&alert(android())).await;
        assert_eq!(outcome(&sent), expected, "{status} {body}");
        let debug = format!("{sent:?} {:?}", provider.fcm);
        assert!(!debug.contains("CI2k") && !debug.contains("token-1"), "{debug}");
    }
}

#[test]
fn service_account_is_checked() {
    let options = ConnectionOptions::default();
    let valid = account("https://oauth.example/token");
    assert!(Fcm::new(&valid, &options).is_ok());
    for (from, to) in [
        ("https://oauth", "http://oauth"),
        ("couple-test\"", "couple/../test\""),
        ("PRIVATE KEY", "PUBLIC KEY"),
        ("client_email", "client_mail"),
        ("{", "["),
    ] {
        let error = Fcm::new(&valid.replace(from, to), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{to}");
        assert!(!error.to_string().contains("MII"), "{error}");
    }
    let push = alert(super::iphone());
    let fcm = Fcm::new(&valid, &options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(outcome(&runtime.block_on(fcm.push(&push))), "misconfigured");
}
