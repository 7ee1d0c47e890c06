//! Proxy on loopback that delays, stops or cuts connections.
#![allow(dead_code, reason = "each uses its part")]
#![allow(clippy::unwrap_used, reason = "stops where something is not as it must be")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Forwards bytes with a delay. Ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    silent: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    cuts: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy for `server`, with `delay` in each direction.
    pub(crate) async fn start(server: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let (mute, accepted, cuts) = (silent.clone(), Arc::new(AtomicUsize::new(0)), watch::Sender::new(()));
        let refuses = Arc::new(AtomicBool::new(false));
        let (count, cut, refusing) = (accepted.clone(), cuts.clone(), refuses.clone());
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                pipes.spawn(pass(from_client, to_server, delay, mute.clone(), cut.subscribe()));
                pipes.spawn(pass(from_server, to_client, delay, mute.clone(), cut.subscribe()));
            }
        });
        Self { address, silent, refuses, accepted, cuts, _tasks: tasks }
    }

    /// Stops forwarding, with connections kept open, or resumes it.
    pub(crate) fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// Closes all connections, and each new one, or accepts them again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
        if refuses {
            self.cut();
        }
    }

    /// Closes all connections immediately, also within a message.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// URL of a server with the address of this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let (before, after) = url.split_once('@').unwrap();
        let (_, database) = after.split_once('/').unwrap();
        format!("{before}@{}/{database}", self.address)
    }
}

/// Address of the server in a URL.
pub(crate) fn server_of(url: &str) -> SocketAddr {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

async fn pass(
    mut from: impl AsyncRead + Unpin + Send,
    mut to: impl AsyncWrite + Unpin + Send,
    delay: Duration,
    silent: Arc<AtomicBool>,
    mut cut: watch::Receiver<()>,
) {
    let ways = cut.clone();
    let pass_on = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            while silent.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(10)).await;
            }
            // The other direction may be cut already: the response to a truncated request must not arrive.
            if ways.has_changed().unwrap_or(true) || to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = pass_on => {}
        _ = cut.changed() => {}
    }
}
