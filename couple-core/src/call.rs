//! What a transport tells a service about a request beside the command itself.

use std::net::IpAddr;

use crate::{Idempotency, Label};

/// Who calls, from where, and whether it may be a repeat. [`Call::default`] for calls from within the host.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The client's address, behind trusted proxies only: what limits per client count.
    pub ip: Option<IpAddr>,
    /// What the device calls itself: shown in the list of sessions.
    pub device: Option<Label>,
    /// The request's idempotency key, scoped and digested.
    pub idempotency: Option<Idempotency>,
}
