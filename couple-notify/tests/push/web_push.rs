//! Requests to push services of browsers are as RFC 8030, 8188, 8291 and 8292 demand.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Clock as _, ErrorKind, ManualClock, Secret,
    push::{
        Alert, Destination, LiveActivity, LiveActivityEvent, Payload, Push, Pusher as _, Surface, Urgency,
    },
};
use couple_notify::push::{VapidKey, WebPush};
use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, PublicKeyData as _};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::SystemRandom,
    signature::ECDSA_P256_SHA256_FIXED,
};
use serde_json::{Map, Value, json};

use super::{
    alert,
    jwt::verify,
    outcome,
    server::{PushServer, Received, Reply},
};

struct Provider {
    web_push: WebPush,
    server: PushServer,
    key: KeyPair,
    clock: Arc<ManualClock>,
}

impl Provider {
    /// Push service with the answers of `answer`.
    async fn new<A, F>(answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send,
    {
        let (server, key) = (PushServer::start(answer).await, KeyPair::generate().unwrap());
        let clock = Arc::new(ManualClock::default());
        let vapid = VapidKey::from_pem(&key.serialize_pem(), "mailto:ops@example.org").unwrap();
        let web_push = WebPush::new(vapid, &server.options())
            .with_private_hosts(["localhost", "127.0.0.1"])
            .with_clock(clock.clone());
        Self { web_push, server, key, clock }
    }

    async fn accepting() -> Self {
        Self::new(|_| async { Reply::status(201) }).await
    }

    fn endpoint(&self) -> String {
        format!("{}/send/1?token=a%2Fb", self.server.url())
    }

    /// Sends a message to a new subscription; returns the request and the decrypted message.
    async fn request(&self, push: &Push) -> (Received, Value) {
        let browser = Browser::new();
        let push = Push { to: browser.subscription(&self.endpoint()), ..push.clone() };
        self.web_push.push(&push).await.unwrap();
        let request = self.server.last();
        let message = serde_json::from_slice(&browser.decrypt(&request.body)).unwrap();
        (request, message)
    }

    /// Claims of a request's token, whose signature is checked with the key that the browser knows.
    fn claims(&self, request: &Received) -> Value {
        let parameters = request.header("authorization").strip_prefix("vapid t=").unwrap();
        let (token, key) = parameters.split_once(", k=").unwrap();
        assert_eq!(key, BASE64URL_NOPAD.encode(self.key.der_bytes()));
        let (header, claims) = verify(token, &ECDSA_P256_SHA256_FIXED, self.key.der_bytes());
        assert_eq!(header, json!({ "alg": "ES256", "typ": "JWT" }));
        claims
    }
}

/// Browser with one subscription, which can decrypt one message.
struct Browser {
    private: EphemeralPrivateKey,
    auth: [u8; 16],
}

impl Browser {
    fn new() -> Self {
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).unwrap();
        Self { private, auth: *b"authentication 1" }
    }

    fn key(&self) -> [u8; 65] {
        self.private.compute_public_key().unwrap().as_ref().try_into().unwrap()
    }

    fn subscription(&self, endpoint: &str) -> Destination {
        Destination::WebPush {
            endpoint: Secret::new(endpoint.to_owned()),
            key: self.key(),
            auth: Secret::new(self.auth),
        }
    }

    /// RFC 8188, 2 and RFC 8291, 3.
    fn decrypt(self, body: &[u8]) -> Vec<u8> {
        let own = self.key();
        let (salt, rest) = body.split_at(16);
        let (record_size, rest) = rest.split_at(4);
        assert!(u32::from_be_bytes(record_size.try_into().unwrap()) as usize >= rest.len() - 66);
        assert_eq!(rest[0], 65);
        let (sender, record) = rest[1..].split_at(65);
        let input_key =
            agree_ephemeral(self.private, &UnparsedPublicKey::new(&ECDH_P256, sender), |secret| {
                derive(&self.auth, secret, &[b"WebPush: info\0", &own, sender], 32)
            })
            .unwrap();
        let key = derive(salt, &input_key, &[b"Content-Encoding: aes128gcm\0"], 16);
        let nonce = derive(salt, &input_key, &[b"Content-Encoding: nonce\0"], 12);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut record = record.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let mut plaintext = key.open_in_place(nonce, Aad::empty(), &mut record).unwrap().to_vec();
        while plaintext.last() == Some(&0) {
            plaintext.pop();
        }
        assert_eq!(plaintext.pop(), Some(2), "delimiter of the last record");
        plaintext
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]], length: usize) -> Vec<u8> {
    let mut output = vec![0; length];
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    key.expand(info, Length(length)).unwrap().fill(&mut output).unwrap();
    output
}

