//! Heartbeat frames: `ping` frames that a page's script can see.
//!
//! It sees neither pings nor comments of the transport.

use std::{future::pending, ops::RangeInclusive, pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

use super::{ApiResult, Problem};

/// Range of the heartbeat interval that a client may request, in seconds.
const ALLOWED_SECONDS: RangeInclusive<u64> = 5..=120;

/// Checks the `heartbeat` that a client requests.
pub(super) fn interval(seconds: Option<u64>) -> ApiResult<Option<Duration>> {
    match seconds {
        Some(seconds) if !ALLOWED_SECONDS.contains(&seconds) => {
            Err(Problem::new("invalid_field").field("heartbeat", "out_of_range"))
        }
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// Timer that expires when a connection has sent no frame for the client's heartbeat interval.
pub(super) struct Heartbeat(Option<(Duration, Pin<Box<Sleep>>)>);

impl Heartbeat {
    /// Without an interval no heartbeat is ever due.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self(interval.map(|interval| (interval, Box::pin(sleep(interval)))))
    }

    /// A frame was sent: the next heartbeat is due one interval later.
    pub(super) fn restart(&mut self) {
        if let Some((interval, timer)) = &mut self.0 {
            timer.as_mut().reset(Instant::now() + *interval);
        }
    }

    /// Waits until a heartbeat is due. Cancel safe.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some((_, timer)) => timer.as_mut().await,
            None => pending().await,
        }
    }
}
