//! Requests to APNs are as Apple's documents on "Sending notification requests to APNs" demand.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Clock as _, ErrorKind, ManualClock, Secret, Timestamp,
    push::{
        Alert, Destination, LiveActivity, LiveActivityEvent, Payload, Push, Pusher as _, Surface, Urgency,
    },
};
use couple_notify::push::{Apns, ConnectionOptions};
use rcgen::{KeyPair, PublicKeyData as _};
use ring::signature::ECDSA_P256_SHA256_FIXED;
use serde_json::{Map, Value, json};

use super::{
    alert, iphone,
    jwt::verify,
    object, outcome,
    server::{PushServer, Received, Reply},
};

struct Provider {
    apns: Apns,
    server: PushServer,
    key: KeyPair,
    clock: Arc<ManualClock>,
}

impl Provider {
    /// Apple's service with the answers of `answer`.
    async fn new<A, F>(answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send,
    {
        let (server, key) = (PushServer::start(answer).await, KeyPair::generate().unwrap());
        let clock = Arc::new(ManualClock::default());
        let apns = Apns::new("KEY1234567", "TEAM123456", &key.serialize_pem(), &server.options())
            .unwrap()
            .with_servers(&server.url(), &server.url())
            .unwrap()
            .with_clock(clock.clone());
        Self { apns, server, key, clock }
    }

    async fn accepting() -> Self {
        Self::new(|_| async { Reply::status(200) }).await
    }

    /// The request for a message that is accepted.
    async fn request(&self, push: &Push) -> Received {
        self.apns.push(push).await.unwrap();
        self.server.last()
    }

    /// Claims of a request's provider token, whose signature and header are checked.
    fn claims(&self, request: &Received) -> Value {
        let token = request.header("authorization").strip_prefix("bearer ").unwrap();
        let (header, claims) = verify(token, &ECDSA_P256_SHA256_FIXED, self.key.der_bytes());
        assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &json!("KEY1234567")));
        claims
    }
}

#[tokio::test]
async fn alert_has_the_headers_and_the_payload_of_the_documents() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    push.payload = Payload::Alert(Alert {
        title: "Zoë".to_owned(),
        body: "You have a new message".to_owned(),
        badge: Some(3),
        sound: true,
        thread: Some("couple".to_owned()),
        data: object(json!({ "entry": 17, "aps": "not Apple's" })),
    });
    push.collapse = Some("couple-17".to_owned());
    push.expires_at = Some(Timestamp::from_micros(1_767_229_200_999_999));
    let request = provider.request(&push).await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/3/device/00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0");
    for (name, value) in [
        ("apns-id", "01923c8a-7b1e-7000-8000-000000000017"),
        ("apns-topic", "org.example.couple"),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-expiration", "1767229200"),
        ("apns-collapse-id", "couple-17"),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert_eq!(
        request.json(),
        json!({
            "aps": {
                "alert": { "title": "Zoë", "body": "You have a new message" },
                "badge": 3,
                "sound": "default",
                "thread-id": "couple",
            },
            "entry": 17,
        })
    );
    let claims = provider.claims(&request);
    assert_eq!(claims, json!({ "iss": "TEAM123456", "iat": provider.clock.now().micros() / 1_000_000 }));
}

#[tokio::test]
async fn optional_parts_of_an_alert_are_left_out() {
    let provider = Provider::accepting().await;
    let request = provider.request(&alert(iphone())).await;
    assert_eq!(request.json(), json!({ "aps": { "alert": { "title": "Zoë" } } }));
    assert_eq!(request.header("apns-expiration"), "0");
    assert!(!request.headers.contains_key("apns-collapse-id"));
}

