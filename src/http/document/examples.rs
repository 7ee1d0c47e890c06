//! Examples of request and response bodies.
//!
//! Those of requests are accepted by a server as they are, except for ids, codes and tokens that it never issued.

use serde_json::{Value, json};

const ANA: &str = "019ad0c4-7a10-7c3e-9f52-3d5b8a6e1c01";
const BEN: &str = "019ad0c4-8f21-7b1d-8a47-6c2e9d4f7b02";
const COUPLE: &str = "019ad0c5-1b32-7e5f-a1c8-4f7d2b9e6a03";
const PHOTO: &str = "019ad0c6-2c43-7d6a-b2d9-5a8e3c1f7b04";
const AVATAR: &str = "019ad0c6-3d54-7e7b-83ea-6b9f4d2a8c05";
const SESSION: &str = "019ad0c4-9e65-7f8c-94fb-7ca05e3b9d06";
const INVITE: &str = "019ad0c4-af76-7a9d-a50c-8db16f4cae07";
const DATE: &str = "0190f1a2-7d2e-7a11-8c5b-3e4f5a6b7c8d";
const DEVICE: &str = "0190f1a2-6c1d-4e8f-b3a7-9d2c5e7f1a08";
const CURSOR: &str = "2b9e6a03.1.2.1.1";
const PLACEHOLDER: &str = "1QcSHQRnh493V4dIh4eXh1h4kJUI";
/// A token of a session or of a mailed link.
const TOKEN: &str = "TFHbxsT6J-4BamJ9Jjw9NOm3eCGV5zfL";
const SIGNED_UP: &str = "2026-11-29T09:00:00.000Z";
const PAIRED: &str = "2026-11-29T09:05:00.000Z";
const WRITTEN: &str = "2026-11-29T09:06:30.000Z";
const EXPIRES: &str = "2026-11-30T09:04:00.000Z";

fn account() -> Value {
    json!({
        "id": ANA, "email": "ana@example.org", "display_name": "Ana", "locale": "en", "time_zone": "Europe/Lisbon",
        "birthday": null, "has_password": true, "created_at": SIGNED_UP, "deletion_due": null
    })
}

fn rendition(id: &str, name: &str, width: u32, height: u32) -> Value {
    let url = format!("http://127.0.0.1:8080/v1/media/{id}/{name}");
    json!({
        "name": name, "width": width, "height": height, "url": url, "signed_url": format!("{url}?access={TOKEN}"),
        "signed_url_expires_at": "2026-11-29T09:16:30.000Z"
    })
}

fn picture(id: &str, purpose: &str, owner: &str, renditions: &[Value]) -> Value {
    json!({
        "id": id, "owner_id": owner, "purpose": purpose, "state": "ready",
        "width": 1920, "height": 1080, "alpha": false, "animated": false, "placeholder": PLACEHOLDER,
        "renditions": renditions
    })
}

fn photo() -> Value {
    picture(PHOTO, "photo", ANA, &[rendition(PHOTO, "1080", 1080, 608), rendition(PHOTO, "320", 320, 180)])
}

fn avatar() -> Value {
    picture(AVATAR, "avatar", ANA, &[rendition(AVATAR, "256", 256, 256)])
}

fn entry() -> Value {
    json!({
        "seq": 2, "author": "me", "kind": "text", "body": { "text": "hello" }, "client_id": "a-1", "created_at": WRITTEN,
        "reactions": { "partner": "❤️" }
    })
}

fn couple() -> Value {
    json!({
        "id": COUPLE, "since": PAIRED, "title": "Ana and Ben", "anniversary": "2020-02-14",
        "me": { "id": ANA, "display_name": "Ana", "avatar": null },
        "partner": { "id": BEN, "display_name": "Ben", "avatar": null, "presence": "here" },
        "head_seq": 2, "my_read_seq": 2, "partner_read_seq": 1, "unread": 0, "previous": null
    })
}

fn sent_invite() -> Value {
    json!({
        "id": INVITE, "code": "7KQ4M-2XRTP", "link": format!("http://127.0.0.1:8080/open/invite#invite_{TOKEN}"),
        "email": null, "message": "Hey you", "created_at": "2026-11-29T09:04:00.000Z", "expires_at": EXPIRES
    })
}

