//! HTTP/2 server that follows a script of frames, for faults that a library does not produce.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::server::TlsStream;

use super::server::PushServer;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Reaction of a connection to one request, after its body has arrived.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// Status 200.
    Accept,
    /// `RST_STREAM` with an error code (RFC 9113, 7).
    Reset(u32),
    /// GOAWAY with `NO_ERROR` that excludes the request, then the end of the connection.
    GoAwayBefore,
    /// GOAWAY with `NO_ERROR` that includes the request, then the end of the connection without a response.
    GoAwayAfter,
    /// Status 200, then GOAWAY.
    AcceptAndGoAway,
    /// End of the connection.
    Close,
    /// No response; PING frames are answered.
    Stall,
    /// No frame any more, and none is read.
    HalfOpen,
    /// Status 200, and no frame after it.
    AcceptAndFallSilent,
}

/// Server with scripts.
pub(crate) struct Scripted {
    pub(crate) server: PushServer,
    requests: Arc<Mutex<Vec<usize>>>,
    /// One permit for each connection that has ended.
    pub(crate) ended: Arc<Semaphore>,
}

impl Scripted {
    /// Number of requests of each connection.
    pub(crate) fn requests(&self) -> Vec<usize> {
        self.requests.lock().unwrap().clone()
    }
}

/// Starts a server whose n-th connection follows the n-th script; later ones accept every request.
pub(crate) async fn scripted(max_streams: u32, scripts: impl IntoIterator<Item = Vec<Step>>) -> Scripted {
    let scripts: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(scripts.into_iter().collect()));
    let requests: Arc<Mutex<Vec<usize>>> = Arc::default();
    let ended = Arc::new(Semaphore::new(0));
    let (counts, ends) = (requests.clone(), ended.clone());
    let server = PushServer::accept(Arc::default(), move |tls| {
        let steps = scripts.lock().unwrap().pop_front().unwrap_or_default();
        let (counts, ends) = (counts.clone(), ends.clone());
        let connection = {
            let mut counts = counts.lock().unwrap();
            counts.push(0);
            counts.len() - 1
        };
        async move {
            let count = move || counts.lock().unwrap()[connection] += 1;
            // A client may disconnect at any time.
            let _ = converse(tls, max_streams, steps, count).await;
            ends.add_permits(1);
        }
    });
    Scripted { server: server.await, requests, ended }
}

async fn converse(
    mut tls: TlsStream<TcpStream>,
    max_streams: u32,
    steps: Vec<Step>,
    count: impl Fn(),
) -> std::io::Result<()> {
    let mut steps = VecDeque::from(steps);
    let mut preface = [0; 24];
    tls.read_exact(&mut preface).await?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    let mut settings = vec![0, 3];
    settings.extend_from_slice(&max_streams.to_be_bytes());
    write(&mut tls, SETTINGS, 0, 0, &settings).await?;
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        tls.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => write(&mut tls, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => write(&mut tls, PING, ACK, 0, &payload).await?,
            HEADERS | DATA if flags & END_STREAM != 0 => {
                count();
                let go_away = |last: u32| [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                match steps.pop_front().unwrap_or(Step::Accept) {
                    Step::Accept => accept(&mut tls, stream).await?,
                    Step::Reset(code) => {
                        write(&mut tls, RST_STREAM, 0, stream, &code.to_be_bytes()).await?;
                    }
                    Step::GoAwayBefore => {
                        write(&mut tls, GOAWAY, 0, 0, &go_away(stream.saturating_sub(2))).await?;
                        return tls.shutdown().await;
                    }
                    Step::GoAwayAfter => {
                        write(&mut tls, GOAWAY, 0, 0, &go_away(stream)).await?;
                        return tls.shutdown().await;
                    }
                    Step::AcceptAndGoAway => {
                        accept(&mut tls, stream).await?;
                        write(&mut tls, GOAWAY, 0, 0, &go_away(stream)).await?;
                    }
                    Step::Close => return tls.shutdown().await,
                    Step::Stall => {}
                    Step::HalfOpen => std::future::pending().await,
                    Step::AcceptAndFallSilent => {
                        accept(&mut tls, stream).await?;
                        while tls.read(&mut [0; 64]).await? > 0 {}
                        return Ok(());
                    }
                }
            }
            _ => {}
        }
    }
}

/// Sends the status 200, which is entry 8 of the static table (RFC 7541, appendix A).
async fn accept(tls: &mut TlsStream<TcpStream>, stream: u32) -> std::io::Result<()> {
    write(tls, HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]).await
}

async fn write(
    tls: &mut TlsStream<TcpStream>,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    tls.write_all(&frame).await?;
    tls.flush().await
}
