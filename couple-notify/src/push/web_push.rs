//! Web Push: browsers, and other receivers of RFC 8030.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Clock, SystemClock,
    push::{Alert, Destination, Payload, Push, PushError, Pusher, Surface, Urgency},
};
use data_encoding::BASE64URL_NOPAD;
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use url::Url;

use super::{
    connect::{AllowedAddresses, ConnectionOptions, Server},
    encryption::{MAX_PLAINTEXT_BYTES, Recipient, encrypt},
    failure::{SendFailure, is_temporary, retry_after},
    http_client::{Answer, HttpClient},
    vapid::{VapidKey, VapidToken},
};

/// Maximum number of origins whose connection is kept.
const MAX_ORIGINS: usize = 32;
/// Longest time for which a message is stored: some services refuse more.
const MAX_TTL: Duration = Duration::from_hours(28 * 24);
/// Maximum size of a topic (RFC 8030, 5.4).
const MAX_TOPIC_BYTES: usize = 32;

/// Sends push messages to browsers.
///
/// A client chooses the endpoint, so it must be `https`, and the address to which its host name resolves must be on the public
/// Internet. Redirects are not followed. Each message is encrypted for its subscription (RFC 8291).
///
/// The service worker receives JSON:
///
/// | [`Payload`] | JSON |
/// |---|---|
/// | `Alert` | `{"kind": "alert", "title", "body", "badge", "sound", "thread", "tag", "data"}` |
/// | `Background` | `{"kind": "background", "data"}` |
/// | `Reload` | `{"kind": "reload", "surface"}`, where the surface is `widget` or `control` |
///
/// Missing values are `null`; `tag` is the name of what the message replaces. Live Activities are refused.
#[derive(Clone)]
pub struct WebPush {
    key: VapidKey,
    options: ConnectionOptions,
    allowed_hosts: Option<Vec<String>>,
    private_hosts: Vec<String>,
    /// Most recently used first.
    origins: Arc<Mutex<Vec<Arc<Origin>>>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for WebPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebPush")
            .field("key", &self.key)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("private_hosts", &self.private_hosts)
            .finish_non_exhaustive()
    }
}

/// Origin of endpoints, with its connection and token.
struct Origin {
    server: Server,
    /// As in a URL.
    name: String,
    client: HttpClient,
    token: VapidToken,
}

impl WebPush {
    /// Creates a sender.
    #[must_use]
    pub fn new(key: VapidKey, options: &ConnectionOptions) -> Self {
        Self {
            key,
            options: options.clone(),
            allowed_hosts: None,
            private_hosts: Vec::new(),
            origins: Arc::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sends only to these hosts and their subdomains, for example those of the browsers' push services.
    #[must_use]
    pub fn with_allowed_hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.allowed_hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Also sends to addresses that are not public if the endpoint has one of these host names: a push service in the own network.
    #[must_use]
    pub fn with_private_hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.private_hosts = hosts.into_iter().map(Into::into).collect();
        self.origins = Arc::default();
        self
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Server of an endpoint that messages may be sent to.
    fn server(&self, endpoint: &Url) -> Result<Server, SendFailure> {
        let has_credentials = !endpoint.username().is_empty() || endpoint.password().is_some();
        let server = Server::of(endpoint)
            .filter(|_| !has_credentials)
            .ok_or_else(|| SendFailure::rejected("the endpoint is not an https URL without credentials"))?;
        let is_part_of = |domain: &String| {
            server.host.strip_suffix(&**domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.allowed_hosts.as_ref().is_some_and(|hosts| !hosts.iter().any(is_part_of)) {
            return Err(SendFailure::rejected("the host of the endpoint is not one of the allowed ones"));
        }
        Ok(server)
    }

    /// Connection and token of a server; the least recently used one is dropped if there are too many.
    fn origin(&self, server: Server) -> Arc<Origin> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = match origins.iter().position(|origin| origin.server == server) {
            Some(position) => origins.remove(position),
            None => {
                let is_private = self.private_hosts.contains(&server.host);
                let addresses = if is_private { AllowedAddresses::Any } else { AllowedAddresses::Public };
                Arc::new(Origin {
                    name: format!("https://{}", server.authority()),
                    client: HttpClient::new(server.clone(), &self.options, addresses),
                    token: VapidToken::default(),
                    server,
                })
            }
        };
        origins.insert(0, origin.clone());
        origins.truncate(MAX_ORIGINS);
        origin
    }

    fn headers(&self, push: &Push, origin: &Origin) -> Result<HeaderMap, SendFailure> {
        let ttl = push.expires_at.map_or(Duration::ZERO, |at| at.since(self.clock.now())).min(MAX_TTL);
        let urgency = match push.urgency {
            Urgency::High => "high",
            Urgency::Normal => "normal",
        };
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::AUTHORIZATION, origin.token.current(&self.key, &origin.name, &*self.clock)?);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(HeaderName::from_static("ttl"), ttl.as_secs().into());
        headers.insert(HeaderName::from_static("urgency"), HeaderValue::from_static(urgency));
        if let Some(name) = push.collapse.as_deref().filter(|name| !name.is_empty()) {
            let topic = HeaderValue::try_from(topic(name))
                .map_err(|_| SendFailure::rejected("the topic is not valid"))?;
            headers.insert(HeaderName::from_static("topic"), topic);
        }
        Ok(headers)
    }

    fn failure(&self, answer: &Answer) -> PushError {
        let message = format!("the push service answers {}", answer.status.as_u16());
        let failure = match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => return PushError::Gone { since: None },
            // The key is not the one of the subscription.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SendFailure::misconfigured(message),
            status if is_temporary(status) => {
                SendFailure::unavailable(message).retry_after(retry_after(&answer.headers, self.clock.now()))
            }
            _ => SendFailure::rejected(message),
        };
        failure.into()
    }
}

#[async_trait]
impl Pusher for WebPush {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        let Destination::WebPush { endpoint, key, auth } = &push.to else {
            return Err(SendFailure::misconfigured("the destination is not of Web Push").into());
        };
        let endpoint =
            Url::parse(endpoint.expose()).map_err(|_| SendFailure::rejected("the endpoint is not a URL"))?;
        let origin = self.origin(self.server(&endpoint)?);
        let payload = payload(push)?.to_string();
        if payload.len() > MAX_PLAINTEXT_BYTES {
            return Err(SendFailure::rejected(format!(
                "the message has {} bytes; push services take {MAX_PLAINTEXT_BYTES}",
                payload.len()
            ))
            .into());
        }
        // Nothing can be encrypted for such a key, so the subscription is of no use.
        let body = encrypt(&Recipient { key, auth: auth.expose() }, payload.as_bytes())
            .map_err(|_| PushError::Gone { since: None })?;
        let headers = self.headers(push, &origin)?;
        let path = match endpoint.query() {
            Some(query) => format!("{}?{query}", endpoint.path()),
            None => endpoint.path().to_owned(),
        };
        let answer = origin.client.post(&path, &headers, &Bytes::from(body)).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.failure(&answer)) }
    }
}