fn received_invite() -> Value {
    json!({
        "id": INVITE, "from": { "display_name": "Ana", "avatar": null }, "message": "Hey you", "expires_at": EXPIRES
    })
}

fn date() -> Value {
    json!({
        "id": DATE, "kind": "first_date", "title": null, "date": "2024-02-29", "yearly": true, "version": 1,
        "created_at": WRITTEN, "next_on": "2027-02-28"
    })
}

fn device() -> Value {
    json!({
        "id": DEVICE, "platform": "fcm", "kind": "alert", "app": "org.example.couple", "sandbox": false, "locale": "pt-PT",
        "time_zone": "Europe/Lisbon", "app_version": "1.4.0", "registered_at": WRITTEN
    })
}

fn preferences() -> Value {
    json!({
        "entries": true, "reactions": false, "pairing": true, "previews": false, "muted_until": null,
        "quiet_hours": { "from": "22:00", "to": "07:30" }, "time_zone": null, "digest_minutes": 120
    })
}

fn glance() -> Value {
    let picture = |id: &str, name: &str, width: u32, height: u32| {
        let url = format!("http://127.0.0.1:8080/v1/media/{id}/{name}");
        json!({
            "id": id, "placeholder": PLACEHOLDER,
            "renditions": [{ "name": name, "width": width, "height": height, "url": url }]
        })
    };
    json!({
        "partner": { "display_name": "Ben", "avatar": picture(AVATAR, "256", 256, 256) },
        "photo": {
            "seq": 5, "author": "partner", "created_at": WRITTEN, "picture": picture(PHOTO, "320", 320, 180)
        },
        "mood": { "seq": 4, "body": { "mood": "sunny" }, "created_at": WRITTEN },
        "days_together": 2480, "unread": 1
    })
}

fn new_session() -> Value {
    json!({
        "account": account(),
        "session": { "id": SESSION, "token": format!("session_{TOKEN}"), "expires_at": "2027-11-29T09:00:00.000Z" }
    })
}

/// Example of a request body with this schema.
pub(super) fn request(schema: &str) -> Option<Value> {
    Some(match schema {
        "NewAccount" => json!({ "email": "ana@example.org", "display_name": "Ana", "locale": "en" }),
        "Verification" => json!({ "email": "ana@example.org", "code": "123456" }),
        "Address" => json!({ "email": "ana@example.org" }),
        "Credentials" => json!({ "email": "ana@example.org", "password": "mauve kettle orbit" }),
        "NewPassword" => {
            json!({ "current_password": "mauve kettle orbit", "new_password": "seven violet otters" })
        }
        "AccountPatch" => json!({ "display_name": "Ana", "time_zone": "Europe/Lisbon", "birthday": null }),
        "NewEmail" => json!({ "new_email": "ana.new@example.org" }),
        "EmailProof" => json!({ "token": format!("email_{TOKEN}") }),
        "EmailCancellation" => json!({ "token": format!("cancel_{TOKEN}") }),
        "NewInvite" => json!({ "message": "Hey you" }),
        "InviteName" => json!({ "code": "7KQ4M-2XRTP" }),
        "CouplePatch" => json!({ "title": "Ana and Ben", "anniversary": "2020-02-14" }),
        "Restoring" => json!({ "wanted": true }),
        "NewEntryIn" => json!({ "client_id": "a-1", "kind": "text", "body": { "text": "hello" } }),
        "EditIn" => json!({ "body": { "text": "hello again" } }),
        "ReactionIn" => json!({ "emoji": "❤️" }),
        "ReadIn" => json!({ "seq": 2 }),
        "SignalIn" => json!({ "kind": "typing" }),
        "DateIn" => json!({ "kind": "first_date", "date": "2024-02-29" }),
        "DatePatchIn" => json!({ "title": "Our first date", "version": 1 }),
        "DeviceIn" => json!({
            "platform": "fcm", "token": "dX9:APA91bH-example", "app": "org.example.couple", "locale": "pt-PT",
            "time_zone": "Europe/Lisbon", "app_version": "1.4.0"
        }),
        "PreferencesPatchIn" => {
            json!({ "reactions": false, "quiet_hours": { "from": "22:00", "to": "07:30" } })
        }
        "AvatarIn" => json!({ "media_id": AVATAR }),
        _ => return None,
    })
}

