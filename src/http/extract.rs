//! Extractors of handlers.

use std::net::{IpAddr, SocketAddr};

use axum::{
    body::Bytes,
    extract::{
        ConnectInfo, FromRef, FromRequest, FromRequestParts, MatchedPath, Path, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use couple_core::{
    AccountId, Digest, EmailAddress, Idempotency, Keyring, Label, RequestContext, Secret, digest,
};
use serde::de::DeserializeOwned;

use super::{Api, App, HttpOptions, Problem, ProxyHeader};

/// Extractor of a JSON body, checked against its type.
///
/// Refuses with the problems of the contract: `malformed_json`, or `invalid_field` with the path of the field. Unknown fields are refused if
/// the type is declared so (`deny_unknown_fields`).
#[derive(Debug)]
pub struct JsonBody<T> {
    /// The body.
    pub value: T,
    bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let essence = kind.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new("unsupported_media_type"));
        }
        require_no_coding(request.headers())?;
        let bytes = match Bytes::from_request(request, state).await {
            Ok(bytes) => bytes,
            Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_))) => {
                return Err(Problem::new("body_too_large"));
            }
            Err(_) => return Err(Problem::new("malformed_request").detail("the body ended early")),
        };
        Ok(Self { value: parse(&bytes)?, bytes })
    }
}

/// Rejects a compressed body.
pub(super) fn require_no_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(coded) {
        return Err(Problem::new("unsupported_encoding").detail("send the body without Content-Encoding"));
    }
    Ok(())
}

/// Code of a field error for a value that the JSON grammar allows but `serde_json` cannot read.
///
/// These are a lone surrogate, a number out of the range of floats, and more than 127 levels.
fn unreadable(error: &serde_json::Error) -> Option<&'static str> {
    let message = error.to_string();
    let contains = |part: &str| message.contains(part);
    if contains("lone leading surrogate in hex escape") || contains("unexpected end of hex escape") {
        Some("invalid_unicode")
    } else if contains("number out of range") {
        Some("out_of_range")
    } else if contains("recursion limit exceeded") {
        Some("too_deep")
    } else {
        None
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |error: &serde_json::Error| {
        // Position only: serde's message could quote a secret.
        Problem::new("malformed_json").detail(format!("line {} column {}", error.line(), error.column()))
    };
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        // Serde accepts an array of fields in place of an object.
        return Err(Problem::new("invalid_field").field(".", "wrong_type"));
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    // Only an invalid body is parsed a second time, with tracking of the path, which is slower.
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.classify() != serde_json::error::Category::Data {
            let Some(code) = unreadable(&error) else { return malformed(&error) };
            // For a value that is too deep, the name of the first field is enough.
            let field = if code == "too_deep" { path.split(['.', '[']).next() } else { Some(path.as_str()) };
            return Problem::new("invalid_field").field(field.filter(|f| !f.is_empty()).unwrap_or("."), code);
        }
        let message = error.to_string();
        let field_after = |prefix: &str| {
            message.strip_prefix(prefix).and_then(|rest| rest.split('`').next()).map(|name| {
                match path.as_str() {
                    "." | "?" => name.to_owned(),
                    parent if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
                    parent => format!("{parent}.{name}"),
                }
            })
        };
        let (field, code) = if let Some(field) = field_after("missing field `") {
            (field, "required")
        } else if let Some(field) = field_after("unknown field `") {
            (field, "unknown_field")
        } else if let Some(field) = field_after("duplicate field `") {
            (field, "duplicate_field")
        } else {
            (path, "wrong_type")
        };
        Problem::new("invalid_field").field(field, code)
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// A path parameter. A value that cannot be decoded is not found.
pub(super) struct PathParam(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParam {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match <Path<String> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(Problem::new("not_found")),
        }
    }
}

/// Bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Secret<String>, Problem> {
    let unknown = || Problem::new("unauthenticated");
    let header = headers.get(header::AUTHORIZATION).ok_or_else(unknown)?;
    let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(unknown)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unknown());
    }
    Ok(Secret::new(token.trim().to_owned()))
}

