//! The body of an upload, with a minimum rate.

use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::{ApiResult, HttpOptions, Problem, server::body_problem};

/// Bounds of a slow upload: idle time, rate, and total time. Time that the store takes does not count.
#[derive(Debug)]
pub(super) struct Pace {
    /// Deadline of the whole upload.
    end: Instant,
    /// Minimum bytes that must arrive in each [`RATE_WINDOW`](Self::RATE_WINDOW).
    min_bytes: usize,
    bytes: usize,
    window_end: Instant,
}

impl Pace {
    /// Time over which the rate of [`HttpOptions::with_min_upload_rate`] must be reached on average.
    ///
    /// Twice [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT), so that a client that sends 1 kB/s may also pause for that long.
    pub(super) const RATE_WINDOW: Duration = Duration::from_secs(120);
    /// Maximum time between two reads.
    pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

    /// Bytes that must arrive in each [`RATE_WINDOW`](Self::RATE_WINDOW).
    pub(super) fn window_bytes(options: &HttpOptions) -> usize {
        let seconds = usize::try_from(Self::RATE_WINDOW.as_secs()).unwrap_or(usize::MAX);
        options.min_upload_rate.saturating_mul(seconds)
    }

    pub(super) fn new(options: &HttpOptions, now: Instant) -> Self {
        let end = now + options.upload_timeout;
        Self { end, min_bytes: Self::window_bytes(options), bytes: 0, window_end: now + Self::RATE_WINDOW }
    }
    /// Deadline of the next bytes.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        self.end.min(self.window_end).min(now + Self::IDLE_TIMEOUT)
    }
    /// Excludes the time spent on storing bytes, which must not count against the client.
    pub(super) fn exclude(&mut self, took: Duration) {
        self.end += took;
        self.window_end += took;
    }
    /// Counts bytes that arrived.
    pub(super) fn count(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        if self.bytes >= self.min_bytes {
            (self.bytes, self.window_end) = (0, now + Self::RATE_WINDOW);
        }
    }
}

/// Result of a read.
#[derive(Debug)]
pub(super) enum Read {
    /// The next bytes.
    Bytes(Bytes),
    /// The end of the body.
    End,
    /// No bytes arrived before `until`.
    Nothing,
}

/// A body that must arrive at a [`Pace`].
#[derive(Debug)]
pub(super) struct PacedBody {
    body: HttpBody,
    pace: Pace,
    /// End of the last read. The time from then until the next read is the server's, not the client's.
    idle_since: Instant,
    /// Time at which bytes last arrived, or the first read began.
    quiet_since: Option<Instant>,
}

impl PacedBody {
    pub(super) fn new(body: HttpBody, options: &HttpOptions) -> Self {
        let now = Instant::now();
        Self { body, pace: Pace::new(options, now), idle_since: now, quiet_since: None }
    }