#[tokio::test]
async fn each_kind_has_its_type_topic_and_priority() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    let activity = LiveActivity {
        event: LiveActivityEvent::Update,
        content: object(json!({ "mood": "happy" })),
        at: Timestamp::from_micros(1_767_225_600_000_000),
        stale_at: None,
        alert: None,
    };
    for (payload, urgency, kind, topic, priority) in [
        (push.payload.clone(), Urgency::Normal, "alert", "", "5"),
        (Payload::Background { data: Map::new() }, Urgency::High, "background", "", "5"),
        (Payload::Reload { surface: Surface::Widget }, Urgency::High, "widgets", ".push-type.widgets", "10"),
        (
            Payload::Reload { surface: Surface::Control },
            Urgency::Normal,
            "controls",
            ".push-type.controls",
            "5",
        ),
        (Payload::LiveActivity(activity), Urgency::High, "liveactivity", ".push-type.liveactivity", "10"),
    ] {
        (push.payload, push.urgency) = (payload, urgency);
        let request = provider.request(&push).await;
        assert_eq!(request.header("apns-push-type"), kind);
        assert_eq!(request.header("apns-topic"), format!("org.example.couple{topic}"));
        assert_eq!(request.header("apns-priority"), priority, "{kind}");
    }
}

#[tokio::test]
async fn background_and_reload_payloads_show_nothing() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    push.payload = Payload::Background { data: object(json!({ "seq": 5 })) };
    let request = provider.request(&push).await;
    assert_eq!(request.json(), json!({ "aps": { "content-available": 1 }, "seq": 5 }));
    for surface in [Surface::Widget, Surface::Control] {
        push.payload = Payload::Reload { surface };
        assert_eq!(provider.request(&push).await.json(), json!({ "aps": { "content-changed": true } }));
    }
    push.payload = Payload::Reload { surface: Surface::Alert };
    assert_eq!(outcome(&provider.apns.push(&push).await), "refused");
}

#[tokio::test]
async fn live_activities_start_update_and_end() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    let activity = LiveActivity {
        event: LiveActivityEvent::Start {
            attributes_type: "Together".to_owned(),
            attributes: object(json!({ "since": 2019 })),
        },
        content: object(json!({ "mood": "happy" })),
        at: Timestamp::from_micros(1_767_225_600_500_000),
        stale_at: Some(Timestamp::from_micros(1_767_225_700_000_000)),
        alert: Some(Alert { title: "Zoë".to_owned(), sound: true, ..Alert::default() }),
    };
    push.payload = Payload::LiveActivity(activity.clone());
    assert_eq!(
        provider.request(&push).await.json()["aps"],
        json!({
            "event": "start",
            "timestamp": 1_767_225_600,
            "content-state": { "mood": "happy" },
            "stale-date": 1_767_225_700,
            "attributes-type": "Together",
            "attributes": { "since": 2019 },
            "alert": { "title": "Zoë", "sound": "default" },
        })
    );
    push.payload = Payload::LiveActivity(LiveActivity { alert: None, ..activity.clone() });
    assert_eq!(outcome(&provider.apns.push(&push).await), "refused", "a start needs an alert");
    let quiet = LiveActivity { event: LiveActivityEvent::Update, stale_at: None, alert: None, ..activity };
    push.payload = Payload::LiveActivity(quiet.clone());
    assert_eq!(
        provider.request(&push).await.json()["aps"],
        json!({ "event": "update", "timestamp": 1_767_225_600, "content-state": { "mood": "happy" } })
    );
    for (dismissed_at, date) in
        [(None, None), (Some(Timestamp::from_micros(1_767_225_800_000_000)), Some(1_767_225_800))]
    {
        let event = LiveActivityEvent::End { dismissed_at };
        push.payload = Payload::LiveActivity(LiveActivity { event, ..quiet.clone() });
        let aps = provider.request(&push).await.json()["aps"].clone();
        assert_eq!(
            (aps["event"].as_str(), aps.get("dismissal-date").and_then(Value::as_i64)),
            (Some("end"), date)
        );
    }
}

