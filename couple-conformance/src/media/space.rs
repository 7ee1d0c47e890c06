//! M12–M15: avatars, deletion, and lists of spaces.

use couple_core::{
    Conflict, CoupleId, Store,
    media::{ExpectedMedia, Format, Media, MediaChange, MediaState, Purpose, Space, SpaceUsage},
    pairing::PairingChange,
};

use super::{finish, insert, names, reject, stored_media, uploaded_photo, used_bytes};
use crate::world::{World, accepted, conflict, must, refused};

/// An account's avatar is its own picture; setting another one replaces it.
pub async fn m12_avatar_is_a_picture_of_its_account(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let (one, other, third) = (world.avatar(ana, "a"), world.avatar(ana, "b"), world.avatar(ana, "c"));
    let ben = world.account_id();
    let (bad, theirs) = (world.avatar(ana, "bad"), world.avatar(ben, "a"));
    let no_avatar = Media { purpose: Purpose::Photo, ..world.avatar(ana, "photo") };
    for media in [&one, &other, &third, &bad, &theirs, &no_avatar] {
        must(&store, insert(media)).await;
    }
    must(&store, reject(&bad)).await;
    let set_of = |account, media: Option<&Media>, before: Option<&Media>| MediaChange::SetAvatar {
        account,
        media: media.map(|media| media.id),
        before: before.map(|media| media.id),
    };
    let set = |media: Option<&Media>, before: Option<&Media>| set_of(ana, media, before);
    assert_eq!(store.avatar_of(ana).await.unwrap(), None, "an account without an avatar has one");
    let missing = world.avatar(ana, "none");
    for (media, what) in [
        (&photo, "is a photo of a couple"),
        (&no_avatar, "is no avatar"),
        (&bad, "is rejected"),
        (&theirs, "is of another account"),
        (&missing, "does not exist"),
    ] {
        let what = format!("a picture that {what} becomes the avatar");
        refused(&store, set(Some(media), None), Conflict::MediaChanged(media.id), &what).await;
    }
    let first = set_of(ben, Some(&theirs), None);
    accepted(&store, first, "a picture that is still processing cannot become the avatar").await;
    let check = async |expected: Option<&Media>, uses: [i64; 2], what: &str| {
        let avatar = store.avatar_of(ana).await.unwrap();
        let uses_of = expected.map(|media| if media.id == one.id { uses[0] } else { uses[1] });
        let expected_avatar =
            expected.map(|media| Media { uses: uses_of.unwrap_or_default(), ..media.clone() });
        assert_eq!(avatar, expected_avatar, "the avatar is another one after {what}");
        let shown = store.media_space(one.space).await.unwrap().avatar;
        assert_eq!(shown, expected.map(|media| media.id), "the space names another avatar after {what}");
        let found = [stored_media(&store, one.id).await.uses, stored_media(&store, other.id).await.uses];
        assert_eq!(found, uses, "the uses of the avatars are others after {what}");
        let of_ben = store.avatar_of(ben).await.unwrap().map(|media| media.id);
        assert_eq!(of_ben, Some(theirs.id), "the avatar of another account changes");
    };
    must(&store, set(Some(&one), None)).await;
    check(Some(&one), [1, 0], "setting the first").await;
    must(&store, set(Some(&one), Some(&one))).await;
    check(Some(&one), [1, 0], "setting the same again").await;
    // A caller that read another avatar would delete the wrong picture.
    for before in [None, Some(&other), Some(&third)] {
        let stale = set(Some(&other), before);
        let what = "an avatar is set by a caller that read another one";
        refused(&store, stale, Conflict::AvatarChanged(ana), what).await;
        let stale = set(None, before);
        refused(&store, stale, Conflict::AvatarChanged(ana), what).await;
        // The old avatar is checked before the new one.
        let found = conflict(&store, set(Some(&bad), before)).await;
        assert_eq!(found, Conflict::AvatarChanged(ana), "the new avatar is checked before the old one");
    }
    check(Some(&one), [1, 0], "a change that conflicted").await;
    must(&store, set(Some(&other), Some(&one))).await;
    check(Some(&other), [0, 1], "replacing the first").await;
    // Deleting another picture leaves the avatar.
    must(&store, MediaChange::Delete(third.as_read())).await;
    check(Some(&other), [0, 1], "deleting another picture").await;
    must(&store, finish(&Media { uses: 1, ..other.clone() }, Vec::new())).await;
    let shown = store.avatar_of(ana).await.unwrap().map(|media| (media.id, media.state));
    assert_eq!(shown, Some((other.id, MediaState::Ready)), "a finished avatar is no longer the avatar");
    must(&store, MediaChange::Delete(ExpectedMedia { uses: 1, ..other.as_read() })).await;
    assert_eq!(store.avatar_of(ana).await.unwrap(), None, "a deleted avatar is still shown");
    let shown = store.media_space(one.space).await.unwrap().avatar;
    assert_eq!(shown, None, "the space keeps the avatar after its deletion");
    accepted(&store, set(Some(&one), None), "an avatar cannot be set after the deletion of the one before")
        .await;
    must(&store, set(None, Some(&one))).await;
    let removed = (store.avatar_of(ana).await.unwrap(), stored_media(&store, one.id).await.uses);
    assert_eq!(removed, (None, 0), "a removed avatar is still shown, or counted as used");
    accepted(&store, set(None, None), "removing no avatar conflicts").await;
    // Removing an avatar is no conflict for an account without uploads; a couple's space has no avatar.
    let without = set_of(world.account_id(), None, None);
    accepted(&store, without, "removing the avatar of an account without pictures conflicts").await;
    let of_couple = store.media_space(Space::Couple(couple)).await.unwrap().avatar;
    assert_eq!(of_couple, None, "the space of a couple has an avatar");
}

