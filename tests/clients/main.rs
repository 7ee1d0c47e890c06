//! Third-party clients, disconnected twenty times while the partner writes, miss no entry.
//!
//! The programs in this folder print `SEQ TEXT` for each entry that they receive. `tests/clients/install` installs their libraries.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints its figures")]

mod api_fuzzing;
mod client_conformance;
mod conformance;
mod couple_client;
#[path = "../support/couples.rs"]
mod couples;
mod dates;
mod mailed_pages;
#[path = "../../couple-store/tests/support/proxy.rs"]
mod proxy;
mod refused;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use couple::http::ServeOptions;
use proxy::Proxy;
use serde_json::json;
use support::{Client, Server, free_address};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

const CUTS: usize = 20;
const BETWEEN_CUTS: usize = 20;

/// Folder of the installed libraries.
fn installed() -> PathBuf {
    std::env::var_os("COUPLE_TEST_CLIENTS")
        .map(PathBuf::from)
        .expect("COUPLE_TEST_CLIENTS is not set: ./test runs tests/clients/install FOLDER and sets it")
}

/// Command for a program of this folder, by the extension of its name.
fn program(name: &str) -> Command {
    let installed = installed();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let mut command = if name.ends_with(".py") {
        Command::new(installed.join("venv/bin/python"))
    } else {
        let mut node = Command::new("node");
        node.env("NODE_PATH", installed.join("node_modules"));
        node
    };
    command.arg(script).kill_on_drop(true);
    command
}

/// Lines that a client has printed, in order, repeated ones included.
struct Heard {
    lines: Lines<BufReader<ChildStdout>>,
    all: Vec<(usize, String)>,
    last: usize,
}

impl Heard {
    async fn until(&mut self, seq: usize) {
        while self.last < seq {
            let line = timeout(Duration::from_secs(30), self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{seq} did not arrive after {}", self.last));
            let line = line.unwrap().unwrap_or_else(|| panic!("the client ended after {}", self.last));
            let (seq, text) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let seq = seq.parse().unwrap_or_else(|_| panic!("{line}"));
            self.all.push((seq, text.to_owned()));
            self.last = self.last.max(seq);
        }
    }
}

async fn resumes(name: &str, more: &[&str]) {
    resumes_through(CUTS, name, more).await;
}

async fn resumes_through(cuts: usize, name: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder.path(), free_address(), &settings);
    server.until_ready().await;
    let proxy = Proxy::start(server.address, Duration::ZERO).await;
    let base = format!("http://{}", proxy.address);
    let mut command = program(name);
    command.args([base.as_str(), &tokens[1]]);
    if name == "chromium.js" {
        command.arg(folder.path().join("chromium"));
    }
    command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let out = child.stdout.take().unwrap();
    let mut heard = Heard { lines: BufReader::new(out).lines(), all: Vec::new(), last: 0 };

    let begun = Instant::now();
    let (mut partner, mut written) = (Client::new(server.address), 0);
    for cut in 0..=cuts {
        let after = usize::try_from(RandomState::new().hash_one(cut)).unwrap_or(0) % BETWEEN_CUTS;
        for n in 0..BETWEEN_CUTS {
            let text = format!("entry-{written}");
            let entry = json!({ "client_id": text, "kind": "text", "body": { "text": text } });
            let answer =
                partner.call("POST", "/v1/couple/entries", Some(&tokens[0]), Some(&entry), None).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            written += 1;
            // Disconnected once it is connected, in the middle of the writes.
            if n == 0 {
                heard.until(written).await;
            }
            if n == after && cut < cuts {
                proxy.cut();
            }
        }
    }
    heard.until(written).await;
    // A further line after the last entry would be a repeated one.
    sleep(Duration::from_millis(200)).await;
    if name == "chromium.js" {
        drop(child.stdin.take());
    } else {
        child.start_kill().unwrap();
    }
    child.wait().await.unwrap();
    let took = begun.elapsed();
    while let Some(line) = heard.lines.next_line().await.unwrap() {
        let (seq, text) = line.split_once(' ').unwrap();
        heard.all.push((seq.parse().unwrap(), text.to_owned()));
    }

