//! Clients: listeners, and publishers over HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    COUPLES,
    ours::now,
    server::{Peer, Server, Way},
    support::Client,
};

/// Origin of the published entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Inside,
    Http,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inside => "in-process",
            Self::Http => "over HTTP",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Entries per second; 0: maximum rate.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) per_second: f64,
    /// Delays in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

async fn until(stream: &mut TcpStream, what: &[u8]) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
    while !seen.windows(what.len()).any(|window| window == what) {
        let got = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(got > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..got]);
    }
}

/// Connects as listener `n`, and reads the first response.
async fn connect(peer: Peer, way: Way, address: SocketAddr, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(way.request(peer, n).as_bytes()).await.unwrap();
    match (peer, way) {
        // Sends nothing before the first entry.
        (Peer::Nchan, Way::Poll) => {}
        (Peer::Ours, Way::WebSocket | Way::Events) => until(&mut stream, b"caught_up").await,
        (_, Way::SocketIo) => {
            until(&mut stream, b"\"sid\"").await;
            // Socket.IO's CONNECT, in a frame whose mask is zero.
            let connect = match peer {
                Peer::Ours => format!(r#"40{{"token":"bench-{}-second-0123456789"}}"#, n % COUPLES),
                _ => "40".to_owned(),
            };
            let head = [0x81, 0x80 | u8::try_from(connect.len()).unwrap(), 0, 0, 0, 0];
            stream.write_all(&[&head, connect.as_bytes()].concat()).await.unwrap();
            until(&mut stream, b"40{\"sid\"").await;
        }
        _ => until(&mut stream, b"\r\n\r\n").await,
    }
    stream
}

async fn connect_all(peer: Peer, way: Way, address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let (mut opening, mut open) = (JoinSet::new(), Vec::with_capacity(count));
    for n in 0..count {
        opening.spawn(connect(peer, way, address, n));
        if opening.len() >= 32 {
            open.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    open.extend(opening.join_all().await);
    open
}

/// Memory of the server in KiB per idle connection.
pub(crate) async fn idle(peer: Peer, way: Way, connections: usize) -> f64 {
    let server = Server::start(peer);
    sleep(Duration::from_millis(300)).await;
    let before = server.memory();
    let open = connect_all(peer, way, server.address, connections).await;
    sleep(Duration::from_secs(1)).await;
    let each = server.memory().saturating_sub(before) as f64 / connections as f64;
    drop(open);
    each
}

/// Text before the time of publication in an entry.
const TEXT: &str = "\"text\":\"";

/// Times of publication of the entries in a part of a stream.
///
/// Socket.IO and nchan quote them as ours does.
fn times(text: &str) -> impl Iterator<Item = u64> {
    text.split(TEXT).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok())
}

/// Delivers to two devices of each partner, connected to `heard`, or to the publishing server.
pub(crate) async fn deliver(
    said: &mut Server,
    heard: Option<&Server>,
    peer: Peer,
    way: Way,
    source: Source,
    load: Load,
) -> Seen {
    let address = heard.unwrap_or(said).address;
    let (count, (sender, mut took)) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    let mut listening = JoinSet::new();
    for mut stream in connect_all(peer, way, address, COUPLES * 2).await {
        let (count, sender) = (count.clone(), sender.clone());
        listening.spawn(async move {
            let (mut text, mut buffer) = (String::new(), vec![0; 16 * 1024]);
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(got) => text.push_str(&String::from_utf8_lossy(&buffer[..got])),
                }
                let heard = now();
                // An entry may be incomplete; a complete one ends with the quote after its text.
                let last = text.rfind(TEXT).map(|at| (at, at + TEXT.len()));
                let whole =
                    last.map_or(0, |(at, from)| text[from..].find('"').map_or(at, |end| from + end + 1));
                for said in times(&text[..whole]) {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = sender.send(heard.saturating_sub(said));
                }
                text.drain(..whole);
            }
        });
    }
    // Work left over from connecting is not measured.
    sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let entries = match source {
        Source::Inside => {
            said.begin(load.rate, load.seconds);
            sleep(Duration::from_secs(u64::from(load.seconds))).await;
            tokio::task::block_in_place(|| said.said())
        }
        Source::Http => publish(peer, address, load).await,
    };
    // Waits for entries that are still being delivered.
    while count.load(Ordering::Relaxed) < entries * 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {entries}", count.load(Ordering::Relaxed));
        sleep(Duration::from_millis(1)).await;
    }
    let per_second = (entries * 2) as f64 / begun.elapsed().as_secs_f64();
    listening.abort_all();
    let mut all = Vec::new();
    while let Ok(one) = took.try_recv() {
        all.push(one as f64 / 1e3);
    }
    all.sort_by(f64::total_cmp);
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    Seen { per_second, p50: at(50), p99: at(99) }
}

/// Publishes entries over sixteen connections; returns their number.
async fn publish(peer: Peer, address: SocketAddr, load: Load) -> usize {
    const LANES: u32 = 16;
    let (begun, mut lanes) = (Instant::now(), JoinSet::new());
    for lane in 0..LANES {
        lanes.spawn(async move {
            let (mut client, mut said) = (Client::connect(address).await, 0);
            while begun.elapsed().as_secs_f64() < f64::from(load.seconds) {
                let n = lane + said * LANES;
                if load.rate > 0 {
                    sleep_until(begun + Duration::from_secs_f64(f64::from(n) / f64::from(load.rate))).await;
                }
                let (couple, at) = (n as usize % COUPLES, now());
                let (path, token, body) = match peer {
                    Peer::Nchan => (format!("/pub/{couple}"), None, frame(n, at)),
                    _ => (
                        "/v1/couple/entries".to_owned(),
                        Some(format!("bench-{couple}-first-0123456789")),
                        format!(r#"{{"client_id":"{at}-{n}","kind":"text","body":{{"text":"{at}"}}}}"#),
                    ),
                };
                let (status, answer) = client.post(&path, token.as_deref(), body).await;
                assert!(status < 300, "{status} {answer:?}");
                said += 1;
            }
            said as usize
        });
    }
    lanes.join_all().await.iter().sum()
}

/// A frame of the same length and structure as ours.
fn frame(n: u32, at: u64) -> String {
    format!(
        r#"{{"type":"entry","entry":{{"seq":{n},"author":"partner","kind":"text","body":{{"text":"{at}"}},"target":null,"created_at":"2026-11-25T01:02:03.004Z","edited_at":null,"deleted_at":null,"reactions":{{}}}},"cursor":"0123abcd.1.{n}.0.0"}}"#
    )
}
