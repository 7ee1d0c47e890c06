//! Notification preferences over HTTP.

use axum::{Json, extract::State};
use couple_core::{
    Invalid, Timestamp,
    notification::{DigestDelay, Preferences, PreferencesPatch, QuietHours},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiResult, App, caller::Caller, extract::JsonBody, nullable, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(preferences, change_preferences))
}

/// Daily time during which push messages and digests are delayed. It includes midnight if `to` is earlier than `from`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QuietHours)]
struct QuietHoursJson {
    /// First minute, `HH:MM`.
    from: String,
    /// Minute after the last one, `HH:MM`, another one than `from`.
    to: String,
}

/// Minutes since midnight of `HH:MM`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str, below: u16| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| is_number && *number < below)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 60)?)
}

impl QuietHoursJson {
    fn new(quiet: QuietHours) -> Self {
        let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        Self { from: text(quiet.from()), to: text(quiet.to()) }
    }

    fn parse(&self) -> Result<QuietHours, Invalid> {
        match (minutes(&self.from), minutes(&self.to)) {
            (Some(from), Some(to)) => QuietHours::new(from, to),
            (None, _) => Err(Invalid::new("quiet_hours.from", "invalid")),
            (_, None) => Err(Invalid::new("quiet_hours.to", "invalid")),
        }
    }
}

/// Preferences of the caller for push messages and mail digests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PreferencesOut {
    /// Whether entries of the partner are reported.
    entries: bool,
    /// Whether reactions of the partner to the caller's entries are reported.
    reactions: bool,
    /// Whether invites to the caller, and an accepted invite of the caller, are reported.
    pairing: bool,
    /// Whether messages show the partner's name and the text of the entry.
    previews: bool,
    /// Time until which nothing is sent.
    muted_until: Option<String>,
    /// Daily time during which messages are delayed.
    quiet_hours: Option<QuietHoursJson>,
    /// Time zone of the quiet hours; null for that of the profile or the device.
    time_zone: Option<String>,
    /// Minutes after which a mail tells of unread entries; null without such mails.
    digest_minutes: Option<u16>,
}

impl From<Preferences> for PreferencesOut {
    fn from(preferences: Preferences) -> Self {
        let [entries, reactions, pairing] = preferences.kinds;
        Self {
            entries,
            reactions,
            pairing,
            previews: preferences.previews,
            muted_until: preferences.muted_until.map(time),
            quiet_hours: preferences.quiet_hours.map(QuietHoursJson::new),
            time_zone: preferences.time_zone.map(|zone| zone.to_string()),
            digest_minutes: preferences.digest.map(DigestDelay::minutes),
        }
    }
}

/// Preferences to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreferencesPatchIn {
    entries: Option<bool>,
    reactions: Option<bool>,
    pairing: Option<bool>,
    previews: Option<bool>,
    /// Time until which nothing is sent (RFC 3339), or null.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    muted_until: Option<Option<String>>,
    /// Both times, or null.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<QuietHoursJson>)]
    quiet_hours: Option<Option<QuietHoursJson>>,
    /// Name of a time zone in the IANA database, or null.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    time_zone: Option<Option<String>>,
    /// Minutes from 5 to 10080, or null. Refused as `not_available` by a server that sends no digests.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u16>)]
    digest_minutes: Option<Option<u16>>,
}

impl PreferencesPatchIn {
    fn into_patch(self) -> Result<PreferencesPatch, Invalid> {
        let until = |text: String| Timestamp::from_rfc3339("muted_until", &text);
        Ok(PreferencesPatch {
            kinds: [self.entries, self.reactions, self.pairing],
            previews: self.previews,
            muted_until: self.muted_until.map(|text| text.map(until).transpose()).transpose()?,
            quiet_hours: self
                .quiet_hours
                .map(|quiet| quiet.as_ref().map(QuietHoursJson::parse).transpose())
                .transpose()?,
            time_zone: self.time_zone,
            digest: self
                .digest_minutes
                .map(|minutes| minutes.map(DigestDelay::new).transpose())
                .transpose()?,
        })
    }
}

/// Get the caller's preferences for push messages and mail digests.
#[utoipa::path(get, path = "/v1/me/notifications", tag = "devices", security(("session" = [])),
    responses((status = 200, description = "The preferences", body = PreferencesOut)))]
async fn preferences(State(app): State<App>, caller: Caller) -> ApiResult<Json<PreferencesOut>> {
    Ok(Json(app.backend.notifications().preferences(caller.id()).await?.into()))
}

/// Change the caller's preferences for push messages and mail digests. Absent fields stay, null clears a field.
///
/// A message is decided when it is sent: a change also affects messages that wait, for example for the end of quiet hours.
#[utoipa::path(patch, path = "/v1/me/notifications", tag = "devices", security(("session" = [])), request_body = PreferencesPatchIn,
    responses((status = 200, description = "The preferences", body = PreferencesOut)))]
async fn change_preferences(
    State(app): State<App>,
    caller: Caller,
    body: JsonBody<PreferencesPatchIn>,
) -> ApiResult<Json<PreferencesOut>> {
    let patch = body.value.into_patch()?;
    Ok(Json(app.backend.notifications().change(caller.id(), &patch).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_read_from_two_digits_each() {
        for (text, expected) in [("00:00", Some(0)), ("07:30", Some(450)), ("23:59", Some(1439))] {
            assert_eq!(minutes(text), expected, "{text}");
        }
        for text in ["", "7:30", "07:3", "24:00", "07:60", "+7:30", "07:30:00", "0730", "٠٧:٣٠"] {
            assert_eq!(minutes(text), None, "{text}");
        }
    }
}
