//! The pages of the server example: start page, demo, mailbox and API reference.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Client, Server, free_address};

static BINARY: LazyLock<PathBuf> = LazyLock::new(support::binary);

struct Page {
    status: u16,
    head: String,
    body: String,
}

impl Page {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            line.split_once(": ")
                .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        });
        line.unwrap_or("")
    }
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

fn send(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n").unwrap();
    stream
}

/// Answer to a GET request with exactly these headers.
fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Page {
    let mut bytes = Vec::new();
    send(address, path, headers).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(address: SocketAddr, path: &str) -> Page {
    get_with(address, path, &[("host", &address.to_string())])
}

/// Addresses below `/assets/` that a page names.
fn assets_of(page: &str) -> Vec<String> {
    let addresses = page.split('"').filter(|part| part.starts_with("/assets/"));
    addresses.map(str::to_owned).collect()
}

const PAGES: [&str; 4] = ["/", "/demo/", "/docs/", "/dev/mail/"];

#[tokio::test]
async fn pages_are_served_on_loopback_with_a_strict_policy() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    let host = address.to_string();
    let assert_policy = |path: &str, page: &Page| {
        let policy = page.header("content-security-policy");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe-"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    };
    let mut assets = std::collections::BTreeSet::new();
    for path in PAGES {
        let page = get(address, path);
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert_policy(path, &page);
        assert!(
            !page.body.contains("<style")
                && !page.body.contains("<script>")
                && !page.body.contains(" style="),
            "{path}"
        );
        assert!(!page.body.contains("https://"), "{path} loads something of another server");
        // The client asks again each time, and gets an unchanged page once.
        assert_eq!(page.header("cache-control"), "no-cache");
        let again = get_with(address, path, &[("host", &host), ("if-none-match", page.header("etag"))]);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assets.extend(assets_of(&page.body));
    }
    let mut sizes = (0, 0);
    for path in &assets {
        let file = get(address, path);
        assert_eq!(file.status, 200, "{path}");
        let media_type = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(file.header("content-type"), media_type, "{path}");
        assert_policy(path, &file);
        // The address names the content.
        assert_eq!(file.header("cache-control"), "max-age=31536000, immutable", "{path}");
        assert_eq!((file.header("vary"), file.header("content-encoding")), ("accept-encoding", ""));
        let gzip = get_with(address, path, &[("host", &host), ("accept-encoding", "gzip, br")]);
        assert_eq!(gzip.header("vary"), "accept-encoding");
        if file.body.len() > 1024 {
            assert_eq!(gzip.header("content-encoding"), "gzip", "{path}");
        }
        let length = |page: &Page| page.header("content-length").parse::<usize>().unwrap();
        sizes = (sizes.0 + length(&file), sizes.1 + length(&gzip));
        let old = path.replacen(path.split('/').nth(2).unwrap(), "0123456789abcdef", 1);
        assert_eq!(get(address, &old).status, 404, "another version");
    }
    assert!(assets.len() > 30 && sizes.1 * 3 < sizes.0, "{} files, {sizes:?} bytes", assets.len());
    for path in ["/demo", "/docs", "/dev/mail"] {
        let page = get(address, path);
        assert_eq!((page.status, page.header("location")), (308, format!("{path}/").as_str()));
    }
    let info = get(address, "/dev/info").json();
    assert_eq!((info["store"].as_str(), info["mailbox"].as_bool()), (Some("SQLite"), Some(true)));
    let mails = folder.path().canonicalize().unwrap().join("couple-data/mail");
    assert_eq!(info["mail_folder"].as_str(), mails.to_str());
    // The rest of the server answers as before.
    assert_eq!(get(address, "/v1/openapi.json").status, 200);
    assert_eq!(get(address, "/nothing").header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn pages_are_refused_to_other_sites_and_through_proxies() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    let own = address.to_string();
    let status = |path: &str, headers: &[(&str, &str)]| get_with(address, path, headers).status;
    let asset = &assets_of(&get(address, "/").body)[0];
    let paths = PAGES.into_iter().chain(["/dev/info", "/dev/mail/messages", "/dev/mail/events", asset]);
    for path in paths {
        // A name of another site that resolves to this server (DNS rebinding).
        let rebound = format!("evil.example:{}", address.port());
        assert_eq!(status(path, &[("host", &rebound)]), 403, "{path}");
        assert_eq!(status(&format!("http://{rebound}{path}"), &[("host", &own)]), 403, "{path}");
        assert_eq!(status(path, &[("host", "127.0.0.1:1")]), 403, "{path}");
        // The server refuses a request with two `Host` headers before the pages' check of the host runs.
        let (good, bad) = (("host", own.as_str()), ("host", rebound.as_str()));
        assert_eq!(status(path, &[good, bad]), 400, "{path}");
        assert_eq!(status(path, &[bad, good]), 400, "{path}");
        for foreign in [
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            assert_eq!(status(path, &[("host", &own), foreign]), 403, "{path} {foreign:?}");
        }
    }
    // Under another loopback name, a page redirects to the address that the API's URLs have.
    let local = format!("localhost:{}", address.port());
    let page = get_with(address, "/demo/", &[("host", &local)]);
    assert_eq!((page.status, page.header("location")), (307, format!("http://{address}/demo/").as_str()));
    assert_eq!(status("/dev/info", &[("host", &local)]), 200);
    assert_eq!(
        status("/v1/capabilities", &[("host", "evil.example")]),
        200,
        "the API has no secrets of its own"
    );
}

#[tokio::test]
async fn pages_are_absent_unless_the_server_is_local_or_a_demo() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [
        [("COUPLE_DEMO", "off"), ("RUST_LOG", "info")],
        [("COUPLE_PUBLIC_URL", "https://app.example.org"), ("RUST_LOG", "info")],
        [("COUPLE_TRUSTED_PROXIES", "127.0.0.1"), ("RUST_LOG", "info")],
    ] {
        let address = free_address();
        let server = Server::spawn(&BINARY, folder.path(), address, &settings);
        server.until_ready().await;
        for path in PAGES.into_iter().chain(["/dev/info", "/dev/mail/messages", "/assets/current/style.css"])
        {
            assert_eq!(get(address, path).status, 404, "{path} with {settings:?}");
        }
    }
    // On all addresses; the test itself connects to a loopback address.
    let port = free_address().port();
    let (all, local) = (SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([127, 0, 0, 1], port)));
    let (listen, url) = (all.to_string(), format!("http://demo.example.org:{port}"));
    let serve = async |more: &[(&str, &str)]| {
        let settings = [&[("COUPLE_LISTEN", listen.as_str())], more].concat();
        let mut server = Server::spawn(&BINARY, folder.path(), all, &settings);
        server.address = local;
        server.until_ready().await;
        server
    };
    let server = serve(&[]).await;
    assert_eq!(get(local, "/").status, 404, "a public address serves no pages");
    drop(server);
    let server = serve(&[("COUPLE_DEMO", "on"), ("COUPLE_PUBLIC_URL", &url)]).await;
    let host = format!("demo.example.org:{port}");
    let page = |path| get_with(local, path, &[("host", host.as_str()), ("x-forwarded-for", "10.0.0.1")]);
    assert_eq!((page("/").status, page("/dev/mail/messages").status), (200, 200));
    assert!(page("/dev/info").json()["database"].is_null(), "a public address does not tell paths");
    drop(server);
    let smtp = [("COUPLE_MAIL", "smtp://localhost:1"), ("COUPLE_MAIL_FROM", "app@example.org")];
    let server = Server::spawn(&BINARY, folder.path(), local, &smtp);
    server.until_ready().await;
    assert_eq!((get(local, "/").status, get(local, "/dev/mail/messages").status), (200, 404));
}

