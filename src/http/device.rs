//! Devices over HTTP. No response contains a token, an endpoint or a key.

use axum::{Json, extract::State, http::StatusCode};
use couple_core::{
    DeviceId, Secret,
    device::{Device, NewDestination, NewDevice},
    push::{Destination, Surface},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{JsonBody, PathParam},
    time,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(register, remove))
}

/// Push service of a device.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Platform {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
    /// Push service of a browser.
    WebPush,
}

/// Surface that the messages update. Only `apns` has others than `alert`.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Alert,
    Widget,
    Control,
    LiveActivityStart,
    LiveActivityUpdate,
}

impl From<Kind> for Surface {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Alert => Self::Alert,
            Kind::Widget => Self::Widget,
            Kind::Control => Self::Control,
            Kind::LiveActivityStart => Self::LiveActivityStart,
            Kind::LiveActivityUpdate => Self::LiveActivityUpdate,
        }
    }
}

/// A device to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeviceIn {
    platform: Platform,
    /// Token of `apns` (hexadecimal digits) or `fcm`. Not given for `web_push`.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// Subscription of `web_push`, as `PushSubscription.toJSON()` returns it.
    subscription: Option<SubscriptionIn>,
    #[serde(default)]
    kind: Kind,
    /// Bundle id of the app (`apns`), or its application id or package name (`fcm`).
    app: Option<String>,
    /// Whether the token was made by a development build (`apns`).
    #[serde(default)]
    sandbox: bool,
    /// Language of the device. An unknown one is ignored.
    locale: Option<String>,
    /// Time zone of the device, an IANA name. An unknown one is ignored.
    time_zone: Option<String>,
    /// Version of the app, at most 64 characters.
    app_version: Option<String>,
}

/// Subscription of a browser. Further fields are ignored: browsers add some.
#[derive(Deserialize, ToSchema)]
struct SubscriptionIn {
    /// URL of the push service: `https`, with the name of a host.
    #[schema(value_type = String)]
    endpoint: Secret<String>,
    keys: SubscriptionKeysIn,
}

/// Keys of a subscription, in base64url.
#[derive(Deserialize, ToSchema)]
struct SubscriptionKeysIn {
    /// Public key: an uncompressed point of P-256, 65 bytes.
    #[schema(value_type = String)]
    p256dh: Secret<String>,
    /// Authentication secret, 16 bytes.
    #[schema(value_type = String)]
    auth: Secret<String>,
}

impl DeviceIn {
    fn into_new_device(self) -> Result<NewDevice, Problem> {
        let required = |field| Problem::new("invalid_field").field(field, "required");
        let unexpected = |field| Problem::new("invalid_field").field(field, "unexpected");
        let destination = match self.platform {
            Platform::WebPush => {
                if self.token.is_some() {
                    return Err(unexpected("token"));
                }
                let subscription = self.subscription.ok_or_else(|| required("subscription"))?;
                let SubscriptionKeysIn { p256dh, auth } = subscription.keys;
                NewDestination::WebPush { endpoint: subscription.endpoint, key: p256dh, auth }
            }
            Platform::Apns | Platform::Fcm if self.subscription.is_some() => {
                return Err(unexpected("subscription"));
            }
            platform => {
                let token = self.token.ok_or_else(|| required("token"))?;
                let app = self.app.ok_or_else(|| required("app"))?;
                match platform {
                    Platform::Apns => NewDestination::Apns { token, app, sandbox: self.sandbox },
                    Platform::Fcm | Platform::WebPush => NewDestination::Fcm { token, app },
                }
            }
        };
        Ok(NewDevice {
            destination,
            surface: self.kind.into(),
            locale: self.locale,
            time_zone: self.time_zone,
            app_version: self.app_version,
        })
    }
}

/// A registered device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceOut {
    /// Id that the installation of the app has chosen.
    id: String,
    /// Push service: `apns`, `fcm` or `web_push`.
    platform: &'static str,
    /// Surface: `alert`, `widget`, `control`, `live_activity_start` or `live_activity_update`.
    kind: &'static str,
    /// Id of the app; null for a browser.
    app: Option<String>,
    /// Whether messages go to Apple's test environment.
    sandbox: bool,
    locale: Option<String>,
    time_zone: Option<String>,
    app_version: Option<String>,
    /// Time of the last registration.
    registered_at: String,
}

impl From<Device> for DeviceOut {
    fn from(device: Device) -> Self {
        let platform = device.destination.platform();
        let (app, sandbox) = match device.destination {
            Destination::Apns { app, sandbox, .. } => (Some(app), sandbox),
            Destination::Fcm { app, .. } => (Some(app), false),
            Destination::WebPush { .. } => (None, false),
        };
        Self {
            id: device.id.to_string(),
            platform,
            kind: device.surface.as_str(),
            app,
            sandbox,
            locale: device.locale.map(|locale| locale.to_string()),
            time_zone: device.time_zone.map(|zone| zone.to_string()),
            app_version: device.app_version,
            registered_at: time(device.registered_at),
        }
    }
}

/// Devices of the caller.
#[derive(Debug, Serialize, ToSchema)]
struct DevicesOut {
    devices: Vec<DeviceOut>,
}

fn device_id(id: &str) -> Result<DeviceId, Problem> {
    id.parse().map_err(|_| Problem::new("invalid_field").field("id", "invalid"))
}

/// List the caller's devices, without their tokens.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", security(("session" = [])),
    responses((status = 200, description = "In the order of registration, the earliest first", body = DevicesOut)))]
async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<DevicesOut>> {
    let devices = app.backend.devices().list(caller.id()).await?;
    Ok(Json(DevicesOut { devices: devices.into_iter().map(DeviceOut::from).collect() }))
}

/// Create or replace a device for push messages. Repeat it at each start of the app.
///
/// The id is a UUID that the installation chooses once for each surface and keeps. A token belongs to one person at a time: the last
/// registration wins. The device ends with the session that registered it. At most {{devices}} devices a person.
#[utoipa::path(put, path = "/v1/devices/{id}", tag = "devices", security(("session" = [])), request_body = DeviceIn,
    params(("id" = String, Path, description = "Id of the device, a UUID that the client chooses")),
    responses(
        (status = 200, description = "Replaced", body = DeviceOut),
        (status = 201, description = "Registered", body = DeviceOut)))]
async fn register(
    State(app): State<App>,
    caller: Caller,
    PathParam(id): PathParam,
    body: JsonBody<DeviceIn>,
) -> ApiResult<(StatusCode, Json<DeviceOut>)> {
    let (id, device) = (device_id(&id)?, body.value.into_new_device()?);
    let registration = app.backend.devices().register(&caller.into_principal(), id, &device).await?;
    let status = if registration.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(registration.device.into())))
}

/// Remove a device. Answers 204 as well if the caller has no device with this id.
#[utoipa::path(delete, path = "/v1/devices/{id}", tag = "devices", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the device")),
    responses((status = 204, description = "Removed")))]
async fn remove(State(app): State<App>, caller: Caller, PathParam(id): PathParam) -> ApiResult<StatusCode> {
    app.backend.devices().remove(caller.id(), device_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