#[tokio::test]
async fn collapse_id_has_at_most_64_bytes() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    for (name, is_kept) in
        [("x".repeat(64), true), ("x".repeat(65), false), ("zwei Wörter".to_owned(), false)]
    {
        push.collapse = Some(name.clone());
        let request = provider.request(&push).await;
        let id = request.header("apns-collapse-id").to_owned();
        assert_eq!(id == name, is_kept, "{id}");
        assert!(!id.is_empty() && id.len() <= 64, "{id}");
        assert_eq!(provider.request(&push).await.header("apns-collapse-id"), id, "same name, same id");
    }
}

#[tokio::test]
async fn payload_of_more_than_4096_bytes_is_not_sent() {
    let provider = Provider::accepting().await;
    let mut push = alert(iphone());
    let overhead = r#"{"aps":{"alert":{"title":""}}}"#.len();
    for (size, expected) in [(4096, "sent"), (4097, "refused")] {
        push.payload = Payload::Alert(Alert { title: "x".repeat(size - overhead), ..Alert::default() });
        assert_eq!(outcome(&provider.apns.push(&push).await), expected);
    }
    assert_eq!(provider.server.requests().len(), 1);
    assert_eq!(provider.server.last().body.len(), 4096);
}

#[tokio::test]
async fn development_builds_use_the_other_server_with_the_same_token() {
    let (production, sandbox) = (Provider::accepting().await, Provider::accepting().await);
    let options = sandbox.server.identity.trusted_by(production.server.options());
    let key = production.key.serialize_pem();
    let apns = Apns::new("KEY1234567", "TEAM123456", &key, &options)
        .unwrap()
        .with_servers(&production.server.url(), &sandbox.server.url())
        .unwrap();
    apns.push(&alert(iphone())).await.unwrap();
    let Destination::Apns { token, app, .. } = iphone() else { unreachable!() };
    apns.push(&alert(Destination::Apns { token, app, sandbox: true })).await.unwrap();
    assert_eq!((production.server.requests().len(), sandbox.server.requests().len()), (1, 1));
    let tokens = [&production, &sandbox].map(|side| side.server.last().header("authorization").to_owned());
    assert_eq!(tokens[0], tokens[1]);
}

#[tokio::test]
async fn provider_token_is_shared_by_all_messages_and_renewed_when_apns_calls_it_expired() {
    let provider = Provider::new(|request| async move {
        // The first token of the test was made at the start of the clock.
        let token = request.header("authorization").to_owned();
        let claims = token.split('.').nth(1).unwrap().to_owned();
        let claims: Value =
            serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap())
                .unwrap();
        if request.header("apns-priority") == "5" && claims["iat"] == 1_767_225_600 {
            return Reply::json(403, &json!({ "reason": "ExpiredProviderToken" }));
        }
        Reply::status(200)
    })
    .await;
    let token = |request: &Received| request.header("authorization").to_owned();
    let first = token(&provider.request(&alert(iphone())).await);
    provider.clock.advance(Duration::from_mins(10));
    assert_eq!(token(&provider.request(&alert(iphone())).await), first);
    let mut old = alert(iphone());
    old.urgency = Urgency::Normal;
    // Apple allows a new token every 20 minutes.
    assert_eq!(outcome(&provider.apns.push(&old).await), "unavailable for 600 s");
    provider.clock.advance(Duration::from_mins(10));
    let second = provider.request(&old).await;
    assert_ne!(token(&second), first);
    assert_eq!(provider.claims(&second)["iat"], 1_767_225_600 + 20 * 60);
    assert_eq!(token(&provider.request(&alert(iphone())).await), token(&second));
    provider.clock.advance(Duration::from_mins(41));
    assert_ne!(token(&provider.request(&alert(iphone())).await), token(&second));
}

