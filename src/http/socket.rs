//! Live delivery over a WebSocket: the frames of every transport, as JSON text.

use std::{future::ready, pin::pin, time::Duration};

use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use couple_notify::live::{CloseReason, Frame, Stream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::{
    App,
    frame::{self, FrameOut, reason},
    heartbeat::Heartbeat,
    message_rate::MessageRate,
    stream_permits::StreamPermit,
};

/// Subprotocol for clients that must name one.
pub(super) const PROTOCOL: &str = "couple";

/// Maximum bytes of a client's message: a signal or a `ping`.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Maximum time for which a client may accept no bytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to wait for the client's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Upgrades the connection to a WebSocket that sends the frames of `stream`.
pub(super) fn upgrade(
    app: App,
    upgrade: WebSocketUpgrade,
    stream: Stream,
    permit: StreamPermit,
    heartbeat: Heartbeat,
) -> Response {
    upgrade
        .protocols([PROTOCOL])
        // Grows for clients that send more. The default costs every idle connection 128 KiB.
        .read_buffer_size(256)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        // A separate task: the task that upgrades has memory for all messages that pass through it.
        .on_upgrade(move |socket| {
            drop(tokio::spawn(follow(Box::new(SocketFollower {
                app,
                socket,
                stream,
                heartbeat,
                _permit: permit,
            }))));
            ready(())
        })
}

/// State of a WebSocket's task, boxed: otherwise the task reserves space for it twice.
struct SocketFollower {
    app: App,
    socket: WebSocket,
    stream: Stream,
    heartbeat: Heartbeat,
    _permit: StreamPermit,
}

async fn follow(mut follower: Box<SocketFollower>) {
    let SocketFollower { app, socket, stream, heartbeat, .. } = &mut *follower;
    let side = stream.membership().side;
    let next_ping = |app: &App| Instant::now() + Duration::from_millis(20_000 + app.jitter(10_000));
    // One timer for all frames: a new one for each would be registered and removed each time.
    let mut ping = pin!(sleep_until(next_ping(app)));
    let (mut heard, mut rate) = (true, MessageRate::new());
    loop {
        let mut over = None;
        let message = tokio::select! {
            frame = stream.next() => {
                let Some(frame) = frame else { return };
                if let Frame::Bye(why) = frame {
                    over = Some(why);
                }
                Message::Text(frame::text(app, &frame, side).into())
            }
            message = socket.recv() => match message {
                // tungstenite has queued the response, which another read sends.
                Some(Ok(Message::Close(_))) => return Box::pin(drain(socket)).await,
                Some(Ok(_)) if !rate.allows(1) => return Box::pin(close_with(socket, close_code::POLICY, "too much")).await,
                Some(Ok(message)) => {
                    heard = true;
                    let Message::Text(text) = message else { continue };
                    match Box::pin(frame::handle_client_frame(stream, &text)).await {
                        Some(answer) => Message::Text(answer.into()),
                        None => continue,
                    }
                }
                Some(Err(error)) => match fault(error) {
                    Some(code) => return Box::pin(close_with(socket, code, "")).await,
                    None => return,
                },
                None => return,
            },
            () = ping.as_mut() => {
                // The client sent nothing since the last ping, not even a pong: it is gone.
                if !heard {
                    return;
                }
                heard = false;
                ping.as_mut().reset(next_ping(app));
                Message::Ping(Vec::new().into())
            }
            () = heartbeat.due() => Message::Text(FrameOut::Ping.text().into()),
        };
        if matches!(message, Message::Text(_)) {
            heartbeat.restart();
        }
        if !send(socket, message).await {
            return;
        }
        if let Some(why) = over {
            let code = match why {
                CloseReason::SignedOut | CloseReason::NotPaired => close_code::POLICY,
                CloseReason::Draining | CloseReason::Expired => close_code::RESTART,
                CloseReason::Unavailable => close_code::AGAIN,
            };
            return Box::pin(close_with(socket, code, reason(why))).await;
        }
    }
}

/// Sends a message; returns whether the client accepted it in time.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    timeout(SEND_TIMEOUT, socket.send(message)).await.is_ok_and(|sent| sent.is_ok())
}

async fn close_with(socket: &mut WebSocket, code: u16, reason: &'static str) {
    if send(socket, Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await {
        drain(socket).await;
    }
}

/// Reads and discards messages until the client closes, or [`CLOSE_TIMEOUT`] is over.
async fn drain(socket: &mut WebSocket) {
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
}

/// Close code for a client's error (RFC 6455, 7.4.1). None: the connection is lost.
fn fault(error: axum::Error) -> Option<u16> {
    match *error.into_inner().downcast::<tungstenite::Error>().ok()? {
        tungstenite::Error::Capacity(_) => Some(close_code::SIZE),
        tungstenite::Error::Utf8(_) => Some(close_code::INVALID),
        tungstenite::Error::Protocol(_) => Some(close_code::PROTOCOL),
        _ => None,
    }
}
