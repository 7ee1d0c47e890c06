//! Tests of the [assumptions](super#assumptions) about hyper, over a transport in memory that records its calls.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{ServeOptions, conversation::hyper_settings, options::READ_AHEAD_BYTES};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// A call of the transport, or a step of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Read(usize),
    ReadBlocked,
    Write(Vec<u8>),
    Flush,
    Dropped,
    Service(&'static str),
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    fn add(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// All written bytes.
    fn written(&self) -> String {
        let writes = self.events().into_iter().filter_map(|event| match event {
            Event::Write(bytes) => Some(bytes),
            _ => None,
        });
        String::from_utf8(writes.flatten().collect()).unwrap()
    }

    fn bytes_read(&self) -> usize {
        let reads = self.events().into_iter().map(|event| match event {
            Event::Read(bytes) => bytes,
            _ => 0,
        });
        reads.sum()
    }
}

/// Transport in memory that records its calls.
struct Transport {
    stream: DuplexStream,
    log: Log,
    /// Maximum bytes that one write accepts.
    max_write: usize,
    /// Whether writes fail.
    broken: bool,
}

impl Transport {
    fn new() -> (Self, DuplexStream, Log) {
        let (stream, client) = duplex(1 << 20);
        let log = Log::default();
        (Self { stream, log: log.clone(), max_write: usize::MAX, broken: false }, client, log)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.log.add(Event::Dropped);
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.log.add(match read {
            Poll::Ready(_) => Event::Read(buffer.filled().len() - before),
            Poll::Pending => Event::ReadBlocked,
        });
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let bytes = &bytes[..bytes.len().min(self.max_write)];
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = wrote {
            self.log.add(Event::Write(bytes[..count].to_vec()));
        }
        wrote
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.log.add(Event::Flush);
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// hyper with the settings of the server loop.
fn hyper() -> http1::Builder {
    hyper_settings(&ServeOptions::default())
}

fn never() -> Body {
    Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>())
}

/// Serves a transport in a task until hyper is done with it.
fn spawn<F, R>(transport: Transport, service: F) -> tokio::task::JoinHandle<bool>
where
    F: FnMut(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let service = Mutex::new(service);
    let service = service_fn(move |request| (service.lock().unwrap())(request));
    let connection = hyper().serve_connection(TokioIo::new(transport), service).with_upgrades();
    tokio::spawn(async move { connection.await.is_ok() })
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_handled_one_after_another() {
    let (transport, mut client, _) = Transport::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let (end, ends) = oneshot::channel::<()>();
    let mut ends = Some(ends);
    let counted = calls.clone();
    let served = spawn(transport, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let ends = ends.take();
        async move {
            if let Some(ends) = ends {
                let body = futures_util::stream::once(async move {
                    let _ = ends.await;
                    Ok::<_, Infallible>("end")
                });
                return Ok(Response::new(Body::from_stream(body)));
            }
            Ok(Response::new(Body::empty()))
        }
    });
    client.write_all(format!("{GET}{GET}").as_bytes()).await.unwrap();
    settle().await;
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the first response has not ended");
    end.send(()).unwrap();
    settle().await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    served.abort();
}

#[tokio::test(start_paused = true)]
async fn head_timeout_also_bounds_idle_time() {
    for first in ["", GET] {
        let (transport, mut client, log) = Transport::new();
        let served = spawn(transport, |_| async {
            sleep(Duration::from_secs(100)).await;
            Ok(Response::new(Body::empty()))
        });
        client.write_all(first.as_bytes()).await.unwrap();
        sleep(Duration::from_secs(if first.is_empty() { 0 } else { 100 })).await;
        settle().await;
        let (started, written) = (Instant::now(), log.written());
        assert_eq!(written.matches("200 OK").count(), usize::from(!first.is_empty()));
        // Bytes of the next head do not extend the time.
        for byte in "GET / HTTP/1.1\r\n".bytes() {
            sleep(Duration::from_secs(1)).await;
            client.write_all(&[byte]).await.unwrap();
        }
        served.await.unwrap();
        let took = started.elapsed().as_secs_f32();
        assert!((29.9..31.0).contains(&took), "{took}");
        assert_eq!(log.written(), written, "no response");
    }
}

#[tokio::test]
async fn response_to_an_invalid_head_is_one_write() {
    let long = "x".repeat(2 * READ_AHEAD_BYTES);
    for (head, status) in [
        ("GET / HTTX/1.1\r\nhost: h\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(70_000)), "4"),
        (format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"), "431"),
    ] {
        let (transport, mut client, log) = Transport::new();
        let served = spawn(transport, |_| async { Ok(Response::new(Body::empty())) });
        client.write_all(head.as_bytes()).await.unwrap();
        timeout(Duration::from_secs(5), served).await.expect("it ends").unwrap();
        let mut writes = log.events();
        writes.retain(|event| matches!(event, Event::Write(_)));
        assert_eq!(writes.len(), 1, "{writes:?}");
        let written = log.written();
        assert!(written.starts_with(&format!("HTTP/1.1 {status}")), "{written}");
        assert!(super::refusal::replacement(written.as_bytes()).is_some(), "{written}");
    }
}

fn post(length: usize, more: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: h\r\n{more}content-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn body_is_read_on_request() {
    const LENGTH: usize = 512 << 10;
    let (transport, mut client, log) = Transport::new();
    let (begin, begins) = oneshot::channel::<()>();
    let mut begins = Some(begins);
    let served = spawn(transport, move |request| {
        let begins = begins.take();
        async move {
            assert!(!request.body().is_end_stream());
            assert_eq!(request.body().size_hint().lower(), LENGTH as u64);
            if let Some(begins) = begins {
                let _ = begins.await;
            }
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            Ok(Response::new(Body::from(bytes.len().to_string())))
        }
    });
    client.write_all(post(LENGTH, "").as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; LENGTH]).await.unwrap();
    settle().await;
    assert!(log.bytes_read() <= READ_AHEAD_BYTES, "{}", log.bytes_read());
    begin.send(()).unwrap();
    let mut answer = vec![0; 1024];
    let length = client.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).ends_with(&LENGTH.to_string()));
    served.abort();
}

#[tokio::test]
async fn request_without_a_body_ends_immediately() {
    let (transport, mut client, log) = Transport::new();
    let served = spawn(transport, |request| async move {
        assert!(request.body().is_end_stream());
        Ok(Response::new(Body::empty()))
    });
    client.write_all(GET.as_bytes()).await.unwrap();
    settle().await;
    assert!(log.written().starts_with("HTTP/1.1 200"));
    served.abort();
}

#[tokio::test]
async fn requested_body_arrives_on_the_next_turn() {
    let (transport, mut client, log) = Transport::new();
    let served = spawn(transport, |request| async move {
        let mut body = request.into_body();
        let mut frame = pin!(body.frame());
        for turn in 0..2 {
            match poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await {
                Poll::Ready(frame) => {
                    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "body");
                    return Ok(Response::new(Body::from("arrived")));
                }
                Poll::Pending if turn == 0 => yield_now().await,
                Poll::Pending => {}
            }
        }
        Ok(Response::new(Body::from("late")))
    });
    client.write_all(format!("{}body", post(4, "")).as_bytes()).await.unwrap();
    settle().await;
    assert!(log.written().ends_with("arrived"), "{}", log.written());
    served.abort();
}

#[tokio::test]
async fn continue_is_sent_when_the_body_is_polled() {
    for polls in [false, true] {
        let (transport, mut client, log) = Transport::new();
        let served = spawn(transport, move |request| async move {
            if polls {
                let _ = request.into_body().collect().await;
            } else {
                let held = request;
                pending::<()>().await;
                drop(held);
            }
            Ok(Response::new(Body::empty()))
        });
        client.write_all(post(4, "expect: 100-continue\r\n").as_bytes()).await.unwrap();
        settle().await;
        assert_eq!(log.written().starts_with("HTTP/1.1 100"), polls);
        served.abort();
    }
}

#[tokio::test]
async fn disconnect_drops_the_handler() {
    struct Handler(Log);
    impl Drop for Handler {
        fn drop(&mut self) {
            self.0.add(Event::Service("dropped"));
        }
    }
    let (transport, mut client, log) = Transport::new();
    let handler_log = log.clone();
    let served = spawn(transport, move |_| {
        let handler = Handler(handler_log.clone());
        async move {
            pending::<()>().await;
            drop(handler);
            Ok(Response::new(Body::empty()))
        }
    });
    client.write_all(GET.as_bytes()).await.unwrap();
    settle().await;
    assert!(!log.events().contains(&Event::Service("dropped")));
    drop(client);
    timeout(Duration::from_secs(5), served).await.expect("it ends").unwrap();
    assert!(log.events().contains(&Event::Service("dropped")));
}

#[tokio::test]
async fn head_is_written_before_the_next_flush() {
    let (transport, mut client, log) = Transport::new();
    let service_log = log.clone();
    let served = spawn(transport, move |_| {
        let log = service_log.clone();
        async move {
            log.add(Event::Service("returned"));
            Ok(Response::new(never()))
        }
    });
    client.write_all(GET.as_bytes()).await.unwrap();
    settle().await;
    let events = log.events();
    let returned = events.iter().position(|event| *event == Event::Service("returned")).unwrap();
    let after = &events[returned + 1..];
    let first_write = after.iter().position(|event| matches!(event, Event::Write(_)));
    let first_flush = after.iter().position(|event| *event == Event::Flush);
    assert!(first_write.is_some() && first_write < first_flush, "{after:?}");
    let head = log.written().to_ascii_lowercase();
    assert!(head.ends_with("\r\n\r\n") && head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("connection:"), "{head}");
    served.abort();
}

#[tokio::test]
async fn transport_is_flushed_only_after_all_writes() {
    const LENGTH: usize = 100_000;
    let (mut transport, mut client, log) = Transport::new();
    transport.max_write = 1_000;
    let served = spawn(transport, |_| async { Ok(Response::new(Body::from(vec![b'x'; LENGTH]))) });
    client.write_all(GET.as_bytes()).await.unwrap();
    settle().await;
    let (mut written, mut flushed) = (0, Vec::new());
    for event in log.events() {
        match event {
            Event::Write(bytes) => written += bytes.len(),
            Event::Flush => flushed.push(written),
            _ => {}
        }
    }
    assert!(written > LENGTH && flushed.contains(&written), "{flushed:?}");
    assert!(flushed.iter().all(|at| [0, written].contains(at)), "{flushed:?}");
    served.abort();
}

#[tokio::test]
async fn transport_is_read_after_a_response() {
    let (transport, mut client, log) = Transport::new();
    let served = spawn(transport, |_| async { Ok(Response::new(Body::from("response"))) });
    client.write_all(GET.as_bytes()).await.unwrap();
    settle().await;
    let events = log.events();
    let written = events.iter().rposition(|event| matches!(event, Event::Write(_))).unwrap();
    let after: Vec<_> =
        events[written..].iter().filter(|event| matches!(event, Event::Flush | Event::ReadBlocked)).collect();
    assert_eq!(after.first(), Some(&&Event::Flush));
    assert!(after.contains(&&Event::ReadBlocked), "{after:?}");
    served.abort();
}

#[tokio::test]
async fn connection_can_be_taken_apart_during_a_response() {
    let (transport, mut client, log) = Transport::new();
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(never())) });
    let mut connection = hyper().serve_connection(TokioIo::new(transport), service).with_upgrades();
    let next = "GET /next HTTP/1.1\r\nhost: h\r\n\r\n";
    client.write_all(format!("{GET}{next}").as_bytes()).await.unwrap();
    for _ in 0..20 {
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context).is_pending()));
        assert!(polled.await, "the response has not ended");
    }
    let written = log.written();
    let parts = connection.into_parts().expect("it is not upgraded");
    assert_eq!(parts.read_buf, next.as_bytes());
    let mut transport = parts.io.into_inner();
    client.write_all(b"more").await.unwrap();
    let mut more = [0; 4];
    transport.read_exact(&mut more).await.unwrap();
    assert_eq!(&more, b"more");
    assert_eq!(log.written(), written, "nothing ends the response");
}

