//! Autobahn's test cases, run by `kosoku`.
//!
//! They need an echo of every message, which no route has: here the same server loop and the same WebSocket, with small buffers as in the
//! server, serve an echo. Only the limit of 4 KiB per message is raised, for cases of up to 16 MiB.

use std::time::Duration;

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    routing::any,
};
use couple::http::{ServeOptions, listen, serve};
use tokio::time::timeout;

use crate::program;

const MESSAGE: usize = 64 << 20;

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_test_cases_pass() {
    let upgrade = async |upgrade: WebSocketUpgrade| {
        upgrade
            .read_buffer_size(1024)
            .write_buffer_size(0)
            .max_message_size(MESSAGE)
            .max_frame_size(MESSAGE)
            .on_upgrade(echo)
    };
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/", any(upgrade));
    let serving = tokio::spawn(serve(listener, app, ServeOptions::default(), std::future::pending()));
    let out = timeout(Duration::from_secs(300), program("conformance.py").arg(url).output()).await;
    let out = out.expect("kosoku did not end within five minutes").unwrap();
    let output = String::from_utf8_lossy(&out.stdout);
    println!("{output}");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(output.lines().any(|line| line == "all conform"), "{}: {output}{errors}", out.status);
    serving.abort();
}
