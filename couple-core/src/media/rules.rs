//! What is decided about pictures.

use data_encoding::BASE64;

use super::{Kept, Media, MediaChange, Policy, Purpose, Refusal, Rendition, Source, Space, State};
use crate::{
    AccountId, Change, CoupleId, MediaId, Timestamp,
    pairing::Couple,
    timeline::{Body, NewEntry, TimelineChange, rules::profile_changed, system},
};

/// What lets a picture in.
///
/// # Errors
/// [`Refusal::NotPaired`] for a photo without this couple, [`Refusal::QuotaExceeded`], [`Refusal::MediaNotFound`] for a person
/// whose space is closed.
pub fn insert(
    media: &Media,
    couple: Option<&Couple>,
    kept: &Kept,
    policy: &Policy,
) -> Result<MediaChange, Refusal> {
    if let Space::Couple(id) = media.space
        && couple.is_none_or(|couple| couple.id != id || couple.ended_at.is_some())
    {
        return Err(Refusal::NotPaired);
    }
    if kept.closed {
        return Err(Refusal::MediaNotFound);
    }
    room(media.space, media.source.as_ref().map_or(0, |source| source.bytes), kept, policy)?;
    Ok(MediaChange::Insert { media: media.clone(), most: policy.quota(media.space) })
}

/// Whether there is room for so many bytes more.
///
/// # Errors
/// [`Refusal::QuotaExceeded`].
pub fn room(space: Space, bytes: i64, kept: &Kept, policy: &Policy) -> Result<(), Refusal> {
    let fits = kept.bytes.checked_add(bytes).is_some_and(|all| all <= policy.quota(space));
    if fits { Ok(()) } else { Err(Refusal::QuotaExceeded) }
}

/// Who sees a picture: whoever uploaded it; of a photo, the other of its couple while that lives, or once both want to see
/// again what they were before; of an avatar, the partner. `couple` is the reader's own, now.
#[must_use]
pub fn may_see(media: &Media, reader: AccountId, couple: Option<&Couple>) -> bool {
    if media.owner == reader {
        return true;
    }
    let Some(couple) = couple.filter(|couple| couple.ended_at.is_none()) else { return false };
    couple.side_of(reader).is_some()
        && match media.space {
            Space::Account(owner) => couple.side_of(owner).is_some(),
            Space::Couple(id) => couple.id == id || (couple.restored() && couple.previous == Some(id)),
        }
}

/// What decoding a picture gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Upright, in pixels.
    pub width: u32,
    /// Upright, in pixels.
    pub height: u32,
    /// Whether the uploaded file is an animation.
    pub animated: bool,
    /// Whether a part of it is transparent.
    pub alpha: bool,
    /// Its blurred stand-in.
    pub placeholder: Vec<u8>,
    /// What is kept to make renditions from. Its blob may be the one that was uploaded.
    pub source: Option<Source>,
    /// What was made at once.
    pub renditions: Vec<Rendition>,
}

/// *processing → ready*; those who look at it learn of it in the same commit. `couple` is the one that the picture is shown in.
#[must_use]
pub fn finish(media: &Media, couple: Option<&Couple>, rendered: Rendered, at: Timestamp) -> Vec<Change> {
    let Rendered { width, height, animated, alpha, placeholder, source, renditions } = rendered;
    let mut looks = looks(width, height, Some(&placeholder));
    looks["animated"] = animated.into();
    looks["alpha"] = alpha.into();
    let told = told(media, couple, system::MEDIA_READY, looks, at);
    let of = media.as_read();
    let finish = MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions };
    told.into_iter().chain([finish.into()]).collect()
}

/// *processing → rejected*, likewise.
#[must_use]
pub fn reject(media: &Media, couple: Option<&Couple>, reason: &str, at: Timestamp) -> Vec<Change> {
    let reject = MediaChange::Reject { of: media.as_read(), reason: reason.to_owned() };
    let told = told(media, couple, system::MEDIA_REJECTED, serde_json::json!({ "reason": reason }), at);
    told.into_iter().chain([reject.into()]).collect()
}

