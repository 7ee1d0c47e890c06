//! Options of the server loop.

use std::time::Duration;

use ipnet::IpNet;

/// Maximum bytes that are read ahead of a client's pending response, and maximum size of a head.
pub(super) const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Limits and timeouts of connections.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Maximum concurrent connections. Default: 20,000.
    ///
    /// When all are in use, the one that has waited longest for its client is closed for a new one; when none waits, a new one gets
    /// 503. Fewer are accepted if the limit on open files is lower, see [`raise_descriptor_limit`].
    ///
    /// [`raise_descriptor_limit`]: crate::http::raise_descriptor_limit
    pub connections: usize,
    /// Maximum connections of one IPv4 address or one IPv6 /64.
    ///
    /// Default: none, which is an eighth of `connections`.
    ///
    /// A /56 has twice as many and a /48 four times. The client's longest waiting connection is closed for a new one; if none waits, the
    /// new one gets 429.
    pub connections_per_client: Option<usize>,
    /// Peers that `connections_per_client` does not limit: reverse proxies. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Maximum time for the head of a request to arrive, and so the maximum idle time of a connection.
    ///
    /// Default: 30 s.
    pub head_timeout: Duration,
    /// Maximum time for the next part of a request's body to arrive, on every route.
    ///
    /// Default: 65 s, a little more than for uploads, which have their own limits.
    pub body_timeout: Duration,
    /// Minimum bytes of a body per second of waiting for it, on average over `body_timeout`.
    ///
    /// Default: 250, a quarter of the rate of a bad mobile network.
    pub body_rate: u32,
    /// Maximum time for which a client may accept none of the bytes sent to it. Default: 10 s.
    pub write_timeout: Duration,
    /// Maximum time to drain the rest of a request that was answered early. Default: 30 s.
    ///
    /// At most 32 MiB are read, and a pause of 5 s ends it.
    pub linger: Duration,
    /// Time for which connections are still accepted after `stop` completes. Default: 5 s.
    ///
    /// In this time load balancers see that the server is not ready and stop sending requests.
    pub stop_delay: Duration,
    /// Maximum time for open connections to end after `stop_delay`. Default: 10 s.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_client: None,
            trusted_proxies: Vec::new(),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(65),
            body_rate: 250,
            write_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            stop_delay: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}