/// Extractor of a request's metadata: client address, device and idempotency key (`Idempotency-Key`).
///
/// A service that is called with its context performs a repeated request once, see [`RequestContext`].
#[derive(Debug)]
pub struct RequestMeta {
    ip: Option<IpAddr>,
    device: Option<Label>,
    key: Option<String>,
    route: String,
    keys: Keyring,
}

impl RequestMeta {
    /// Context of an authenticated request with a body.
    #[must_use]
    pub fn context<T>(&self, account: AccountId, body: &JsonBody<T>) -> RequestContext {
        self.context_with(account, &body.bytes)
    }
    /// Context of an authenticated request whose idempotency fingerprint is computed from `body`.
    #[must_use]
    pub fn context_with(&self, account: AccountId, body: &[u8]) -> RequestContext {
        let account_id = account.to_string();
        self.scoped(body, |key| digest(&[account_id.as_bytes(), self.route.as_bytes(), key.as_bytes()]))
    }
    /// Context of a request without a session.
    ///
    /// Its idempotency key is scoped by `subject`, the address or token in its body, so that equal keys of two clients do not collide.
    pub(super) fn anonymous_context<T>(&self, subject: &str, body: &JsonBody<T>) -> RequestContext {
        let email = EmailAddress::parse("email", subject).ok();
        let subject = email.as_ref().map_or(subject, |email| email.key().as_str());
        let parts = |key: &str| {
            let parts = [subject.as_bytes(), self.route.as_bytes(), key.as_bytes()];
            // Keyed hash, as for the request: a token is secret, and an address is private.
            self.keys.derive("idempotency-scope", &parts)
        };
        self.scoped(&body.bytes, parts)
    }
    fn scoped(&self, body: &[u8], scope: impl Fn(&str) -> Digest) -> RequestContext {
        let idempotency = self.key.as_ref().map(|key| Idempotency {
            scope: scope(key),
            // Keyed hash: the body may contain a password, which could be guessed from a plain hash in a leaked database.
            request: self.keys.derive("idempotency-request", &[body]),
        });
        RequestContext { ip: self.ip, device: self.device.clone(), idempotency }
    }
    /// Context of a request without an idempotency key.
    #[must_use]
    pub fn context_without_key(&self) -> RequestContext {
        RequestContext { ip: self.ip, device: self.device.clone(), idempotency: None }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestMeta
where
    Api: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Api(app) = Api::from_ref(state);
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(key) => {
                let text = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
                Some(text.ok_or_else(|| Problem::new("invalid_idempotency_key"))?.to_owned())
            }
        };
        let device = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let device = device.map(|agent| agent.chars().take(120).collect::<String>());
        Ok(Self {
            ip: client_address(&app, &parts.extensions, &parts.headers),
            keys: app.backend.ports().keys.clone(),
            device: device.and_then(|agent| Label::parse("device", &agent).ok()),
            key,
            route: format!(
                "{} {}",
                parts.method,
                parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str)
            ),
        })
    }
}

/// IP address of the client that sent a request. None if the host does not provide the peer's address.
pub(super) fn client_address(app: &App, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    client(peer, headers, &app.options)
}