/// Example of a JSON response of an operation.
///
/// It is chosen by the schema of the response or, if the schema has no name, by the operation.
pub(super) fn response(operation_id: &str, schema: Option<&str>) -> Option<Value> {
    Some(match schema.unwrap_or(operation_id) {
        "Health" => json!({ "status": "ok" }),
        "Readiness" => json!({ "status": "ready", "pictures": "ok", "writer_restarts": 0 }),
        "Status" => match operation_id {
            "accounts_sign_up" | "accounts_change_email" => json!({ "status": "verification_sent" }),
            _ => json!({ "status": "sent" }),
        },
        "SignedInOut" => new_session(),
        "Sessions" => json!({ "sessions": [{
            "id": SESSION, "device": "Firefox on Linux", "created_at": SIGNED_UP, "seen_at": WRITTEN,
            "expires_at": "2027-11-29T09:00:00.000Z", "current": true, "has_widget_token": false
        }] }),
        "MeOut" => {
            let mut me = account();
            me["avatar"] = avatar();
            me["email_retired"] = Value::Null;
            me
        }
        "Deletion" => {
            json!({ "status": "deletion_scheduled", "deletion_due": "2026-12-13T09:10:00.000Z" })
        }
        "accounts_export" => json!({
            "account": account(), "sessions": [], "devices": [device()], "notifications": preferences(), "invites": [], "blocks": [],
            "couples": [{ "id": COUPLE, "since": PAIRED, "ended_at": null, "title": null, "anniversary": null }],
            "dates": [], "pictures": [], "entries": [entry()]
        }),
        "InvitedOut" => sent_invite(),
        "Invites" => json!({ "sent": [sent_invite()], "received": [] }),
        "ReceivedOut" => received_invite(),
        "CoupleAnswer" => json!({ "couple": couple() }),
        "CoupleOut" => couple(),
        "Blocks" => json!({ "blocks": [{ "id": BEN, "display_name": "Ben", "since": WRITTEN }] }),
        "EntryOut" => entry(),
        "EntriesOut" => json!({ "entries": [entry()], "next": null }),
        "Polled" => {
            json!({ "frames": [{ "type": "entry", "entry": entry(), "cursor": CURSOR }], "cursor": CURSOR })
        }
        "DateOut" => date(),
        "DatesOut" => json!({
            "dates": [date()],
            "birthdays": [{ "account_id": BEN, "date": "--05-04", "next_on": "2027-05-04" }]
        }),
        "DeviceOut" => device(),
        "PreferencesOut" => preferences(),
        "GlanceOut" => glance(),
        "WidgetTokenOut" => json!({ "token": format!("widget_{TOKEN}") }),
        "DevicesOut" => json!({ "devices": [device()] }),
        "MediaOut" => photo(),
        "MediaPage" => json!({
            "media": [photo()], "next": null,
            "quota": { "limit": 10_737_418_240_u64, "used": 1_204_224, "remaining": 10_736_214_016_u64 }
        }),
        "Capabilities" => json!({ "json_bytes": 65_536, "dates": 100, "devices": 20, "media": {
            "types": ["image/jpeg", "image/png", "image/webp", "image/gif"], "bytes": 20_971_520, "side": 65_535,
            "megapixels": 210, "concurrent_uploads": 10, "waiting_uploads": 54, "upload_wait_seconds": 30,
            "upload_seconds": 3_600, "upload_idle_seconds": 60, "upload_rate_bytes": 30_720,
            "upload_rate_seconds": 120, "resumable_seconds": 86_400, "unfinished_uploads": 100,
            "unfinished_bytes": 104_857_600, "photo_quota_bytes": 10_737_418_240_u64,
            "avatar_quota_bytes": 104_857_600,
            "photo_renditions": [{ "name": "320", "width": 320, "height": 320 }],
            "avatar_renditions": [{ "name": "256", "width": 256, "height": 256 }], "signed_url_seconds": 600
        } }),
        _ => return None,
    })
}
