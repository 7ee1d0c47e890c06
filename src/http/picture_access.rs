//! URLs of renditions that need no `Authorization` header, so that a page can show them with `<img>`.

use couple_core::{AccountId, MediaId, SessionId, Timestamp, media::Viewer, pairing::Couple};

use super::{
    ApiResult, App, Problem,
    authentication::{Authentication, unavailable},
};

/// Query parameter with the signed access.
pub(super) const PARAMETER: &str = "access";

/// Viewer for whom the URLs in a response are signed.
///
/// `couple` is the current couple of the account.
pub(super) fn viewer(account: AccountId, session: SessionId, couple: Option<&Couple>) -> Viewer {
    let couple = couple.filter(|couple| couple.ended_at.is_none());
    Viewer { account, session, couple: couple.map(|couple| (couple.id, couple.epoch)) }
}

/// Viewer of a session, for which the couple is read from the store.
pub(super) async fn viewer_of(app: &App, account: AccountId, session: SessionId) -> ApiResult<Viewer> {
    let couple = app.backend.ports().store.couple_of(account).await?;
    Ok(viewer(account, session, couple.as_ref()))
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
    if same_couple && is_signed_in(app, &viewer).await? { Ok(viewer.account) } else { Err(invalid()) }
}

/// Whether the viewer's session is still valid. A host's authenticator need not know it.
async fn is_signed_in(app: &App, viewer: &Viewer) -> ApiResult<bool> {
    Ok(match &app.authentication {
        Authentication::Accounts(accounts) => accounts.has_session(viewer.account, viewer.session).await?,
        Authentication::Host(host) => {
            let now = app.backend.ports().now();
            let sessions = host.sessions_of(viewer.account).await.map_err(|error| unavailable(&error))?;
            sessions.is_none_or(|sessions| {
                sessions.iter().any(|one| one.session_id() == viewer.session && !one.has_expired(now))
            })
        }
        Authentication::Missing => false,
    })
}
