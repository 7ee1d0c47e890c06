//! Many connections to one process: thousands of abandoned ones, and clients that read nothing.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    ALONE, couples,
    device::{Device, Transport},
    engine::cpu,
    number,
    processes::append,
    support::{self, Client, Server, free_address},
};

/// Connections of one wave: fewer than one process accepts, and more than one account may have.
const WAVE: usize = 2_000;
/// Maximum number of waves until the memory of a process is stable.
///
/// Its allocator returns little memory, and grows for a while.
const WARM: usize = 12;
/// Maximum live connections of one account.
const EACH: usize = 10;

async fn start(folder: &std::path::Path) -> Server {
    let settings = [
        ("COUPLE_LIMITS", "off"),
        ("COUPLE_ROLE", "api"),
        ("COUPLE_METRICS", "on"),
        // All clients have one address.
        ("COUPLE_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("RUST_LOG", "error"),
    ];
    let server = Server::spawn(&support::binary(), folder, free_address(), &settings);
    server.until_ready().await;
    server
}

/// Resident memory in KiB, proc(5).
fn memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Number of open files, connections included.
fn files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Number of live connections, as counted by the process.
async fn streams(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("couple_live_streams ")).unwrap();
    line.split_once(' ').unwrap().1.parse().unwrap()
}

