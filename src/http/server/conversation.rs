//! The requests and responses of one connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, Version, header, uri::Authority},
    response::IntoResponse as _,
};
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::ServiceExt as _;

use super::{
    ServeOptions,
    activity::Activity,
    body_slot::{self, BodySlot},
    connection::Connection,
    options::READ_AHEAD_BYTES,
    request_body::{BodyPace, RequestBody},
    streaming_response,
};
use crate::http::Problem;

/// State that all connections share: settings of hyper, the router, and limits.
pub(super) struct Conversations {
    http: http1::Builder,
    router: Router,
    pace: BodyPace,
    linger: Duration,
}

impl Conversations {
    pub(super) fn new(router: Router, options: &ServeOptions) -> Self {
        let pace = BodyPace { idle: options.body_timeout, rate: options.min_body_rate };
        Self { http: hyper_settings(options), router, pace, linger: options.linger_timeout }
    }
}

/// Settings of hyper with the limits of the server loop.
pub(super) fn hyper_settings(options: &ServeOptions) -> http1::Builder {
    let mut http = http1::Builder::new();
    // The buffer into which a connection reads, and so the maximum size of a request's head.
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(READ_AHEAD_BYTES);
    http
}

/// Serves a connection until it ends or is upgraded.
pub(super) async fn serve_connection(
    conversations: Arc<Conversations>,
    mut connection: Box<Connection>,
    peer: SocketAddr,
) {
    loop {
        // Boxed: a waiting connection must not keep memory for parsing requests.
        match Box::pin(run_hyper(&conversations, connection, peer)).await {
            End::StreamingResponse(returned, body) => {
                connection = returned;
                if streaming_response::write(&mut connection, body).await.is_none() {
                    return;
                }
            }
            End::Closed(connection) => return Box::pin(connection.close(conversations.linger)).await,
            End::Upgraded => return,
        }
    }
}

/// Reason for which hyper no longer serves a connection.
enum End {
    /// The head of a streaming response is written; its body must be written without hyper.
    StreamingResponse(Box<Connection>, Body),
    /// The last response is written, or the client has disconnected.
    Closed(Box<Connection>),
    /// The connection speaks another protocol now.
    Upgraded,
}

/// Answers requests with hyper until the connection ends or a streaming response begins.
async fn run_hyper(conversations: &Conversations, mut connection: Box<Connection>, peer: SocketAddr) -> End {
    let mut stopping = connection.stopping();
    let slot = Arc::new(BodySlot::default());
    connection.notify_of_flushes(slot.clone());
    let activity = connection.registration().activity().clone();
    let service = service_fn(|request: Request<Incoming>| {
        let slot = body_slot::may_stream(&request).then(|| slot.clone());
        let (router, activity) = (conversations.router.clone(), activity.clone());
        let may_answer = activity.begin();
        let pace = conversations.pace;
        async move {
            if !may_answer {
                // The connection is being closed: the client can repeat a request whose handler has not begun.
                return std::future::pending().await;
            }
            let mut unread = None;
            let expects = request.headers().contains_key(header::EXPECT);
            let mut request = request.map(|incoming| {
                if incoming.is_end_stream() {
                    return Body::empty();
                }
                let (body, rest) = RequestBody::new(incoming, pace, activity.clone());
                unread = Some(rest);
                Body::new(body)
            });
            request.extensions_mut().insert(ConnectInfo(peer));
            let mut response = match malformed(&request) {
                Some(problem) => {
                    drop(request);
                    problem.into_response()
                }
                None => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
            };
            if let Some(unread) = unread
                && unread.remains(expects).await
            {
                activity.leave_unread();
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if response.status() == axum::http::StatusCode::SWITCHING_PROTOCOLS {
                activity.upgraded();
            }
            let response = match slot {
                Some(slot) => slot.hold(response),
                None => response,
            };
            Ok::<_, Infallible>(response.map(|body| ResponseBody { body, activity }))
        }
    });
    let mut http = conversations.http.serve_connection(TokioIo::new(connection), service).with_upgrades();
    let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
    let mut stopped = false;
    let body = poll_fn(|context| {
        loop {
            // An error of a connection concerns only its client.
            if Pin::new(&mut http).poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if let Some(body) = slot.take() {
                return Poll::Ready(Some(body));
            }
            if stopped || stop.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            stopped = true;
            Pin::new(&mut http).graceful_shutdown();
        }
    })
    .await;
    let Some(parts) = http.into_parts() else { return End::Upgraded };
    let mut connection = parts.io.into_inner();
    connection.take_back(&parts.read_buf);
    match body {
        Some(body) => End::StreamingResponse(connection, body),
        None => End::Closed(connection),
    }
}

/// The problem of an invalid head that hyper accepts (RFC 9112, 3.2).
fn malformed<B>(request: &Request<B>) -> Option<Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return None,
        (None, _) => "the Host header is missing",
        (Some(_), Some(_)) => "there is more than one Host header",
        (Some(host), None) if host.is_empty() => return None,
        (Some(host), None) => match host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) {
            Some(host) if !host.as_str().contains('@') => return None,
            _ => "the Host header is not a valid host",
        },
    };
    Some(Problem::new("malformed_request").detail(detail))
}

/// Body of a response that records when it was sent.
struct ResponseBody {
    body: Body,
    activity: Arc<Activity>,
}

impl hyper::body::Body for ResponseBody {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.activity.answered();
    }
}
