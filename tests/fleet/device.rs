//! A device that follows its couple's log over one transport, and reconnects when it is disconnected.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{below, support::Client};

/// Transport of the HTTP contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Events,
    Poll,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::Events, Self::Poll];
}

/// Protocol of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Plain(Transport),
    /// Over a WebSocket.
    SocketIo,
}

impl Protocol {
    pub(crate) const ALL: [Self; 4] = [
        Self::Plain(Transport::WebSocket),
        Self::Plain(Transport::Events),
        Self::Plain(Transport::Poll),
        Self::SocketIo,
    ];
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        Self::Plain(transport)
    }
}

/// Frames that a device has received.
#[derive(Debug, Default)]
pub(crate) struct FrameLog {
    /// By `seq`: text, and time of the first arrival.
    pub(crate) entries: BTreeMap<i64, (String, Instant)>,
    /// The highest `seq` that has arrived.
    last: i64,
    pub(crate) connections: usize,
    /// Number of entries that first arrived after a later one.
    pub(crate) reordered: usize,
    /// Number of repeated entries, which de-duplication by `seq` removes.
    pub(crate) again: usize,
    /// Responses and frames that report an error of the client.
    pub(crate) faults: Vec<String>,
    /// Reasons of the ended connections, with the delay that the server asked for.
    pub(crate) byes: Vec<(String, Duration)>,
    /// Ends without a reason of connections that had sent a frame.
    pub(crate) broken: Vec<String>,
    /// Whether the current connection has sent a frame.
    open: bool,
    /// Delay before the next connection that the last frame asked for.
    retry_after: Option<Duration>,
}

impl FrameLog {
    fn take(&mut self, frame: &Value, cursor: &mut String) {
        self.open = true;
        if let Some(at) = frame["cursor"].as_str() {
            at.clone_into(cursor);
        }
        match frame["type"].as_str().unwrap() {
            "entry" => {
                let seq = frame["entry"]["seq"].as_i64().unwrap();
                // Entries of the server have no text.
                let text = frame["entry"]["body"]["text"].as_str().unwrap_or_default();
                if let Some((before, _)) = self.entries.get(&seq) {
                    self.again += 1;
                    if before != text {
                        self.faults.push(format!("{seq} is {before} and {text}"));
                    }
                    return;
                }
                if seq < self.last {
                    self.reordered += 1;
                }
                self.last = self.last.max(seq);
                self.entries.insert(seq, (text.to_owned(), Instant::now()));
            }
            "reset" => self.faults.push(frame.to_string()),
            "bye" => {
                let delay = Duration::from_millis(frame["retry_after_ms"].as_u64().unwrap());
                self.byes.push((frame["reason"].as_str().unwrap().to_owned(), delay));
                self.retry_after = Some(delay);
            }
            _ => {}
        }
    }

    fn answered(&mut self, status: u16, body: &str) {
        if (400..500).contains(&status) {
            self.faults.push(format!("status {status}: {body}"));
        }
    }
}

pub(crate) struct Device {
    pub(crate) protocol: Protocol,
    pub(crate) log: Arc<Mutex<FrameLog>>,
    task: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Device {
    /// Follows from the beginning, at each of `addresses` in turn.
    ///
    /// With a `life`, it disconnects without a close at random times, after that time on average.
    pub(crate) fn start(
        protocol: impl Into<Protocol>,
        addresses: Vec<SocketAddr>,
        token: String,
        life: Option<Duration>,
    ) -> Self {
        Self::start_with(protocol, addresses, token, life, false)
    }

    /// As [`start`](Self::start). A polite device waits as long as a `bye` asks it to, as the contract demands.
    pub(crate) fn start_with(
        protocol: impl Into<Protocol>,
        addresses: Vec<SocketAddr>,
        token: String,
        life: Option<Duration>,
        polite: bool,
    ) -> Self {
        let protocol = protocol.into();
        let log = Arc::<Mutex<FrameLog>>::default();
        let task_log = log.clone();
        let task = tokio::spawn(async move {
            let mut cursor = "0".to_owned();
            for address in addresses.iter().cycle() {
                let life = life.map_or(Duration::from_secs(3_600), |life| {
                    Duration::from_millis(below(2 * u64::try_from(life.as_millis()).unwrap()))
                });
                task_log.lock().unwrap().connections += 1;
                let ended = match protocol {
                    Protocol::Plain(Transport::WebSocket) => {
                        timeout(life, socket(*address, &token, &mut cursor, &task_log)).await
                    }
                    Protocol::Plain(Transport::Events) => {
                        timeout(life, events(*address, &token, &mut cursor, &task_log)).await
                    }
                    Protocol::Plain(Transport::Poll) => {
                        timeout(life, poll(*address, &token, &mut cursor, &task_log)).await
                    }
                    Protocol::SocketIo => {
                        timeout(life, socketio(*address, &token, &mut cursor, &task_log)).await
                    }
                };
                let asked = {
                    let mut log = task_log.lock().unwrap();
                    let (open, asked) = (std::mem::take(&mut log.open), log.retry_after.take());
                    match &ended {
                        // After a complete poll, the next one starts immediately.
                        Ok(Ok(())) if protocol == Protocol::Plain(Transport::Poll) && asked.is_none() => {
                            continue;
                        }
                        Ok(ended) if open && asked.is_none() => log.broken.push(format!("{ended:?}")),
                        _ => {}
                    }
                    asked
                };
                sleep(asked.filter(|_| polite).unwrap_or_else(|| Duration::from_millis(20 + below(80))))
                    .await;
            }
        });
        Self { protocol, log, task }
    }

    /// Checks that the log has no gap and is that of the partner's device; returns its texts.
    pub(crate) fn texts(&self, partner: &Self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        assert_eq!(log.faults, Vec::<String>::new(), "by {:?}", self.protocol);
        let entries: BTreeMap<_, _> =
            log.entries.iter().map(|(seq, (text, _))| (*seq, text.clone())).collect();
        drop(log);
        let theirs = partner.log.lock().unwrap();
        let same = entries.iter().eq(theirs.entries.iter().map(|(seq, (text, _))| (seq, text)));
        assert!(entries.keys().copied().eq(1..=i64::try_from(entries.len()).unwrap()), "a gap: {entries:?}");
        assert!(same, "{:?} and {:?} differ", self.protocol, partner.protocol);
        entries.into_values().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.log.lock().unwrap().entries.len()
    }

    /// Time at which it received the entry with this text.
    pub(crate) fn when(&self, text: &str) -> Option<Instant> {
        self.log
            .lock()
            .unwrap()
            .entries
            .values()
            .find(|(entry_text, _)| entry_text == text)
            .map(|(_, at)| *at)
    }
}

async fn socket(
    address: SocketAddr,
    token: &str,
    cursor: &mut String,
    log: &Mutex<FrameLog>,
) -> Result<(), String> {
    let url = format!("ws://{address}/v1/couple/live?after={cursor}");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut socket = upgrade(request, address, log).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message.map_err(|error| error.to_string())? {
            log.lock().unwrap().take(&serde_json::from_str(&text).unwrap(), cursor);
        }
    }
    Ok(())
}

