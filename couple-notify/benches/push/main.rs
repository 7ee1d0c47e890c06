//! Push messages per second of processor time, to a local HTTP/2 server with TLS in a process of its own.
//!
//! `cargo bench -p couple-notify --features push`; with `COUPLE_PUSH_PEER=FOLDER` also npm `apns2`, which `npm install --prefix FOLDER apns2@12.2.0` installs.
//! All send the same alert, 100 at a time; interleaved rounds, medians.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use couple_core::{
    Secret,
    push::{Alert, Destination, Payload, Push, Pusher, Urgency},
};
use couple_notify::push::{Apns, ConnectionOptions, VapidKey, WebPush};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet, time::Instant};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use uuid::Uuid;

const ROUNDS: usize = 5;
/// Messages of a round.
const MESSAGES: usize = 20_000;
/// Messages in progress.
const CONCURRENT: usize = 100;
/// Key of RFC 8291, appendix A.
const BROWSER: &[u8] =
    b"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

/// Accepts every message; prints its port.
async fn accept(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            // A client may disconnect at any time.
            let _ = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(1000)
                .serve_connection(TokioIo::new(tls), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A message that does not arrive in full is not answered: its connection has ended.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::default()))
}

/// Sends messages on one thread; returns messages per second, and per second of processor time.
fn send(pusher: &Arc<dyn Pusher>, to: &Destination) -> [f64; 2] {
    let (begun, before) = (Instant::now(), processor_time());
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..CONCURRENT {
            let (pusher, to) = (pusher.clone(), to.clone());
            tasks.spawn(async move {
                for n in 0..MESSAGES / CONCURRENT {
                    let payload = Payload::Alert(Alert {
                        title: "Zoë".to_owned(),
                        body: "You have a new message".to_owned(),
                        badge: Some(3),
                        sound: true,
                        ..Alert::default()
                    });
                    let push = Push {
                        id: Uuid::from_u128(n as u128),
                        to: to.clone(),
                        payload,
                        collapse: Some("couple".to_owned()),
                        urgency: Urgency::High,
                        expires_at: None,
                    };
                    pusher.push(&push).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
    let spent = processor_time() - before;
    [MESSAGES as f64 / begun.elapsed().as_secs_f64(), MESSAGES as f64 / spent]
}

/// Sends the same messages by `apns2`; returns the same figures, as the program prints them.
fn peer(modules: &Path, folder: &Path, port: &str) -> [f64; 2] {
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/push/apns2.js"))
        .args([port, &MESSAGES.to_string(), &CONCURRENT.to_string()])
        .env("NODE_PATH", modules.join("node_modules"))
        .env("CERTIFICATE", folder.join("certificate.pem"))
        .env("SIGNING_KEY", folder.join("key.pem"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().expect("two figures")
}

/// Processor seconds of this process (proc(5)): user and system time in hundredths.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    if let Some(folder) = std::env::args().skip_while(|argument| argument != "--accept").nth(1) {
        return runtime().block_on(accept(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .arg("--accept")
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map(Server)
        .unwrap();
    let mut port = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    let port = port.trim();
    let url = format!("https://localhost:{port}");
    let certificate = std::fs::read(folder.join("certificate.pem")).unwrap();
    let options = ConnectionOptions::default().with_root_certificates(&certificate).unwrap();
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(folder.join("key.pem"), &key).unwrap();

    let token = Secret::new("00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0".to_owned());
    let iphone = Destination::Apns { token, app: "org.example.couple".to_owned(), sandbox: false };
    let apns = || -> Arc<dyn Pusher> {
        let apns = Apns::new("KEY1234567", "TEAM123456", &key, &options).unwrap();
        Arc::new(apns.with_servers(&url, &url).unwrap())
    };
    let browser = Destination::WebPush {
        endpoint: Secret::new(format!("{url}/send/1")),
        key: data_encoding::BASE64URL_NOPAD.decode(BROWSER).unwrap().try_into().unwrap(),
        auth: Secret::new([7; 16]),
    };
    let web_push = || -> Arc<dyn Pusher> {
        let key = VapidKey::from_pem(&key, "mailto:ops@example.org").unwrap();
        Arc::new(WebPush::new(key, &options).with_private_hosts(["localhost"]))
    };
    let modules = std::env::var_os("COUPLE_PUSH_PEER").map(PathBuf::from);

    let mut figures: Vec<(&str, Vec<[f64; 2]>)> =
        ["couple, APNs", "couple, Web Push", "npm apns2"].map(|name| (name, Vec::new())).into();
    // Each round connects again, because a connection belongs to the runtime that opened it.
    for _ in 0..ROUNDS {
        figures[0].1.push(send(&apns(), &iphone));
        figures[1].1.push(send(&web_push(), &browser));
        if let Some(modules) = &modules {
            figures[2].1.push(peer(modules, folder, port));
        }
    }
    println!("{:<20} {:>14} {:>26}", "sender", "messages/s", "per second of a processor");
    for (name, rounds) in figures.into_iter().filter(|(_, rounds)| !rounds.is_empty()) {
        let column = |n: usize| median(rounds.iter().map(|figures| figures[n]).collect());
        println!("{name:<20} {:>14.0} {:>26.0}", column(0), column(1));
    }
    if modules.is_none() {
        println!("npm apns2 was left out: COUPLE_PUSH_PEER is not set");
    }
}
