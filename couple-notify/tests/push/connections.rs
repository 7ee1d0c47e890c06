//! Faults of connections: each is followed by successful messages without a restart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple_core::{
    ErrorKind,
    push::{PushError, Pusher as _},
};
use couple_notify::push::{Apns, ConnectionOptions};
use rcgen::KeyPair;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    alert, iphone, outcome,
    scripted::{Step, scripted},
    server::{Identity, PushServer, Reply},
};

const REFUSED_STREAM: u32 = 7;
const INTERNAL_ERROR: u32 = 2;

fn apns(url: &str, options: &ConnectionOptions) -> Apns {
    let key = KeyPair::generate().unwrap().serialize_pem();
    Apns::new("KEY1234567", "TEAM123456", &key, options).unwrap().with_servers(url, url).unwrap()
}

/// Sends one message.
async fn send(apns: &Apns) -> String {
    outcome(&apns.push(&alert(iphone())).await)
}

/// Sends messages one by one until one is sent: on a busy machine, the short time-outs of a test can fail on a good connection too.
async fn send_until_sent(apns: &Apns) {
    let limit = Duration::from_secs(30);
    let sent = timeout(limit, async { while send(apns).await != "sent" {} }).await;
    assert!(sent.is_ok(), "no message was sent on a new connection within {limit:?}");
}