fn message() -> Push {
    alert(Browser::new().subscription("https://localhost"))
}

#[tokio::test]
async fn alert_has_the_headers_of_the_rfcs_and_an_encrypted_message() {
    let provider = Provider::accepting().await;
    let mut push = message();
    push.payload = Payload::Alert(Alert {
        title: "Zoë".to_owned(),
        body: "You have a new message".to_owned(),
        badge: Some(3),
        sound: true,
        thread: None,
        data: Map::from_iter([("entry".to_owned(), 17.into())]),
    });
    push.collapse = Some("couple-17".to_owned());
    push.expires_at = Some(provider.clock.now().plus(Duration::from_hours(1)));
    let (request, message) = provider.request(&push).await;
    assert_eq!((&*request.method, &*request.path), ("POST", "/send/1?token=a%2Fb"));
    for (name, value) in [
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
        ("ttl", "3600"),
        ("urgency", "high"),
        ("topic", "couple-17"),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert_eq!(
        message,
        json!({
            "kind": "alert",
            "title": "Zoë",
            "body": "You have a new message",
            "badge": 3,
            "sound": true,
            "thread": null,
            "tag": "couple-17",
            "data": { "entry": 17 },
        })
    );
    let seconds = provider.clock.now().micros() / 1_000_000;
    assert_eq!(
        provider.claims(&request),
        json!({ "aud": provider.server.url(), "exp": seconds + 12 * 3600, "sub": "mailto:ops@example.org" })
    );
}

#[tokio::test]
async fn other_messages_have_their_kind() {
    let provider = Provider::accepting().await;
    let mut push = message();
    push.urgency = Urgency::Normal;
    for (payload, expected) in [
        (Payload::Background { data: Map::new() }, json!({ "kind": "background", "data": {} })),
        (Payload::Reload { surface: Surface::Widget }, json!({ "kind": "reload", "surface": "widget" })),
        (Payload::Reload { surface: Surface::Control }, json!({ "kind": "reload", "surface": "control" })),
    ] {
        push.payload = payload;
        let (request, message) = provider.request(&push).await;
        assert_eq!(message, expected);
        assert_eq!((request.header("urgency"), request.header("ttl")), ("normal", "0"));
        assert!(!request.headers.contains_key("topic"));
    }
    push.to = Browser::new().subscription(&provider.endpoint());
    push.payload = Payload::LiveActivity(LiveActivity {
        event: LiveActivityEvent::Update,
        content: Map::new(),
        at: provider.clock.now(),
        stale_at: None,
        alert: None,
    });
    assert_eq!(outcome(&provider.web_push.push(&push).await), "refused");
}

#[tokio::test]
async fn token_is_reused_for_an_origin_and_replaced_after_six_hours() {
    let provider = Provider::accepting().await;
    let (first, _) = provider.request(&message()).await;
    provider.clock.advance(Duration::from_mins(359));
    let (second, _) = provider.request(&message()).await;
    assert_eq!(first.header("authorization"), second.header("authorization"));
    provider.clock.advance(Duration::from_mins(1));
    let (third, _) = provider.request(&message()).await;
    assert_ne!(first.header("authorization"), third.header("authorization"));
    assert_eq!(provider.server.connections(), 1);
}

#[tokio::test]
async fn each_origin_has_its_token() {
    let (provider, other) = (Provider::accepting().await, Provider::accepting().await);
    let options = other.server.identity.trusted_by(provider.server.options());
    let key = VapidKey::from_pem(&provider.key.serialize_pem(), "mailto:ops@example.org").unwrap();
    let sender = WebPush::new(key, &options).with_private_hosts(["localhost"]);
    for side in [&provider, &other, &provider] {
        sender.push(&alert(Browser::new().subscription(&side.endpoint()))).await.unwrap();
        assert_eq!(provider.claims(&side.server.last())["aud"], side.server.url());
    }
}

#[tokio::test]
async fn message_of_more_than_4096_encrypted_bytes_is_not_sent() {
    let provider = Provider::accepting().await;
    let text = |length: usize| Payload::Background {
        data: Map::from_iter([("x".to_owned(), "x".repeat(length).into())]),
    };
    let overhead = r#"{"data":{"x":""},"kind":"background"}"#.len();
    for (length, expected) in [(3993, "sent"), (3994, "refused")] {
        let mut push = alert(Browser::new().subscription(&provider.endpoint()));
        push.payload = text(length - overhead);
        assert_eq!(outcome(&provider.web_push.push(&push).await), expected);
    }
    assert_eq!(provider.server.requests().len(), 1);
    assert_eq!(provider.server.last().body.len(), 4096);
}

#[tokio::test]
async fn each_web_push_response_maps_to_its_outcome() {
    for (status, expected) in [
        (200, "sent"),
        (201, "sent"),
        (202, "sent"),
        (301, "refused"),
        (307, "refused"),
        (400, "refused"),
        (401, "misconfigured"),
        (403, "misconfigured"),
        (404, "gone"),
        (410, "gone"),
        (413, "refused"),
        (429, "unavailable for 30 s"),
        (500, "unavailable for 30 s"),
        (503, "unavailable for 30 s"),
    ] {
        let provider = Provider::new(move |request| async move {
            let here = format!("https://{}/elsewhere", request.header("host"));
            Reply::status(status).with_header("retry-after", "30").with_header("location", &here)
        })
        .await;
        let push = alert(Browser::new().subscription(&provider.endpoint()));
        let sent = provider.web_push.push(&push).await;
        assert_eq!(outcome(&sent), expected, "{status}");
        assert_eq!(provider.server.requests().len(), 1, "{status}");
        assert!(!format!("{sent:?} {:?}", provider.web_push).contains("send/1"));
    }
}

#[tokio::test]
async fn addresses_that_are_not_public_are_never_connected_to() {
    let provider = Provider::accepting().await;
    let port = provider.server.address.port();
    let sender = provider.web_push.clone().with_private_hosts(Vec::<String>::new());
    for host in [
        "localhost",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ] {
        let push = alert(Browser::new().subscription(&format!("https://{host}:{port}/send/1")));
        assert_eq!(outcome(&sender.push(&push).await), "refused", "{host}");
    }
    assert_eq!(provider.server.connections(), 0);
    // Control: the server is reachable.
    provider.request(&message()).await;
    assert_eq!(provider.server.connections(), 1);
}

#[tokio::test]
async fn endpoints_that_are_not_https_or_not_allowed_are_refused() {
    let provider = Provider::accepting().await;
    let port = provider.server.address.port();
    let sender = provider.web_push.clone().with_allowed_hosts(["push.example"]);
    for endpoint in [
        format!("http://localhost:{port}/send/1"),
        format!("https://user:password@localhost:{port}/send/1"),
        format!("localhost:{port}/send/1"),
        String::new(),
    ] {
        let push = alert(Browser::new().subscription(&endpoint));
        assert_eq!(outcome(&provider.web_push.push(&push).await), "refused", "{endpoint}");
    }
    let push = alert(Browser::new().subscription(&provider.endpoint()));
    assert_eq!(outcome(&sender.push(&push).await), "refused");
    assert_eq!(provider.server.connections(), 0);
}

#[tokio::test]
async fn subscription_with_an_invalid_key_is_gone() {
    let provider = Provider::accepting().await;
    let to = Destination::WebPush {
        endpoint: Secret::new(provider.endpoint()),
        key: [4; 65],
        auth: Secret::new([0; 16]),
    };
    assert_eq!(outcome(&provider.web_push.push(&alert(to)).await), "gone");
    assert_eq!(outcome(&provider.web_push.push(&alert(super::iphone())).await), "misconfigured");
    assert_eq!(provider.server.connections(), 0);
}

#[test]
fn keys_are_read_from_pem_or_base64url() {
    // Key pair of the receiver in RFC 8291, appendix A.
    let public = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    let private = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    let contact = "https://example.org/contact";
    let key = VapidKey::new(public, private, contact).unwrap();
    assert_eq!(key.public_key(), public);
    assert!(!format!("{key:?}").contains(private));
    let other = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    for (public, private, contact) in [
        (other, private, contact),
        (public, "", contact),
        ("", private, contact),
        (public, "+/", contact),
        (public, private, "ops@example.org"),
    ] {
        let error = VapidKey::new(public, private, contact).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
    let pair = KeyPair::generate().unwrap();
    let key = VapidKey::from_pem(&pair.serialize_pem(), contact).unwrap();
    assert_eq!(key.public_key(), BASE64URL_NOPAD.encode(pair.der_bytes()));
}