async fn upgrade(
    request: impl IntoClientRequest + Unpin,
    address: SocketAddr,
    log: &Mutex<FrameLog>,
) -> Result<WebSocketStream<TcpStream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
            log.lock().unwrap().answered(answer.status().as_u16(), &body);
            Err(answer.status().to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Engine.IO 4 and Socket.IO 5: packets are text, and their first digits are their type.
async fn socketio(
    address: SocketAddr,
    token: &str,
    cursor: &mut String,
    log: &Mutex<FrameLog>,
) -> Result<(), String> {
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let mut socket = upgrade(url, address, log).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(|error| error.to_string())? else { continue };
        let answer = match (text.get(..1), text.get(..2)) {
            (Some("0"), _) => format!("40{}", json!({ "token": token, "cursor": cursor })),
            (Some("2"), _) => "3".to_owned(),
            (_, Some("42")) => {
                let event: Value = serde_json::from_str(&text[2..]).unwrap();
                log.lock().unwrap().take(&event[1], cursor);
                continue;
            }
            (_, Some("44")) => {
                // Refused: this is a client error, except for codes that correspond to a 5xx status.
                if !["overloaded", "unavailable", "timed_out", "internal"]
                    .iter()
                    .any(|code| text.contains(code))
                {
                    log.lock().unwrap().faults.push(text.to_string());
                }
                return Err(text.to_string());
            }
            (_, Some("41")) => return Ok(()),
            _ => continue,
        };
        socket.send(Message::text(answer)).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn events(
    address: SocketAddr,
    token: &str,
    cursor: &mut String,
    log: &Mutex<FrameLog>,
) -> Result<(), String> {
    let headers = [("accept", "text/event-stream"), ("last-event-id", &*cursor.clone())];
    let answer = Client::new(address).send("GET", "/v1/couple/live", Some(token), None, &headers).await?;
    let status = answer.status().as_u16();
    log.lock().unwrap().answered(status, "");
    if status != 200 {
        return Err(status.to_string());
    }
    let (mut body, mut bytes) = (answer.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        bytes.extend(frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default());
        while let Some(end) = bytes.windows(2).position(|two| two == b"\n\n") {
            let event = String::from_utf8(bytes.drain(..end + 2).collect()).unwrap();
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                log.lock().unwrap().take(&serde_json::from_str(data).unwrap(), cursor);
            }
        }
    }
    Ok(())
}

async fn poll(
    address: SocketAddr,
    token: &str,
    cursor: &mut String,
    log: &Mutex<FrameLog>,
) -> Result<(), String> {
    let path = format!("/v1/couple/live?after={cursor}&wait=20");
    let answer = Client::new(address).once("GET", &path, Some(token), None, &[]).await?;
    log.lock().unwrap().answered(answer.status, &answer.body.to_string());
    let Some(frames) = answer.body["frames"].as_array() else { return Err(answer.status.to_string()) };
    let mut log = log.lock().unwrap();
    for frame in frames {
        log.take(frame, cursor);
    }
    answer.body["cursor"].as_str().unwrap().clone_into(cursor);
    Ok(())
}
