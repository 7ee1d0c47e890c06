//! Options of the server loop.

use std::time::Duration;

use ipnet::IpNet;

/// Maximum bytes that are read ahead of a client's pending response, and maximum size of a head.
pub(super) const READ_AHEAD_BYTES: usize = 16 * 1024;

couple_core::options! {
    /// Limits and timeouts of connections.
    #[derive(Debug, Clone)]
    pub struct ServeOptions {
        /// Sets the maximum number of concurrent connections. Default: 20,000.
        ///
        /// When all are in use, the one that has waited longest for its client is closed for a new one; when none waits, a new one gets
        /// 503. Fewer are accepted if the limit on open files is lower, see [`raise_descriptor_limit`].
        ///
        /// [`raise_descriptor_limit`]: crate::http::raise_descriptor_limit
        pub(super) max_connections: usize = 20_000, with_max_connections;
        /// Sets the maximum number of connections of one IPv4 address or one IPv6 /64.
        ///
        /// Default: none, which is an eighth of `max_connections`.
        ///
        /// A /56 has twice as many and a /48 four times. The client's longest waiting connection is closed for a new one; if none waits, the
        /// new one gets 429.
        pub(super) max_connections_per_client: Option<usize> = None, with_max_connections_per_client;
        /// Sets the peers that `max_connections_per_client` does not limit: reverse proxies. Default: none.
        pub(super) trusted_proxies: Vec<IpNet> = Vec::new(), with_trusted_proxies;
        /// Sets the maximum time for the head of a request to arrive, and so the maximum idle time of a connection.
        ///
        /// Default: 30 s.
        pub(super) head_timeout: Duration = Duration::from_secs(30), with_head_timeout;
        /// Sets the maximum time for the next part of a request's body to arrive, on every route.
        ///
        /// Default: 65 s, a little more than for uploads, which have their own limits.
        pub(super) body_timeout: Duration = Duration::from_secs(65), with_body_timeout;
        /// Sets the minimum rate of a body, in bytes per second of waiting for it, on average over `body_timeout`.
        ///
        /// Default: 250, a quarter of the rate of a bad mobile network.
        pub(super) min_body_rate: u32 = 250, with_min_body_rate;
        /// Sets the maximum time for which a client may accept none of the bytes sent to it. Default: 10 s.
        pub(super) write_timeout: Duration = Duration::from_secs(10), with_write_timeout;
        /// Sets the maximum time to drain the rest of a request that was answered early. Default: 30 s.
        ///
        /// At most 32 MiB are read, and a pause of 5 s ends it.
        pub(super) linger_timeout: Duration = Duration::from_secs(30), with_linger_timeout;
        /// Sets the time for which connections are still accepted after `stop` completes. Default: 5 s.
        ///
        /// In this time load balancers see that the server is not ready and stop sending requests.
        pub(super) stop_delay: Duration = Duration::from_secs(5), with_stop_delay;
        /// Sets the maximum time for open connections to end after `stop_delay`. Default: 10 s.
        pub(super) drain_timeout: Duration = Duration::from_secs(10), with_drain_timeout;
    }
}

impl ServeOptions {
    /// Time for which connections are still accepted after `stop` completes.
    #[must_use]
    pub const fn stop_delay(&self) -> Duration {
        self.stop_delay
    }
}
