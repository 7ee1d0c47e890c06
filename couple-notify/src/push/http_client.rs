//! HTTP/2 client of one server: a multiplexed connection that is replaced when it fails.

use std::{
    convert::Infallible,
    error::Error as _,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use couple_core::ErrorKind;
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    connect::{AllowedAddresses, ConnectionOptions, Connector, Server, within},
    failure::{SendFailure, describe},
    single_flight::SingleFlight,
};

/// Maximum number of attempts for one request: further ones follow only if the server has not processed it.
const MAX_ATTEMPTS: u32 = 4;
/// Maximum time of a request with all attempts.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Flow control windows: responses are small.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Maximum size of a response body that is read.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// Maximum size of the header fields of a response.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Response of a push service.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty if it could not be read: the status says enough.
    pub(super) body: Bytes,
}

/// Client of one server.
pub(super) struct HttpClient {
    authority: String,
    connector: Connector,
    options: ConnectionOptions,
    connection: SingleFlight<Arc<Connection>>,
}

/// Open connection.
struct Connection {
    sender: http2::SendRequest<OutgoingBody>,
    /// Whether new requests use another connection, because a response is missing on this one.
    retired: watch::Sender<bool>,
}

impl Connection {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !*self.retired.borrow()
    }
}

/// Request failed on a connection.
struct AttemptFailure {
    failure: SendFailure,
    /// Whether the server has certainly not processed the request.
    is_unprocessed: bool,
}

impl HttpClient {
    pub(super) fn new(server: Server, options: &ConnectionOptions, addresses: AllowedAddresses) -> Self {
        Self {
            authority: server.authority(),
            connector: Connector::new(server, options, addresses),
            options: options.clone(),
            connection: SingleFlight::default(),
        }
    }

    /// Sends a POST request.
    ///
    /// It is repeated only if the server has certainly not processed it: the connection was closed before the request was sent,
    /// the server refused the stream, or announced with GOAWAY that it ignored it (RFC 9113, 8.7).
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, SendFailure> {
        let uri = Uri::builder()
            .scheme("https")
            .authority(&*self.authority)
            .path_and_query(path)
            .build()
            .map_err(|_| SendFailure::rejected("the URL of the push service is not valid"))?;
        let attempts = async {
            let mut attempt = 1;
            loop {
                let connection =
                    self.connection.get(|connection| connection.is_usable(), || self.connect()).await?;
                match connection.post(&uri, headers, body, &self.options).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) if failed.is_unprocessed && attempt < MAX_ATTEMPTS => attempt += 1,
                    Err(failed) => return Err(failed.failure),
                }
            }
        };
        timeout(TOTAL_TIMEOUT, attempts)
            .await
            .unwrap_or_else(|_| Err(SendFailure::new(ErrorKind::TimedOut, "the push service is too slow")))
    }

    async fn connect(&self) -> Result<Arc<Connection>, SendFailure> {
        within(self.options.connect_timeout, async {
            let tls = self.connector.connect().await?;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(self.options.keep_alive_interval)
                .keep_alive_timeout(self.options.keep_alive_timeout)
                .keep_alive_while_idle(true)
                .max_header_list_size(MAX_HEADER_BYTES)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                // Until the server has announced its limit: more could be refused.
                .initial_max_send_streams(1)
                .handshake(TokioIo::new(tls))
                .await
                .map_err(|error| {
                    SendFailure::unavailable(format!("no HTTP/2 with the push service: {}", describe(&error)))
                })?;
            // Ends with the connection, or once no request and no client uses it.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = describe(&error), "a connection to a push service failed");
                }
            });
            Ok(Arc::new(Connection { sender, retired: watch::Sender::new(false) }))
        })
        .await
    }
}

