//! State that the rooms, the streams and the watch for ended sessions of a process share.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use couple_core::{Ports, live::SessionChecker, timeline::Timeline};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum age of the gate's last result and of the couple's last read with which a frame may be sent.
pub(super) const GATE_TRUST_TIME: Duration = Duration::from_secs(2);

couple_core::options! {
    /// Intervals and limits of live delivery.
    #[derive(Debug, Clone, Copy)]
    pub struct LiveOptions {
        /// Sets the maximum time between two reads of a followed couple. Default: 30 s.
        ///
        /// It bounds the delay of an entry whose notice is lost.
        pub(super) sweep_interval: Duration = Duration::from_secs(30), with_sweep_interval;
        /// Sets the maximum number of concurrent reads. Default: 3.
        ///
        /// Fewer than the read connections of the store, so that clients that reconnect together leave some for other requests.
        pub(super) max_concurrent_reads: usize = 3, with_max_concurrent_reads;
        /// Sets the time for which a room is kept after its last stream ended: a client that polls returns.
        ///
        /// Default: 5 s.
        pub(super) room_linger: Duration = Duration::from_secs(5), with_room_linger;
        /// Sets the time over which clients spread their reconnects when the process stops. Default: 10 s.
        pub(super) reconnect_spread: Duration = Duration::from_secs(10), with_reconnect_spread;
        /// Sets the interval between two checks for ended sessions of live streams. Default: 1 s.
        ///
        /// It bounds the delay of a sign-out whose notice is lost.
        pub(super) session_check_interval: Duration = Duration::from_secs(1), with_session_check_interval;
    }
}

impl LiveOptions {
    /// Maximum number of concurrent reads.
    #[must_use]
    pub const fn max_concurrent_reads(&self) -> usize {
        self.max_concurrent_reads
    }

    /// Time over which clients spread their reconnects when the process stops.
    #[must_use]
    pub const fn reconnect_spread(&self) -> Duration {
        self.reconnect_spread
    }
}

/// Permit to read; bounds concurrent reads.
#[derive(Debug)]
#[expect(dead_code, reason = "returned when dropped")]
pub struct ReadPermit<'a> {
    read: Option<SemaphorePermit<'a>>,
    arrival: Option<SemaphorePermit<'a>>,
}

/// Ports, options, and permits to read.
pub(super) struct LiveContext {
    pub(super) ports: Ports,
    pub(super) sessions: Arc<dyn SessionChecker>,
    pub(super) timeline: Timeline,
    pub(super) options: LiveOptions,
    reads: Semaphore,
    /// Permits that new clients need before they wait for a permit to read.
    ///
    /// There are fewer of them, so that many new clients do not delay the rooms of open streams.
    arrivals: Semaphore,
    draining: AtomicBool,
}

impl fmt::Debug for LiveContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveContext").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LiveContext {
    pub(super) fn new(ports: Ports, sessions: Arc<dyn SessionChecker>, options: LiveOptions) -> Self {
        let reads = options.max_concurrent_reads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            timeline: Timeline::new(ports.clone()),
            ports,
            sessions,
            options,
            reads: Semaphore::new(reads),
            arrivals: Semaphore::new((reads - 1).max(1)),
            draining: AtomicBool::new(false),
        }
    }

    /// Waits for a permit to read.
    pub(super) async fn read_permit(&self) -> ReadPermit<'_> {
        ReadPermit { read: self.reads.acquire().await.ok(), arrival: None }
    }

    /// Waits for a permit to read for a new client.
    pub(super) async fn arrival_permit(&self) -> ReadPermit<'_> {
        let arrival = self.arrivals.acquire().await.ok();
        ReadPermit { arrival, ..self.read_permit().await }
    }

    /// Time until a room sweeps: up to a quarter less than the maximum, at random.
    ///
    /// So rooms do not sweep together.
    pub(super) fn sweep_interval(&self) -> Duration {
        let mut random = [0];
        self.ports.entropy.fill(&mut random);
        self.options.sweep_interval.mul_f64(0.75 + f64::from(random[0]) / 1_024.0)
    }

    /// Ends all streams of the process.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
