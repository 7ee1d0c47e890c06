//! Reports of decisions and results of push messages, for logs, metrics and developer tools of the host.

use std::sync::Arc;

use super::{NotificationKind, rules::PushReason};
use crate::{AccountId, CoupleId, DeviceId, Error, JobId, Timestamp, push::Push};

/// Report of one decision about a notification, or of one message to a device.
#[derive(Debug, Clone)]
pub struct PushReport<'a> {
    /// Job that decided.
    pub job: JobId,
    /// Couple of the event; none for an invite.
    pub couple: Option<CoupleId>,
    /// Person who is notified.
    pub to: AccountId,
    /// Kind of event.
    pub kind: NotificationKind,
    /// Decision of the job, or result of the message.
    pub outcome: PushOutcome<'a>,
}

/// Decision about a notification, or result of one of its messages.
#[derive(Debug, Clone)]
pub enum PushOutcome<'a> {
    /// Nothing is sent.
    Nothing(PushReason),
    /// It is decided again at the given time.
    Later(Timestamp, PushReason),
    /// The device has got another owner, or its session has ended, since the decision. Nothing is sent to it.
    NotOwned(DeviceId),
    /// The push service has accepted the message.
    Accepted(&'a Push),
    /// The destination does not exist any more; the device is removed.
    Gone(&'a Push),
    /// The push service will never accept the message.
    Refused(&'a Push, &'a Error),
    /// The message is tried again.
    Unavailable(&'a Push, &'a Error),
}

/// Function that receives each [`PushReport`]. It must return at once: sending waits for it.
pub type PushObserver = Arc<dyn Fn(&PushReport<'_>) + Send + Sync>;