    let mut seen = BTreeSet::new();
    let once: Vec<_> = heard.all.iter().filter(|(seq, _)| seen.insert(*seq)).collect();
    let lost = written - once.len();
    let reordered = once.windows(2).filter(|two| two[0].0 > two[1].0).count();
    let doubled = once.len() - once.iter().map(|(_, text)| text).collect::<BTreeSet<_>>().len();
    println!(
        "{name} {}: {cuts} cuts, {} connections, {written} entries in {:.1} s: lost {lost}, reordered {reordered}, \
         doubled after de-duplication {doubled} ({} before)",
        more.join(" "),
        proxy.accepted(),
        took.as_secs_f64(),
        heard.all.len() - once.len()
    );
    assert_eq!((lost, reordered, doubled), (0, 0, 0), "{:?}", heard.all);
    assert!(once.iter().all(|(seq, text)| *text == format!("entry-{}", seq - 1)), "{once:?}");
    assert!(proxy.accepted() > cuts, "the client was not disconnected: {} connections", proxy.accepted());
}

/// An upload that is interrupted several times arrives complete.
///
/// The same bytes in one request are the same picture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_tus_js_client_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder.path(), free_address(), &settings);
    server.until_ready().await;
    let proxy = Proxy::start(server.address, Duration::from_millis(2)).await;
    let (picture, file) = (noise(), folder.path().join("picture.png"));
    std::fs::write(&file, &picture).unwrap();
    let mut command = program("tus.js");
    command.args([format!("http://{}", proxy.address).as_str(), &tokens[0]]).arg(&file);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut cuts = 0;
    let place = timeout(Duration::from_secs(120), async {
        loop {
            tokio::select! {
                line = lines.next_line() => break line.unwrap().expect("the client ended without a picture"),
                () = sleep(Duration::from_millis(60)), if cuts < CUTS => {
                    proxy.cut();
                    cuts += 1;
                }
            }
        }
    });
    let place = place.await.expect("the client did not end");
    assert!(child.wait().await.unwrap().success());
    println!("tus.js: {cuts} cuts, {} connections, {} bytes", proxy.accepted(), picture.len());
    assert!(cuts >= 3 && proxy.accepted() > 3, "the upload was not interrupted");

    is_the_same(&server, &tokens[0], &file, &place).await;
}

/// Checks that an upload became the picture of the file, by uploading the same bytes in one request.
async fn is_the_same(server: &Server, token: &str, file: &Path, place: &str) {
    let direct = tokio::process::Command::new("curl")
        .args(["-sS", "--fail-with-body", "-H", &format!("authorization: Bearer {token}"), "--data-binary"])
        .args([format!("@{}", file.display()), format!("http://{}/v1/media?purpose=photo", server.address)])
        .output();
    let said: serde_json::Value = serde_json::from_slice(&direct.await.unwrap().stdout).unwrap();
    assert_eq!(format!("/v1/media/{}", said["id"].as_str().unwrap()), place, "{said}");
}

