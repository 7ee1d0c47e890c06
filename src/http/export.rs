//! Export of all data of an account as one JSON document.

use std::collections::VecDeque;

use axum::{
    body::Body as HttpBody,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use couple_core::{
    AccountId, Error, Failure, MediaId,
    account::Export,
    media::{self, Media, Space},
    pairing::Couple,
    timeline,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    account::{AccountOut, SessionOut},
    caller::AuthSession,
    date::exported,
    device::DeviceOut,
    notification::PreferencesOut,
    time,
    timeline::EntryOut,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export))
}

/// Export all data of the account as JSON. Needs a sign-in within {{recent}}.
#[utoipa::path(get, path = "/v1/me/export", tag = "accounts", security(("session" = [])),
    responses((status = 200, description = "The data of the account", body = serde_json::Value)))]
async fn export(State(app): State<App>, signed: AuthSession) -> ApiResult<Response> {
    app.backend.accounts()?.require_recent(&signed.session)?;
    let export = Export::read(app.backend.ports(), signed.id()).await?;
    let export = export.ok_or_else(|| Problem::new("unauthenticated"))?;
    let couples: VecDeque<Couple> = export.couples.clone().into();
    let spaces = media::spaces(signed.id(), couples.iter().map(|couple| couple.id)).collect();
    let head = serde_json::json!({
        "account": AccountOut::from(export.account),
        "sessions": export.sessions.into_iter().map(|s| SessionOut::new(s, signed.session.id)).collect::<Vec<_>>(),
        "devices": export.devices.into_iter().map(DeviceOut::from).collect::<Vec<_>>(),
        "notifications": export.preferences.map(PreferencesOut::from),
        "invites": export.invites.iter().map(|invite| serde_json::json!({
            "id": invite.id.to_string(),
            "email": invite.target.as_ref().map(ToString::to_string),
            "message": invite.message.as_ref().map(ToString::to_string),
            "created_at": time(invite.created_at),
        })).collect::<Vec<_>>(),
        "blocks": export.blocks.iter().map(|block| serde_json::json!({
            "blocked": block.blocked.to_string(), "since": time(block.at),
        })).collect::<Vec<_>>(),
        "couples": export.couples.iter().map(|couple| serde_json::json!({
            "id": couple.id.to_string(),
            "since": time(couple.since),
            "ended_at": couple.ended_at.map(time),
            "title": couple.title.as_ref().map(ToString::to_string),
            "anniversary": couple.anniversary,
        })).collect::<Vec<_>>(),
        "dates": export.dates.iter().map(exported).collect::<Vec<_>>(),
    });
    // Pictures and entries can be many: they are read and sent page by page.
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"pictures\":[");
    let begin =
        DocumentState { app, account: signed.id(), first: true, part: Part::Pictures(spaces, None), couples };
    let pages = futures_util::stream::unfold((Some(begin), text), |(writing, mut text)| async move {
        let mut writing = writing?;
        // After a failure the body is cut off, so that the client does not take an incomplete document for a complete one.
        match writing.page(&mut text).await {
            Ok(goes_on) => Some((Ok(text), (goes_on.then_some(writing), String::new()))),
            Err(failure) => Some((Err(failure), (None, String::new()))),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"couple-export.json\""),
    ];
    Ok((headers, HttpBody::from_stream(pages)).into_response())
}

/// Progress of an export.
struct DocumentState {
    app: App,
    account: AccountId,
    /// Whether the next item is the first of its list, so needs no comma.
    first: bool,
    part: Part,
    couples: VecDeque<Couple>,
}

enum Part {
    /// Pictures: the remaining spaces, and the last exported picture of the first of them.
    Pictures(VecDeque<Space>, Option<MediaId>),
    /// Entries: `seq` of the last exported entry of the first remaining couple.
    Entries(i64),
}

impl DocumentState {
    /// Writes the next page; returns `false` after the last one.
    async fn page(&mut self, text: &mut String) -> Result<bool, Failure<timeline::TimelineError>> {
        let items = match &mut self.part {
            Part::Pictures(spaces, after) => {
                let Some(&space) = spaces.front() else {
                    text.push_str("],\"entries\":[");
                    (self.part, self.first) = (Part::Entries(0), true);
                    return Ok(true);
                };
                let (own, next) =
                    media::uploaded(self.app.backend.ports(), self.account, space, *after).await?;
                if next.is_none() {
                    spaces.pop_front();
                }
                *after = next;
                own.iter().map(|media| picture(&self.app, media)).collect::<Vec<_>>()
            }
            Part::Entries(after) => {
                let Some(couple) = self.couples.front() else {
                    text.push_str("]}");
                    return Ok(false);
                };
                let (id, side) = (couple.id, couple.side_of(self.account));
                let entries = self.app.backend.timeline().authored(self.account, couple, *after).await?;
                *after = entries.last().map_or(0, |entry| entry.seq);
                if entries.is_empty() {
                    self.couples.pop_front();
                }
                let mut items = Vec::with_capacity(entries.len());
                for entry in entries {
                    let mut out = serde_json::to_value(EntryOut::new(entry, side, None))
                        .map_err(|e| Error::new(couple_core::ErrorKind::Internal, "export").source(e))?;
                    out["couple_id"] = id.to_string().into();
                    items.push(out);
                }
                items
            }
        };
        for item in items {
            if !std::mem::take(&mut self.first) {
                text.push(',');
            }
            text.push_str(&item.to_string());
        }
        Ok(true)
    }
}

/// Picture in an export. Its URL works as long as the account exists.
fn picture(app: &App, media: &Media) -> serde_json::Value {
    let couple = match media.space {
        Space::Couple(id) => Some(id.to_string()),
        Space::Account(_) => None,
    };
    serde_json::json!({
        "id": media.id.to_string(),
        "purpose": media.purpose.as_str(),
        "couple_id": couple,
        "created_at": time(media.created_at),
        "width": (media.width > 0).then_some(media.width),
        "height": (media.height > 0).then_some(media.height),
        "url": app.backend.ports().links.below(&format!("/v1/media/{}", media.id)),
    })
}
