//! Request bodies under the server loop.
//!
//! Each must arrive at a minimum rate, and the rest that its handler does not read is drained.

use std::{
    error::Error,
    fmt,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    task::yield_now,
    time::{Instant, Sleep},
};

use super::activity::Activity;
use crate::http::Problem;

/// Maximum bytes of an unread body that are drained so that the connection can be reused.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Minimum rate of a body.
///
/// A body begins with a credit of `idle`. Waiting for the client uses credit, and each byte earns some, up to `idle`. So a pause may
/// last at most `idle`, and on average `rate` bytes must arrive per second of waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyPace {
    pub(super) idle: Duration,
    /// Bytes per second.
    pub(super) rate: u32,
}

/// The body arrived too slowly.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct BodyTimedOut;

impl fmt::Display for BodyTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body arrived too slowly")
    }
}

impl Error for BodyTimedOut {}

/// The problem that reports an error of a request body.
pub(in crate::http) fn body_problem(error: &(dyn Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    if causes.clone().any(<dyn Error>::is::<BodyTimedOut>) {
        return Problem::new("body_timed_out");
    }
    if causes.any(<dyn Error>::is::<http_body_util::LengthLimitError>) {
        return Problem::new("body_too_large");
    }
    Problem::new("malformed_request").detail("the body ended early")
}

/// Body of a request.
pub(super) struct RequestBody {
    /// None: the body has ended.
    incoming: Option<Incoming>,
    pace: BodyPace,
    credit: Duration,
    waiting: WaitState,
    timer: Option<Pin<Box<Sleep>>>,
    unread: Unread,
    activity: Arc<Activity>,
}

enum WaitState {
    /// No read was requested yet: hyper reads only on request, on its next turn.
    Not,
    /// One read was requested.
    Asked,
    Since(Instant),
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, pace: BodyPace, activity: Arc<Activity>) -> (Self, Unread) {
        let unread = Unread::default();
        let (incoming, credit) = (Some(incoming), pace.idle);
        let (waiting, timer) = (WaitState::Not, None);
        (Self { incoming, pace, credit, waiting, timer, unread: unread.clone(), activity }, unread)
    }

    fn record_progress(&mut self, bytes: usize) {
        if let WaitState::Since(since) = self.waiting {
            self.credit = self.credit.saturating_sub(since.elapsed());
            self.activity.body_arrived();
        }
        self.waiting = WaitState::Asked;
        let earned = Duration::from_secs(bytes as u64) / self.pace.rate.max(1);
        self.credit = self.pace.idle.min(self.credit + earned);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.record_progress(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.record_progress(0);
                self.incoming = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.record_progress(0);
                self.incoming = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                match self.waiting {
                    // Most bodies have arrived by the next turn, and need no timer.
                    WaitState::Not => {
                        self.waiting = WaitState::Asked;
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    WaitState::Asked => {
                        let now = Instant::now();
                        self.waiting = WaitState::Since(now);
                        let late = now + self.credit;
                        match &mut self.timer {
                            Some(timer) => timer.as_mut().reset(late),
                            none => *none = Some(Box::pin(tokio::time::sleep_until(late))),
                        }
                        self.activity.awaits_body(self.pace.idle.saturating_sub(self.credit));
                    }
                    WaitState::Since(_) => {}
                }
                if let Some(timer) = &mut self.timer {
                    ready!(timer.as_mut().poll(context));
                }
                Poll::Ready(Some(Err(BodyTimedOut.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let WaitState::Since(_) = self.waiting {
            self.activity.body_arrived();
        }
        *self.unread.incoming() = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
    }
}

/// The part of a request's body that its handler did not read.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    fn incoming(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether bytes of the body are still to come.
    ///
    /// A small body that has already arrived is drained, unless its client expects `100 Continue` first (RFC 9110, 10.1.1).
    pub(super) async fn remains(&self, expects: bool) -> bool {
        let Some(mut incoming) = self.incoming().take() else { return false };
        if expects || incoming.size_hint().lower() > SMALL_BODY_BYTES as u64 {
            return true;
        }
        let mut read = 0;
        let mut turns = 0;
        while read <= SMALL_BODY_BYTES {
            let frame = {
                let mut frame = pin!(incoming.frame());
                std::future::poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await
            };
            match frame {
                Poll::Ready(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(None) => return false,
                Poll::Ready(Some(Err(_))) => return true,
                // hyper delivers requested bytes on its next turn.
                Poll::Pending if turns < 2 => {
                    turns += 1;
                    yield_now().await;
                }
                Poll::Pending => return true,
            }
        }
        true
    }
}
