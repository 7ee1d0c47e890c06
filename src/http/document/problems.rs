//! Codes of problems that each operation can return.

use utoipa::openapi::{
    RefOr,
    path::{Operation, Parameter},
};

/// Codes of problems that an operation can return, in addition to those of [`common`].
///
/// None: the operation is not listed.
fn own(operation_id: &str) -> Option<&'static [&'static str]> {
    Some(match operation_id {
        "operations_healthz" | "operations_readyz" | "operations_capabilities" | "media_options" => &[],
        "accounts_sign_up" | "accounts_resend" | "accounts_request_code" | "accounts_forgot_password" => {
            &["invalid_idempotency_key", "idempotency_key_reused", "rate_limited"]
        }
        "accounts_verify" => &["invalid_token", "rate_limited"],
        "accounts_sign_in" => &["invalid_credentials", "invalid_token", "rate_limited"],
        "accounts_list_sessions"
        | "accounts_end_current_session"
        | "accounts_end_other_sessions"
        | "accounts_me"
        | "pairing_list_invites"
        | "pairing_blocks"
        | "devices_list"
        | "devices_preferences" => &[],
        "accounts_update_me" | "accounts_remove_widget_token" => &["rate_limited"],
        "accounts_new_widget_token" => &["too_many_widget_tokens", "rate_limited"],
        "accounts_end_session" => &["session_not_found"],
        "accounts_set_password" => &[
            "invalid_idempotency_key",
            "invalid_credentials",
            "recent_sign_in_required",
            "invalid_token",
            "rate_limited",
        ],
        "accounts_change_email" => &[
            "invalid_idempotency_key",
            "idempotency_key_reused",
            "invalid_credentials",
            "recent_sign_in_required",
            "rate_limited",
        ],
        "accounts_confirm_email" | "accounts_cancel_email_change" => {
            &["invalid_idempotency_key", "invalid_token", "rate_limited"]
        }
        "accounts_delete_me" => &["invalid_idempotency_key", "recent_sign_in_required"],
        "accounts_export" => &["recent_sign_in_required"],
        "pairing_invite" => {
            &["unverified", "not_paired", "already_paired", "own_invite", "too_many_invites", "rate_limited"]
        }
        "pairing_withdraw" => &["invite_not_found"],
        "pairing_preview" => &[
            "invalid_idempotency_key",
            "unverified",
            "invite_not_found",
            "own_invite",
            "invite_expired",
            "rate_limited",
        ],
        "pairing_decline" => &[
            "invalid_idempotency_key",
            "idempotency_key_reused",
            "unverified",
            "invite_not_found",
            "own_invite",
            "invite_expired",
            "rate_limited",
        ],
        "pairing_accept" => &[
            "unverified",
            "not_paired",
            "invite_not_found",
            "already_paired",
            "own_invite",
            "invite_expired",
            "rate_limited",
        ],
        "pairing_couple" => &["not_paired"],
        "pairing_describe" => &["not_paired", "rate_limited"],
        "pairing_leave" => &["not_paired", "invalid_field"],
        "pairing_restore" => &["not_paired", "no_previous", "rate_limited"],
        "pairing_dates" => &["not_paired"],
        "pairing_add_date" => &["not_paired", "too_many_dates", "rate_limited"],
        "pairing_change_date" => &["not_paired", "date_not_found", "date_changed", "rate_limited"],
        "pairing_remove_date" => {
            &["invalid_field", "not_paired", "date_not_found", "date_changed", "rate_limited"]
        }
        "pairing_unblock" => &["block_not_found"],
        "timeline_page" => &["not_paired", "invalid_field"],
        "timeline_previous" => &["not_paired", "no_previous", "invalid_field"],
        "timeline_entry" => &["not_paired", "entry_not_found"],
        "timeline_append" => {
            &["not_paired", "media_not_found", "media_rejected", "media_wrong_purpose", "rate_limited"]
        }
        "timeline_edit" | "timeline_delete" => {
            &["not_author", "entry_fixed", "not_paired", "entry_not_found", "entry_deleted", "rate_limited"]
        }
        "timeline_react" | "timeline_unreact" => {
            &["not_paired", "entry_not_found", "entry_deleted", "rate_limited"]
        }
        "timeline_mark_read" | "timeline_signal" => &["not_paired", "rate_limited"],
        "devices_register" => &["too_many_devices", "rate_limited"],
        "devices_change_preferences" => &["rate_limited"],
        "devices_remove" => &["invalid_field", "rate_limited"],
        "glance_glance" => &["not_paired"],
        "live_live" => &[
            "malformed_request",
            "not_paired",
            "invalid_field",
            "upgrade_required",
            "rate_limited",
            "too_many_streams",
        ],
        "media_list" => &["not_paired", "invalid_field"],
        "media_upload" => &[
            "malformed_request",
            "not_paired",
            "body_timed_out",
            "quota_exceeded",
            "body_too_large",
            "picture_too_large",
            "unsupported_media_type",
            "unsupported_encoding",
            "unknown_type",
            "invalid_field",
            "rate_limited",
            "too_many_uploads",
            "uploads_busy",
        ],
        "media_look" | "media_delete" => &["media_not_found"],
        "media_rendition" => &[
            "access_invalid",
            "media_not_found",
            "media_processing",
            "media_gone",
            "range_not_satisfiable",
            "too_many_renditions",
            "rendition_pending",
        ],
        "media_set_avatar" => &["media_not_found", "media_rejected", "media_wrong_purpose", "rate_limited"],
        "media_clear_avatar" => &["rate_limited"],
        "media_create" => &[
            "malformed_request",
            "invalid_idempotency_key",
            "not_paired",
            "upload_not_found",
            "body_timed_out",
            "quota_exceeded",
            "upload_incomplete",
            "upload_expired",
            "upload_couple_ended",
            "unsupported_tus_version",
            "body_too_large",
            "picture_too_large",
            "unfinished_uploads_full",
            "unsupported_media_type",
            "unknown_type",
            "unsupported_encoding",
            "invalid_field",
            "upload_locked",
            "rate_limited",
            "uploads_busy",
            "upload_interrupted",
        ],
        "media_offset" => &[
            "invalid_idempotency_key",
            "upload_not_found",
            "quota_exceeded",
            "upload_expired",
            "upload_couple_ended",
            "unsupported_tus_version",
            "picture_too_large",
            "unknown_type",
            "upload_locked",
        ],
        "media_append" => &[
            "malformed_request",
            "invalid_idempotency_key",
            "upload_is_final",
            "upload_not_found",
            "body_timed_out",
            "quota_exceeded",
            "upload_conflict",
            "upload_expired",
            "upload_couple_ended",
            "unsupported_tus_version",
            "body_too_large",
            "picture_too_large",
            "unfinished_uploads_full",
            "unsupported_media_type",
            "unsupported_encoding",
            "unknown_type",
            "upload_locked",
            "rate_limited",
            "uploads_busy",
            "upload_interrupted",
        ],
        "media_end" => &["upload_not_found", "upload_expired", "upload_locked", "unsupported_tus_version"],
        _ => return None,
    })
}