#[tokio::test]
async fn response_that_closes_does_not_wait_for_the_body() {
    let (transport, mut client, log) = Transport::new();
    let service = service_fn(|request: Request<Incoming>| async move {
        drop(request);
        let mut response = Response::new(Body::from("refused"));
        response.headers_mut().insert(header::CONNECTION, "close".parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let mut connection = hyper().serve_connection(TokioIo::new(transport), service).with_upgrades();
    client.write_all(format!("{}part", post(1 << 20, "")).as_bytes()).await.unwrap();
    let ended = timeout(Duration::from_secs(5), poll_fn(|context| Pin::new(&mut connection).poll(context)));
    let _ = ended.await.expect("it ends");
    assert!(log.written().ends_with("refused"));
    assert!(connection.into_parts().is_some(), "the transport can be read further");
}

#[tokio::test]
async fn upgrade_moves_the_transport() {
    let (transport, mut client, log) = Transport::new();
    let (upgraded, handed_over) = oneshot::channel();
    let upgraded = Mutex::new(Some(upgraded));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        let upgraded = upgraded.lock().unwrap().take().unwrap();
        async move {
            tokio::spawn(async move {
                let _ = upgraded.send(upgrade.await.unwrap());
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
            response.headers_mut().insert(header::UPGRADE, "test".parse().unwrap());
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = hyper().serve_connection(TokioIo::new(transport), service).with_upgrades();
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    poll_fn(|context| Pin::new(&mut connection).poll(context)).await.unwrap();
    assert!(connection.into_parts().is_none());
    let upgraded = handed_over.await.unwrap();
    assert!(!log.events().contains(&Event::Dropped));
    drop(upgraded);
    assert!(log.events().contains(&Event::Dropped));
}

#[tokio::test]
async fn graceful_shutdown_ends_an_idle_connection() {
    for requests in [0, 1] {
        let (transport, mut client, log) = Transport::new();
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::from("response"))) });
        let mut connection = hyper().serve_connection(TokioIo::new(transport), service).with_upgrades();
        client.write_all(GET.repeat(requests).as_bytes()).await.unwrap();
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context).is_pending()));
        assert!(polled.await, "it waits for the next request");
        assert_eq!(log.written().matches("200 OK").count(), requests);
        Pin::new(&mut connection).graceful_shutdown();
        let ended = poll_fn(|context| Pin::new(&mut connection).poll(context));
        let _ = timeout(Duration::from_secs(5), ended).await.expect("it ends");
    }
}

#[tokio::test]
async fn error_of_the_transport_ends_the_connection() {
    let (mut transport, mut client, _) = Transport::new();
    transport.broken = true;
    let served = spawn(transport, |_| async { Ok(Response::new(never())) });
    client.write_all(GET.as_bytes()).await.unwrap();
    let succeeded = timeout(Duration::from_secs(5), served).await.expect("it ends").unwrap();
    assert!(!succeeded);
}
