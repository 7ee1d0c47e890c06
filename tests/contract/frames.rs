//! WebSocket frames that violate RFC 6455 or a limit close their own connection only.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{CloseCode, Control, Data, OpCode},
    },
};

use crate::socket::{Served, Socket, closed, frame};

/// Maximum bytes of a client's message.
const MESSAGE: usize = 4096;

/// A frame whose mask is zero, which leaves its bytes unchanged; `first` has the flags and the opcode.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => bytes.push(0x80 | short),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

async fn open(served: &Served, token: &str) -> Socket {
    let mut socket = served.connect(token, "").await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    socket
}

#[tokio::test]
async fn protocol_violation_closes_the_connection_with_its_code() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut partner = open(&served, &ben).await;
    let typing = br#"{"type":"signal","kind":"typing"}"#;
    let unlike: Vec<u8> = typing.iter().map(|byte| byte ^ 0x80).collect();
    let cases: [(&str, Vec<u8>, u16); 17] = [
        ("no mask", vec![0x81, 0x01, b'x'], 1002),
        ("text that the mask makes invalid", masked(0x81, &unlike), 1007),
        ("a reserved opcode", masked(0x83, b""), 1002),
        ("a reserved control opcode", masked(0x8b, b""), 1002),
        ("a reserved bit", masked(0xc1, b"x"), 1002),
        ("a ping that is too long", masked(0x89, &[0; 256]), 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("a continuation without a message", masked(0x80, b"x"), 1002),
        ("a message within a fragmented message", [masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
        ("half a close code", masked(0x88, &[0x03]), 1002),
        ("invalid UTF-8", masked(0x81, &[0xff]), 1007),
        ("invalid UTF-8 in fragments", [masked(0x01, &[0xc3]), masked(0x80, b"x")].concat(), 1007),
        ("one byte too many", masked(0x81, &[b'x'; MESSAGE + 1]), 1009),
        ("gigabytes", vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("the largest possible length", [vec![0x82, 0xff], vec![0xff; 8], vec![0; 4]].concat(), 1009),
        (
            "fragments that are too long in total",
            [0x01, 0x00, 0x00].map(|first| masked(first, &[b'x'; 2_000])).concat(),
            1009,
        ),
        (
            "one byte too many in the last fragment",
            [masked(0x01, &[b'x'; MESSAGE]), masked(0x80, b"x")].concat(),
            1009,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut socket = open(&served, &ana).await;
        socket.get_mut().write_all(&bytes).await.unwrap();
        let close_frame = closed(&mut socket).await.unwrap_or_else(|| panic!("{what}: no close frame"));
        assert_eq!(u16::from(close_frame.code), code, "{what}: {close_frame}");
    }
    served.until_open(1).await;
    // Other connections are not affected.
    served.world.say(&ana, "still-here").await;
    assert_eq!(frame(&mut partner).await["entry"]["body"]["text"], "still-here");
}

/// A fragmented message is accepted; a binary message and a text of the maximum length do not end the connection.
#[tokio::test]
async fn fragmented_message_is_one_message() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut by_ana, mut by_ben) = (open(&served, &ana).await, open(&served, &ben).await);
    let text = json!({"type": "signal", "kind": "hug", "body": {"words": "é".repeat(1_900)}}).to_string();
    assert!(text.len() > 3_800 && text.len() <= MESSAGE);
    // Split within characters too, with a ping and an empty fragment in between.
    let mut kind = OpCode::Data(Data::Text);
    for piece in text.as_bytes().chunks(701) {
        by_ana.send(Message::Frame(Frame::message(piece.to_vec(), kind, false))).await.unwrap();
        kind = OpCode::Data(Data::Continue);
        by_ana.send(Message::Ping(b"between".to_vec().into())).await.unwrap();
        by_ana.send(Message::Frame(Frame::message(Vec::new(), kind, false))).await.unwrap();
    }
    by_ana.send(Message::Frame(Frame::message(Vec::new(), kind, true))).await.unwrap();
    let received = frame(&mut by_ben).await;
    assert_eq!((&received["kind"], &received["body"]["words"]), (&json!("hug"), &json!("é".repeat(1_900))));
    let answered =
        async { while by_ana.next().await.unwrap().unwrap() != Message::Pong(b"between".to_vec().into()) {} };
    timeout(Duration::from_secs(2), answered).await.expect("a pong");
    // A binary message is ignored, and so is the longest possible text.
    for odd in [Message::binary(vec![0xff; MESSAGE]), Message::text("x".repeat(MESSAGE))] {
        by_ana.send(odd).await.unwrap();
    }
    by_ana.send(Message::text(json!({"type": "signal", "kind": "kiss"}).to_string())).await.unwrap();
    assert_eq!(frame(&mut by_ben).await["kind"], "kiss");
}

#[tokio::test]
async fn close_frame_is_answered() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for code in [1000, 1001, 4000] {
        let mut socket = open(&served, &ana).await;
        let payload = u16::to_be_bytes(code).to_vec();
        socket.send(Message::Frame(Frame::from_payload(close_header(), payload.into()))).await.unwrap();
        let close_frame = closed(&mut socket).await.expect("an answer");
        assert_eq!(close_frame.code, CloseCode::from(code));
        served.until_open(0).await;
    }
}

fn close_header() -> tokio_tungstenite::tungstenite::protocol::frame::FrameHeader {
    tokio_tungstenite::tungstenite::protocol::frame::FrameHeader {
        opcode: OpCode::Control(Control::Close),
        ..Default::default()
    }
}

#[tokio::test]
async fn too_many_messages_close_the_connection() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = open(&served, &ana).await;
    for _ in 0..1_000 {
        if socket.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    closed(&mut socket).await;
    served.until_open(0).await;
}

/// An incomplete frame, a fragmented message without end, and a client that reads nothing.
///
/// With `COUPLE_UNANSWERED_PINGS=2` the test waits until two pings are unanswered, for up to a minute. Otherwise the clients disconnect.
#[tokio::test]
async fn unfinished_messages_hold_only_their_own_permits_until_two_pings() {
    let until_pings = std::env::var("COUPLE_UNANSWERED_PINGS").is_ok_and(|pings| pings == "2");
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut half, mut pieces, mut mute) =
        (open(&served, &ana).await, open(&served, &ana).await, open(&served, &ana).await);
    half.get_mut().write_all(&masked(0x81, &[b'x'; MESSAGE])[..8]).await.unwrap();
    pieces.get_mut().write_all(&masked(0x01, b"x")).await.unwrap();
    let mut other = open(&served, &ben).await;
    served.world.say(&ana, "hello").await;
    assert_eq!(frame(&mut other).await["entry"]["body"]["text"], "hello");
    let (started, mut left) = (Instant::now(), 3);
    while left > 0 && (until_pings || started.elapsed() < Duration::from_secs(3)) {
        // Twice 30 s at most, and some more on a busy machine.
        assert!(started.elapsed() < Duration::from_secs(80), "{left} are still open");
        // Single bytes do not count as a sign of life.
        let _ = half.get_mut().write_all(b"x").await;
        let _ = pieces.get_mut().write_all(&masked(0x00, b"")).await;
        let _ = other.send(Message::Pong(Vec::new().into())).await;
        sleep(Duration::from_millis(500)).await;
        left = served.streams().await - 1;
    }
    if until_pings {
        for socket in [&mut half, &mut pieces, &mut mute] {
            closed(socket).await;
        }
    } else {
        assert_eq!(left, 3, "each has its permit");
        drop((half, pieces, mute));
        served.until_open(1).await;
    }
    served.world.say(&ana, "bye").await;
    assert_eq!(frame(&mut other).await["entry"]["body"]["text"], "bye");
}
