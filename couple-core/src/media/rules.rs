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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{ManualClock, SeededEntropy, digest, pairing::PairingChange, pairing::Side};

    const QUOTA: i64 = 1_000;

    struct World {
        ana: AccountId,
        ben: AccountId,
        cleo: AccountId,
        couple: Couple,
        other: CoupleId,
    }

    impl World {
        fn new() -> Self {
            let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(1));
            let [ana, ben, cleo] = [(); 3].map(|()| AccountId::new(&clock, &entropy));
            let [id, other] = [(); 2].map(|()| CoupleId::new(&clock, &entropy));
            let couple = Couple {
                id,
                members: [ana, ben],
                since: at(0),
                epoch: 1,
                ended_at: None,
                title: None,
                anniversary: None,
                previous: None,
                restore: [false, false],
                head_seq: 0,
                read: [0, 0],
            };
            Self { ana, ben, cleo, couple, other }
        }
        fn ended(&self) -> Couple {
            Couple { ended_at: Some(at(1)), ..self.couple.clone() }
        }
        /// A picture of Ben that one entry or avatar uses.
        fn picture(&self, space: Space, purpose: Purpose) -> Media {
            Media {
                id: MediaId::new(&ManualClock::default(), &SeededEntropy::new(7)),
                space,
                owner: self.ben,
                purpose,
                state: MediaState::Processing,
                digest: digest(&[b"content"]),
                crop: None,
                key: "key".to_owned(),
                source: Some(Source {
                    blob: "b".to_owned(),
                    bytes: 600,
                    media_type: "image/jpeg".to_owned(),
                }),
                width: 0,
                height: 0,
                animated: false,
                alpha: false,
                placeholder: None,
                uses: 1,
                created_at: at(0),
            }
        }
        fn photo(&self) -> Media {
            self.picture(Space::Couple(self.couple.id), Purpose::Photo)
        }
        fn avatar(&self) -> Media {
            self.picture(Space::Account(self.ben), Purpose::Avatar)
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn picture_is_added_to_an_active_couple_within_its_quota() {
        let world = World::new();
        let policy = MediaPolicy::default().with_couple_quota(QUOTA).with_account_quota(QUOTA);
        let kept = |bytes| SpaceUsage { bytes, avatar: None, closed: false };
        let (photo, avatar) = (world.photo(), world.avatar());
        let add = |media: &Media, couple: Option<&Couple>, kept: SpaceUsage| {
            insert(media, couple, &kept, &policy).map(|change| {
                assert_eq!(change, MediaChange::Insert { media: media.clone(), most: QUOTA });
            })
        };
        assert_eq!(add(&photo, Some(&world.couple), kept(400)), Ok(()));
        assert_eq!(add(&photo, Some(&world.couple), kept(401)), Err(MediaError::QuotaExceeded));
        assert_eq!(add(&photo, Some(&world.couple), kept(i64::MAX)), Err(MediaError::QuotaExceeded));
        let other = Couple { id: world.other, ..world.couple.clone() };
        for couple in [None, Some(&world.ended()), Some(&other)] {
            assert_eq!(add(&photo, couple, kept(0)), Err(MediaError::NotPaired));
        }
        // An avatar needs no couple.
        assert_eq!(add(&avatar, None, kept(400)), Ok(()));
        let closed = SpaceUsage { closed: true, ..kept(0) };
        assert_eq!(add(&avatar, None, closed), Err(MediaError::MediaNotFound));
        let without_source = Media { source: None, ..avatar };
        assert_eq!(add(&without_source, None, kept(QUOTA)), Ok(()));
    }

    #[test]
    fn picture_is_seen_by_its_owner_and_in_the_couple_only() {
        let world = World::new();
        let (photo, avatar, couple) = (world.photo(), world.avatar(), &world.couple);
        for media in [&photo, &avatar] {
            assert!(may_see(media, world.ben, None), "the owner");
            assert!(may_see(media, world.ana, Some(couple)), "the partner");
            assert!(!may_see(media, world.ana, None) && !may_see(media, world.ana, Some(&world.ended())));
            assert!(!may_see(media, world.cleo, None) && !may_see(media, world.cleo, Some(couple)));
        }
        // Ana's couple with Cleo, who is not Ben.
        let next = Couple { id: world.other, members: [world.ana, world.cleo], ..couple.clone() };
        assert!(!may_see(&avatar, world.ana, Some(&next)) && !may_see(&photo, world.ana, Some(&next)));
        // The same two again: photos of the earlier couple are visible once both have restored it.
        let again = Couple { id: world.other, previous: Some(couple.id), ..couple.clone() };
        let restored = Couple { restore: [true, true], ..again.clone() };
        assert!(!may_see(&photo, world.ana, Some(&again)));
        assert!(may_see(&photo, world.ana, Some(&restored)));
        let of_another = Couple { previous: Some(world.other), ..restored };
        assert!(!may_see(&photo, world.ana, Some(&of_another)));
    }

    fn rendered() -> Rendered {
        Rendered {
            width: 40,
            height: 30,
            animated: true,
            alpha: false,
            placeholder: vec![1, 2, 3],
            source: None,
            renditions: Vec::new(),
        }
    }

    fn body(changes: &[Change]) -> serde_json::Value {
        match &changes[0] {
            Change::Timeline(TimelineChange::Append { entry, .. }) => entry.body.as_ref().unwrap().value(),
            other => panic!("no entry: {other:?}"),
        }
    }

    #[test]
    fn ready_picture_is_reported_to_the_couple_that_sees_it() {
        let world = World::new();
        let photo = world.photo();
        let finish = |media: &Media, couple: Option<&Couple>| finish(media, couple, rendered(), at(9));
        let Rendered { width, height, animated, alpha, placeholder, source, renditions } = rendered();
        let of = photo.as_read();
        let change: Change =
            MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions }
                .into();
        let changes = finish(&photo, Some(&world.couple));
        assert_eq!((changes.len(), &changes[1]), (2, &change));
        assert_eq!(
            body(&changes),
            json!({
                "media_id": photo.id,
                "placeholder": "AQID",
                "width": 40,
                "height": 30,
                "animated": true,
                "alpha": false,
            })
        );
        let Change::Timeline(TimelineChange::Append { couple, entry }) = &changes[0] else {
            panic!("no entry")
        };
        assert_eq!((*couple, entry.author, entry.at), (world.couple.id, Some(Side::Second), at(9)));
        assert_eq!(entry.kind, system::MEDIA_READY);
        for couple in [None, Some(&world.ended())] {
            assert_eq!(finish(&photo, couple), std::slice::from_ref(&change));
        }
        let unused = Media { uses: 0, ..photo };
        assert_eq!(finish(&unused, Some(&world.couple)).len(), 1, "no entry names it");
        let unused = Media { uses: 0, ..world.avatar() };
        assert_eq!(finish(&unused, Some(&world.couple)).len(), 1, "it is no avatar any more");
        let changes = finish(&world.avatar(), Some(&world.couple));
        assert_eq!(changes[0], profile_changed(Some(&world.couple), world.ben, at(9)));
        let expected = PairingChange::ExpectUnpaired { account: world.ben }.into();
        assert_eq!(finish(&world.avatar(), Some(&world.ended()))[0], expected);
    }

    #[test]
    fn rejected_picture_is_reported_with_its_reason() {
        let world = World::new();
        let photo = world.photo();
        let changes = reject(&photo, Some(&world.couple), "too_large: 9 MB", at(9));
        let expected = json!({ "media_id": photo.id, "reason": "too_large", "detail": "9 MB" });
        assert_eq!(body(&changes), expected);
        let change = MediaChange::Reject { of: photo.as_read(), reason: "too_large: 9 MB".to_owned() };
        assert_eq!(changes[1..], [change.into()]);
        let changes = reject(&photo, Some(&world.couple), "damaged", at(9));
        assert_eq!(body(&changes), json!({ "media_id": photo.id, "reason": "damaged" }));
    }

    #[test]
    fn entry_about_a_photo_states_what_is_known_of_it() {
        let world = World::new();
        let early = Media { placeholder: Some(vec![1, 2, 3]), ..world.photo() };
        let unknown = json!({ "placeholder": "AQID", "width": null, "height": null, "state": "processing" });
        assert_eq!(media_state(&early), unknown);
        let ready = Media { state: MediaState::Ready, width: 1, height: 2, alpha: true, ..world.photo() };
        let known = json!({
            "placeholder": null,
            "width": 1,
            "height": 2,
            "state": "ready",
            "animated": false,
            "alpha": true,
        });
        assert_eq!(media_state(&ready), known);
    }

    #[test]
    fn only_own_pictures_of_the_same_space_and_purpose_are_used() {
        let world = World::new();
        let (photo, space) = (world.photo(), Space::Couple(world.couple.id));
        let rejected = Media { state: MediaState::Rejected("damaged".to_owned()), ..photo.clone() };
        let use_it = |media: Option<&Media>, space, owner| {
            usable(media, space, owner, Purpose::Photo).map(|media| media.id)
        };
        assert_eq!(use_it(Some(&photo), space, world.ben), Ok(photo.id));
        assert_eq!(use_it(None, space, world.ben), Err(MediaError::MediaNotFound));
        assert_eq!(use_it(Some(&photo), space, world.ana), Err(MediaError::MediaNotFound));
        let elsewhere = Space::Couple(world.other);
        assert_eq!(use_it(Some(&photo), elsewhere, world.ben), Err(MediaError::MediaNotFound));
        assert_eq!(use_it(Some(&world.avatar()), space, world.ben), Err(MediaError::WrongPurpose));
        assert_eq!(use_it(Some(&rejected), space, world.ben), Err(MediaError::MediaRejected));
        for (state, ready) in [(MediaState::Processing, false), (MediaState::Ready, true)] {
            let photo = Media { state, ..photo.clone() };
            let used = use_in_entry(Some(&photo), world.couple.id, world.ben);
            let change = MediaChange::Use { couple: world.couple.id, id: photo.id, owner: world.ben, ready };
            assert_eq!(used, Ok(change));
        }
    }

    #[test]
    fn new_avatar_deletes_the_previous_one_and_is_reported() {
        let world = World::new();
        let before = Media { uses: 2, ..world.avatar() };
        let id = MediaId::new(&ManualClock::default(), &SeededEntropy::new(8));
        let new = Media { id, ..world.avatar() };
        let set = |media: Option<&Media>, wanted, before: Option<&Media>| {
            set_avatar(world.ben, media, wanted, before, Some(&world.couple), at(9))
        };
        let report = profile_changed(Some(&world.couple), world.ben, at(9));
        let change =
            |media, before| -> Change { MediaChange::SetAvatar { account: world.ben, media, before }.into() };
        let mut of = before.as_read();
        of.uses = 1;
        let deleted: Change = MediaChange::Delete(of).into();
        assert_eq!(set(Some(&new), Some(id), None), Ok(vec![report.clone(), change(Some(id), None)]));
        assert_eq!(
            set(Some(&new), Some(id), Some(&before)),
            Ok(vec![report.clone(), change(Some(id), Some(before.id)), deleted.clone()])
        );
        assert_eq!(set(None, None, Some(&before)), Ok(vec![report, change(None, Some(before.id)), deleted]));
        assert_eq!(set(Some(&before), Some(before.id), Some(&before)), Ok(Vec::new()));
        assert_eq!(set(None, None, None), Ok(Vec::new()));
        assert_eq!(set(None, Some(id), Some(&before)), Err(MediaError::MediaNotFound));
        assert_eq!(set(Some(&world.photo()), Some(id), None), Err(MediaError::WrongPurpose));
    }
}