/// Topic: the name itself or a digest of it.
fn topic(name: &str) -> String {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.len() <= MAX_TOPIC_BYTES && name.bytes().all(is_base64url) {
        return name.to_owned();
    }
    let mut topic = BASE64URL_NOPAD.encode(digest(&SHA256, name.as_bytes()).as_ref());
    topic.truncate(MAX_TOPIC_BYTES);
    topic
}

fn payload(push: &Push) -> Result<Value, SendFailure> {
    Ok(match &push.payload {
        Payload::Alert(Alert { title, body, badge, sound, thread, data }) => json!({
            "kind": "alert",
            "title": title,
            "body": body,
            "badge": badge,
            "sound": sound,
            "thread": thread,
            "tag": push.collapse,
            "data": data,
        }),
        Payload::Background { data } => json!({ "kind": "background", "data": data }),
        Payload::Reload { surface: Surface::Widget } => json!({ "kind": "reload", "surface": "widget" }),
        Payload::Reload { surface: Surface::Control } => json!({ "kind": "reload", "surface": "control" }),
        Payload::Reload { .. } => {
            return Err(SendFailure::rejected("only widgets and controls can be reloaded"));
        }
        Payload::LiveActivity(_) => return Err(SendFailure::rejected("browsers have no Live Activities")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_is_at_most_32_characters_of_base64url() {
        for short in ["couple_1-A", "12345678901234567890123456789012"] {
            assert_eq!(topic(short), short);
        }
        let long = ["couple 1", "couple/1", "ü", "123456789012345678901234567890123"].map(topic);
        for digest in &long {
            assert_eq!(digest.len(), 32, "{digest}");
            assert!(BASE64URL_NOPAD.decode(digest.as_bytes()).is_ok(), "{digest}");
        }
        assert_ne!(long[0], long[1]);
    }

    #[test]
    fn connections_of_the_most_recent_origins_are_kept() {
        let sender = WebPush::new(vapid_key(), &ConnectionOptions::default());
        let server = |n: usize| Server { host: format!("push{n}.example"), port: 443 };
        let (first, second) = (sender.origin(server(0)), sender.origin(server(1)));
        for n in 2..MAX_ORIGINS {
            sender.origin(server(n));
        }
        assert!(Arc::ptr_eq(&first, &sender.origin(server(0))));
        // Too many by one: the second is the least recently used one.
        sender.origin(server(MAX_ORIGINS));
        assert_eq!(sender.origins.lock().unwrap().len(), MAX_ORIGINS);
        assert!(Arc::ptr_eq(&first, &sender.origin(server(0))));
        assert!(!Arc::ptr_eq(&second, &sender.origin(server(1))));
    }

    /// Key pair of the sender in RFC 8291, appendix A.
    fn vapid_key() -> VapidKey {
        let public =
            "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
        let private = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
        VapidKey::new(public, private, "mailto:ops@example.org").unwrap()
    }

    #[test]
    fn endpoints_are_https_and_of_an_allowed_host() {
        let sender = WebPush::new(vapid_key(), &ConnectionOptions::default());
        let allows = |sender: &WebPush, url: &str| sender.server(&url.parse().unwrap()).is_ok();
        assert!(allows(&sender, "https://push.example/1"));
        for wrong in
            ["http://push.example/1", "ftp://push.example/", "https://user@push.example/1", "file:///x"]
        {
            assert!(!allows(&sender, wrong), "{wrong}");
        }
        let sender = sender.with_allowed_hosts(["push.example"]);
        for good in ["https://push.example/1", "https://PUSH.example:8443/", "https://a.b.push.example/1"] {
            assert!(allows(&sender, good), "{good}");
        }
        for wrong in ["https://example/", "https://apush.example/", "https://push.example.org/"] {
            assert!(!allows(&sender, wrong), "{wrong}");
        }
    }
}
