//! Time from a request to the acceptance of its mail by an SMTP server, and of its push message by a push service, in an idle process; and
//! the memory of a worker over many jobs.
//!
//! SQLite on disk, a started worker, 500 requests one after another. The time begins before the request, so it includes the commit. The SMTP
//! server is plain TCP, the push service HTTP/2 with TLS, both in this process. `COUPLE_SENDING_JOBS` is the number of jobs, 100,000 if not
//! set; resident memory is read after each tenth of them.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod people;
mod support;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use couple::{
    Backend, BackendBuilder, Secret,
    core::{DeviceId, EmailAddress, limits::Unlimited},
    device::{Device, DeviceChange},
    job::{Context, Job, Queue},
    notify::{
        mail::{Letterhead, SmtpMailer},
        push::{Apns, ConnectionOptions, Pushers},
    },
    push::{Destination, Surface},
    store::sql::SqliteOptions,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

const REQUESTS: usize = 500;
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// Accepts every mail, and sends the time of each.
async fn smtp_server(accepted: UnboundedSender<Instant>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let accepted = accepted.clone();
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                write.write_all(b"220 localhost ESMTP\r\n").await.unwrap();
                let mut is_data = false;
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer: &[u8] = match line.as_str() {
                        "." if is_data => {
                            is_data = false;
                            let _ = accepted.send(Instant::now());
                            b"250 accepted\r\n"
                        }
                        _ if is_data => continue,
                        "DATA" => {
                            is_data = true;
                            b"354 go on\r\n"
                        }
                        line if line.starts_with("EHLO") => b"250-localhost\r\n250 8BITMIME\r\n",
                        _ => b"250 ok\r\n",
                    };
                    if write.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Accepts every push message, and sends the time of each. Returns its port and its certificate.
async fn push_service(accepted: UnboundedSender<Instant>) -> (u16, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
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
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let answer = service_fn(move |request: Request<Incoming>| {
                    let accepted = accepted.clone();
                    async move {
                        let _ = request.into_body().collect().await;
                        let _ = accepted.send(Instant::now());
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                let server = http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(tls), answer).await;
            });
        }
    });
    (port, certificate.pem())
}

/// Makes requests one after another, each after the last one was accepted; prints the times of acceptance.
async fn measure(
    what: &str,
    accepted: &mut UnboundedReceiver<Instant>,
    mut request: impl AsyncFnMut(usize) -> u16,
) {
    let mut times = Vec::new();
    for n in 0..REQUESTS {
        let begun = Instant::now();
        let status = request(n).await;
        assert!((200..300).contains(&status), "{status}");
        times.push(accepted.recv().await.unwrap() - begun);
        tokio::time::sleep(PAUSE).await;
    }
    times.sort();
    let at = |share: usize| times[(REQUESTS - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms", at(50), at(99), at(100));
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl Job for Nothing {
    const NAME: &'static str = "bench.nothing";
    const QUEUE: &'static str = "default";
}

/// Resident memory of this process (proc(5)), in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn store(builder: BackendBuilder, folder: &std::path::Path) -> BackendBuilder {
    let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
    let builder = builder.blobs(couple::blobs::Blobs::memory()).store(store);
    builder.keys(couple::Keyring::new([7; 32])).limits(Unlimited)
}

async fn latencies(server: &Runtime) {
    let folder = support::folder();
    let (sender, mut mails) = unbounded_channel();
    let smtp = smtp_server(sender).await;
    let (sender, mut pushes) = unbounded_channel();
    let (port, certificate) = push_service(sender).await;
    let letterhead = Letterhead::new("Couple", "couple@example.org").unwrap();
    let mailer = SmtpMailer::new(&format!("smtp://{smtp}?tls=none"), letterhead).unwrap();
    let options = ConnectionOptions::default().with_root_certificates(certificate.as_bytes()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let url = format!("https://localhost:{port}");
    let apns = Apns::new("KEY1234567", "TEAM123456", &key, &options).unwrap();
    let pusher = Pushers::new().with_apns(apns.with_servers(&url, &url).unwrap());
    let builder = Backend::builder().mailer(mailer).pusher(pusher);
    let backend = store(builder, &folder).await.build().unwrap();
    let ports = backend.ports().clone();
    let tokens = people::seed(&ports, 1).await;
    let email = EmailAddress::parse("email", "p1@example.org").unwrap();
    let account = ports.store.account_by_email(email.key()).await.unwrap().unwrap();
    let device = Device {
        account: account.id,
        id: DeviceId::new(&*ports.clock, &*ports.entropy),
        session: None,
        destination: Destination::Apns {
            token: Secret::new("00fc13adff785122".to_owned()),
            app: "org.example.couple".to_owned(),
            sandbox: false,
        },
        surface: Surface::Alert,
        locale: None,
        time_zone: None,
        app_version: None,
        registered_at: ports.now(),
    };
    ports.commit(vec![DeviceChange::Put { device, most: 20 }.into()]).await.unwrap();
    let worker = backend.worker().start();
    let address = support::serve(server, backend);
    let mut client = support::Client::connect(address).await;
    measure("request to acceptance by the SMTP server", &mut mails, async |n| {
        let body = format!(r#"{{"email":"new.{n}@example.org","display_name":"New {n}"}}"#);
        client.post("/v1/accounts", None, body).await.0
    })
    .await;
    measure("request to acceptance by the push service", &mut pushes, async |n| {
        let body = format!(r#"{{"client_id":"push-{n}","kind":"text","body":{{"text":"good morning"}}}}"#);
        client.post("/v1/couple/entries", Some(&tokens[0]), body).await.0
    })
    .await;
    drop(worker);
    drop(std::fs::remove_dir_all(folder));
}

/// Runs many jobs, and prints the resident memory on the way.
async fn memory() {
    let folder = support::folder();
    let jobs = std::env::var("COUPLE_SENDING_JOBS").map_or(100_000, |text| text.parse().unwrap());
    let builder = Backend::builder().queue(Queue::new("default", 16));
    let builder = builder.jobs(|registry, _| registry.with_fn(|_: Nothing, _: Context| async { Ok(()) }));
    let backend = store(builder, &folder).await.build().unwrap();
    let (worker, ports) = (backend.worker(), backend.ports().clone());
    let begun = Instant::now();
    let mut at = vec![resident()];
    for _ in 0..10 {
        for _ in 0..jobs / 10_000 {
            let changes = (0..1_000).map(|_| ports.enqueue(&Nothing {}).unwrap());
            ports.commit(changes.collect()).await.unwrap();
            worker.run_until_idle().await.unwrap();
        }
        at.push(resident());
    }
    let per_second = jobs as f64 / begun.elapsed().as_secs_f64();
    println!(
        "resident memory in MiB before, and after each tenth of {jobs} jobs: {at:?}; {per_second:.0} jobs/s"
    );
    drop(std::fs::remove_dir_all(folder));
}

fn main() {
    let server = support::runtime(2);
    server.block_on(latencies(&server));
    server.block_on(memory());
    server.shutdown_background();
}
