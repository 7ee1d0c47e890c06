//! Context of a request that a transport passes to a service beside the command.

use std::net::IpAddr;

use crate::{Idempotency, Label};

/// Per-request context: client address, device and idempotency key.
///
/// [`RequestContext::default`] is the context of calls that the host makes itself.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// Client address, taken from proxy headers only behind trusted proxies. The key of limits per client.
    pub ip: Option<IpAddr>,
    /// Name that the device gives itself, shown in the list of sessions.
    pub device: Option<Label>,
    /// Idempotency key of the request, as digests of its scope and content.
    pub idempotency: Option<Idempotency>,
}