/// What is shown of a picture in place of it.
fn looks(width: u32, height: u32, placeholder: Option<&[u8]>) -> serde_json::Value {
    let side = |side: u32| (side > 0).then_some(side);
    let placeholder = placeholder.map(|hash| BASE64.encode(hash));
    serde_json::json!({ "placeholder": placeholder, "width": side(width), "height": side(height) })
}

/// What an entry says of the photo that it names, as that is when it is appended.
#[must_use]
pub fn seen(media: &Media) -> serde_json::Value {
    let mut seen = looks(media.width, media.height, media.placeholder.as_deref());
    seen["state"] = media.state.as_str().into();
    if media.state == State::Ready {
        seen["animated"] = media.animated.into();
        seen["alpha"] = media.alpha.into();
    }
    seen
}

/// The entry that tells a couple of what became of a picture that it looks at.
fn told(
    media: &Media,
    couple: Option<&Couple>,
    kind: &str,
    mut body: serde_json::Value,
    at: Timestamp,
) -> Option<Change> {
    let couple = couple.filter(|couple| couple.ended_at.is_none());
    if media.uses == 0 {
        return None;
    }
    if media.purpose == Purpose::Avatar {
        return Some(profile_changed(couple, media.owner, at));
    }
    let couple = couple?;
    body["media_id"] = serde_json::json!(media.id);
    let entry = NewEntry {
        body: Some(Body::from_stored(body.to_string())),
        ..NewEntry::system(kind, couple.side_of(media.owner), None, at)
    };
    Some(TimelineChange::Append { couple: couple.id, entry }.into())
}

/// Checks that an account can show its picture in a space for a purpose: the picture exists and is not rejected.
///
/// # Errors
/// [`Refusal::WrongPurpose`], [`Refusal::MediaRejected`]; [`Refusal::MediaNotFound`] also for another account's picture.
pub fn usable(
    media: Option<&Media>,
    space: Space,
    owner: AccountId,
    purpose: Purpose,
) -> Result<&Media, Refusal> {
    let media = media.filter(|media| media.owner == owner).ok_or(Refusal::MediaNotFound)?;
    if media.purpose != purpose {
        return Err(Refusal::WrongPurpose);
    }
    if media.space != space {
        return Err(Refusal::MediaNotFound);
    }
    if matches!(media.state, State::Rejected(_)) { Err(Refusal::MediaRejected) } else { Ok(media) }
}

/// The change that notes that an entry names its author's photo.
///
/// # Errors
/// As [`usable`].
pub fn name(media: Option<&Media>, couple: CoupleId, owner: AccountId) -> Result<MediaChange, Refusal> {
    let media = usable(media, Space::Couple(couple), owner, Purpose::Photo)?;
    Ok(MediaChange::Use { couple, id: media.id, owner, ready: media.state == State::Ready })
}

/// What a person shows of themselves from now on. What they showed before goes.
///
/// # Errors
/// As [`usable`], unless it is an avatar of their own that is not rejected.
pub fn set_avatar(
    account: AccountId,
    media: Option<&Media>,
    wanted: Option<MediaId>,
    before: Option<&Media>,
    couple: Option<&Couple>,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    if before.map(|before| before.id) == wanted {
        return Ok(Vec::new());
    }
    if wanted.is_some() {
        usable(media, Space::Account(account), account, Purpose::Avatar)?;
    }
    // The couple's row before the person's, as everybody takes them.
    let shown = before.map(|before| before.id);
    let mut changes = vec![
        profile_changed(couple, account, at),
        MediaChange::SetAvatar { account, media: wanted, before: shown }.into(),
    ];
    if let Some(before) = before {
        let mut of = before.as_read();
        of.uses -= 1;
        changes.push(MediaChange::Delete(of).into());
    }
    Ok(changes)
}
