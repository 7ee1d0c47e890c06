//! Headers of a request never reach a mail: its links begin with the configured public URL.

use std::{collections::BTreeSet, time::Duration};

use axum::{body::Body, extract::ConnectInfo, http::Request};
use couple::{
    Backend,
    account::PurgeAccountsHandler,
    core::{limits::Unlimited, mail::Mailer as _},
    http::{HttpOptions, ProxyHeader},
    notification::NotificationPolicy,
    notify::mail::{FileMailer, Letterhead},
};
use serde_json::{Value, json};

use crate::world::{TestResponse, World};

const PUBLIC_URL: &str = "https://love.example/couple";
/// Part of every forged value.
const FORGED: &str = "forged";

/// Every header from which programs take the host or the scheme of a request, with a forged value.
const HEADERS: [(&str, &str); 28] = [
    ("host", "host.forged.example"),
    ("forwarded", "for=192.0.2.9;host=forwarded.forged.example;proto=forged;by=by.forged.example"),
    ("x-forwarded-for", "for.forged.example, 192.0.2.9"),
    ("x-forwarded-host", "xfh.forged.example"),
    ("x-forwarded-server", "xfs.forged.example"),
    ("x-forwarded-proto", "forged"),
    ("x-forwarded-protocol", "forged"),
    ("x-forwarded-scheme", "forged"),
    ("x-forwarded-ssl", "forged"),
    ("x-forwarded-port", "4711; forged"),
    ("x-forwarded-prefix", "/forged-prefix"),
    ("x-forwarded-path", "/forged-path"),
    ("x-forwarded-uri", "/forged-uri"),
    ("x-forwarded-by", "by.forged.example"),
    ("x-forwarded-user", "user@forged.example"),
    ("x-forwarded-email", "user@forged.example"),
    ("x-host", "xh.forged.example"),
    ("x-http-host-override", "override.forged.example"),
    ("x-original-host", "original.forged.example"),
    ("x-original-url", "/forged-url"),
    ("x-rewrite-url", "/forged-url"),
    ("x-real-ip", "ip.forged.example"),
    ("x-script-name", "/forged-script"),
    ("front-end-https", "forged"),
    ("via", "1.1 via.forged.example"),
    ("origin", "https://origin.forged.example"),
    ("referer", "https://referer.forged.example/"),
    ("user-agent", "forged-agent"),
];

/// Sends a request with all forged headers through a trusted proxy.
async fn send(world: &World, method: &str, path: &str, token: Option<&str>, body: &Value) -> TestResponse {
    // The target itself names another host, too.
    let mut request = Request::builder().method(method).uri(format!("http://uri.forged.example{path}"));
    for (name, value) in HEADERS {
        request = request.header(name, value);
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut request =
        request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
    let proxy: std::net::SocketAddr = "10.0.0.1:1".parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(proxy));
    let answer = world.raw(request).await;
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.body);
    let shown = format!("{:?} {}", answer.headers, answer.body);
    assert!(!shown.contains(FORGED) && !shown.contains("192.0.2.9"), "{method} {path}: {shown}");
    world.work().await;
    answer
}

/// Names of all kinds of mail except those of a host.
fn kinds_of_mail() -> BTreeSet<String> {
    let source = include_str!("../../couple-core/src/mail/mod.rs");
    let (_, rest) = source.split_once("pub enum Message {").unwrap();
    let (variants, _) = rest.split_once("\n}\n").unwrap();
    let names = variants.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let names = names.map(|line| line.trim_end_matches([' ', '{', ',']).to_owned());
    names.filter(|name| name != "Custom").collect()
}