/// Codes that follow from what an operation takes: a session, a JSON body, an idempotency key, a path parameter.
fn common(path: &str, operation: &Operation) -> Vec<&'static str> {
    let mut codes = vec!["internal_error", "overloaded", "unavailable", "timed_out"];
    if operation.security.is_some() {
        codes.push("unauthenticated");
    }
    if path.contains('{') {
        codes.push("not_found");
    }
    if let Some(RefOr::T(body)) = &operation.request_body
        && body.content.contains_key("application/json")
    {
        codes.extend(["malformed_request", "malformed_json", "body_timed_out", "body_too_large"]);
        codes.extend(["unsupported_media_type", "unsupported_encoding", "invalid_field"]);
    }
    let is_key = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.name == "Idempotency-Key");
    if operation.parameters.iter().flatten().any(is_key) {
        codes.extend(["invalid_idempotency_key", "idempotency_key_reused"]);
    }
    codes
}

/// All codes of an operation. Empty: the operation is not listed.
pub(super) fn codes(path: &str, operation: &Operation) -> Vec<&'static str> {
    let Some(own) = operation.operation_id.as_deref().and_then(own) else { return Vec::new() };
    let mut codes = common(path, operation);
    codes.extend(own);
    codes.sort_unstable();
    codes.dedup();
    codes
}
