//! URLs of renditions that need no `Authorization` header, so that a page can show them with `<img>`.

use couple_core::{AccountId, MediaId, Timestamp, media::Viewer, pairing::Couple};

use super::{ApiResult, App, Problem, extract::AuthSession};

/// Query parameter with the signed access.
pub(super) const PARAMETER: &str = "access";

/// Viewer for whom the URLs in a response are signed.
///
/// `couple` is the current couple of the session's account.
pub(super) fn viewer(signed: &AuthSession, couple: Option<&Couple>) -> Viewer {
    let couple = couple.filter(|couple| couple.ended_at.is_none());
    Viewer {
        account: signed.id(),
        session: signed.session.id,
        couple: couple.map(|couple| (couple.id, couple.epoch)),
    }
}

/// Viewer of a session, for which the couple is read from the store.
pub(super) async fn viewer_of(app: &App, signed: &AuthSession) -> ApiResult<Viewer> {
    let couple = app.backend.ports().store.couple_of(signed.id()).await?;
    Ok(viewer(signed, couple.as_ref()))
}

/// Signed URL of a rendition for a viewer, relative to the host, and its expiry.
pub(super) fn sign(app: &App, viewer: &Viewer, media: MediaId, rendition: &str) -> (String, Timestamp) {
    let ports = app.backend.ports();
    let expires_at = Viewer::expiry(ports.now());
    let access = viewer.sign(&ports.keys, media, rendition, expires_at);
    (format!("/v1/media/{media}/{rendition}?{PARAMETER}={access}"), expires_at)
}

/// Account for which a signed access was made.
///
/// Its session must be valid and its couple the same, in the same epoch.
pub(super) async fn verify(app: &App, access: &str, media: MediaId, rendition: &str) -> ApiResult<AccountId> {
    let ports = app.backend.ports();
    let invalid = || Problem::new("access_invalid");
    let viewer = Viewer::verify(&ports.keys, media, rendition, access, ports.now()).ok_or_else(invalid)?;
    let couple = ports.store.couple_of(viewer.account).await?;
    let couple = couple.filter(|couple| couple.ended_at.is_none());
    let same_couple = couple.map(|couple| (couple.id, couple.epoch)) == viewer.couple;
    if same_couple && app.backend.accounts().has_session(viewer.account, viewer.session).await? {
        Ok(viewer.account)
    } else {
        Err(invalid())
    }
}