#[tokio::test]
async fn push_log_has_each_message_or_the_reason_why_none_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    assert_eq!(get(address, "/dev/mail/pushes").json(), json!([]));
    let host = address.to_string();
    let mut events = BufReader::new(send(address, "/dev/mail/events", &[("host", &host)])).lines();
    while !events.next().unwrap().unwrap().is_empty() {}
    let mut next = |event: &str| -> Value {
        let name = format!("event: {event}");
        events.by_ref().map(Result::unwrap).find(|line| *line == name).unwrap();
        let data = events.by_ref().map(Result::unwrap).find(|line| line.starts_with("data: ")).unwrap();
        serde_json::from_str(&data["data: ".len()..]).unwrap()
    };
    let mut client = Client::new(address);
    let mut tokens = Vec::new();
    for name in ["ana", "ben"] {
        let email = format!("{name}@example.org");
        let body = json!({ "email": email, "display_name": name });
        assert_eq!(client.call("POST", "/v1/accounts", None, Some(&body), None).await.status, 202);
        let body = json!({ "email": email, "code": next("mail")["code"] });
        let session = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
        tokens.push(session.body["session"]["token"].as_str().unwrap().to_owned());
    }
    let [ana, ben] = [tokens[0].as_str(), tokens[1].as_str()];
    let invite = client.call("POST", "/v1/invites", Some(ana), Some(&json!({})), None).await;
    let code = json!({ "code": invite.body["code"] });
    let paired = client.call("POST", "/v1/invites/accept", Some(ben), Some(&code), None).await;
    assert_eq!(paired.status, 201, "{}", paired.body);
    let report = next("push");
    assert_eq!(report["kind"], "pairing");
    assert_eq!(report["result"], "not sent: the recipient has no device that shows notifications");
    let device = json!({ "platform": "fcm", "token": "secret-token", "app": "org.example.app" });
    let path = "/v1/devices/0190f1a2-6c1d-7e8f-b3a7-9d2c5e7f1a08";
    let put = client.call("PUT", path, Some(ben), Some(&device), None).await;
    assert!([200, 201].contains(&put.status), "{} {}", put.status, put.body);
    let entry = json!({ "kind": "text", "client_id": "one", "body": { "text": "Hi" } });
    let appended = client.call("POST", "/v1/couple/entries", Some(ana), Some(&entry), None).await;
    assert!([200, 201].contains(&appended.status), "{} {}", appended.status, appended.body);
    let report = next("push");
    assert_eq!((report["result"].as_str(), report["service"].as_str()), (Some("accepted"), Some("fcm")));
    assert_eq!(report["message"]["title"], "You have a new message");
    let all = get(address, "/dev/mail/pushes");
    let [newest, oldest] = all.json().as_array().unwrap().clone().try_into().unwrap();
    assert_eq!((newest, oldest["id"].as_u64()), (report, Some(1)));
    assert!(!all.body.contains("secret-token"), "{}", all.body);
}