/// Deleting removes a picture completely; the same bytes can be uploaded again.
pub async fn m13_deletion_removes_picture_and_renditions(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let other = world.photo(couple, ana, "b");
    must(&store, insert(&other)).await;
    for media in [&photo, &other] {
        let renditions = [Format::Jpeg, Format::Png].map(|format| world.rendition("64", format)).to_vec();
        must(&store, finish(media, renditions)).await;
    }
    must(&store, MediaChange::Delete(photo.as_read())).await;
    assert_eq!(store.media(photo.id).await.unwrap(), None, "a deleted picture is found by its id");
    let left = store.renditions(photo.space, photo.id).await.unwrap();
    assert_eq!(left, [], "a deleted picture has renditions");
    let found = store.media_by_identity(photo.space, &photo.identity()).await.unwrap();
    assert_eq!(found, None, "a deleted picture is found by its identity");
    let listed = store.media_in(photo.space, None, 9).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|media| media.id).collect();
    assert_eq!(listed, [other.id], "a deleted picture is listed, or another one is not");
    let unused = store.unused_renditions(world.later(9999), 9).await.unwrap();
    let unused: Vec<_> = unused.into_iter().map(|(id, _)| id).collect();
    assert_eq!(
        unused, [other.id; 2],
        "renditions of a deleted picture are listed, or those of another one are not"
    );
    assert_eq!(used_bytes(&store, photo.space).await, 80, "a deletion does not subtract the bytes");
    let again = MediaChange::Delete(photo.as_read());
    refused(&store, again, Conflict::MediaChanged(photo.id), "a picture is deleted twice").await;
    let again = world.photo(couple, ana, "a");
    accepted(&store, insert(&again), "the bytes of a deleted picture cannot be uploaded again").await;
    let found = store.media_by_identity(again.space, &photo.identity()).await.unwrap();
    assert_eq!(found, Some(again.clone()), "a picture is not found by the identity of a deleted one");
    must(&store, finish(&again, Vec::new())).await;
    assert_eq!(
        names(&store, &again).await,
        Vec::<String>::new(),
        "a picture has renditions of a deleted one"
    );
    let same_id = Media { id: photo.id, ..world.photo(couple, ana, "c") };
    accepted(&store, insert(&same_id), "the id of a deleted picture is still taken").await;
    must(&store, finish(&same_id, Vec::new())).await;
    assert_eq!(
        names(&store, &same_id).await,
        Vec::<String>::new(),
        "a picture has renditions of a deleted one"
    );
}