#[tokio::test]
async fn each_apns_response_maps_to_its_outcome() {
    for (status, body, expected) in [
        (200, json!(null), "sent"),
        (
            410,
            json!({ "reason": "Unregistered", "timestamp": 1_767_225_600_123_i64 }),
            "gone since 1767225600123000",
        ),
        (410, json!({ "reason": "ExpiredToken" }), "gone"),
        (400, json!({ "reason": "BadDeviceToken" }), "gone"),
        (400, json!({ "reason": "DeviceTokenNotForTopic" }), "gone"),
        (400, json!({ "reason": "BadTopic" }), "misconfigured"),
        (400, json!({ "reason": "TopicDisallowed" }), "misconfigured"),
        (400, json!({ "reason": "BadCollapseId" }), "refused"),
        (400, json!({ "reason": "IdleTimeout" }), "unavailable"),
        (400, json!("nonsense"), "refused"),
        (403, json!({ "reason": "InvalidProviderToken" }), "unavailable for 300 s"),
        (404, json!({ "reason": "BadPath" }), "refused"),
        (405, json!({ "reason": "MethodNotAllowed" }), "refused"),
        (413, json!({ "reason": "PayloadTooLarge" }), "refused"),
        (429, json!({ "reason": "TooManyRequests" }), "unavailable for 7 s"),
        (429, json!({ "reason": "TooManyProviderTokenUpdates" }), "unavailable for 7 s"),
        (500, json!({ "reason": "InternalServerError" }), "unavailable for 7 s"),
        (503, json!({ "reason": "Shutdown" }), "unavailable for 7 s"),
        (302, json!(null), "refused"),
    ] {
        let answer = body.clone();
        let provider = Provider::new(move |_| {
            let reply = Reply::json(status, &answer).with_header("retry-after", "7");
            async { reply.with_header("location", "https://localhost/") }
        })
        .await;
        let sent = provider.apns.push(&alert(iphone())).await;
        assert_eq!(outcome(&sent), expected, "{status} {body}");
        assert_eq!(provider.server.requests().len(), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn errors_contain_neither_device_token_nor_provider_token() {
    let provider = Provider::new(|_| async { Reply::status(400) }).await;
    let error = format!("{:?} {:?}", provider.apns.push(&alert(iphone())).await, provider.apns);
    let authorization = provider.server.last().header("authorization").to_owned();
    assert!(!error.contains("00fc13ad") && !error.contains(&authorization[7..]), "{error}");
}

#[tokio::test]
async fn tokens_that_are_not_hexadecimal_and_other_destinations_are_not_sent() {
    let provider = Provider::accepting().await;
    for (token, app, expected) in [
        ("", "org.example", "gone"),
        ("../1", "org.example", "gone"),
        ("00fc?x", "org.example", "gone"),
        ("00fc", "org.example\r\nx: y", "refused"),
    ] {
        let (token, app) = (Secret::new(token.to_owned()), app.to_owned());
        let push = alert(Destination::Apns { token, app, sandbox: false });
        assert_eq!(outcome(&provider.apns.push(&push).await), expected);
    }
    let push = alert(Destination::Fcm { token: Secret::new("x".to_owned()), app: "y".to_owned() });
    assert_eq!(outcome(&provider.apns.push(&push).await), "misconfigured");
    assert!(provider.server.requests().is_empty());
}

#[test]
fn keys_and_urls_are_checked() {
    let (key, options) = (KeyPair::generate().unwrap().serialize_pem(), ConnectionOptions::default());
    let apns = Apns::new("KEY1234567", "TEAM123456", &key, &options).unwrap();
    for wrong in ["http://localhost", "https://localhost/path", "localhost", ""] {
        let error = apns.clone().with_servers("https://localhost", wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{wrong}");
    }
    for wrong in ["", "key", super::fcm::RSA_KEY, &key.replace("PRIVATE", "EC PRIVATE")] {
        let error = Apns::new("KEY1234567", "TEAM123456", wrong, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(!error.to_string().contains("MIG"), "{error}");
    }
    assert!(
        matches!(Apns::new("", "TEAM123456", &key, &options), Err(error) if error.kind() == ErrorKind::Misconfigured)
    );
}