#[tokio::test]
async fn forged_headers_reach_no_mail() {
    let proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let by_proxy = HttpOptions::default().with_trusted_proxies(proxies);
    for options in
        [HttpOptions::default(), by_proxy.clone(), by_proxy.with_proxy_header(ProxyHeader::Forwarded)]
    {
        let policy = NotificationPolicy::default().with_digests(true).with_mail_on_leave(true);
        let builder = Backend::builder().limits(Unlimited).public_url(PUBLIC_URL).notifications(policy);
        let world = World::of(builder, options);
        let (old, new) = ("ana@example.org", "new@example.org");
        let sign_up = json!({ "email": old, "display_name": "Ana" });
        send(&world, "POST", "/v1/accounts", None, &sign_up).await;
        send(&world, "POST", "/v1/accounts/verify/resend", None, &json!({ "email": old })).await;
        let (code, _) = world.mailed(old);
        let verification = json!({ "email": old, "code": code, "password": "mauve kettle orbit" });
        let verified = send(&world, "POST", "/v1/accounts/verify", None, &verification).await;
        let token = verified.body["session"]["token"].as_str().unwrap();
        send(&world, "POST", "/v1/accounts", None, &sign_up).await;
        send(&world, "POST", "/v1/sessions/code", None, &json!({ "email": old })).await;
        send(&world, "POST", "/v1/password/forgot", None, &json!({ "email": old })).await;
        let ben = world.join("ben@example.org").await;
        let to_ben = json!({ "email": "ben@example.org" });
        let invite = send(&world, "POST", "/v1/invites", Some(token), &to_ben).await.text("code");
        send(&world, "POST", "/v1/invites/accept", Some(&ben), &json!({ "code": invite })).await;
        send(&world, "PATCH", "/v1/me/notifications", Some(&ben), &json!({ "digest_minutes": 5 })).await;
        let entry = json!({ "client_id": "one", "kind": "text", "body": { "text": "Hi" } });
        send(&world, "POST", "/v1/couple/entries", Some(token), &entry).await;
        world.later(Duration::from_mins(5));
        world.work().await;
        let password =
            json!({ "current_password": "mauve kettle orbit", "new_password": "seven violet otters" });
        let changed = send(&world, "PUT", "/v1/password", Some(token), &password).await;
        let token = changed.body["session"]["token"].as_str().unwrap();
        send(&world, "POST", "/v1/me/email", Some(token), &json!({ "new_email": new })).await;
        let (_, link) = world.mailed(new);
        send(&world, "POST", "/v1/me/email/verify", None, &json!({ "token": link })).await;
        // A mail shows one header: the name of a new device, which is absent here.
        let session = json!({ "email": new, "password": "seven violet otters" });
        assert_eq!(world.open("/v1/sessions", session).await.status, 201);
        world.work().await;
        send(&world, "DELETE", "/v1/me", Some(token), &Value::Null).await;
        world.later(Duration::from_hours(24 * 15));
        let purge = PurgeAccountsHandler::new(world.backend.ports().clone(), 20);
        assert_eq!(purge.run_once().await.unwrap().purged, 1);
        world.work().await;

        let mails = world.mailer.sent();
        let folder = tempfile::tempdir().unwrap();
        let files =
            FileMailer::new(folder.path(), Letterhead::new("Love", "app@love.example").unwrap()).unwrap();
        let mut kinds = BTreeSet::new();
        for mail in &mails {
            let shown = format!("{:?}", mail.message);
            kinds.insert(shown.split([' ', '(']).next().unwrap().to_owned());
            files.send(mail).await.unwrap();
        }
        assert_eq!(kinds, kinds_of_mail(), "every kind of mail was sent");
        let (mut written, mut links) = (0, 0);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let raw = std::fs::read(file.unwrap().path()).unwrap();
            let parsed = mail_parser::MessageParser::default().parse(&raw).unwrap();
            let mut parts = vec![String::from_utf8_lossy(&raw).into_owned()];
            parts.extend((0..9).filter_map(|part| parsed.body_text(part)).map(String::from));
            parts.extend((0..9).filter_map(|part| parsed.body_html(part)).map(String::from));
            for text in &parts {
                assert!(!text.contains(FORGED) && !text.contains("192.0.2.9"), "{text}");
            }
            for text in &parts[1..] {
                for (at, _) in text.match_indices("://") {
                    let start =
                        text[..at].rfind(|before: char| !before.is_ascii_alphabetic()).map_or(0, |at| at + 1);
                    assert!(text[start..].starts_with(PUBLIC_URL), "{}", &text[start..]);
                    links += 1;
                }
            }
            written += 1;
        }
        assert_eq!(written, mails.len());
        assert!(links >= 7, "{links} links in {written} mails");
    }
}