/// A space is closed permanently, and only if it is empty.
pub async fn m14_closed_space_accepts_no_picture(store: impl Store) {
    let world = World::default();
    let ana = world.account_id();
    let avatar = world.avatar(ana, "a");
    let close = |account| MediaChange::Close { account };
    must(&store, insert(&avatar)).await;
    must(&store, MediaChange::SetAvatar { account: ana, media: Some(avatar.id), before: None }).await;
    let before = store.media_space(avatar.space).await.unwrap();
    refused(&store, close(ana), Conflict::SpaceNotEmpty(ana), "a space with a picture is closed").await;
    let after = store.media_space(avatar.space).await.unwrap();
    assert_eq!(after, before, "a space with a picture is closed");
    must(&store, MediaChange::Delete(ExpectedMedia { uses: 1, ..avatar.as_read() })).await;
    let never = world.account_id();
    for account in [ana, ana, never] {
        accepted(&store, close(account), "an empty space cannot be closed, or not twice").await;
        let kept = store.media_space(Space::Account(account)).await.unwrap();
        let expected = SpaceUsage { bytes: 0, avatar: None, closed: true };
        assert_eq!(kept, expected, "a closed space is not closed, or has bytes or an avatar");
        let late = insert(&world.avatar(account, "b"));
        refused(&store, late, Conflict::SpaceClosed(account), "a closed space accepts a picture").await;
    }
    let other = world.avatar(world.account_id(), "a");
    accepted(&store, insert(&other), "closing a space closes another one").await;
    let mut spaces = [Space::Account(ana), Space::Account(never), other.space];
    spaces.sort_unstable();
    assert_eq!(store.media_spaces(None, 9).await.unwrap(), spaces, "a closed space is not listed");
}

/// Pictures and spaces are listed page by page in the order of their ids.
pub async fn m15_spaces_and_pictures_are_listed_by_id(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let mut photos: Vec<Media> =
        (0..7).map(|n| world.photo(couple.id, couple.members[n % 2], &n.to_string())).collect();
    photos.sort_by_key(|photo| photo.id);
    for (n, photo) in (0..).zip(&mut photos) {
        // The times are in another order than the ids.
        photo.created_at = world.later(100 - n * 10);
    }
    for photo in &photos {
        must(&store, insert(photo)).await;
    }
    must(&store, reject(&photos[2])).await;
    must(&store, finish(&photos[4], Vec::new())).await;
    let elsewhere = world.stored_couple(&store).await;
    must(&store, insert(&world.photo(elsewhere.id, elsewhere.members[0], "0"))).await;
    let ids: Vec<_> = photos.iter().map(|photo| photo.id).collect();
    let (mut after, mut seen) = (None, Vec::new());
    while seen.len() <= ids.len() {
        let page = store.media_in(Space::Couple(couple.id), after, 3).await.unwrap();
        assert!(page.len() <= 3, "a page of pictures is longer than its limit");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|media| media.id));
    }
    assert_eq!(seen, ids, "the pictures of a space are not listed once each, in the order of their ids");
    let mut spaces = vec![Space::Couple(couple.id), Space::Couple(elsewhere.id)];
    for n in 0..6 {
        let avatar = world.avatar(world.account_id(), &n.to_string());
        must(&store, insert(&avatar)).await;
        if n == 3 {
            must(&store, MediaChange::Delete(avatar.as_read())).await;
        }
        spaces.push(avatar.space);
    }
    // The spaces of couples are between those of accounts.
    for id in [CoupleId::from_uuid(uuid::Uuid::from_u128(1)), CoupleId::from_uuid(uuid::Uuid::max())] {
        let pair =
            couple_core::pairing::Couple { id, ..world.couple([world.account_id(), world.account_id()]) };
        must(&store, PairingChange::Pair(pair.clone())).await;
        must(&store, insert(&world.photo(id, pair.members[0], "0"))).await;
        spaces.push(Space::Couple(id));
    }
    spaces.sort_unstable();
    for (after, limit, expected) in [
        (None, 3, &spaces[..3]),
        (Some(spaces[2]), 3, &spaces[3..6]),
        (Some(spaces[5]), 9, &spaces[6..]),
        (spaces.last().copied(), 3, &[][..]),
        (None, 99, &spaces[..]),
    ] {
        let found = store.media_spaces(after, limit).await.unwrap();
        assert_eq!(found, expected, "a page of spaces has others, or not in the order of their ids");
    }
}
