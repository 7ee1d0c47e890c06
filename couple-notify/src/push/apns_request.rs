//! Requests to APNs: headers and payloads.

use couple_core::{
    Timestamp,
    push::{Alert, LiveActivity, LiveActivityEvent, Payload, Push, Surface, Urgency},
};
use data_encoding::BASE64URL_NOPAD;
use hyper::{
    HeaderMap,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::failure::SendFailure;

/// Maximum size of a payload.
const MAX_PAYLOAD_BYTES: usize = 4096;
/// Maximum size of a collapse id.
const MAX_COLLAPSE_BYTES: usize = 64;

/// Headers without the provider token, and the payload.
pub(super) fn request(push: &Push, app: &str) -> Result<(HeaderMap, Bytes), SendFailure> {
    let (kind, suffix) = match &push.payload {
        Payload::Alert(_) => ("alert", ""),
        Payload::Background { .. } => ("background", ""),
        Payload::Reload { surface: Surface::Widget } => ("widgets", ".push-type.widgets"),
        Payload::Reload { surface: Surface::Control } => ("controls", ".push-type.controls"),
        Payload::Reload { .. } => {
            return Err(SendFailure::rejected("only widgets and controls can be reloaded"));
        }
        Payload::LiveActivity(_) => ("liveactivity", ".push-type.liveactivity"),
    };
    // APNs refuses priority 10 for background messages.
    let priority = match push.urgency {
        Urgency::High if kind != "background" => "10",
        Urgency::High | Urgency::Normal => "5",
    };
    let mut headers = HeaderMap::with_capacity(8);
    let mut insert = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value)
            .map_err(|_| SendFailure::rejected(format!("the value of {name} is not valid")))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok::<_, SendFailure>(())
    };
    insert("apns-id", &push.id.to_string())?;
    insert("apns-topic", &format!("{app}{suffix}"))?;
    insert("apns-push-type", kind)?;
    insert("apns-priority", priority)?;
    // Zero: APNs does not store the message.
    insert("apns-expiration", &push.expires_at.map_or(0, seconds).to_string())?;
    if let Some(name) = push.collapse.as_deref().filter(|name| !name.is_empty()) {
        insert("apns-collapse-id", &collapse_id(name))?;
    }
    insert("content-type", "application/json")?;
    let payload = payload(push)?.to_string();
    if payload.len() > MAX_PAYLOAD_BYTES {
        let message = format!("the payload has {} bytes; APNs takes {MAX_PAYLOAD_BYTES}", payload.len());
        return Err(SendFailure::rejected(message));
    }
    Ok((headers, payload.into()))
}

/// Name of at most 64 bytes that a header can contain: the name itself or a digest.
fn collapse_id(name: &str) -> String {
    if name.len() <= MAX_COLLAPSE_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return name.to_owned();
    }
    BASE64URL_NOPAD.encode(digest(&SHA256, name.as_bytes()).as_ref())
}

fn payload(push: &Push) -> Result<Value, SendFailure> {
    let (data, aps) = match &push.payload {
        Payload::Alert(alert) => (Some(&alert.data), alert_aps(alert)),
        Payload::Background { data } => (Some(data), json!({ "content-available": 1 })),
        Payload::Reload { .. } => (None, json!({ "content-changed": true })),
        Payload::LiveActivity(activity) => (None, live_activity_aps(activity)?),
    };
    let mut payload = data.cloned().unwrap_or_default();
    // The key is Apple's; a value of the app with this name is lost.
    payload.insert("aps".to_owned(), aps);
    Ok(payload.into())
}

fn alert_aps(alert: &Alert) -> Value {
    let mut aps = Map::new();
    aps.insert("alert".to_owned(), alert_text(alert).into());
    if let Some(badge) = alert.badge {
        aps.insert("badge".to_owned(), badge.into());
    }
    if alert.sound {
        aps.insert("sound".to_owned(), "default".into());
    }
    if let Some(thread) = &alert.thread {
        aps.insert("thread-id".to_owned(), thread.as_str().into());
    }
    aps.into()
}

fn alert_text(alert: &Alert) -> Map<String, Value> {
    let mut text = Map::new();
    text.insert("title".to_owned(), alert.title.as_str().into());
    if !alert.body.is_empty() {
        text.insert("body".to_owned(), alert.body.as_str().into());
    }
    text
}

fn live_activity_aps(activity: &LiveActivity) -> Result<Value, SendFailure> {
    let mut aps = Map::new();
    aps.insert("timestamp".to_owned(), seconds(activity.at).into());
    aps.insert("content-state".to_owned(), activity.content.clone().into());
    let event = match &activity.event {
        LiveActivityEvent::Start { attributes_type, attributes } => {
            if activity.alert.is_none() {
                return Err(SendFailure::rejected("APNs starts a Live Activity with an alert only"));
            }
            aps.insert("attributes-type".to_owned(), attributes_type.as_str().into());
            aps.insert("attributes".to_owned(), attributes.clone().into());
            "start"
        }
        LiveActivityEvent::Update => "update",
        LiveActivityEvent::End { dismissed_at } => {
            if let Some(at) = dismissed_at {
                aps.insert("dismissal-date".to_owned(), seconds(*at).into());
            }
            "end"
        }
    };
    aps.insert("event".to_owned(), event.into());
    if let Some(at) = activity.stale_at {
        aps.insert("stale-date".to_owned(), seconds(at).into());
    }
    if let Some(alert) = &activity.alert {
        let mut text = alert_text(alert);
        if alert.sound {
            text.insert("sound".to_owned(), "default".into());
        }
        aps.insert("alert".to_owned(), text.into());
    }
    Ok(aps.into())
}

/// Unix time in seconds.
fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}