/// Maximum number of open files of this process and its children, proc(5).
fn most_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// Requests a couple's log, and reads only up to `answer`.
async fn open(
    transport: Transport,
    address: SocketAddr,
    token: &str,
    after: &str,
    answer: &str,
) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Limits the bytes that the system buffers for a client that reads nothing.
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let more = match transport {
        Transport::WebSocket => {
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        Transport::Events => "accept: text/event-stream\r\n",
        Transport::Poll => "",
    };
    let request = format!(
        "GET /v1/couple/live?wait=50{after} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 256]);
    while !String::from_utf8_lossy(&seen).contains(answer) {
        let got =
            timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("an answer").unwrap();
        seen.extend(&buffer[..got]);
        assert!(got > 0, "{transport:?}: {}", String::from_utf8_lossy(&seen));
    }
    stream
}

/// Opens connections for all accounts and drops them: one half with a close, one half with a reset.
async fn abandon(server: &Server, transport: Transport, tokens: &[String], count: usize) {
    let (address, mut opening, mut connections) = (server.address, JoinSet::new(), Vec::new());
    // With presence, a poll would end when the partner connects.
    let presence = if transport == Transport::Poll { "off" } else { "on" };
    for n in 0..count {
        let token = tokens[n % tokens.len()].clone();
        opening.spawn(async move {
            let after = format!("&device={n}&presence={presence}");
            open(transport, address, &token, &after, "\r\n\r\n").await
        });
        if opening.len() >= 64 {
            connections.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(one) = opening.join_next().await {
        connections.push(one.unwrap());
    }
    // A poll waits in its body, which begins after the head that was read above.
    wait_for_streams(server, count).await;
    for (n, connection) in connections.into_iter().enumerate() {
        if n % 2 == 0 {
            connection.set_zero_linger().unwrap();
        }
        drop(connection);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_abandoned_connections_leave_no_memory_or_files() {
    let _alone = ALONE.lock().await;
    let total = number("COUPLE_CROWD_ABANDONED", 10_000);
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), WAVE / EACH).await;
    for transport in Transport::ALL {
        let server = start(folder.path()).await;
        let cold = memory(&server);
        // The base is the memory of a warm process: waves are repeated until two in a row do not increase it.
        let (mut base, mut open_files, mut warm, mut flat) = (0, 0, 0, 0);
        while warm < WARM && flat < 2 {
            abandon(&server, transport, &tokens, WAVE).await;
            let (now, files) = idle_usage(&server).await;
            flat = if now as f64 <= base as f64 * 1.01 { flat + 1 } else { 0 };
            (base, open_files, warm) = (base.max(now), files, warm + 1);
        }
        let started = Instant::now();
        for _ in 0..total.div_ceil(WAVE) {
            abandon(&server, transport, &tokens, WAVE).await;
            wait_for_no_stream(&server).await;
        }
        let took = started.elapsed();
        let (after, files) = idle_usage(&server).await;
        println!(
            "{transport:?}: {total} connections abandoned in {:.0} s: {cold} KiB at the start, {base} KiB after the first {warm} × {WAVE}, \
             {after} KiB after all: {:.2} times; {files} open files, {open_files} before",
            took.as_secs_f64(),
            after as f64 / base as f64
        );
        assert!(after as f64 <= base as f64 * 1.1, "{transport:?}: {base} KiB became {after} KiB");
        assert!(files <= open_files + 2, "{transport:?}: {open_files} open files became {files}");
    }
}

/// Connections beyond an account's limit are refused over every transport, at the cost of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_keeps_ten_connections_however_many_it_opens() {
    let _alone = ALONE.lock().await;
    let total = number("COUPLE_CROWD_OF_ONE", 2_000);
    assert!(most_files() >= total + 200, "ulimit -n allows {} open files, too few", most_files());
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let server = start(folder.path()).await;
    let address = server.address;
    let mut let_in = Vec::new();
    for n in 0..EACH {
        let device = format!("&device={n}");
        let_in.push(open(Transport::ALL[n % 3], address, &tokens[0], &device, "\r\n\r\n").await);
    }
    let before = memory(&server);
    let (mut opening, mut refused) = (JoinSet::new(), Vec::new());
    for n in EACH..total {
        let token = tokens[0].clone();
        opening.spawn(async move {
            let device = format!("&device={n}");
            let transport = Transport::ALL[n % 3];
            // An event stream is refused with a frame: a browser does not reconnect after another status than 200.
            let refusal = match transport {
                Transport::Events => r#""reason":"too_many_streams""#,
                _ => r#""code":"too_many_streams""#,
            };
            open(transport, address, &token, &device, refusal).await
        });
        if opening.len() >= 64 {
            refused.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(one) = opening.join_next().await {
        refused.push(one.unwrap());
    }
    let each = memory(&server).saturating_sub(before) as f64 / refused.len() as f64;
    println!(
        "{total} connections of one account: {} are refused, {each:.1} KiB for each while they stay",
        refused.len()
    );
    assert!(each <= 32.0, "{each} KiB per refused connection");
    // The accepted connections are still open, and other accounts can connect.
    assert_eq!(streams(address).await, EACH);
    drop(open(Transport::WebSocket, address, &tokens[1], "", "caught_up").await);
    drop((refused, let_in));
    wait_for_no_stream(&server).await;
    open(Transport::Events, address, &tokens[0], "", "caught_up").await;
}

/// Waits until the server counts `wanted` live connections.
async fn wait_for_streams(server: &Server, wanted: usize) {
    let started = Instant::now();
    loop {
        let seen = streams(server.address).await;
        if seen == wanted {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{seen} live connections after a minute, expected {wanted}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no live connection is left.
async fn wait_for_no_stream(server: &Server) {
    wait_for_streams(server, 0).await;
}

/// Memory and open files after all clients have disconnected and the process is idle.
async fn idle_usage(server: &Server) -> (usize, usize) {
    wait_for_no_stream(server).await;
    sleep(Duration::from_secs(1)).await;
    (memory(server), files(server))
}

/// Waits until the process is idle.
async fn idle(server: &Server) {
    for _ in 0..40 {
        let before = cpu(server.pid());
        sleep(Duration::from_millis(200)).await;
        if cpu(server.pid()) - before <= 0.02 {
            return;
        }
    }
}

/// Delays of entries to the partner, measured from before they are sent.
async fn measure_delivery(
    server: &Server,
    tokens: &[String],
    devices: &[Device],
    name: &str,
    count: usize,
) -> Vec<Duration> {
    let (mut client, mut texts) = (Client::new(server.address), Vec::new());
    for n in 0..count {
        let pair = n % devices.len();
        let text = format!("{name}-{n}");
        let started = Instant::now();
        append(&mut client, &tokens[2 * pair], &text, &text).await;
        texts.push((pair, text, started));
        sleep(Duration::from_millis(2)).await;
    }
    sleep(Duration::from_millis(200)).await;
    texts
        .iter()
        .map(|(pair, text, started)| {
            devices[*pair].when(text).expect("the entry was received").duration_since(*started)
        })
        .collect()
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_cost_little_and_delay_no_other() {
    const ENTRIES: usize = 10_000;
    let _alone = ALONE.lock().await;
    let readers = number("COUPLE_CROWD_STALLED", 40);
    let stalled_couples = readers.div_ceil(2 * EACH);
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), stalled_couples + 10).await;
    let text = "x".repeat(1_000);
    for couple in 0..stalled_couples {
        couples::fill(folder.path(), &tokens[2 * couple], ENTRIES, &text).await;
    }
    let server = start(folder.path()).await;
    let (stuck, others) = tokens.split_at(2 * stalled_couples);
    let devices: Vec<_> = (others.chunks(2).enumerate())
        .map(|(n, pair)| Device::start(Transport::ALL[n % 2], vec![server.address], pair[1].clone(), None))
        .collect();
    let (mut quiet, mut beside, mut growth) = (Vec::new(), Vec::new(), 0);
    // The first round warms caches, and is not measured.
    for round in 0..4 {
        let took = measure_delivery(&server, others, &devices, &format!("quiet-{round}"), 300).await;
        let before = memory(&server);
        let mut held = Vec::new();
        for n in 0..readers {
            held.push(
                open(Transport::ALL[n % 2], server.address, &stuck[n % stuck.len()], "&after=0", "").await,
            );
        }
        // Waits until the system's buffers are full.
        idle(&server).await;
        wait_for_streams(&server, readers + devices.len()).await;
        let took_beside = measure_delivery(&server, others, &devices, &format!("beside-{round}"), 300).await;
        if round > 0 {
            growth = growth.max(memory(&server).saturating_sub(before) / readers);
            quiet.extend(took);
            beside.extend(took_beside);
        }
        // They are disconnected after they have read nothing for ten seconds.
        let started = Instant::now();
        while streams(server.address).await > devices.len() {
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "clients that read nothing are still connected"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
    let (quiet, beside) = (p99(quiet), p99(beside));
    let ratio = beside.as_secs_f64() / quiet.as_secs_f64();
    println!(
        "{readers} readers of {ENTRIES} × 1 KB take nothing: at most {growth} KiB more for each; the others' p99 {:.1} ms without, \
         {:.1} ms beside them: {ratio:.2} times",
        quiet.as_secs_f64() * 1e3,
        beside.as_secs_f64() * 1e3
    );
    assert!(growth <= 128, "{growth} KiB per connection");
    // Only the absolute delay is checked: other tests, and a debug build that catches up, disturb the ratio.
    assert!(beside < Duration::from_secs(2), "{quiet:?} became {beside:?}");
}
