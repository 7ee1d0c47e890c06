//! WebSocket frames that are not what RFC 6455 says, or that somebody chose to be a nuisance: each gets its code, and nobody else
//! hears of it.

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

/// Bytes of a message that a client may send.
const MESSAGE: usize = 4096;

/// A frame under a mask of zeros, which leaves its bytes as they are; `first` has the flags and the kind.
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
async fn who_breaks_the_protocol_is_told_and_let_go() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut partner = open(&served, &ben).await;
    let typing = br#"{"type":"signal","kind":"typing"}"#;
    let unlike: Vec<u8> = typing.iter().map(|byte| byte ^ 0x80).collect();
    let cases: [(&str, Vec<u8>, u16); 17] = [
        ("no mask", vec![0x81, 0x01, b'x'], 1002),
        ("a mask that is not the one it says", masked(0x81, &unlike), 1007),
        ("a reserved kind", masked(0x83, b""), 1002),
        ("a reserved kind of control", masked(0x8b, b""), 1002),
        ("a reserved bit", masked(0xc1, b"x"), 1002),
        ("a ping that is too long", masked(0x89, &[0; 256]), 1002),
        ("a ping in pieces", masked(0x09, b""), 1002),
        ("the rest of nothing", masked(0x80, b"x"), 1002),
        ("another message within one", [masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
        ("half a close code", masked(0x88, &[0x03]), 1002),
        ("text that is none", masked(0x81, &[0xff]), 1007),
        ("text that is none, in pieces", [masked(0x01, &[0xc3]), masked(0x80, b"x")].concat(), 1007),
        ("a byte too much", masked(0x81, &[b'x'; MESSAGE + 1]), 1009),
        ("gigabytes", vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("more than there is", [vec![0x82, 0xff], vec![0xff; 8], vec![0; 4]].concat(), 1009),
        (
            "pieces that are too much",
            [0x01, 0x00, 0x00].map(|first| masked(first, &[b'x'; 2_000])).concat(),
            1009,
        ),
        (
            "a byte too much, in the last piece",
            [masked(0x01, &[b'x'; MESSAGE]), masked(0x80, b"x")].concat(),
            1009,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut socket = open(&served, &ana).await;
        socket.get_mut().write_all(&bytes).await.unwrap();
        let told = closed(&mut socket).await.unwrap_or_else(|| panic!("{what}: not a word"));
        assert_eq!(u16::from(told.code), code, "{what}: {told}");
    }
    served.until_open(1).await;
    // Nobody else was harmed.
    served.world.say(&ana, "still-here").await;
    assert_eq!(frame(&mut partner).await["entry"]["body"]["text"], "still-here");
}

/// What is allowed, however odd, is heard.
#[tokio::test]
async fn a_message_in_pieces_is_one_message() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut by_ana, mut by_ben) = (open(&served, &ana).await, open(&served, &ben).await);
    let said = json!({"type": "signal", "kind": "hug", "body": {"words": "é".repeat(1_900)}}).to_string();
    assert!(said.len() > 3_800 && said.len() <= MESSAGE);
    // Cut within letters too, with a ping and an empty piece between.
    let mut kind = OpCode::Data(Data::Text);
    for piece in said.as_bytes().chunks(701) {
        by_ana.send(Message::Frame(Frame::message(piece.to_vec(), kind, false))).await.unwrap();
        kind = OpCode::Data(Data::Continue);
        by_ana.send(Message::Ping(b"between".to_vec().into())).await.unwrap();
        by_ana.send(Message::Frame(Frame::message(Vec::new(), kind, false))).await.unwrap();
    }
    by_ana.send(Message::Frame(Frame::message(Vec::new(), kind, true))).await.unwrap();
    let told = frame(&mut by_ben).await;
    assert_eq!((&told["kind"], &told["body"]["words"]), (&json!("hug"), &json!("é".repeat(1_900))));
    let answered =
        async { while by_ana.next().await.unwrap().unwrap() != Message::Pong(b"between".to_vec().into()) {} };
    timeout(Duration::from_secs(2), answered).await.expect("a pong");
    // Binary is not what is spoken here, and no harm; nor is the longest message there may be.
    for odd in [Message::binary(vec![0xff; MESSAGE]), Message::text("x".repeat(MESSAGE))] {
        by_ana.send(odd).await.unwrap();
    }
    by_ana.send(Message::text(json!({"type": "signal", "kind": "kiss"}).to_string())).await.unwrap();
    assert_eq!(frame(&mut by_ben).await["kind"], "kiss");
}

#[tokio::test]
async fn a_goodbye_is_answered() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for code in [1000, 1001, 4000] {
        let mut socket = open(&served, &ana).await;
        let payload = u16::to_be_bytes(code).to_vec();
        socket.send(Message::Frame(Frame::from_payload(close_header(), payload.into()))).await.unwrap();
        let told = closed(&mut socket).await.expect("an answer");
        assert_eq!(told.code, CloseCode::from(code));
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
async fn chatter_ends() {
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

/// What never ends is not waited for: a frame, a message in pieces without end, a word for who reads and says nothing. Each
/// holds its own place only, for as long as it takes to ask twice whether somebody is there.
#[tokio::test]
async fn what_never_ends_holds_its_own_place_only_and_not_for_long() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut half, mut pieces, mut mute) =
        (open(&served, &ana).await, open(&served, &ana).await, open(&served, &ana).await);
    half.get_mut().write_all(&masked(0x81, &[b'x'; MESSAGE])[..8]).await.unwrap();
    pieces.get_mut().write_all(&masked(0x01, b"x")).await.unwrap();
    let mut other = open(&served, &ben).await;
    served.world.say(&ana, "hello").await;
    assert_eq!(frame(&mut other).await["entry"]["body"]["text"], "hello");
    let begun = Instant::now();
    let mut open = 3;
    while open > 0 {
        // Twice 30 s at most, and what a busy machine adds.
        assert!(begun.elapsed() < Duration::from_secs(80), "{open} stay");
        // A letter now and then is no sign of life.
        let _ = half.get_mut().write_all(b"x").await;
        let _ = pieces.get_mut().write_all(&masked(0x00, b"")).await;
        let _ = other.send(Message::Pong(Vec::new().into())).await;
        sleep(Duration::from_millis(500)).await;
        open = served.streams().await - 1;
    }
    for socket in [&mut half, &mut pieces, &mut mute] {
        closed(socket).await;
    }
    served.world.say(&ana, "bye").await;
    assert_eq!(frame(&mut other).await["entry"]["body"]["text"], "bye");
}
