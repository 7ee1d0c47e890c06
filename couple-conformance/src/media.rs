//! M1–M15: pictures, their sources and their renditions.

use std::sync::Arc;

use couple_core::{
    AccountId, Change, Conflict, CoupleId, MediaId, Store, Timestamp, digest,
    media::{
        Crop, ExpectedMedia, Format, Media, MediaChange, MediaState, Purpose, Rendition, Source, Space,
        SpaceUsage,
    },
    pairing::PairingChange,
};

use crate::world::{World, all, conflict, must, race};

const QUOTA: i64 = 1 << 40;

fn insert(media: &Media) -> MediaChange {
    MediaChange::Insert { media: media.clone(), most: QUOTA }
}

fn finish(media: &Media, renditions: Vec<Rendition>) -> MediaChange {
    MediaChange::Finish {
        of: media.as_read(),
        width: 40,
        height: 30,
        animated: true,
        alpha: true,
        placeholder: vec![0, 255, 7],
        source: Some(Source {
            blob: "master.jpg".to_owned(),
            bytes: 60,
            media_type: "image/jpeg".to_owned(),
        }),
        renditions,
    }
}

fn reject(media: &Media) -> MediaChange {
    MediaChange::Reject { of: media.as_read(), reason: "truncated".to_owned() }
}

fn add_rendition(media: &Media, rendition: Rendition) -> MediaChange {
    MediaChange::AddRendition { space: media.space, id: media.id, rendition }
}

async fn used_bytes(store: &impl Store, space: Space) -> i64 {
    store.media_space(space).await.unwrap().bytes
}

async fn stored_media(store: &impl Store, id: MediaId) -> Media {
    store.media(id).await.unwrap().expect("the picture exists")
}

/// Adds a photo of the first member of a new couple.
async fn uploaded_photo(world: &World, store: &impl Store) -> (CoupleId, AccountId, Media) {
    let couple = world.stored_couple(store).await;
    let photo = world.photo(couple.id, couple.members[0], "a");
    must(store, insert(&photo)).await;
    (couple.id, couple.members[0], photo)
}