/// Right-most address in the forwarding header that is not a trusted proxy.
///
/// A header counts only if the peer is trusted, and only the configured one: a client could have sent the other.
fn client(peer: Option<IpAddr>, headers: &HeaderMap, options: &HttpOptions) -> Option<IpAddr> {
    let mut client = peer?;
    if !is_trusted(client, options) {
        return Some(client);
    }
    let name = match options.proxy_header {
        ProxyHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        ProxyHeader::Forwarded => header::FORWARDED,
    };
    let mut hops: Vec<IpAddr> = Vec::new();
    for value in headers.get_all(name) {
        for element in value.to_str().unwrap_or("?").split(',') {
            let node = match options.proxy_header {
                ProxyHeader::XForwardedFor => Some(element),
                ProxyHeader::Forwarded => element.split(';').find_map(|pair| {
                    let (name, value) = pair.trim().split_once('=')?;
                    name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
                }),
            };
            match node.and_then(address) {
                Some(ip) => hops.push(ip),
                // Unknown or obfuscated (RFC 7239, 6.3): addresses to the left of it cannot be trusted.
                None => hops.clear(),
            }
        }
    }
    while is_trusted(client, options) {
        match hops.pop() {
            Some(hop) => client = hop,
            None => break,
        }
    }
    Some(client)
}

