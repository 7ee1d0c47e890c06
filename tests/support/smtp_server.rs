//! A scripted SMTP server that keeps the mails it accepts, and can become a black hole.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Ends when it is dropped.
pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Recipient and text of each mail.
    mails: Mutex<Vec<(String, String)>>,
    silent: AtomicBool,
    /// Connections that were opened, or that sent a command, during a silence.
    unanswered: AtomicUsize,
    /// `AUTH` commands.
    sign_ins: Mutex<Vec<String>>,
}

impl SmtpServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<State>::default());
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move { converse(stream, shared).await.unwrap_or_default() });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// Keeps connections open without an answer. A connection that is used during the silence never gets one, also afterwards.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// Number of connections that were used during a silence.
    pub(crate) fn unanswered(&self) -> usize {
        self.state.unanswered.load(Ordering::SeqCst)
    }

    /// `AUTH` commands of all connections.
    pub(crate) fn sign_ins(&self) -> Vec<String> {
        self.state.sign_ins.lock().unwrap().clone()
    }

    /// Texts of the mails to an address, oldest first.
    pub(crate) fn mails_to(&self, address: &str) -> Vec<String> {
        let mails = self.state.mails.lock().unwrap();
        mails.iter().filter(|(to, _)| to == address).map(|(_, text)| text.clone()).collect()
    }
}

async fn converse(stream: TcpStream, state: Arc<State>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let (mut lines, mut answer) = (BufReader::new(read).lines(), "220 test");
    let (mut to, mut text, mut in_mail) = (String::new(), String::new(), false);
    loop {
        if state.silent.load(Ordering::SeqCst) {
            state.unanswered.fetch_add(1, Ordering::SeqCst);
            return std::future::pending().await;
        }
        write.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
        let mut line = lines.next_line().await.ok()??;
        while in_mail && line != "." {
            text.push_str(&format!("{line}\r\n"));
            line = lines.next_line().await.ok()??;
        }
        answer = match line.split([' ', ':']).next().unwrap_or("") {
            "EHLO" => "250-test\r\n250 AUTH PLAIN",
            "AUTH" => {
                state.sign_ins.lock().unwrap().push(line);
                "235 welcome"
            }
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap_or("").to_owned();
                "250 fine"
            }
            "DATA" => {
                in_mail = true;
                "354 go ahead"
            }
            "." if in_mail => {
                in_mail = false;
                // A mail that arrives during a silence is not accepted.
                if !state.silent.load(Ordering::SeqCst) {
                    state.mails.lock().unwrap().push((std::mem::take(&mut to), std::mem::take(&mut text)));
                }
                "250 taken"
            }
            _ => "250 fine",
        };
    }
}