/// The same bytes of the same account for the same purpose and crop are one picture.
pub async fn m1_identical_bytes_are_one_picture(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let [ana, ben] = couple.members;
    let commits = (0..50).map(|_| vec![insert(&world.photo(couple.id, ana, "same")).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let commits = (0..50).map(|_| vec![insert(&world.avatar(ana, "same")).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let photo = world.photo(couple.id, ana, "same");
    let there = store.media_by_identity(photo.space, &photo.identity()).await.unwrap().unwrap();
    assert_eq!((there.digest, there.owner, there.purpose), (photo.digest, ana, Purpose::Photo));
    assert_eq!(conflict(&store, insert(&photo)).await, Conflict::MediaExists);
    // A picture id is unique over all spaces.
    let elsewhere = Media { id: there.id, ..world.avatar(ben, "b") };
    assert_eq!(conflict(&store, insert(&elsewhere)).await, Conflict::MediaExists);
    let crop = |x| Some(Crop { x, y: 0, width: 5, height: 5 });
    for other in [
        world.photo(couple.id, ana, "other"),
        world.photo(couple.id, ben, "same"),
        world.avatar(ben, "same"),
        Media { crop: crop(1), ..world.photo(couple.id, ana, "same") },
        Media { crop: crop(2), ..world.photo(couple.id, ana, "same") },
    ] {
        must(&store, insert(&other)).await;
        assert_eq!(store.media_by_identity(other.space, &other.identity()).await.unwrap(), Some(other));
    }
    assert_eq!(store.media_by_identity(photo.space, &digest(&[b"none"])).await.unwrap(), None);
}

/// Every field of a picture reads back in every state.
pub async fn m2_picture_and_rendition_fields_read_back(store: impl Store) {
    let world = World::default();
    let (_, _, photo) = uploaded_photo(&world, &store).await;
    assert_eq!(stored_media(&store, photo.id).await, photo);
    let crop = Some(Crop { x: 0, y: 1, width: 4_000_000_000, height: 3 });
    let avatar = Media { crop, placeholder: Some(vec![3; 40]), ..world.avatar(photo.owner, "x") };
    must(&store, insert(&avatar)).await;
    assert_eq!(stored_media(&store, avatar.id).await, avatar);
    let small = Rendition { used_at: None, ..world.rendition("64", Format::Jpeg) };
    let large = Rendition {
        width: 512,
        height: 511,
        made_at: world.later(3),
        ..world.rendition("512", Format::WebP)
    };
    must(&store, finish(&photo, vec![small.clone(), large.clone()])).await;
    let ready = Media {
        state: MediaState::Ready,
        width: 40,
        height: 30,
        animated: true,
        alpha: true,
        placeholder: Some(vec![0, 255, 7]),
        source: Some(Source {
            blob: "master.jpg".to_owned(),
            bytes: 60,
            media_type: "image/jpeg".to_owned(),
        }),
        ..photo.clone()
    };
    assert_eq!(stored_media(&store, photo.id).await, ready);
    assert_eq!(store.renditions(photo.space, photo.id).await.unwrap(), [large.clone(), small.clone()]);
    let same = Rendition { name: "512".to_owned(), ..world.rendition("512-j", Format::Jpeg) };
    must(&store, add_rendition(&photo, same.clone())).await;
    assert_eq!(store.renditions(photo.space, photo.id).await.unwrap(), [same, large, small]);
    must(&store, reject(&avatar)).await;
    let rejected =
        Media { state: MediaState::Rejected("truncated".to_owned()), source: None, ..avatar.clone() };
    assert_eq!(stored_media(&store, avatar.id).await, rejected);
    assert_eq!(store.media(MediaId::from_uuid(uuid::Uuid::max())).await.unwrap(), None);
    assert_eq!(
        store.media_space(world.photo(world.couple_id(), avatar.owner, "y").space).await.unwrap(),
        SpaceUsage::default()
    );
}

/// Concurrent uploads succeed as long as they fit into the quota.
pub async fn m3_uploads_never_exceed_the_quota(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    for photo in [true, false] {
        let commits = (0..50).map(|n| {
            let name = format!("{n}");
            let media = if photo {
                world.photo(couple.id, couple.members[n % 2], &name)
            } else {
                world.avatar(couple.members[0], &name)
            };
            vec![MediaChange::Insert { media, most: 750 }.into()]
        });
        let commits = commits.collect();
        assert_eq!(race(&store, commits).await, 7);
    }
    let space = Space::Couple(couple.id);
    assert_eq!(used_bytes(&store, space).await, 700);
    assert_eq!(used_bytes(&store, Space::Account(couple.members[0])).await, 700);
    assert_eq!(used_bytes(&store, Space::Account(couple.members[1])).await, 0);
    let one_more = world.photo(couple.id, couple.members[0], "more");
    let insert = |most| MediaChange::Insert { media: one_more.clone(), most };
    assert_eq!(conflict(&store, insert(799)).await, Conflict::QuotaExceeded);
    must(&store, insert(800)).await;
    // An existing picture is reported as existing also when there is no room.
    assert_eq!(conflict(&store, insert(0)).await, Conflict::MediaExists);
}

/// The usage of a space follows every change.
pub async fn m4_usage_is_the_sum_of_stored_bytes(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let space = photo.space;
    let other = world.photo(couple, ana, "b");
    must(&store, insert(&other)).await;
    let mut steps: Vec<(Change, i64)> = vec![
        (finish(&photo, vec![world.rendition("64", Format::Jpeg)]).into(), 100 + 60 + 10),
        (add_rendition(&photo, world.rendition("64", Format::WebP)).into(), 180),
        (reject(&other).into(), 80),
    ];
    let forget = |blobs: &[&str]| MediaChange::Forget {
        space,
        id: photo.id,
        blobs: blobs.iter().map(|&blob| blob.to_owned()).collect(),
    };
    steps.push((forget(&["nothing"]).into(), 80));
    steps.push((forget(&["64.webp"]).into(), 70));
    steps.push((forget(&["64.webp", "master.jpg"]).into(), 10));
    steps.push((forget(&["master.jpg"]).into(), 10));
    steps.push((MediaChange::Delete(photo.as_read()).into(), 0));
    assert_eq!(used_bytes(&store, space).await, 200);
    for (change, expected) in steps {
        all(&store, vec![change.clone()]).await;
        assert_eq!(used_bytes(&store, space).await, expected, "{change:?}");
        let mut sum = 0;
        for media in store.media_in(space, None, 100).await.unwrap() {
            sum += media.source.map_or(0, |source| source.bytes);
            let renditions = store.renditions(space, media.id).await.unwrap();
            sum += renditions.iter().map(|rendition| rendition.bytes).sum::<i64>();
        }
        assert_eq!(sum, expected, "{change:?}");
    }
}

/// A picture becomes ready or rejected once: one of many concurrent commits succeeds.
pub async fn m5_picture_becomes_ready_or_rejected_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (_, _, photo) = uploaded_photo(&world, &store).await;
    let commits = (0..50).map(|n| {
        let end = if n % 2 == 0 { finish(&photo, Vec::new()) } else { reject(&photo) };
        vec![end.into()]
    });
    assert_eq!(race(&store, commits.collect()).await, 1);
    match stored_media(&store, photo.id).await {
        Media { state: MediaState::Ready, source: Some(_), placeholder: Some(_), .. } => {}
        Media { state: MediaState::Rejected(reason), source: None, placeholder: None, .. } => {
            assert_eq!(reason, "truncated");
        }
        other => panic!("{other:?}"),
    }
    for late in [finish(&photo, Vec::new()), reject(&photo)] {
        assert_eq!(conflict(&store, late).await, Conflict::MediaChanged(photo.id));
    }
    let unknown = world.photo(world.couple_id(), photo.owner, "a");
    assert_eq!(conflict(&store, reject(&unknown)).await, Conflict::MediaChanged(unknown.id));
}

/// No picture is added to or used in a couple that has ended or does not exist.
pub async fn m6_ended_couple_accepts_no_picture(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let unknown = world.couple_id();
    let nowhere = insert(&world.photo(unknown, ana, "b"));
    assert_eq!(conflict(&store, nowhere).await, Conflict::CoupleEnded(unknown));
    let members = store.couple(couple).await.unwrap().unwrap().members;
    must(&store, PairingChange::End { id: couple, members, at: world.now() }).await;
    let late = insert(&world.photo(couple, ana, "b"));
    assert_eq!(conflict(&store, late).await, Conflict::CoupleEnded(couple));
    let named = MediaChange::Use { couple, id: photo.id, owner: ana, ready: false };
    assert_eq!(conflict(&store, named).await, Conflict::CoupleEnded(couple));
    // The pictures of an ended couple can still be finished and deleted.
    must(&store, finish(&photo, Vec::new())).await;
    must(&store, add_rendition(&photo, world.rendition("64", Format::Jpeg))).await;
    must(&store, MediaChange::Delete(photo.as_read())).await;
    assert_eq!(used_bytes(&store, photo.space).await, 0);
}

/// An entry uses only its author's photo of the same couple.
pub async fn m7_entry_uses_only_a_photo_of_its_author(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let other = world.stored_couple(&store).await;
    let of = |couple, id, owner| MediaChange::Use { couple, id, owner, ready: false };
    let avatar = world.avatar(ana, "a");
    must(&store, insert(&avatar)).await;
    let bad = world.photo(couple, ana, "bad");
    must(&store, insert(&bad)).await;
    must(&store, reject(&bad)).await;
    for (change, id) in [
        (of(couple, photo.id, other.members[0]), photo.id),
        (of(other.id, photo.id, ana), photo.id),
        (of(couple, avatar.id, ana), avatar.id),
        (of(couple, bad.id, ana), bad.id),
    ] {
        assert_eq!(conflict(&store, change).await, Conflict::MediaChanged(id));
    }
    let commits = (0..30).map(|_| vec![of(couple, photo.id, ana).into()]).collect();
    assert_eq!(race(&store, commits).await, 30);
    assert_eq!(stored_media(&store, photo.id).await.uses, 30);
    // Of concurrent commits that read the same number of uses, one counts a use off.
    let as_read = ExpectedMedia { uses: 30, ..photo.as_read() };
    let commits = (0..30).map(|_| vec![MediaChange::Release(as_read).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    assert_eq!(stored_media(&store, photo.id).await.uses, 29);
    let never = MediaChange::Release(bad.as_read());
    assert_eq!(conflict(&store, never).await, Conflict::MediaChanged(bad.id));
    // A use conflicts if the photo became ready since it was read: no later entry would tell the couple that it
    // is ready.
    let ready = |ready| MediaChange::Use { couple, id: photo.id, owner: ana, ready };
    assert_eq!(conflict(&store, ready(true)).await, Conflict::MediaChanged(photo.id));
    must(&store, finish(&stored_media(&store, photo.id).await, Vec::new())).await;
    assert_eq!(conflict(&store, ready(false)).await, Conflict::MediaChanged(photo.id));
    must(&store, ready(true)).await;
}

/// A change that read another number of uses conflicts.
pub async fn m8_change_with_a_stale_use_count_conflicts(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    must(&store, MediaChange::Use { couple, id: photo.id, owner: ana, ready: false }).await;
    let late = [
        finish(&photo, Vec::new()),
        reject(&photo),
        MediaChange::Release(photo.as_read()),
        MediaChange::Delete(photo.as_read()),
    ];
    for change in late {
        assert_eq!(conflict(&store, change).await, Conflict::MediaChanged(photo.id));
    }
    let now = stored_media(&store, photo.id).await;
    assert_eq!(now, Media { uses: 1, ..photo.clone() });
    must(&store, finish(&now, Vec::new())).await;
    must(&store, MediaChange::Delete(now.as_read())).await;
}

/// A rendition is added once, and only to a ready picture.
pub async fn m9_rendition_is_added_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (_, _, photo) = uploaded_photo(&world, &store).await;
    let rendition = world.rendition("64", Format::Jpeg);
    assert_eq!(
        conflict(&store, add_rendition(&photo, rendition.clone())).await,
        Conflict::MediaChanged(photo.id)
    );
    must(&store, finish(&photo, Vec::new())).await;
    let commits = (0..50).map(|n| {
        vec![add_rendition(&photo, Rendition { blob: format!("64-{n}.jpg"), ..rendition.clone() }).into()]
    });
    assert_eq!(race(&store, commits.collect()).await, 1);
    assert_eq!(store.renditions(photo.space, photo.id).await.unwrap().len(), 1);
    assert_eq!(used_bytes(&store, photo.space).await, 70);
    must(&store, add_rendition(&photo, world.rendition("64", Format::WebP))).await;
    let unknown = world.photo(world.couple_id(), photo.owner, "a");
    assert_eq!(
        conflict(&store, add_rendition(&unknown, rendition)).await,
        Conflict::MediaChanged(unknown.id)
    );
}

/// Unused renditions are listed, the longest unused first; a request only moves the time forward.
pub async fn m10_longest_unused_renditions_are_listed_first(store: impl Store) {
    let world = World::default();
    let (_, _, photo) = uploaded_photo(&world, &store).await;
    let used = |name: &str, used: Option<u64>| Rendition {
        used_at: used.map(|seconds| world.later(seconds)),
        ..world.rendition(name, Format::Jpeg)
    };
    let made = vec![
        used("a", Some(30)),
        used("b", Some(10)),
        used("c", None),
        used("d", Some(20)),
        used("e", Some(10)),
    ];
    must(&store, finish(&photo, made)).await;
    let unused = |before: Timestamp, limit| {
        let (store, id) = (&store, photo.id);
        async move {
            let unused = store.unused_renditions(before, limit).await.unwrap();
            assert!(unused.iter().all(|(of, _)| *of == id));
            unused.into_iter().map(|(_, rendition)| rendition.name).collect::<Vec<_>>()
        }
    };
    assert_eq!(unused(world.later(30), 9).await, ["b", "e", "d"]);
    assert_eq!(unused(world.later(99), 2).await, ["b", "e"]);
    assert_eq!(unused(world.later(10), 9).await, Vec::<String>::new());
    let touch = |name: &str, seconds| MediaChange::Touch {
        space: photo.space,
        id: photo.id,
        name: name.to_owned(),
        format: Format::Jpeg,
        at: world.later(seconds),
    };
    for (name, seconds) in [("b", 40), ("a", 5), ("c", 50), ("z", 50)] {
        must(&store, touch(name, seconds)).await;
    }
    assert_eq!(unused(world.later(99), 9).await, ["e", "d", "a", "b"]);
    let there = store.renditions(photo.space, photo.id).await.unwrap();
    assert_eq!((there[1].used_at, there[2].used_at), (Some(world.later(40)), None));
}

/// Forgetting removes the named blobs and no others.
pub async fn m11_forgetting_removes_only_the_named_blobs(store: impl Store) {
    let world = World::default();
    let (_, _, photo) = uploaded_photo(&world, &store).await;
    must(
        &store,
        finish(&photo, vec![world.rendition("64", Format::Jpeg), world.rendition("128", Format::Jpeg)]),
    )
    .await;
    let forget = |blobs: &[&str]| MediaChange::Forget {
        space: photo.space,
        id: photo.id,
        blobs: blobs.iter().map(|&blob| blob.to_owned()).collect(),
    };
    must(&store, forget(&["64.jpg", "gone"])).await;
    let names = |there: Vec<Rendition>| there.into_iter().map(|rendition| rendition.name).collect::<Vec<_>>();
    assert_eq!(names(store.renditions(photo.space, photo.id).await.unwrap()), ["128"]);
    assert!(stored_media(&store, photo.id).await.source.is_some());
    must(&store, forget(&["master.jpg"])).await;
    let left = stored_media(&store, photo.id).await;
    assert_eq!((left.source, left.state), (None, MediaState::Ready));
    assert_eq!(names(store.renditions(photo.space, photo.id).await.unwrap()), ["128"]);
    assert_eq!(used_bytes(&store, photo.space).await, 10);
    // The rendition can be made again.
    must(&store, add_rendition(&photo, world.rendition("64", Format::Jpeg))).await;
    let unknown =
        MediaChange::Forget { space: photo.space, id: world.avatar(photo.owner, "b").id, blobs: vec![] };
    must(&store, unknown).await;
}

/// An account's avatar is its own picture; setting another one replaces it.
pub async fn m12_avatar_is_a_picture_of_its_account(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let (one, other) = (world.avatar(ana, "a"), world.avatar(ana, "b"));
    let (bad, theirs) = (world.avatar(ana, "bad"), world.avatar(world.account_id(), "a"));
    for media in [&one, &other, &bad, &theirs] {
        must(&store, insert(media)).await;
    }
    must(&store, reject(&bad)).await;
    let set = |media: Option<&Media>, before: Option<&Media>| MediaChange::SetAvatar {
        account: ana,
        media: media.map(|media| media.id),
        before: before.map(|media| media.id),
    };
    assert_eq!(store.avatar_of(ana).await.unwrap(), None);
    for media in [&photo, &bad, &theirs] {
        assert_eq!(conflict(&store, set(Some(media), None)).await, Conflict::MediaChanged(media.id));
    }
    let uses =
        || async { (stored_media(&store, one.id).await.uses, stored_media(&store, other.id).await.uses) };
    must(&store, set(Some(&one), None)).await;
    must(&store, set(Some(&one), Some(&one))).await;
    // A caller that read another avatar would delete the wrong picture.
    for before in [None, Some(&other)] {
        assert_eq!(conflict(&store, set(Some(&other), before)).await, Conflict::AvatarChanged(ana));
    }
    assert_eq!(store.avatar_of(ana).await.unwrap(), Some(Media { uses: 1, ..one.clone() }));
    assert_eq!(uses().await, (1, 0));
    must(&store, set(Some(&other), Some(&one))).await;
    assert_eq!(store.media_space(one.space).await.unwrap().avatar, Some(other.id));
    assert_eq!(uses().await, (0, 1));
    must(&store, MediaChange::Delete(ExpectedMedia { uses: 1, ..other.as_read() })).await;
    assert_eq!(store.avatar_of(ana).await.unwrap(), None);
    must(&store, set(Some(&one), None)).await;
    must(&store, set(None, Some(&one))).await;
    must(&store, set(None, None)).await;
    assert_eq!((store.avatar_of(ana).await.unwrap(), stored_media(&store, one.id).await.uses), (None, 0));
    // Removing an avatar is no conflict for an account without uploads; a couple's space has no avatar.
    must(&store, MediaChange::SetAvatar { account: world.account_id(), media: None, before: None }).await;
    assert_eq!(store.media_space(Space::Couple(couple)).await.unwrap().avatar, None);
}

/// Deleting removes a picture completely; the same bytes can be uploaded again.
pub async fn m13_deletion_removes_picture_and_renditions(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let other = world.photo(couple, ana, "b");
    must(&store, insert(&other)).await;
    for media in [&photo, &other] {
        must(&store, finish(media, vec![world.rendition("64", Format::Jpeg)])).await;
    }
    must(&store, MediaChange::Delete(photo.as_read())).await;
    assert_eq!(store.media(photo.id).await.unwrap(), None);
    assert_eq!(store.renditions(photo.space, photo.id).await.unwrap(), []);
    assert_eq!(store.media_by_identity(photo.space, &photo.identity()).await.unwrap(), None);
    assert_eq!(store.unused_renditions(world.later(9999), 9).await.unwrap().len(), 1);
    assert_eq!(used_bytes(&store, photo.space).await, 70);
    assert_eq!(
        conflict(&store, MediaChange::Delete(photo.as_read())).await,
        Conflict::MediaChanged(photo.id)
    );
    let again = world.photo(couple, ana, "a");
    must(&store, insert(&again)).await;
    assert_eq!(store.media_by_identity(again.space, &photo.identity()).await.unwrap(), Some(again));
}

/// A space is closed permanently, and only if it is empty.
pub async fn m14_closed_space_accepts_no_picture(store: impl Store) {
    let world = World::default();
    let ana = world.account_id();
    let avatar = world.avatar(ana, "a");
    let close = |account| MediaChange::Close { account };
    must(&store, insert(&avatar)).await;
    must(&store, MediaChange::SetAvatar { account: ana, media: Some(avatar.id), before: None }).await;
    assert_eq!(conflict(&store, close(ana)).await, Conflict::SpaceNotEmpty(ana));
    must(&store, MediaChange::Delete(ExpectedMedia { uses: 1, ..avatar.as_read() })).await;
    let never = world.account_id();
    for account in [ana, ana, never] {
        must(&store, close(account)).await;
        let kept = store.media_space(Space::Account(account)).await.unwrap();
        assert_eq!(kept, SpaceUsage { bytes: 0, avatar: None, closed: true });
        let late = insert(&world.avatar(account, "b"));
        assert_eq!(conflict(&store, late).await, Conflict::SpaceClosed(account));
    }
}

/// Pictures and spaces are listed page by page in the order of their ids.
pub async fn m15_spaces_and_pictures_are_listed_by_id(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let photo = world.photo(couple.id, couple.members[n % 2], &n.to_string());
        must(&store, insert(&photo)).await;
        ids.push(photo.id);
    }
    ids.sort_unstable();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store.media_in(Space::Couple(couple.id), after, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|media| media.id));
    }
    assert_eq!(seen, ids);
    let mut spaces = vec![Space::Couple(couple.id)];
    for n in 0..4 {
        let avatar = world.avatar(world.account_id(), &n.to_string());
        must(&store, insert(&avatar)).await;
        spaces.push(avatar.space);
    }
    spaces.sort_unstable();
    assert_eq!(store.media_spaces(None, 3).await.unwrap(), spaces[..3]);
    assert_eq!(store.media_spaces(Some(spaces[2]), 3).await.unwrap(), spaces[3..]);
    assert_eq!(store.media_spaces(spaces.last().copied(), 3).await.unwrap(), []);
}
