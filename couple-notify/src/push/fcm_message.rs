//! Messages for FCM.

use std::time::Duration;

use couple_core::{
    Timestamp,
    push::{Alert, Payload, Push, Surface, Urgency},
};
use serde_json::{Map, Value, json};

use super::failure::SendFailure;

/// Longest time for which FCM stores a message.
pub(super) const MAX_TTL: Duration = Duration::from_hours(28 * 24);

/// Body of a request.
pub(super) fn message(push: &Push, token: &str, now: Timestamp) -> Result<Value, SendFailure> {
    let mut android = Map::new();
    let priority = match push.urgency {
        Urgency::High => "HIGH",
        Urgency::Normal => "NORMAL",
    };
    android.insert("priority".to_owned(), priority.into());
    let ttl = push.expires_at.map_or(Duration::ZERO, |at| at.since(now)).min(MAX_TTL);
    android.insert("ttl".to_owned(), format!("{}s", ttl.as_secs()).into());
    let collapse = push.collapse.as_deref().filter(|name| !name.is_empty());
    if let Some(name) = collapse {
        android.insert("collapse_key".to_owned(), name.into());
    }
    let mut message = Map::new();
    message.insert("token".to_owned(), token.into());
    let data = match &push.payload {
        Payload::Alert(alert) => {
            message.insert("notification".to_owned(), json!({ "title": alert.title, "body": alert.body }));
            android.insert("notification".to_owned(), notification(alert, collapse));
            texts(&alert.data)
        }
        Payload::Background { data } => texts(data),
        Payload::Reload { surface: surface @ (Surface::Widget | Surface::Control) } => {
            let surface = if *surface == Surface::Widget { "widget" } else { "control" };
            Map::from_iter([("reload".to_owned(), surface.into())])
        }
        Payload::Reload { .. } => {
            return Err(SendFailure::rejected("only widgets and controls can be reloaded"));
        }
        Payload::LiveActivity(_) => return Err(SendFailure::rejected("FCM has no Live Activities")),
    };
    if !data.is_empty() {
        message.insert("data".to_owned(), data.into());
    }
    message.insert("android".to_owned(), android.into());
    Ok(json!({ "message": message }))
}

fn notification(alert: &Alert, collapse: Option<&str>) -> Value {
    let mut notification = Map::new();
    if let Some(name) = collapse {
        // A notification that is shown already is replaced too, as on Apple's systems.
        notification.insert("tag".to_owned(), name.into());
    }
    if let Some(badge) = alert.badge {
        notification.insert("notification_count".to_owned(), badge.into());
    }
    if alert.sound {
        notification.insert("sound".to_owned(), "default".into());
    }
    notification.into()
}

/// FCM takes texts only: other values are written as JSON.
fn texts(data: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    data.iter().map(|(name, value)| (name.clone(), text(value).into())).collect()
}
