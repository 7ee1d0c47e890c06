//! Decisions about pictures, as pure functions.

use data_encoding::BASE64;

use super::{
    Media, MediaChange, MediaError, MediaPolicy, MediaState, Purpose, Rendition, Source, Space, SpaceUsage,
    split_reason,
};
use crate::{
    AccountId, Change, CoupleId, MediaId, Timestamp,
    pairing::Couple,
    timeline::{Body, NewEntry, TimelineChange, rules::profile_changed, system},
};

/// Decides whether a picture is added, and returns the change.
///
/// # Errors
/// [`MediaError::NotPaired`] for a photo whose couple is not active, [`MediaError::QuotaExceeded`],
/// [`MediaError::MediaNotFound`] for an account whose space is closed because the account was deleted.
pub fn insert(
    media: &Media,
    couple: Option<&Couple>,
    kept: &SpaceUsage,
    policy: &MediaPolicy,
) -> Result<MediaChange, MediaError> {
    if let Space::Couple(id) = media.space
        && couple.is_none_or(|couple| couple.id != id || couple.ended_at.is_some())
    {
        return Err(MediaError::NotPaired);
    }
    if kept.closed {
        return Err(MediaError::MediaNotFound);
    }
    room(media.space, media.source.as_ref().map_or(0, |source| source.bytes), kept, policy)?;
    Ok(MediaChange::Insert { media: media.clone(), most: policy.quota(media.space) })
}

/// Checks that a space has room for more bytes.
///
/// # Errors
/// [`MediaError::QuotaExceeded`].
pub fn room(space: Space, bytes: i64, kept: &SpaceUsage, policy: &MediaPolicy) -> Result<(), MediaError> {
    let fits = kept.bytes.checked_add(bytes).is_some_and(|all| all <= policy.quota(space));
    if fits { Ok(()) } else { Err(MediaError::QuotaExceeded) }
}

/// Whether an account may see a picture. `couple` is the current couple of the account.
///
/// The uploader sees it. The partner sees avatars, photos of the couple while it is active, and photos of the
/// previous couple once both members have restored its timeline.
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

/// Result of decoding a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Whether the uploaded file is an animation.
    pub animated: bool,
    /// Whether a part of the picture is transparent.
    pub alpha: bool,
    /// `ThumbHash` of the picture.
    pub placeholder: Vec<u8>,
    /// Source of renditions, if one is kept. Its blob may be the uploaded one.
    pub source: Option<Source>,
    /// Renditions made in advance.
    pub renditions: Vec<Rendition>,
}

/// Makes a processing picture ready.
///
/// The same commit appends the entry that notifies the couple in which the picture is shown.
#[must_use]
pub fn finish(media: &Media, couple: Option<&Couple>, rendered: Rendered, at: Timestamp) -> Vec<Change> {
    let Rendered { width, height, animated, alpha, placeholder, source, renditions } = rendered;
    let mut state = dimensions_and_placeholder(width, height, Some(&placeholder));
    state["animated"] = animated.into();
    state["alpha"] = alpha.into();
    let entry = report_entry(media, couple, system::MEDIA_READY, state, at);
    let of = media.as_read();
    let finish = MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions };
    entry.into_iter().chain([finish.into()]).collect()
}

/// Changes that mark a picture in state *processing* as rejected.
///
/// They include the entry that notifies the couple.
#[must_use]
pub fn reject(media: &Media, couple: Option<&Couple>, reason: &str, at: Timestamp) -> Vec<Change> {
    let reject = MediaChange::Reject { of: media.as_read(), reason: reason.to_owned() };
    let (word, detail) = split_reason(reason);
    let mut body = serde_json::json!({ "reason": word });
    if let Some(detail) = detail {
        body["detail"] = detail.into();
    }
    let entry = report_entry(media, couple, system::MEDIA_REJECTED, body, at);
    entry.into_iter().chain([reject.into()]).collect()
}

/// JSON that a client shows until the picture is loaded.
fn dimensions_and_placeholder(width: u32, height: u32, placeholder: Option<&[u8]>) -> serde_json::Value {
    let side = |side: u32| (side > 0).then_some(side);
    let placeholder = placeholder.map(|hash| BASE64.encode(hash));
    serde_json::json!({ "placeholder": placeholder, "width": side(width), "height": side(height) })
}

/// JSON about a photo that an entry stores when it is appended.
#[must_use]
pub fn media_state(media: &Media) -> serde_json::Value {
    let mut state = dimensions_and_placeholder(media.width, media.height, media.placeholder.as_deref());
    state["state"] = media.state.as_str().into();
    if media.state == MediaState::Ready {
        state["animated"] = media.animated.into();
        state["alpha"] = media.alpha.into();
    }
    state
}

/// Entry that notifies the couple of a picture's new state; none if the picture is not in use.
fn report_entry(
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

/// Checks that an account can use its picture in a space for a purpose: it exists and is not rejected.
///
/// # Errors
/// [`MediaError::WrongPurpose`], [`MediaError::MediaRejected`]; [`MediaError::MediaNotFound`] also for another account's picture.
pub fn usable(
    media: Option<&Media>,
    space: Space,
    owner: AccountId,
    purpose: Purpose,
) -> Result<&Media, MediaError> {
    let media = media.filter(|media| media.owner == owner).ok_or(MediaError::MediaNotFound)?;
    if media.purpose != purpose {
        return Err(MediaError::WrongPurpose);
    }
    if media.space != space {
        return Err(MediaError::MediaNotFound);
    }
    if matches!(media.state, MediaState::Rejected(_)) { Err(MediaError::MediaRejected) } else { Ok(media) }
}

/// Change that counts the use of an author's photo by an entry.
///
/// # Errors
/// The same as for [`usable`].
pub fn use_in_entry(
    media: Option<&Media>,
    couple: CoupleId,
    owner: AccountId,
) -> Result<MediaChange, MediaError> {
    let media = usable(media, Space::Couple(couple), owner, Purpose::Photo)?;
    Ok(MediaChange::Use { couple, id: media.id, owner, ready: media.state == MediaState::Ready })
}

/// Changes that set or remove an account's avatar and delete the previous one.
///
/// # Errors
/// The same as for [`usable`].
pub fn set_avatar(
    account: AccountId,
    media: Option<&Media>,
    wanted: Option<MediaId>,
    before: Option<&Media>,
    couple: Option<&Couple>,
    at: Timestamp,
) -> Result<Vec<Change>, MediaError> {
    if before.map(|before| before.id) == wanted {
        return Ok(Vec::new());
    }
    if wanted.is_some() {
        usable(media, Space::Account(account), account, Purpose::Avatar)?;
    }
    // Lock the row of the couple before the row of the space: every commit uses this order.
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
