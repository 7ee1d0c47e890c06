//! Socket.IO clients, frame by frame (Engine.IO 4, Socket.IO 5): the same stream, the same policy.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::socket::{Served, Socket};

impl Served {
    /// Begins an Engine.IO session over a WebSocket, and says so much of oneself.
    async fn socketio(&self, auth: &Value) -> Socket {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", self.address);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut socket, _) = client_async(url, stream).await.unwrap();
        assert!(packet(&mut socket).await.starts_with("0{"));
        socket.send(Message::text(format!("40{auth}"))).await.unwrap();
        socket
    }

    /// The same, let in.
    async fn follow(&self, auth: &Value) -> Socket {
        let mut socket = self.socketio(auth).await;
        let told = packet(&mut socket).await;
        assert!(told.starts_with("40{\"sid\""), "{told}");
        socket
    }
}

async fn packet(socket: &mut Socket) -> String {
    loop {
        let message = timeout(Duration::from_secs(2), socket.next()).await.expect("within two seconds");
        match message.unwrap().unwrap() {
            Message::Text(text) if text.as_str() == "2" => socket.send(Message::text("3")).await.unwrap(),
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Close(_) => return "closed".to_owned(),
            other => panic!("{other:?}"),
        }
    }
}

/// The next event that is not about presence: its frame, whose type is its name.
async fn event(socket: &mut Socket) -> Value {
    loop {
        let told = packet(socket).await;
        let event: Value =
            serde_json::from_str(told.strip_prefix("42").unwrap_or_else(|| panic!("{told}"))).unwrap();
        assert_eq!(event[0], event[1]["type"]);
        if event[0] != "presence" {
            return event[1].clone();
        }
    }
}

#[tokio::test]
async fn a_client_gets_what_there_was_and_what_comes() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.follow(&json!({"token": ben, "cursor": "0"})).await;
    assert_eq!(event(&mut socket).await["entry"]["kind"], "paired");
    let cursor = event(&mut socket).await["cursor"].clone();
    served.world.say(&ana, "hello").await;
    assert_eq!(event(&mut socket).await["entry"]["body"]["text"], "hello");
    drop(socket);
    // From its cursor on, over another transport or again over this one.
    let mut socket = served.follow(&json!({"token": ben, "cursor": cursor, "presence": "off"})).await;
    assert_eq!(event(&mut socket).await["entry"]["body"]["text"], "hello");
    assert_eq!(event(&mut socket).await["type"], "caught_up");
    let mut by_ana = served.follow(&json!({"token": ana})).await;
    assert_eq!(event(&mut by_ana).await["type"], "caught_up");
    by_ana.send(Message::text(r#"42["signal",{"kind":"kiss"}]"#)).await.unwrap();
    let kiss = json!({"type": "signal", "from": "partner", "kind": "kiss", "body": null});
    assert_eq!(event(&mut socket).await, kiss);
    by_ana.send(Message::text(r#"42["signal",{"kind":"paired"}]"#)).await.unwrap();
    assert_eq!(event(&mut by_ana).await, json!({"type": "refused", "code": "invalid_field"}));
    by_ana.send(Message::text(r#"42["signal",7]"#)).await.unwrap();
    assert_eq!(event(&mut by_ana).await, json!({"type": "refused", "code": "invalid_field"}));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let served = Served::new();
    let lonely = served.world.join("eve@example.org").await;
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for (auth, code) in [
        (json!({}), "unauthenticated"),
        (json!({"token": "nobody"}), "unauthenticated"),
        (json!({"token": lonely}), "not_paired"),
        (json!({"token": ana, "cursor": "-1"}), "invalid_field"),
        (json!({"token": ana, "couple_id": "x"}), "unauthenticated"),
    ] {
        let mut socket = served.socketio(&auth).await;
        let told = packet(&mut socket).await;
        assert_eq!(told, format!("44{}", json!({ "message": code })), "{auth}");
    }
    served.until_open(0).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(served.follow(&json!({"token": ana, "presence": "off"})).await);
    }
    let mut socket = served.socketio(&json!({"token": ana})).await;
    assert_eq!(packet(&mut socket).await, r#"44{"message":"too_many_streams"}"#);
    drop(open);
    served.until_open(0).await;
}

#[tokio::test]
async fn a_session_that_ends_and_a_process_that_goes_say_goodbye() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut by_ana, mut by_ben) =
        (served.follow(&json!({"token": ana})).await, served.follow(&json!({"token": ben})).await);
    assert_eq!(event(&mut by_ana).await["type"], "caught_up");
    assert_eq!(event(&mut by_ben).await["type"], "caught_up");
    served.world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert_eq!(event(&mut by_ben).await["reason"], "signed_out");
    assert_eq!(packet(&mut by_ben).await, "41");
    served.world.backend.live().drain();
    let bye = event(&mut by_ana).await;
    assert!(bye["reason"] == "draining" && bye["retry_after_ms"].as_u64() < Some(10_000), "{bye}");
    assert_eq!(packet(&mut by_ana).await, "41");
    served.until_open(0).await;
}

/// Engine.IO's own long polling, on one process.
#[tokio::test]
async fn polling_works_on_one_process() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let get = async |sid: &str| {
        served.raw(&format!("GET {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")).await
    };
    let begun = get("").await;
    let sid = begun.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
    let sid = format!("&sid={sid}");
    let said = format!("40{}", json!({"token": ben, "presence": "off"}));
    let post = format!(
        "POST {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{said}",
        said.len()
    );
    assert!(served.raw(&post).await.ends_with("ok"));
    served.world.say(&ana, "hello").await;
    let mut told = String::new();
    while !told.contains("\"text\":\"hello\"") {
        told.push_str(&get(&sid).await);
    }
    assert!(told.contains("40{\"sid\"") && told.contains("42[\"caught_up\""), "{told}");
}

#[tokio::test]
async fn what_is_too_long_or_no_packet_ends_its_connection_only() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut other = served.follow(&json!({"token": ben, "presence": "off"})).await;
    assert_eq!(event(&mut other).await["type"], "caught_up");
    let long = format!("42[\"signal\",{{\"kind\":\"x-a\",\"body\":{{\"a\":\"{}\"}}}}]", "x".repeat(5_000));
    for bad in [long.as_str(), "9", "45", "4{", "451-[\"signal\",{\"_placeholder\":true,\"num\":0}]"] {
        let mut socket = served.follow(&json!({"token": ana, "presence": "off"})).await;
        let _ = socket.send(Message::text(bad)).await;
        let ended = async {
            loop {
                match socket.next().await {
                    None | Some(Err(_) | Ok(Message::Close(_))) => break,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(Duration::from_secs(3), ended)
            .await
            .unwrap_or_else(|_| panic!("{bad:.20} keeps the connection"));
    }
    served.until_open(1).await;
    served.world.say(&ana, "still-here").await;
    assert_eq!(event(&mut other).await["entry"]["body"]["text"], "still-here");
}