/// Runs tus.js until its upload has become a picture; returns the picture's URL.
async fn tus(server: SocketAddr, token: &str, file: &Path, options: serde_json::Value) -> String {
    let mut command = program("tus.js");
    command.args([format!("http://{server}").as_str(), token]).arg(file).arg(options.to_string());
    let output =
        timeout(Duration::from_secs(120), command.output()).await.expect("the client did not end").unwrap();
    assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server with a couple, and a picture to upload.
async fn with_picture(folder: &Path) -> (Server, String, PathBuf) {
    let tokens = couples::seed_folder(folder, 1).await;
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder, free_address(), &settings);
    server.until_ready().await;
    let file = folder.join("picture.png");
    std::fs::write(&file, noise()).unwrap();
    (server, tokens[0].clone(), file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_tus_js_client_uses_the_extensions() {
    let folder = tempfile::tempdir().unwrap();
    let (server, token, file) = with_picture(folder.path()).await;
    for options in [
        json!({ "parallelUploads": 3 }),
        json!({ "uploadDataDuringCreation": true }),
        json!({ "uploadLengthDeferred": true }),
        json!({ "chunkSize": 16 << 20 }),
    ] {
        let place = tus(server.address, &token, &file, options).await;
        is_the_same(&server, &token, &file, &place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_tus_js_client_survives_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (server, token, file) = with_picture(folder.path()).await;
    let upload = async |pause: u64| tus(server.address, &token, &file, json!({ "silence": [pause] })).await;
    // No retry: the same request continues after the pause.
    let (shorter, longer) = tokio::join!(upload(12_000), upload(25_000));
    assert_eq!(shorter, longer);
    is_the_same(&server, &token, &file, &longer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_tus_js_client_survives_a_killed_server() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, token, file) = with_picture(folder.path()).await;
    let retries: Vec<u32> = vec![100; 400];
    let upload = tokio::spawn({
        let (address, token, file) = (server.address, token.clone(), file.clone());
        async move { tus(address, &token, &file, json!({ "retryDelays": retries })).await }
    });
    // Killed in the middle: some bytes are stored, and the picture is not created yet.
    let are_stored = has_file_below(folder.path(), "t");
    let until = Instant::now() + Duration::from_secs(60);
    while !are_stored() {
        assert!(Instant::now() < until && !upload.is_finished(), "nothing is stored");
        sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder.path(), server.address, &settings);
    server.until_ready().await;
    let place = upload.await.unwrap();
    is_the_same(&server, &token, &file, &place).await;
}

/// Returns a check whether a folder with this name, anywhere below `folder`, has a file.
fn has_file_below(folder: &Path, name: &'static str) -> impl Fn() -> bool {
    fn has(folder: &Path, name: &str, within: bool) -> bool {
        std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let path = entry.path();
            let inside = within || entry.file_name() == name;
            if path.is_dir() { has(&path, name, inside) } else { within }
        })
    }
    let folder = folder.to_owned();
    move || has(&folder, name, false)
}

/// A picture of about six megabytes, since noise cannot be compressed.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let pixels = image::RgbImage::from_fn(1_500, 1_300, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, a, b, c] = state.to_le_bytes();
        image::Rgb([a, b, c])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_ws_resumes() {
    resumes("ws.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_socket_io_client_resumes() {
    resumes("socketio.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_eventsource_resumes() {
    resumes("eventsource.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_event_source_polyfill_resumes() {
    resumes_through(5, "eventsource_polyfill.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_streaming_resumes() {
    resumes("fetch.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_polls_by_fetch_resume() {
    resumes("poll.js", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pypi_websockets_resumes() {
    resumes("websockets_client.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pypi_httpx_sse_resumes() {
    resumes("httpx_client.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_event_source_resumes() {
    resumes("chromium.js", &["eventsource"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_web_socket_resumes() {
    resumes("chromium.js", &["websocket"]).await;
}

/// Runs a function of `chromium.js` on a page of an allowed origin, until it has logged `wanted`, in any order.
async fn on_page_of_another_origin(kind: &str, page: axum::Router, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let listener = couple::http::listen(free_address()).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(couple::http::serve(listener, page, ServeOptions::default(), std::future::pending()));
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn"), ("COUPLE_CORS_ORIGINS", origin.as_str())];
    let server = Server::spawn(&support::binary(), folder.path(), free_address(), &settings);
    server.until_ready().await;
    let mut command = program("chromium.js");
    command
        .args([format!("http://{}", server.address), tokens[1].clone()])
        .arg(folder.path().join("chromium"));
    command.args([kind, &origin]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = BTreeSet::new();
    while told.len() < wanted.len() {
        let line = timeout(Duration::from_secs(60), lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("nothing arrived after {told:?}"));
        told.insert(line.unwrap().unwrap_or_else(|| panic!("the client ended after {told:?}")));
    }
    assert_eq!(told, wanted.iter().map(|&line| line.to_owned()).collect());
    drop(child.stdin.take());
    child.wait().await.unwrap();
}

/// A page of an allowed origin can do everything that a page of the server's own origin can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_page_of_an_allowed_origin_can_use_the_api() {
    let page = axum::Router::new().route("/", axum::routing::get(async || "a page"));
    let wanted = [
        "EventSource from another origin",
        "WebSocket from another origin",
        "fetch 201 true",
        "tus 201 true",
        "img 320 × 240",
    ];
    on_page_of_another_origin("crossOrigin", page, &wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_uppy_uploads_ten_files_concurrently() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/uppy.js");
    let bundle = Command::new(installed().join("node_modules/.bin/esbuild"))
        .env("NODE_PATH", installed().join("node_modules"))
        .arg(script)
        .args(["--bundle", "--log-level=error"])
        .output();
    let bundle = bundle.await.unwrap();
    assert!(bundle.status.success(), "{}", String::from_utf8_lossy(&bundle.stderr));
    let script = ([(axum::http::header::CONTENT_TYPE, "text/javascript")], bundle.stdout);
    let html = axum::response::Html("<!doctype html><script src=uppy.js></script>");
    let page = axum::Router::new()
        .route("/", axum::routing::get(async move || html))
        .route("/uppy.js", axum::routing::get(async move || script));
    on_page_of_another_origin("uppy", page, &["uppy 10 0 10"]).await;
}