impl Connection {
    async fn post(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
        options: &ConnectionOptions,
    ) -> Result<Answer, AttemptFailure> {
        let (body, progress, mut started) = OutgoingBody::new(body.clone());
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let mut retired = self.retired.subscribe();
        let mut sender = self.sender.clone();
        let mut response = pin!(sender.try_send_request(request));
        // The request waits here while the server allows no further stream.
        let early = tokio::select! {
            biased;
            response = &mut response => Some(response),
            _ = &mut started => None,
            () = async { drop(retired.wait_for(|retired| *retired).await) } => {
                if progress.cancel() {
                    return Err(AttemptFailure {
                        failure: SendFailure::unavailable("the connection to the push service stalls"),
                        is_unprocessed: true,
                    });
                }
                None
            }
            () = sleep(options.stream_timeout) => {
                // A server that never allows a stream again must not keep the connection.
                self.retired.send_replace(true);
                if progress.cancel() {
                    return Err(AttemptFailure {
                        failure: SendFailure::unavailable("the push service allows no further stream"),
                        is_unprocessed: false,
                    });
                }
                None
            }
        };
        let answer = timeout(options.request_timeout, async {
            let response = match early {
                Some(response) => response,
                None => response.await,
            };
            read(response, &progress).await
        });
        let answer = answer.await;
        answer.unwrap_or_else(|_| {
            // The connection may be half-open. Requests in progress keep it until they end.
            self.retired.send_replace(true);
            Err(AttemptFailure {
                failure: SendFailure::new(ErrorKind::TimedOut, "the push service does not respond"),
                is_unprocessed: false,
            })
        })
    }
}

/// Reads a response.
async fn read(
    response: Result<Response<Incoming>, TrySendError<Request<OutgoingBody>>>,
    progress: &Progress,
) -> Result<Answer, AttemptFailure> {
    match response {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            Ok(Answer { status: head.status, headers: head.headers, body })
        }
        Err(mut failed) => {
            let is_unsent = failed.take_message().is_some() || progress.cancel();
            let error = failed.into_error();
            Err(AttemptFailure {
                is_unprocessed: is_unsent || is_unprocessed(&error),
                failure: SendFailure::unavailable(format!(
                    "the connection to the push service failed: {}",
                    describe(&error)
                )),
            })
        }
    }
}

/// Whether the server states that it has not processed the stream: `RST_STREAM` with `REFUSED_STREAM`, or GOAWAY with an earlier stream.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (is_refused || error.is_go_away());
        }
        cause = error.source();
    }
    false
}

/// Nothing of the body has been sent.
const WAITING: u8 = 0;
/// The body is being sent.
const STARTED: u8 = 1;
/// The body must not be sent any more.
const CANCELLED: u8 = 2;

/// State that a body and its sender share.
struct Progress(Arc<AtomicU8>);

impl Progress {
    /// Forbids that the body is sent. False if it is being sent already.
    ///
    /// A server cannot process a request whose body never arrives.
    fn cancel(&self) -> bool {
        self.0.compare_exchange(WAITING, CANCELLED, Ordering::SeqCst, Ordering::SeqCst) != Err(STARTED)
    }
}

/// Body of a request, which tells its sender when the connection begins to send it: when the server allows the stream.
struct OutgoingBody {
    data: Option<Bytes>,
    state: Arc<AtomicU8>,
    started: Option<oneshot::Sender<Infallible>>,
}

impl OutgoingBody {
    /// Body, its state, and a receiver that ends when the connection begins to send it or drops it.
    fn new(data: Bytes) -> (Self, Progress, oneshot::Receiver<Infallible>) {
        let state = Arc::new(AtomicU8::new(WAITING));
        let (started, starts) = oneshot::channel();
        (Self { data: Some(data), state: state.clone(), started: Some(started) }, Progress(state), starts)
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.started.take().is_some() {
            let started = self.state.compare_exchange(WAITING, STARTED, Ordering::SeqCst, Ordering::SeqCst);
            if started.is_err() {
                return Poll::Ready(Some(Err(io::Error::other("cancelled"))));
            }
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
