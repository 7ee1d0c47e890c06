//! URLs of renditions that need no `Authorization` header, so that a page can show them with `<img>`.

use couple_core::{AccountId, MediaId, Timestamp, media::Viewer, pairing::Couple};

use super::{Answer, App, Problem, extract::Signed};

/// The query parameter that holds a signed access.
pub(super) const PARAMETER: &str = "access";

/// The viewer that URLs in an answer are signed for. `couple` is the living one of the session's account.
pub(super) fn viewer(signed: &Signed, couple: Option<&Couple>) -> Viewer {
    let couple = couple.filter(|couple| couple.ended_at.is_none());
    Viewer {
        account: signed.id(),
        session: signed.session.id,
        couple: couple.map(|couple| (couple.id, couple.epoch)),
    }
}

/// The same, for a session whose couple must be read.
pub(super) async fn viewer_of(app: &App, signed: &Signed) -> Answer<Viewer> {
    let couple = app.backend.ports().store.couple_of(signed.id()).await?;
    Ok(viewer(signed, couple.as_ref()))
}

/// A URL of a rendition for a viewer, without the host, and its expiry.
pub(super) fn sign(app: &App, viewer: &Viewer, media: MediaId, rendition: &str) -> (String, Timestamp) {
    let ports = app.backend.ports();
    let expires_at = Viewer::expiry(ports.now());
    let access = viewer.sign(&ports.keys, media, rendition, expires_at);
    (format!("/v1/media/{media}/{rendition}?{PARAMETER}={access}"), expires_at)
}

/// The account that a signed access was made for, if its session is live and its couple is still the same, in the same epoch.
pub(super) async fn verify(app: &App, access: &str, media: MediaId, rendition: &str) -> Answer<AccountId> {
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
