//! Shared by tests of whole processes: a server, and a client that reconnects.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

/// Longest start of a server on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Builds the server example with the same profile and features as this test.
pub(crate) fn binary() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let profile = deps.ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build
        // The packages and features of the test run, so that nothing is compiled a second time.
        .args(["build", "--quiet", "--locked", "--workspace", "--example", "server"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // The test runner's variables about this package would cause dependencies that watch them to be rebuilt.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    for (feature, enabled) in [
        ("heic", cfg!(feature = "heic")),
        ("json-schema", cfg!(feature = "json-schema")),
        ("server-tests", cfg!(feature = "server-tests")),
    ] {
        if enabled {
            build.args(["--features", feature]);
        }
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "cannot build the server example");
    profile.join("examples/server")
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server process in a folder, whose output is in `server.log`; killed, by its process id, when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn spawn(
        binary: &Path,
        folder: &Path,
        address: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("server.log")).unwrap();
        let child = Command::new(binary)
            .current_dir(folder)
            .env_clear()
            .env("COUPLE_LISTEN", address.to_string())
            .env("COUPLE_STOP_DELAY", "0")
            .envs(settings.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { address, child }
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Sends SIGKILL to the process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
    pub(crate) async fn until_ready(&self) {
        let (mut client, started) = (Client::new(self.address), Instant::now());
        while !client.once("GET", "/readyz", None, None, &[]).await.is_ok_and(|answer| answer.status == 200) {
            assert!(started.elapsed() < READY_LIMIT, "the server is not ready within {READY_LIMIT:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A client with one connection, which is opened again when it breaks.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<hyper::Response<hyper::body::Incoming>, String> {
        let content = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        self.send_bytes(method, path, token, content, headers).await
    }

    pub(crate) async fn send_bytes(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        content: Option<(&str, Bytes)>,
        headers: &[(&str, &str)],
    ) -> Result<hyper::Response<hyper::body::Incoming>, String> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let content = match content {
            Some((kind, bytes)) => {
                request = request.header("content-type", kind);
                bytes
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content)).map_err(|e| e.to_string())?;
        connection.ready().await.map_err(|e| e.to_string())?;
        let answer = connection.send_request(request).await.map_err(|e| e.to_string())?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Sends the request once.
    pub(crate) async fn once(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let tried = tokio::time::timeout(Duration::from_secs(60), async {
            let answer = self.send(method, path, token, body, headers).await?;
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
        });
        let answer = tried.await.unwrap_or_else(|_| Err("no answer".to_owned()));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Uploads a picture, repeatedly until it is accepted; returns its id.
    pub(crate) async fn upload(&mut self, token: &str, purpose: &str, bytes: &[u8]) -> String {
        let path = format!("/v1/media?purpose={purpose}");
        for _ in 0..600 {
            let content = Some(("application/octet-stream", Bytes::copy_from_slice(bytes)));
            if let Ok(answer) = self.send_bytes("POST", &path, Some(token), content, &[]).await {
                let status = answer.status().as_u16();
                if let Ok(body) = answer.into_body().collect().await
                    && ![429, 503].contains(&status)
                {
                    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
                    assert!([200, 202].contains(&status), "{status} {body}");
                    return body["id"].as_str().unwrap().to_owned();
                }
            }
            self.connection = None;
            sleep(Duration::from_millis(50)).await;
        }
        panic!("no upload in 30 s");
    }

    /// Repeats a request until the response is other than 503, as a client on a bad network does.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Answer {
        let headers: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        for _ in 0..600 {
            match self.once(method, path, token, body, &headers).await {
                Ok(answer) if answer.status != 503 => return answer,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("{method} {path}: no answer in 30 s");
    }
}

/// Texts of the mails to an address, oldest first.
pub(crate) fn mails_to(folder: &Path, mailbox: &str) -> Vec<String> {
    let mut mails: Vec<(PathBuf, String)> = Vec::new();
    for file in std::fs::read_dir(folder.join("couple-data/mail")).into_iter().flatten().flatten() {
        if file.path().extension().is_some_and(|kind| kind == "eml")
            && let Ok(text) = std::fs::read_to_string(file.path())
            && text.contains(&format!("\r\nTo: {mailbox}\r\n"))
        {
            mails.push((file.path(), text));
        }
    }
    mails.sort();
    mails.into_iter().map(|(_, text)| text).collect()
}

/// Finds six digits on a separate line.
pub(crate) fn code_in(mail: &str) -> Option<String> {
    mail.lines()
        .map(str::trim)
        .find(|line| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
}