/// Sends messages concurrently.
async fn send_many(apns: &Apns, count: usize) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let apns = apns.clone();
        tasks.spawn(async move { send(&apns).await });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn concurrent_messages_share_one_connection_and_wait_for_free_streams() {
    for max in [1, 3] {
        let (open, highest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let peak = highest.clone();
        let server = PushServer::with_max_streams(Some(max), move |_| {
            let (open, highest) = (open.clone(), highest.clone());
            async move {
                highest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                open.fetch_sub(1, Ordering::SeqCst);
                Reply::status(200)
            }
        })
        .await;
        let apns = apns(&server.url(), &server.options());
        assert_eq!(send_many(&apns, 100).await, vec!["sent"; 100]);
        assert_eq!(server.connections(), 1);
        assert!(peak.load(Ordering::SeqCst) <= max as usize);
    }
}

#[tokio::test]
async fn messages_are_in_flight_concurrently() {
    let (arrived, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let server = PushServer::start(move |_| {
        let (arrived, all) = (arrived.clone(), all.clone());
        async move {
            // No request is answered before all have arrived.
            if arrived.fetch_add(1, Ordering::SeqCst) + 1 == 50 {
                all.add_permits(50);
            }
            all.acquire().await.unwrap().forget();
            Reply::status(200)
        }
    })
    .await;
    let apns = apns(&server.url(), &server.options());
    assert_eq!(send_many(&apns, 50).await, vec!["sent"; 50]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn requests_that_the_server_has_not_processed_are_repeated() {
    for (script, connections) in [
        (vec![vec![Step::Reset(REFUSED_STREAM)]], vec![2]),
        (vec![vec![Step::GoAwayBefore]], vec![1, 1]),
        (vec![vec![Step::AcceptAndGoAway]], vec![1, 1]),
        (vec![vec![Step::GoAwayBefore], vec![Step::Reset(REFUSED_STREAM)]], vec![1, 2]),
    ] {
        let accepts_first = matches!(script[0][0], Step::AcceptAndGoAway);
        let scripted = scripted(100, script).await;
        let apns = apns(&scripted.server.url(), &scripted.server.options());
        if accepts_first {
            assert_eq!(send(&apns).await, "sent");
        }
        assert_eq!(send(&apns).await, "sent");
        assert_eq!(scripted.requests(), connections);
    }
}

#[tokio::test]
async fn requests_that_the_server_may_have_processed_are_not_repeated() {
    for (step, connections) in
        [(Step::Reset(INTERNAL_ERROR), vec![2]), (Step::GoAwayAfter, vec![1, 1]), (Step::Close, vec![1, 1])]
    {
        let scripted = scripted(100, [vec![step]]).await;
        let apns = apns(&scripted.server.url(), &scripted.server.options());
        assert_eq!(send(&apns).await, "unavailable");
        assert_eq!(send(&apns).await, "sent");
        assert_eq!(scripted.requests(), connections);
    }
}

#[tokio::test]
async fn refusals_of_the_same_request_end() {
    let scripted = scripted(100, [vec![Step::Reset(REFUSED_STREAM); 50]]).await;
    let apns = apns(&scripted.server.url(), &scripted.server.options());
    assert_eq!(send(&apns).await, "unavailable");
    assert_eq!(scripted.requests(), [4]);
}

#[tokio::test]
async fn missing_response_is_unavailable_and_the_next_message_uses_a_new_connection() {
    let scripted = scripted(100, [vec![Step::Stall]]).await;
    let options = scripted.server.options().with_request_timeout(Duration::from_millis(100));
    let apns = apns(&scripted.server.url(), &options);
    let sent = apns.push(&alert(iphone())).await;
    let Err(PushError::Unavailable { error, retry_after: None }) = sent else { panic!("{sent:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    send_until_sent(&apns).await;
    assert!(scripted.requests()[0] <= 1);
}

#[tokio::test]
async fn message_that_waits_for_a_stream_of_a_stalled_connection_moves_to_a_new_one() {
    let scripted = scripted(1, [vec![Step::Stall]]).await;
    let options = scripted.server.options().with_request_timeout(Duration::from_secs(5));
    let apns = apns(&scripted.server.url(), &options.with_stream_timeout(Duration::from_mins(1)));
    let mut sent = send_many(&apns, 5).await;
    sent.sort();
    assert_eq!(sent, ["sent", "sent", "sent", "sent", "unavailable"]);
    assert_eq!(scripted.requests(), [1, 4]);
}

#[tokio::test]
async fn message_that_waits_too_long_for_a_stream_is_not_sent_and_the_next_one_uses_a_new_connection() {
    let scripted = scripted(1, [vec![Step::Stall]]).await;
    let options = scripted.server.options().with_request_timeout(Duration::from_mins(1));
    let apns = apns(&scripted.server.url(), &options.with_stream_timeout(Duration::from_millis(200)));
    let stalled = tokio::spawn({
        let apns = apns.clone();
        async move { send(&apns).await }
    });
    while scripted.requests() != [1] {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&apns).await, "unavailable");
    send_until_sent(&apns).await;
    assert_eq!(scripted.requests()[0], 1, "the message that was given up was sent");
    stalled.abort();
}

#[tokio::test]
async fn half_open_connection_is_found_by_ping() {
    let scripted = scripted(100, [vec![Step::HalfOpen]]).await;
    // The request itself would wait for a minute.
    let options =
        scripted.server.options().with_keep_alive(Duration::from_millis(50), Duration::from_secs(3));
    let apns = apns(&scripted.server.url(), &options);
    let first = timeout(Duration::from_secs(30), send(&apns)).await;
    assert_eq!(first.unwrap(), "unavailable");
    send_until_sent(&apns).await;
    assert!(scripted.requests()[0] <= 1);
}

#[tokio::test]
async fn idle_half_open_connection_is_closed_before_the_next_message() {
    let scripted = scripted(100, [vec![Step::AcceptAndFallSilent]]).await;
    let options =
        scripted.server.options().with_keep_alive(Duration::from_millis(50), Duration::from_secs(3));
    let apns = apns(&scripted.server.url(), &options);
    assert_eq!(send(&apns).await, "sent");
    let ended = timeout(Duration::from_secs(30), scripted.ended.acquire()).await;
    ended.unwrap().unwrap().forget();
    send_until_sent(&apns).await;
    assert!(scripted.requests()[0] <= 1);
}

#[tokio::test]
async fn server_that_starts_later_is_found_without_a_restart() {
    let identity = Arc::new(Identity::new(b"h2"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let apns = apns(&format!("https://localhost:{}", address.port()), &identity.options());
    assert_eq!(send_many(&apns, 3).await, vec!["unavailable"; 3]);
    let server = PushServer::listen(
        identity,
        TcpListener::bind(address).await.unwrap(),
        Arc::default(),
        |tls| async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(String::new()))
            });
            let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = http.serve_connection(hyper_util::rt::TokioIo::new(tls), service).await;
        },
    );
    assert_eq!(send(&apns).await, "sent");
    drop(server);
}

#[tokio::test]
async fn waiting_messages_share_one_attempt_to_connect() {
    // The system accepts connections, but no process answers TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let options = ConnectionOptions::default().with_connect_timeout(Duration::from_secs(1));
    let apns = apns(&url, &options);
    assert_eq!(send_many(&apns, 20).await, vec!["unavailable"; 20]);
    let mut connections = 0;
    while let Ok(Ok(_)) = timeout(Duration::from_millis(50), listener.accept()).await {
        connections += 1;
    }
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn message_is_not_sent_without_a_valid_certificate_or_http_2() {
    let server = PushServer::start(|_| async { Reply::status(200) }).await;
    let other = Identity::new(b"h2");
    assert_eq!(send(&apns(&server.url(), &other.options())).await, "unavailable");
    assert_eq!(send(&apns(&server.url(), &ConnectionOptions::default())).await, "unavailable");
    assert!(server.requests().is_empty());

    let identity = Arc::new(Identity::new(b"http/1.1"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = PushServer::listen(identity, listener, Arc::default(), |_| async {});
    assert_eq!(send(&apns(&old.url(), &old.options())).await, "unavailable");
}

#[test]
fn root_certificates_must_be_a_pem_text_with_a_certificate() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "certificate", &key, "-----BEGIN CERTIFICATE-----\nAAAA", broken] {
        let error = ConnectionOptions::default().with_root_certificates(pem.as_bytes()).expect_err(pem);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{pem}");
    }
}