    /// Reads the next bytes.
    ///
    /// Returns [`Read::Nothing`] at `until`, if that is before the client is too slow.
    ///
    /// It can be called again after that, and after a call was cancelled.
    pub(super) async fn read(&mut self, until: Option<Instant>) -> ApiResult<Read> {
        let now = Instant::now();
        let took = now - self.idle_since;
        self.pace.exclude(took);
        let quiet_since = self.quiet_since.map_or(now, |since| since + took);
        self.quiet_since = Some(quiet_since);
        self.idle_since = now;
        let late = self.pace.deadline(quiet_since);
        let read = loop {
            let frame = timeout_at(until.map_or(late, |until| until.min(late)), self.body.frame()).await;
            match frame {
                Ok(None) => break Ok(Read::End),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.quiet_since = None;
                        self.pace.count(bytes.len(), Instant::now());
                        break Ok(Read::Bytes(bytes));
                    }
                }
                Ok(Some(Err(error))) => break Err(body_problem(&error)),
                Err(_) if until.is_some_and(|until| until < late) => break Ok(Read::Nothing),
                Err(_) => break Err(Problem::new("body_timed_out")),
            }
        };
        self.idle_since = Instant::now();
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::BodyTimedOut;

    #[test]
    fn time_of_the_store_is_not_counted() {
        let started = Instant::now();
        let mut pace = Pace::new(&HttpOptions::default().with_min_upload_rate(8), started);
        let later = started + Duration::from_secs(140);
        assert!(pace.deadline(later) < later);
        pace.exclude(Duration::from_secs(40));
        assert!(pace.deadline(later) > later);
    }

    #[tokio::test]
    async fn errors_of_the_body_keep_their_code() {
        let code = async |error: Box<dyn std::error::Error + Send + Sync>| {
            let body = HttpBody::from_stream(futures_util::stream::iter([Err::<Bytes, _>(error)]));
            let read = PacedBody::new(body, &HttpOptions::default()).read(None).await;
            read.unwrap_err().code().to_owned()
        };
        assert_eq!(code(Box::new(BodyTimedOut)).await, "body_timed_out");
        assert_eq!(code("the connection died".into()).await, "malformed_request");
    }

    #[test]
    fn steady_1_kb_per_second_with_pauses_of_55_seconds_is_accepted() {
        let started = Instant::now();
        let mut pace = Pace::new(&HttpOptions::default(), started);
        let mut now = started;
        for second in 0..2_000 {
            let pause = if second % 100 == 99 { 55 } else { 1 };
            assert!(pace.deadline(now) > now + Duration::from_secs(pause), "after {:?}", now - started);
            now += Duration::from_secs(pause);
            pace.count(1_000, now);
        }
    }

    #[test]
    fn idle_slow_and_endless_uploads_end() {
        let started = Instant::now();
        let at = |seconds| started + Duration::from_secs(seconds);
        let options = HttpOptions::default().with_min_upload_rate(8);
        assert_eq!(Pace::new(&options, started).deadline(started), at(60), "no bytes at all");
        let mut drops = Pace::new(&options, started);
        for seconds in (0..120).step_by(20) {
            assert!(drops.deadline(at(seconds)) > at(seconds));
            drops.count(100, at(seconds));
        }
        assert_eq!(drops.deadline(at(119)), at(120), "fewer bytes than needed");
        let mut steady = Pace::new(&options, started);
        for seconds in (0..3_600).step_by(50) {
            assert!(steady.deadline(at(seconds)) > at(seconds), "after {seconds} s");
            steady.count(1000, at(seconds));
        }
        assert_eq!(steady.deadline(at(3_590)), at(3_600), "the whole upload has a deadline");
    }

    /// A body of which the test sends each piece.
    fn sent_by_hand() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, PacedBody) {
        let (send, mut pieces) = tokio::sync::mpsc::unbounded_channel();
        let stream = futures_util::stream::poll_fn(move |context| {
            pieces.poll_recv(context).map(|piece| piece.map(Ok::<Bytes, std::io::Error>))
        });
        (send, PacedBody::new(HttpBody::from_stream(stream), &HttpOptions::default().with_min_upload_rate(8)))
    }

    /// Result of a read, and the seconds that it took.
    async fn timed(body: &mut PacedBody, until: Option<u64>) -> (String, u64) {
        let started = Instant::now();
        let until = until.map(|seconds| started + Duration::from_secs(seconds));
        let result = match body.read(until).await {
            Ok(Read::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Ok(Read::End) => "end".to_owned(),
            Ok(Read::Nothing) => "nothing".to_owned(),
            Err(problem) => problem.code().to_owned(),
        };
        (result, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn read_ends_at_the_given_time_unless_the_client_is_too_slow_by_then() {
        for (until, result) in [
            (Some(59), ("nothing", 59)),
            (Some(60), ("body_timed_out", 60)),
            (Some(61), ("body_timed_out", 60)),
            (None, ("body_timed_out", 60)),
        ] {
            let (_send, mut body) = sent_by_hand();
            assert_eq!(timed(&mut body, until).await, (result.0.to_owned(), result.1), "{until:?}");
        }
        let (send, mut body) = sent_by_hand();
        send.send(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(timed(&mut body, Some(5)).await.0, "3 bytes");
        drop(send);
        assert_eq!(timed(&mut body, None).await.0, "end");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_over_several_reads_without_the_time_between_them() {
        let (send, mut body) = sent_by_hand();
        assert_eq!(timed(&mut body, Some(40)).await, ("nothing".to_owned(), 40));
        // The server stores what it has.
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert_eq!(timed(&mut body, Some(40)).await, ("body_timed_out".to_owned(), 20));
        drop(send);
        // Bytes end the silence.
        let (send, mut body) = sent_by_hand();
        assert_eq!(timed(&mut body, Some(40)).await.0, "nothing");
        send.send(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(timed(&mut body, None).await.0, "3 bytes");
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert_eq!(timed(&mut body, Some(59)).await, ("nothing".to_owned(), 59));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_arrive_too_slowly_end_the_upload() {
        // 8 bytes per second are 960 in each window of two minutes.
        let (send, mut body) = sent_by_hand();
        let mut received = 0;
        let result = loop {
            send.send(Bytes::from_static(&[0; 300])).unwrap();
            match timed(&mut body, None).await.0.as_str() {
                "300 bytes" => received += 300,
                other => break other.to_owned(),
            }
            let waited = timed(&mut body, Some(40)).await.0;
            if waited != "nothing" {
                break waited;
            }
        };
        assert_eq!((result.as_str(), received), ("body_timed_out", 900));
        // A little faster, for ten minutes.
        let (send, mut body) = sent_by_hand();
        for _ in 0..20 {
            send.send(Bytes::from_static(&[0; 400])).unwrap();
            assert_eq!(timed(&mut body, None).await.0, "400 bytes");
            assert_eq!(timed(&mut body, Some(30)).await.0, "nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upload_has_a_deadline_from_which_the_time_of_the_server_is_excluded() {
        let options =
            HttpOptions::default().with_min_upload_rate(0).with_upload_timeout(Duration::from_secs(50));
        let endless = || {
            let stream = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
            PacedBody::new(HttpBody::from_stream(stream), &options)
        };
        assert_eq!(timed(&mut endless(), None).await, ("body_timed_out".to_owned(), 50));
        let mut body = endless();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(timed(&mut body, Some(20)).await, ("nothing".to_owned(), 20));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(timed(&mut body, None).await, ("body_timed_out".to_owned(), 30));
    }
}
