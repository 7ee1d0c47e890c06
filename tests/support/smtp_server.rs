//! The scripted SMTP server of all tests: keeps the mails that it accepts, and fails at each command as a test says.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// What the server does at a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sends a reply, of one or more lines.
    Reply(&'static str),
    /// Closes the connection.
    Close,
    /// Keeps the connection open and sends nothing.
    Stall,
}

/// Encryption that the server offers.
#[derive(Clone, Default)]
pub(crate) enum Encryption {
    #[default]
    None,
    StartTls(TlsAcceptor),
    Implicit(TlsAcceptor),
}

/// Behaviour of a server. The default accepts every mail, and offers no extension but `AUTH PLAIN`.
#[derive(Default)]
pub(crate) struct Script {
    /// Actions in place of a positive reply, by command: `GREETING`, `EHLO`, …, and `.` for the end of a mail.
    pub(crate) actions: Mutex<Vec<(&'static str, Action)>>,
    /// Extensions besides `AUTH PLAIN` and, before it is used, `STARTTLS`.
    pub(crate) extensions: &'static [&'static str],
    pub(crate) encryption: Encryption,
    /// Number of connections, the first ones, to which the actions apply. None: all.
    pub(crate) faulty_connections: Option<usize>,
}

/// Ends when it is dropped.
pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    script: Script,
    /// Recipient and text of each mail.
    mails: Mutex<Vec<(String, String)>>,
    silent: AtomicBool,
    /// Connections that were opened, or that sent a command, during a silence.
    unanswered: AtomicUsize,
    connections: AtomicUsize,
    /// All lines of all clients.
    lines: Mutex<String>,
    /// Notified at each line.
    line: Notify,
}

impl SmtpServer {
    pub(crate) async fn start() -> Self {
        Self::scripted(Script::default()).await
    }

    /// Starts a server with one action in place of the reply to a command.
    pub(crate) async fn failing(command: &'static str, action: Action) -> Self {
        Self::scripted(Script { actions: vec![(command, action)].into(), ..Script::default() }).await
    }

