//! The measured servers, each a process on a separate core.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::COUPLES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Ours,
    Nchan,
    Ws,
    SocketIo,
}

impl Peer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "couple",
            Self::Nchan => "nginx with nchan",
            Self::Ws => "npm ws",
            Self::SocketIo => "npm socket.io",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    WebSocket,
    Events,
    Poll,
    SocketIo,
}

impl Way {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Events => "server-sent events",
            Self::Poll => "long poll",
            Self::SocketIo => "Socket.IO (WebSocket)",
        }
    }

    /// Request of listener `n`, who is the partner in couple `n` modulo the number of couples.
    pub(crate) fn request(self, peer: Peer, n: usize) -> String {
        let couple = n % COUPLES;
        let (path, more) = match peer {
            Peer::Ours if self == Self::SocketIo => {
                ("/socket.io/?EIO=4&transport=websocket".to_owned(), String::new())
            }
            Peer::Ours => (
                format!("/v1/couple/live?wait=50&device={n}"),
                format!("authorization: Bearer bench-{couple}-second-0123456789\r\n"),
            ),
            Peer::Nchan => (format!("/sub/{couple}"), String::new()),
            Peer::Ws => (format!("/?couple={couple}"), String::new()),
            Peer::SocketIo => {
                (format!("/socket.io/?EIO=4&transport=websocket&couple={couple}"), String::new())
            }
        };
        let kind = match self {
            Self::WebSocket | Self::SocketIo => {
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Self::Events => "accept: text/event-stream\r\n",
            Self::Poll => "",
        };
        format!("GET {path} HTTP/1.1\r\nhost: b\r\n{more}{kind}\r\n")
    }
}

pub(crate) struct Server {
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
    pub(crate) address: SocketAddr,
    _folder: Option<tempfile::TempDir>,
}

/// Runs on a core that the clients do not use, unless there is only one.
fn pinned(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program.into());
    command
}

impl Server {
    pub(crate) fn start(peer: Peer) -> Self {
        let folder = || PathBuf::from(std::env::var_os("COUPLE_PEERS_FOLDER").unwrap());
        let node = |script: &str| {
            let mut command = pinned("node");
            command.arg(folder().join(script));
            command
        };
        match peer {
            Peer::Ours => {
                let mut command = pinned(std::env::current_exe().unwrap());
                command.arg("server");
                Self::talking(command)
            }
            Peer::Ws => Self::talking(node("ws.js")),
            Peer::SocketIo => Self::talking(node("socketio.js")),
            Peer::Nchan => Self::nginx(),
        }
    }

    /// Our server, on any core.
    pub(crate) fn ours(how: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("server").args(how);
        Self::talking(command)
    }

    /// A server that prints its address and executes commands.
    fn talking(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = out.next().unwrap().unwrap().parse().unwrap();
        Self { child, out: Some(out), address, _folder: None }
    }

    fn nginx() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = folder.path().to_str().unwrap();
        let temporary: String = (["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter())
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .collect();
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
             daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 19000; }}
             http {{
                 access_log off; tcp_nodelay on; keepalive_requests 1000000000; {temporary}
                 nchan_shared_memory_size 512M;
                 server {{
                     listen {address} backlog=4096;
                     location ~ ^/sub/(\\w+)$ {{
                         nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message newest;
                     }}
                     location ~ ^/pub/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_timeout 10s; }}
                 }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = pinned("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(folder.path().join("start.log"));
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, out: None, address, _folder: Some(folder) };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("nginx does not start at {address}");
    }

    /// Resident memory in KiB, proc(5).
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Starts publishing at a rate for a number of seconds.
    pub(crate) fn begin(&mut self, rate: u32, seconds: u32) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{rate} {seconds}").unwrap();
    }

    /// Number of entries that the server published.
    pub(crate) fn said(&mut self) -> usize {
        self.out.as_mut().unwrap().next().unwrap().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