/// Whether the address belongs to a trusted proxy.
pub(super) fn is_trusted(address: IpAddr, options: &HttpOptions) -> bool {
    let address = address.to_canonical();
    options.trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Parses an address with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).or_else(|| {
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|inner| inner.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, trusted: &[&str], headers: &[(&'static str, &str)]) -> String {
        seen_by(HttpOptions::default(), peer, trusted, headers)
    }

    fn seen_by(
        options: HttpOptions,
        peer: &str,
        trusted: &[&str],
        headers: &[(&'static str, &str)],
    ) -> String {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let options = options.with_trusted_proxies(trusted);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(Some(peer.parse().unwrap()), &map, &options).unwrap().to_string()
    }

    #[test]
    fn client_is_the_right_most_untrusted_hop() {
        let forged = [("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.0.0.2")];
        assert_eq!(seen("192.0.2.1", &[], &forged), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &["10.0.0.0/8"], &forged), "198.51.100.7");
        assert_eq!(seen("::ffff:10.0.0.1", &["10.0.0.0/8"], &forged), "198.51.100.7");
        assert_eq!(seen("10.0.0.1", &["10.0.0.0/8"], &[]), "10.0.0.1");
        // The other forwarding header, which the client may have sent, does not count.
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(seen("10.0.0.1", &["10.0.0.0/8"], &both), "198.51.100.7");
        assert_eq!(seen("10.0.0.1", &["10.0.0.0/8"], &[("x-forwarded-for", "6.6.6.6, junk")]), "10.0.0.1");
    }

    #[test]
    fn client_is_the_right_most_untrusted_node_of_forwarded() {
        let seen = |peer: &str, values: &[&str]| {
            let options = HttpOptions::default().with_proxy_header(ProxyHeader::Forwarded);
            let headers: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
            seen_by(options, peer, &["10.0.0.0/8", "2001:db8:ffff::/48"], &headers)
        };
        let client = "198.51.100.7";
        // Without trust in the peer, and without the header.
        assert_eq!(seen("192.0.2.1", &["for=198.51.100.7"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        for values in [
            &["for=198.51.100.7"][..],
            &["for=6.6.6.6, for=198.51.100.7, for=10.0.0.2"],
            &["for=6.6.6.6", "for=198.51.100.7", "for=\"[2001:db8:ffff::1]:443\""],
            &["for=6.6.6.6,For=\"198.51.100.7:4711\";proto=https;by=10.0.0.2"],
            &["for=6.6.6.6, proto=https;host=\"a.example\" ; FOR=198.51.100.7"],
            // A forged element cannot hide the one that the proxy adds.
            &["for=\"6.6.6.6, for=198.51.100.7"],
            &["for=6.6.6.6;by=\"", "for=198.51.100.7"],
            &["for=unknown, for=198.51.100.7"],
            &["for=_hidden, for=198.51.100.7"],
        ] {
            assert_eq!(seen("10.0.0.1", values), client, "{values:?}");
        }
        assert_eq!(seen("10.0.0.1", &["for=\"[2001:db8:1::7]:4711\""]), "2001:db8:1::7");
        // Addresses to the left of an unknown or obfuscated node cannot be trusted.
        for values in [
            &["for=198.51.100.7, for=unknown"][..],
            &["for=198.51.100.7, for=_hidden"],
            &["for=198.51.100.7, by=10.0.0.2"],
            &["for=198.51.100.7, "],
        ] {
            assert_eq!(seen("10.0.0.1", values), "10.0.0.1", "{values:?}");
        }
    }

    #[test]
    fn no_forwarding_header_is_trusted_by_default() {
        let forged = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")];
        for peer in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "::1", "fd00::1"] {
            assert_eq!(seen(peer, &[], &forged), peer);
        }
    }

    #[test]
    fn invalid_body_is_reported_with_its_field() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Example {
            #[expect(dead_code, reason = "only parsed")]
            name: String,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only parsed")]
            inner: Example,
            #[expect(dead_code, reason = "only parsed")]
            any: Option<serde_json::Value>,
        }
        let summary = |json: &str| {
            let problem = serde_json::to_value(parse::<Example>(json.as_bytes()).unwrap_err()).unwrap();
            format!("{} {} {}", problem["code"], problem["errors"][0]["field"], problem["errors"][0]["code"])
        };
        assert_eq!(summary("{"), r#""malformed_json" null null"#);
        assert_eq!(summary(r#"{"name":"a"} x"#), r#""malformed_json" null null"#);
        assert_eq!(summary("{}"), r#""invalid_field" "name" "required""#);
        assert_eq!(summary(r#"{"name":1}"#), r#""invalid_field" "name" "wrong_type""#);
        assert_eq!(
            summary(r#"{"name":"a","account_id":1}"#),
            r#""invalid_field" "account_id" "unknown_field""#
        );
        assert_eq!(summary(r#"{"name":"a","name":"b"}"#), r#""invalid_field" "name" "duplicate_field""#);
        assert_eq!(summary(r#"{"name":"\ud83d"}"#), r#""invalid_field" "name" "invalid_unicode""#);
        assert_eq!(summary(r#"{"name":"\udc00 x"}"#), r#""invalid_field" "name" "invalid_unicode""#);
        assert_eq!(summary(r#"{"name":"\q"}"#), r#""malformed_json" null null"#);
        assert_eq!(summary("{\"name\":\"a\nb\"}"), r#""malformed_json" null null"#);
        assert_eq!(summary(&"[".repeat(10_000)), r#""invalid_field" "." "wrong_type""#);

        let nested = |json: &str| {
            let problem = serde_json::to_value(parse::<Outer>(json.as_bytes()).unwrap_err()).unwrap();
            format!("{} {}", problem["errors"][0]["field"], problem["errors"][0]["code"])
        };
        assert_eq!(nested(r#"{"inner":{}}"#), r#""inner.name" "required""#);
        assert_eq!(nested(r#"{"inner":{"name":1}}"#), r#""inner.name" "wrong_type""#);
        assert_eq!(nested(r#"{"inner":{"name":"a","b":1}}"#), r#""inner.b" "unknown_field""#);
        assert_eq!(nested(r#"{"inner":{"name":"a","name":"b"}}"#), r#""inner.name" "duplicate_field""#);
        assert_eq!(nested(r#"{"inner":{"name":"\ud83d"}}"#), r#""inner.name" "invalid_unicode""#);
        assert_eq!(nested(&format!(r#"{{"any":{{"a":{}"#, "[".repeat(200))), r#""any" "too_deep""#);
    }

    #[test]
    fn compressed_body_is_refused() {
        let check = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            require_no_coding(&headers).map_err(|problem| problem.code().to_owned())
        };
        for accepted in [&[][..], &["identity"], &["Identity"], &["identity", "identity"]] {
            assert_eq!(check(accepted), Ok(()), "{accepted:?}");
        }
        for refused in [&["gzip"][..], &["br"], &[""], &["identity", "gzip"], &["gzip, identity"]] {
            assert_eq!(check(refused), Err("unsupported_encoding".to_owned()), "{refused:?}");
        }
    }
}