    pub(crate) async fn scripted(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { script, ..State::default() });
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let earlier = shared.connections.fetch_add(1, Ordering::SeqCst);
                let is_faulty = shared.script.faulty_connections.is_none_or(|limit| earlier < limit);
                let shared = shared.clone();
                connections.spawn(async move { serve(stream, &shared, is_faulty).await.unwrap_or_default() });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// Replaces the actions, also for connections that are open.
    pub(crate) fn set_actions(&self, actions: &[(&'static str, Action)]) {
        *self.state.script.actions.lock().unwrap() = actions.to_vec();
    }

    /// Keeps connections open without an answer. A connection that is used during the silence never gets one, also afterwards.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// Number of connections that were used during a silence.
    pub(crate) fn unanswered(&self) -> usize {
        self.state.unanswered.load(Ordering::SeqCst)
    }

    /// Number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// All lines of all clients, each with `\n` at its end.
    pub(crate) fn lines(&self) -> String {
        self.state.lines.lock().unwrap().clone()
    }

    /// Number of commands that begin with `start`.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.lines().lines().filter(|line| line.starts_with(start)).count()
    }

    /// Waits for `count` lines that begin with `start`.
    pub(crate) async fn until_received(&self, start: &str, count: usize) {
        loop {
            let line = self.state.line.notified();
            if self.count(start) >= count {
                return;
            }
            line.await;
        }
    }

    /// `AUTH` commands of all connections.
    pub(crate) fn sign_ins(&self) -> Vec<String> {
        self.lines().lines().filter(|line| line.starts_with("AUTH")).map(str::to_owned).collect()
    }

    /// Texts of the mails to an address, oldest first.
    pub(crate) fn mails_to(&self, address: &str) -> Vec<String> {
        let mails = self.state.mails.lock().unwrap();
        mails.iter().filter(|(to, _)| to == address).map(|(_, text)| text.clone()).collect()
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

async fn serve(stream: TcpStream, state: &State, is_faulty: bool) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let rest = match &state.script.encryption {
        Encryption::None => converse(Box::new(stream), "GREETING", state, is_faulty).await,
        Encryption::Implicit(acceptor) => {
            let stream = acceptor.accept(stream).await.ok()?;
            converse(Box::new(stream), "GREETING", state, is_faulty).await
        }
        Encryption::StartTls(acceptor) => {
            let stream = converse(Box::new(stream), "GREETING", state, is_faulty).await?;
            let stream = acceptor.accept(stream).await.ok()?;
            converse(Box::new(stream), "ENCRYPTED", state, is_faulty).await
        }
    };
    rest.map(drop)
}

/// Answers commands until the client or an action closes the connection, or until `STARTTLS`: returns the stream in that case.
async fn converse(
    stream: Box<dyn Connection>,
    first: &'static str,
    state: &State,
    is_faulty: bool,
) -> Option<Box<dyn Connection>> {
    let mut stream = BufStream::new(stream);
    let offers_starttls = matches!(state.script.encryption, Encryption::StartTls(_)) && first == "GREETING";
    let (mut to, mut text) = (String::new(), String::new());
    let mut command = first.to_owned();
    loop {
        if state.silent.load(Ordering::SeqCst) {
            state.unanswered.fetch_add(1, Ordering::SeqCst);
            return std::future::pending().await;
        }
        let reply = match &*command {
            "GREETING" => "220 test".to_owned(),
            "EHLO" => ehlo(offers_starttls, state.script.extensions),
            "AUTH" => "235 welcome".to_owned(),
            "STARTTLS" => "220 go ahead".to_owned(),
            "DATA" => "354 go ahead".to_owned(),
            "QUIT" => "221 bye".to_owned(),
            _ => "250 fine".to_owned(),
        };
        let action = state.script.actions.lock().unwrap().iter().find(|(at, _)| *at == command).copied();
        let reply = match action.filter(|_| is_faulty) {
            Some((_, Action::Close)) => return None,
            Some((_, Action::Stall)) => return std::future::pending().await,
            Some((_, Action::Reply(reply))) => reply.to_owned(),
            None => reply,
        };
        if command == "." {
            let mail = (std::mem::take(&mut to), std::mem::take(&mut text));
            if reply.starts_with('2') {
                state.mails.lock().unwrap().push(mail);
            }
        }
        // After the handshake the client speaks first.
        if command != "ENCRYPTED" {
            stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
        }
        if command == "STARTTLS" && reply.starts_with('2') {
            return Some(stream.into_inner());
        }
        let in_mail = command == "DATA" && reply.starts_with('3');
        let mut line = read_line(&mut stream, state).await?;
        while in_mail && line != "." {
            // A dot before a dot belongs to the protocol (RFC 5321, 4.5.2).
            let line_of_mail = line.strip_prefix('.').unwrap_or(&line);
            text.push_str(&format!("{line_of_mail}\r\n"));
            line = read_line(&mut stream, state).await?;
        }
        if line.starts_with("RCPT") {
            to = line.split(['<', '>']).nth(1).unwrap_or("").to_owned();
        }
        command = line.split([' ', ':']).next().unwrap_or("").to_owned();
    }
}

fn ehlo(offers_starttls: bool, extensions: &[&str]) -> String {
    let mut lines = vec!["test"];
    lines.extend(extensions);
    if offers_starttls {
        lines.push("STARTTLS");
    }
    let first = lines.iter().map(|line| format!("250-{line}\r\n")).collect::<String>();
    format!("{first}250 AUTH PLAIN")
}

async fn read_line(stream: &mut BufStream<Box<dyn Connection>>, state: &State) -> Option<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    {
        let mut lines = state.lines.lock().unwrap();
        lines.push_str(&line);
        lines.push('\n');
    }
    state.line.notify_waiters();
    Some(line)
}
