//! The server loop with a router and a client over TCP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

use super::{ServeOptions, listen, serve};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

fn start(router: Router, options: ServeOptions) -> Server {
    let options = options.with_stop_delay(Duration::ZERO);
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, router, options, async {
        let _ = stopped.await;
    }));
    Server { address, stop, task }
}

async fn ask(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn all_of(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("it ends");
    String::from_utf8_lossy(&text).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn handler_sees_the_client_address() {
    let who = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string());
    let server = start(Router::new().route("/", who), ServeOptions::default());
    assert!(all_of(ask(server.address, GET).await).await.ends_with("127.0.0.1"));
}

#[tokio::test]
async fn connection_beyond_the_limit_gets_503() {
    let options = ServeOptions::default().with_max_connections(1).with_max_connections_per_client(Some(2));
    let (began, ends) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let held = (began.clone(), ends.clone());
    let slow = get(async move || {
        held.0.notify_one();
        held.1.notified().await;
        "hello"
    });
    let server = start(Router::new().route("/", slow), options);
    let first = ask(server.address, GET).await;
    began.notified().await;
    let text = all_of(TcpStream::connect(server.address).await.unwrap()).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{text}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
    ends.notify_one();
    assert!(all_of(first).await.ends_with("hello"));
    ends.notify_one();
    let again = async { while !all_of(ask(server.address, GET).await).await.ends_with("hello") {} };
    timeout(Duration::from_secs(5), again).await.expect("the permit is free again");
}

/// The last frame of a response is passed to hyper long before it is written.
#[tokio::test]
async fn response_that_is_being_written_is_not_idle() {
    let much = get(async || vec![b'x'; 64 << 20]);
    let options = ServeOptions::default().with_max_connections(1).with_max_connections_per_client(Some(2));
    let server = start(Router::new().route("/", much), options);
    let mut slow = ask(server.address, "GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    // By then hyper has taken the whole body; it writes more of it whenever the client reads.
    let mut start = vec![0; 8 << 20];
    slow.read_exact(&mut start).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let text = all_of(TcpStream::connect(server.address).await.unwrap()).await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    let mut bytes = start.len();
    let mut space = vec![0; 1 << 20];
    while bytes < 64 << 20 {
        bytes += timeout(Duration::from_secs(5), slow.read(&mut space)).await.unwrap().unwrap();
        assert!(bytes > 0);
    }
    // The connection is idle from then on.
    sleep(Duration::from_millis(300)).await;
    let mut next = ask(server.address, GET).await;
    let mut start = [0; 12];
    next.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn incomplete_head_closes_the_connection() {
    let options = ServeOptions::default().with_head_timeout(Duration::from_millis(200));
    let server = start(Router::new(), options);
    assert_eq!(
        all_of(ask(server.address, "GET / HTTP/1.1\r\nhost:").await).await.matches("200 OK").count(),
        0
    );
}

#[tokio::test]
async fn client_that_reads_nothing_is_disconnected() {
    // More than the buffers of both ends can hold.
    let much = get(async || vec![b'x'; 64 << 20]);
    let options = ServeOptions::default()
        .with_write_timeout(Duration::from_millis(300))
        .with_drain_timeout(Duration::from_secs(30));
    let server = start(Router::new().route("/", much), options);
    let stuck = ask(server.address, GET).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(5), server.task)
        .await
        .expect("the server does not wait for the client")
        .unwrap();
    drop(stuck);
}

#[tokio::test]
async fn requests_in_progress_end_before_shutdown() {
    let slow = get(async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    });
    let server = start(Router::new().route("/", slow), ServeOptions::default());
    let response = ask(server.address, GET).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    assert!(all_of(response).await.ends_with("done"));
    timeout(Duration::from_secs(2), server.task).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