#[tokio::test]
async fn mailbox_has_each_mail_and_follows_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    assert_eq!(get(address, "/dev/mail/messages").json(), json!([]));
    let host = address.to_string();
    let mut events = BufReader::new(send(address, "/dev/mail/events", &[("host", &host)])).lines();
    while !events.next().unwrap().unwrap().is_empty() {}
    let mut client = Client::new(address);
    for name in ["ana", "ben"] {
        let body = json!({ "email": format!("{name}@example.org"), "display_name": name });
        assert_eq!(client.call("POST", "/v1/accounts", None, Some(&body), None).await.status, 202);
        let data = events.by_ref().map(Result::unwrap).find(|line| line.starts_with("data: ")).unwrap();
        let mail: Value = serde_json::from_str(&data["data: ".len()..]).unwrap();
        assert_eq!(mail["to"], format!("{name}@example.org"));
    }
    let mails = get(address, "/dev/mail/messages").json();
    let newest = &mails[0];
    assert_eq!((mails.as_array().unwrap().len(), newest["to"].as_str()), (2, Some("ben@example.org")));
    assert!(newest["text"].as_str().unwrap().contains("The code works for 10 minutes"), "{newest}");
    assert!(
        newest["headers"].as_array().unwrap().iter().any(|header| header["name"] == "Message-ID"),
        "{newest}"
    );
    let id = newest["id"].as_str().unwrap();
    assert_eq!(get(address, &format!("/dev/mail/messages/{id}")).json(), *newest);
    // The HTML has a policy of its own, under which nothing of it runs.
    for (colours, dark) in [("light", "@media not all {"), ("dark", "@media all {")] {
        let html = get(address, &format!("/dev/mail/messages/{id}/html?colours={colours}"));
        assert_eq!((html.status, html.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = html.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && policy.contains("; sandbox;"), "{policy}");
        assert!(!policy.contains("script-src"), "{policy}");
        assert!(html.body.contains(newest["code"].as_str().unwrap()), "{}", html.body);
        assert!(html.body.contains(dark), "{}", html.body);
    }
    let body = json!({ "email": "ben@example.org", "code": newest["code"] });
    assert_eq!(client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await.status, 200);
    let link = newest["link"].as_str().unwrap();
    let page =
        get(address, link.strip_prefix(&format!("http://{address}")).unwrap().split('#').next().unwrap());
    assert_eq!(page.status, 200, "{link}");

    // An id is the name of a file in the folder, and never a path.
    std::fs::write(folder.path().join("couple-data/secret.eml"), "Subject: secret\r\n\r\nsecret").unwrap();
    for id in [
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "../secret",
        "..%5csecret",
        "%2fetc%2fpasswd",
        "secret",
        ".",
        "%00",
    ] {
        for path in [format!("/dev/mail/messages/{id}"), format!("/dev/mail/messages/{id}/html?colours=dark")]
        {
            let page = get(address, &path);
            let denied = page.status == 404 && !page.body.contains("secret");
            assert!(denied, "{path}: {} {}", page.status, page.body);
        }
    }

    // An open event stream does not delay the end of the server.
    let begun = tokio::time::Instant::now();
    assert!(Command::new("kill").arg(server.pid().to_string()).status().unwrap().success());
    assert!(server.wait().success() && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Lines that a server prints at its start, up to the one with the address to open.
fn start_lines(settings: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    // So few files that the server warns.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "ulimit -n 512; exec \"$0\" 2>&1"])
        .arg(&*BINARY)
        .current_dir(folder.path())
        .env_clear()
        .envs(settings.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
        let is_last = line.starts_with("open ");
        lines.push(line);
        if is_last {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lines
}

#[test]
fn last_line_at_the_start_names_the_page() {
    let (address, admin) = (free_address().to_string(), free_address().to_string());
    let lines = start_lines(&[("COUPLE_LISTEN", &address), ("COUPLE_ADMIN_LISTEN", &admin)]);
    assert_eq!(lines.last(), Some(&format!("open http://{address}/")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("the limit on open files")), "{lines:#?}");
    let admin = format!("  serves /metrics, /healthz and /readyz on http://{admin}");
    assert!(lines.contains(&admin), "{lines:#?}");
}

#[test]
fn demo_on_all_addresses_names_a_loopback_address() {
    let port = free_address().port();
    let lines = start_lines(&[("COUPLE_LISTEN", &format!("0.0.0.0:{port}")), ("COUPLE_DEMO", "on")]);
    assert_eq!(lines.last(), Some(&format!("open http://127.0.0.1:{port}/")), "{lines:#?}");
}
