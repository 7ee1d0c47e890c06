//! Requests of two users, which check the host.

use std::{error::Error, net::SocketAddr, path::Path, time::Duration};

use axum::body::Bytes;
use couple::{Backend, account::PurgeAccountsHandler};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use mail_parser::MessageParser;
use serde_json::{Value, json};
use sqlx::SqlitePool;
use tokio::{net::TcpStream, time::sleep};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A browser with the cookie of a session.
struct Browser {
    address: SocketAddr,
    cookie: String,
}

impl Browser {
    /// Signs a user up.
    async fn sign_up(address: SocketAddr, name: &str, time_zone: &str) -> Result<Self> {
        let mut browser = Self { address, cookie: String::new() };
        let user = json!({"name": name, "email": format!("{name}@example.org"), "time_zone": time_zone});
        let response = browser.request("POST", "/account", Bytes::from(user.to_string())).await?;
        assert_eq!(response.status(), 201);
        let cookie = response.headers().get("set-cookie").ok_or("no cookie")?.to_str()?;
        browser.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(browser)
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<hyper::Response<hyper::body::Incoming>> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        let kind = if body.starts_with(b"{") { "application/json" } else { "image/png" };
        let request = request.header("cookie", &self.cookie).header("content-type", kind);
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request that must get this status; returns the JSON body.
    async fn call(&self, method: &str, path: &str, body: Value, status: u16) -> Result<Value> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.send(method, path, body, status).await
    }

    async fn send(&self, method: &str, path: &str, body: Bytes, status: u16) -> Result<Value> {
        let response = self.request(method, path, body).await?;
        let got = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        assert_eq!(got, status, "{method} {path}: {body}");
        Ok(body)
    }
}

/// Waits for the mail with a subject; returns its recipient and text.
async fn mail(folder: &Path, subject: &str) -> Result<(String, String)> {
    for _ in 0..500 {
        for file in std::fs::read_dir(folder.join("mails"))? {
            let bytes = std::fs::read(file?.path())?;
            let Some(mail) = MessageParser::default().parse(&bytes) else { continue };
            if mail.subject() == Some(subject) {
                let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address()).unwrap_or_default();
                return Ok((to.to_owned(), mail.body_text(0).unwrap_or_default().into_owned()));
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no mail with the subject {subject}").into())
}

fn picture() -> Result<Bytes> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 64).write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner().into())
}

pub(crate) async fn run(
    address: SocketAddr,
    folder: &Path,
    pool: &SqlitePool,
    backend: &Backend,
) -> Result<()> {
    let ana = Browser::sign_up(address, "ana", "Europe/Berlin").await?;
    let ben = Browser::sign_up(address, "ben", "Asia/Tokyo").await?;
    // In place of a code that a real host mails and checks.
    sqlx::query("UPDATE user SET verified = 1").execute(pool).await?;

    ana.call("POST", "/love/v1/invites", json!({"email": "ben@example.org"}), 201).await?;
    let (to, text) = mail(folder, "Eine Einladung bei Presents").await?;
    assert_eq!(to, "ben@example.org");
    let link = text.lines().find_map(|line| line.strip_prefix("Link: ")).ok_or("no link")?;
    ben.call("POST", "/love/v1/invites/accept", json!({"token": link}), 201).await?;
    println!("paired by a mailed invite: {}", text.lines().next().unwrap_or_default());

    let since = ben.call("GET", "/love/v1/couple/live?wait=0", Value::Null, 200).await?;
    let path = format!("/love/v1/couple/live?after={}", since["cursor"].as_str().ok_or("no cursor")?);
    let live = ben.call("GET", &path, Value::Null, 200);
    let given = ana.call("POST", "/gifts", json!({"id": "1", "name": "A walk by the sea"}), 200);
    let (live, given) = tokio::try_join!(live, given)?;
    let frames = live["frames"].as_array().ok_or("no frames")?;
    assert!(frames.iter().any(|frame| frame.to_string().contains("A walk by the sea")), "{live}");
    let again = ana.call("POST", "/gifts", json!({"id": "1", "name": "A walk by the sea"}), 200).await?;
    assert_eq!(again, given);
    let forged = json!({"client_id": "2", "kind": "x-gift", "body": {"name": "A car"}});
    ana.call("POST", "/love/v1/couple/entries", forged, 422).await?;
    let (to, text) = mail(folder, "Ein Geschenk für dich").await?;
    assert_eq!(to, "ben@example.org");
    println!("delivered live, and by mail: {}", text.trim());

    let media = ben.send("POST", "/love/v1/media?purpose=photo", picture()?, 202).await?;
    let photo = json!({"client_id": "2", "kind": "photo", "body": {"media_id": media["id"]}});
    ben.call("POST", "/love/v1/couple/entries", photo, 201).await?;
    let page = ana.call("GET", "/love/v1/couple/entries?after=0", Value::Null, 200).await?;
    let kinds: Vec<_> =
        page["entries"].as_array().into_iter().flatten().map(|entry| &entry["kind"]).collect();
    println!("entries: {}", json!(kinds));
    assert!(kinds.contains(&&json!("x-gift")) && kinds.contains(&&json!("photo")), "{page}");

    let document = ana.call("GET", "/openapi.json", Value::Null, 200).await?;
    let paths = document["paths"].as_object().ok_or("no paths")?;
    assert!(paths.contains_key("/gifts") && paths.contains_key("/love/v1/couple/entries"), "{paths:?}");
    assert!(!paths.keys().any(|path| path.contains("/sessions")), "{paths:?}");
    println!("documented: {} paths", paths.len());

    ana.call("DELETE", "/account", Value::Null, 204).await?;
    ana.call("GET", "/love/v1/couple", Value::Null, 401).await?;
    // A job does this every hour.
    let report = PurgeAccountsHandler::new(backend.ports().clone(), 20).run_once().await?;
    assert_eq!((report.purged, report.failed.len()), (1, 0));
    ben.call("GET", "/love/v1/couple", Value::Null, 404).await?;
    println!("forgotten: ana; ben is in no couple");
    Ok(())
}
