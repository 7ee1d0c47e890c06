//! Pictures through HTTP, over SQLite and files, in a separate server process with two workers.
//!
//! Measures the first request of a rendition and later ones, unloaded; 10,000 uploads, and the process's memory meanwhile.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod people;
mod support;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use couple::{Backend, blobs::Blobs, core::limits::Unlimited, store::sql::SqliteOptions};
use http_body_util::Full;
use hyper::{Request, body::Bytes};
use support::{Client, runtime, serve};
use tokio::time::{Instant, sleep, sleep_until};

const COUPLES: usize = 1_000;
const PHOTOS: usize = 30;
const UPLOADS: usize = 10_000;
/// Uploads per second in total: nearly the capacity of two workers on cores that also run the clients.
const RATE: f64 = 60.0;
const FOLDER: &str = "COUPLE_BENCH_FOLDER";

fn main() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return server(Path::new(&folder));
    }
    let folder = support::folder();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(FOLDER, &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let address: SocketAddr = said.trim().parse().unwrap();
    runtime(1).block_on(async {
        photos(address).await;
        uploads(address, &child).await;
    });
    child.kill().unwrap();
    child.wait().unwrap();
    drop(std::fs::remove_dir_all(folder));
}

fn server(folder: &Path) {
    let runtime = runtime(2);
    let backend = runtime.block_on(async {
        let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
        let backend = Backend::builder()
            .blobs(Blobs::files(folder.join("media")).unwrap())
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .queue(couple::job::Queue::new("media", 2))
            .build()
            .unwrap();
        people::seed(backend.ports(), COUPLES).await;
        backend
    });
    let _inside = runtime.enter();
    let _worker = backend.worker().start();
    println!("{}", serve(&runtime, backend));
    loop {
        std::thread::park();
    }
}

fn token(couple: usize) -> String {
    format!("bench-{couple}-first-0123456789")
}

/// A gradient with noise like that of a sensor.
fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut state = 1_u32;
    let pixels = image::RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = state >> 28;
        image::Rgb(
            [x * 200 / width + grain, y * 200 / height + grain, (x + y) / 32 % 200 + grain]
                .map(|v| v.to_le_bytes()[0]),
        )
    });
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 92).encode_image(&pixels).unwrap();
    bytes
}

/// A copy that differs for the server but not for the decoder, which ignores bytes after the end.
fn numbered(picture: &[u8], n: usize) -> Bytes {
    [picture, &n.to_be_bytes()].concat().into()
}

async fn upload(client: &mut Client, couple: usize, purpose: &str, bytes: Bytes) -> String {
    let request = Request::post(format!("/v1/media?purpose={purpose}"))
        .header("host", "b")
        .header("authorization", format!("Bearer {}", token(couple)));
    let (status, said) = client.send(request.body(Full::new(bytes)).unwrap()).await;
    assert_eq!(status, 202, "{said:?}");
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    said["id"].as_str().unwrap().to_owned()
}

async fn get(client: &mut Client, couple: usize, path: &str, accept: &str) -> (u16, Bytes) {
    let request = Request::get(path)
        .header("host", "b")
        .header("accept", accept)
        .header("authorization", format!("Bearer {}", token(couple)));
    client.send(request.body(Full::new(Bytes::new())).unwrap()).await
}

async fn until_ready(client: &mut Client, couple: usize, id: &str) {
    let until = Instant::now() + Duration::from_secs(200);
    loop {
        let (_, said) = get(client, couple, &format!("/v1/media/{id}"), "*/*").await;
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        match said["state"].as_str().unwrap() {
            "ready" => return,
            "processing" => assert!(Instant::now() < until, "the picture is not ready in time"),
            other => panic!("{other}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what:<34} p50 {:>7.2} ms   p99 {:>7.2} ms", at(50), at(99));
}

async fn photos(address: SocketAddr) {
    let mut client = Client::connect(address).await;
    let picture = jpeg(4032, 3024);
    println!("a photo of 12 megapixels, {:.1} MB", picture.len() as f64 / 1e6);
    let mut ids = Vec::new();
    let mut ready = Vec::new();
    for n in 0..PHOTOS {
        let begun = Instant::now();
        ids.push(upload(&mut client, n, "photo", numbered(&picture, n)).await);
        until_ready(&mut client, n, &ids[n]).await;
        ready.push(begun.elapsed());
    }
    report("uploaded and ready, one by one", ready);
    for (size, accept) in [
        ("320", "image/jpeg"),
        ("1080", "image/jpeg"),
        ("2048", "image/jpeg"),
        ("320", "image/webp"),
        ("1080", "image/webp"),
    ] {
        let mut took = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            let begun = Instant::now();
            let (status, _) = get(&mut client, n, &format!("/v1/media/{id}/{size}"), accept).await;
            assert_eq!(status, 200);
            took.push(begun.elapsed());
        }
        report(&format!("first request for {size}, {accept}"), took);
    }
    for size in ["320", "1080", "2048"] {
        let mut took = Vec::new();
        for n in 0..2_000 {
            let n = n % PHOTOS;
            let begun = Instant::now();
            let (status, _) =
                get(&mut client, n, &format!("/v1/media/{}/{size}", ids[n]), "image/jpeg").await;
            assert_eq!(status, 200);
            took.push(begun.elapsed());
        }
        report(&format!("cached {size}"), took);
    }
}

/// Resident memory in MiB, from `ps` on Linux and macOS.
fn resident(child: &Child) -> f64 {
    let said =
        Command::new("ps").args(["-o", "rss=", "-p", &child.id().to_string()]).output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().parse::<f64>().unwrap() / 1024.0
}

async fn uploads(address: SocketAddr, child: &Child) {
    let picture: Arc<Vec<u8>> = Arc::new(jpeg(1280, 960));
    println!("avatars of 1.2 megapixels, {:.2} MB, {RATE} per second", picture.len() as f64 / 1e6);
    let lanes = 16;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..lanes)
        .map(|lane| {
            let picture = picture.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let (mut took, mut last) = (Vec::new(), (0, String::new()));
                for n in (lane..UPLOADS).step_by(lanes) {
                    let due = begun + Duration::from_secs_f64(n as f64 / RATE);
                    sleep_until(due).await;
                    let couple = n % COUPLES;
                    last = (couple, upload(&mut client, couple, "avatar", numbered(&picture, n)).await);
                    took.push(due.elapsed());
                }
                (took, last)
            })
        })
        .collect();
    let mut memory = Vec::new();
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        memory.push(resident(child));
        sleep(Duration::from_secs(1)).await;
    }
    let (mut took, mut last) = (Vec::new(), Vec::new());
    for task in tasks {
        let (some, one) = task.await.unwrap();
        took.extend(some);
        last.push(one);
    }
    let uploaded = begun.elapsed();
    report(&format!("{UPLOADS} uploads in {:.0} s", uploaded.as_secs_f64()), took);
    let mut client = Client::connect(address).await;
    for (couple, id) in last {
        until_ready(&mut client, couple, &id).await;
    }
    println!("the last is ready {:.1} s later", (begun.elapsed() - uploaded).as_secs_f64());
    let most = memory.iter().copied().fold(0.0, f64::max);
    let quarter = |n: usize| memory[(memory.len() - 1) * n / 4];
    let quarters = [1, 2, 3, 4].map(quarter);
    println!("memory of the server: peak {most:.0} MiB; after each quarter {quarters:.0?}");
}
