//! Developer's push log: what became of each notification, and what a device would have shown.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use couple::{
    Clock as _, SystemClock,
    notification::{PushOutcome, PushReport},
    push::{Destination, Payload, Push, PushError, Pusher},
};
use serde::Serialize;
use serde_json::{Value, json};

/// Maximum reports in the list, the newest ones.
const MAX_REPORTS: usize = 200;

/// The newest reports, in memory.
#[derive(Clone, Default)]
pub(crate) struct PushLog {
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    reports: VecDeque<ReportOut>,
    /// Number of reports since the start.
    count: u64,
}

/// A report as JSON.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ReportOut {
    /// Number of the report since the start of the server.
    id: u64,
    /// RFC 3339.
    at: String,
    /// Account of the person who is notified.
    to: String,
    kind: &'static str,
    /// What happened, in words.
    result: String,
    /// Service of the device: `apns`, `fcm` or `web_push`.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'static str>,
    /// The message, without the token of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
}

impl PushLog {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Keeps a report.
    pub(crate) fn record(&self, report: &PushReport<'_>) {
        let (result, push) = match &report.outcome {
            PushOutcome::Nothing(reason) => (format!("not sent: {reason}"), None),
            PushOutcome::Later(at, reason) => {
                (format!("decided again at {}: {reason}", at.to_rfc3339()), None)
            }
            PushOutcome::NotOwned(_) => {
                ("not sent: the device is not the recipient's any more".to_owned(), None)
            }
            PushOutcome::Accepted(push) => ("accepted".to_owned(), Some(*push)),
            PushOutcome::Gone(push) => ("the device is gone".to_owned(), Some(*push)),
            PushOutcome::Refused(push, error) => (format!("refused: {error}"), Some(*push)),
            PushOutcome::Unavailable(push, error) => (format!("tried again: {error}"), Some(*push)),
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.count += 1;
        let id = log.count;
        log.reports.push_back(ReportOut {
            id,
            at: SystemClock.now().to_rfc3339(),
            to: report.to.to_string(),
            kind: report.kind.as_str(),
            result,
            service: push.map(|push| service(&push.to)),
            message: push.map(message),
        });
        if log.reports.len() > MAX_REPORTS {
            log.reports.pop_front();
        }
    }

    /// Reports after the one with the number `after`, oldest first.
    pub(crate) fn after(&self, after: u64) -> Vec<ReportOut> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.reports.iter().filter(|report| report.id > after).cloned().collect()
    }

    /// Number of reports since the start.
    pub(crate) fn count(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl ReportOut {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

fn service(destination: &Destination) -> &'static str {
    match destination {
        Destination::Apns { .. } => "apns",
        Destination::Fcm { .. } => "fcm",
        Destination::WebPush { .. } => "web_push",
    }
}

/// What the device gets.
fn message(push: &Push) -> Value {
    let mut message = match &push.payload {
        Payload::Alert(alert) => json!({
            "title": alert.title,
            "body": alert.body,
            "badge": alert.badge,
            "thread": alert.thread,
            "data": alert.data,
        }),
        Payload::Background { data } => json!({ "background": data }),
        Payload::Reload { surface } => json!({ "reload": surface.as_str() }),
        Payload::LiveActivity(activity) => json!({ "live_activity": activity.content }),
    };
    message["collapse"] = push.collapse.clone().into();
    message
}

/// Accepts every message and sends none.
pub(crate) struct NotSent;

#[async_trait]
impl Pusher for NotSent {
    async fn push(&self, _: &Push) -> Result<(), PushError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use couple::{
        AccountId, CoupleId,
        notification::{NotificationKind, rules::PushReason},
    };

    use super::*;

    fn report(outcome: PushOutcome<'_>) -> PushReport<'_> {
        let id = uuid::Uuid::from_u128(1);
        PushReport {
            job: couple::core::JobId::from_uuid(id),
            couple: Some(CoupleId::from_uuid(id)),
            to: AccountId::from_uuid(id),
            kind: NotificationKind::Entry,
            outcome,
        }
    }

    #[test]
    fn newest_reports_are_kept_in_words() {
        let log = PushLog::new();
        for _ in 0..MAX_REPORTS {
            log.record(&report(PushOutcome::Nothing(PushReason::Read)));
        }
        log.record(&report(PushOutcome::Later(couple::Timestamp::from_micros(0), PushReason::QuietHours)));
        let all = log.after(0);
        assert_eq!((all.len(), all[0].id, log.count()), (MAX_REPORTS, 2, 201));
        assert_eq!(all[0].result, "not sent: the recipient has read it");
        let newest = log.after(200);
        assert_eq!(newest.len(), 1);
        assert_eq!(
            newest[0].result,
            "decided again at 1970-01-01T00:00:00.000Z: the recipient has quiet hours"
        );
    }

    #[test]
    fn message_is_shown_without_the_token() {
        let log = PushLog::new();
        let alert = couple::push::Alert {
            title: "Couple".to_owned(),
            body: "You have a new message".to_owned(),
            ..Default::default()
        };
        let push = Push {
            id: uuid::Uuid::from_u128(2),
            to: Destination::Fcm {
                token: couple::Secret::new("secret-token".to_owned()),
                app: "org.example".to_owned(),
            },
            payload: Payload::Alert(alert),
            collapse: None,
            urgency: couple::push::Urgency::High,
            expires_at: None,
        };
        log.record(&report(PushOutcome::Accepted(&push)));
        let Ok(shown) = serde_json::to_string(&log.after(0)) else { panic!("no JSON") };
        assert!(shown.contains("You have a new message") && shown.contains("\"fcm\""), "{shown}");
        assert!(!shown.contains("secret-token"), "{shown}");
    }
}
