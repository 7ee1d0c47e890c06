//! M1–M15: pictures, their sources and their renditions.

use std::{sync::Arc, time::Duration};

use couple_core::{
    AccountId, Change, Conflict, CoupleId, Digest, MediaId, Store, Timestamp, digest,
    media::{
        Crop, ExpectedMedia, Format, Media, MediaChange, MediaState, Purpose, Rendition, Source, Space,
        SpaceUsage,
    },
    pairing::PairingChange,
};

use crate::world::{EARLY, LATE, World, all, conflict, conflicts, long_text, must, race};

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

fn forget(media: &Media, blobs: &[&str]) -> MediaChange {
    let blobs = blobs.iter().map(|&blob| blob.to_owned()).collect();
    MediaChange::Forget { space: media.space, id: media.id, blobs }
}

async fn used_bytes(store: &impl Store, space: Space) -> i64 {
    store.media_space(space).await.unwrap().bytes
}

async fn stored_media(store: &impl Store, id: MediaId) -> Media {
    store.media(id).await.unwrap().expect("a picture is not found by its id")
}

async fn names(store: &impl Store, media: &Media) -> Vec<String> {
    let there = store.renditions(media.space, media.id).await.unwrap();
    there.into_iter().map(|rendition| rendition.name).collect()
}

/// Expects that a change conflicts; `what` says what it would do.
async fn refused(store: &impl Store, change: MediaChange, expected: Conflict, what: &str) {
    let succeeded = store.commit(vec![change.clone().into()]).await.is_ok();
    assert!(!succeeded, "{what}");
    assert_eq!(conflict(store, change).await, expected, "another conflict, when {what}");
}

/// Commits a change that must not conflict; `what` says what does not work otherwise.
async fn accepted(store: &impl Store, change: MediaChange, what: &str) {
    if let Err(error) = store.commit(vec![change.into()]).await {
        panic!("{what}: {error}");
    }
}

/// Usage of a space, and its pictures with their renditions.
type StoredSpace = (SpaceUsage, Vec<(Media, Vec<Rendition>)>);

/// Everything that is stored of two spaces: usage, pictures and renditions.
async fn stored(store: &impl Store, spaces: [Space; 2]) -> Vec<StoredSpace> {
    let mut all = Vec::new();
    for space in spaces {
        let mut pictures = Vec::new();
        for media in store.media_in(space, None, 100).await.unwrap() {
            let renditions = store.renditions(space, media.id).await.unwrap();
            pictures.push((media, renditions));
        }
        all.push((store.media_space(space).await.unwrap(), pictures));
    }
    all
}

/// Adds a photo of the first member of a new couple.
async fn uploaded_photo(world: &World, store: &impl Store) -> (CoupleId, AccountId, Media) {
    let couple = world.stored_couple(store).await;
    let photo = world.photo(couple.id, couple.members[0], "a");
    must(store, insert(&photo)).await;
    (couple.id, couple.members[0], photo)
}

/// The same bytes of the same account for the same purpose and crop are one picture, in each space.
pub async fn m1_identical_bytes_are_one_picture(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let [ana, ben] = couple.members;
    let photo_of = |world: &World, couple: CoupleId, owner: AccountId| world.photo(couple, owner, "same");
    let avatar_of = |world: &World, _: CoupleId, owner: AccountId| world.avatar(owner, "same");
    let makes: [fn(&World, CoupleId, AccountId) -> Media; 2] = [photo_of, avatar_of];
    for make in makes {
        let commits = (0..50).map(|_| vec![insert(&make(&world, couple.id, ana)).into()]).collect();
        assert_eq!(
            race(&store, commits).await,
            1,
            "of identical bytes, another number of pictures than one is added"
        );
    }
    let photo = world.photo(couple.id, ana, "same");
    let found = store.media_by_identity(photo.space, &photo.identity()).await.unwrap();
    let there = found.expect("a picture is not found by its identity");
    let expected = Media { id: there.id, ..photo.clone() };
    assert_eq!(there, expected, "another picture is found by an identity");
    refused(&store, insert(&photo), Conflict::MediaExists, "identical bytes are another picture").await;
    // A picture id is unique over all spaces.
    for elsewhere in [world.avatar(ben, "b"), world.photo(couple.id, ana, "b")] {
        let elsewhere = Media { id: there.id, ..elsewhere };
        refused(&store, insert(&elsewhere), Conflict::MediaExists, "an id names two pictures").await;
    }
    let crop = |x, height| Some(Crop { x, y: 0, width: 5, height });
    let other_couple = world.stored_couple(&store).await.id;
    let others = [
        world.photo(couple.id, ana, "other"),
        world.photo(couple.id, ana, "Same"),
        world.photo(couple.id, ben, "same"),
        world.photo(other_couple, ana, "same"),
        world.avatar(ben, "same"),
        Media { crop: crop(1, 5), ..world.photo(couple.id, ana, "same") },
        Media { crop: crop(2, 5), ..world.photo(couple.id, ana, "same") },
        Media { crop: crop(1, 6), ..world.photo(couple.id, ana, "same") },
        Media { owner: ben, ..world.avatar(ana, "same") },
    ];
    for other in &others {
        let none = store.media_by_identity(other.space, &other.identity()).await.unwrap();
        assert_eq!(none, None, "a picture is found by the identity of another one");
        accepted(&*store, insert(other), "pictures that differ in owner, content, crop or space are one")
            .await;
    }
    for other in others {
        let found = store.media_by_identity(other.space, &other.identity()).await.unwrap();
        assert_eq!(found, Some(other), "another picture is found by an identity");
    }
    // A rejected or ready picture still has its identity.
    for (media, change) in
        [(world.photo(couple.id, ben, "r"), true), (world.photo(couple.id, ben, "f"), false)]
    {
        must(&store, insert(&media)).await;
        must(&store, if change { reject(&media) } else { finish(&media, Vec::new()) }).await;
        let again = Media { id: world.photo(couple.id, ben, "r").id, ..media.clone() };
        refused(
            &store,
            insert(&again),
            Conflict::MediaExists,
            "a rejected or ready picture is uploaded again",
        )
        .await;
        let found = store.media_by_identity(media.space, &media.identity()).await.unwrap();
        assert_eq!(
            found.map(|media| media.id),
            Some(media.id),
            "a rejected or ready picture lost its identity"
        );
    }
    let none = store.media_by_identity(photo.space, &digest(&[b"none"])).await.unwrap();
    assert_eq!(none, None, "a picture is found by an identity that none has");
}

/// Digest with a zero byte and no valid text.
fn unusual_digest(n: u8) -> Digest {
    let mut bytes = *digest(&[&[n]]).as_bytes();
    (bytes[0], bytes[1], bytes[2], bytes[31]) = (n, 0, 0xff, 7);
    Digest::from_bytes(bytes)
}

/// Source whose fields have their greatest usual lengths.
fn long_source(name: &str, bytes: i64) -> Source {
    Source { blob: long_text(name, 300), bytes, media_type: long_text("T", 300) }
}

/// Every field of a picture reads back in every state.
///
/// Names of renditions have up to 64 bytes, placeholders 40, and other text 300.
pub async fn m2_picture_and_rendition_fields_read_back(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let [ana, ben] = couple.members;
    let photo = Media {
        digest: unusual_digest(1),
        crop: Some(Crop { x: 4_000_000_001, y: 4_000_000_002, width: 4_000_000_003, height: 4_000_000_004 }),
        key: long_text("K", 300),
        source: Some(long_source("S", 5_000_000_007)),
        width: 4_000_000_005,
        height: 4_000_000_006,
        placeholder: Some((0..40).map(|n| 255 - n * 5).map(|n| if n % 7 == 0 { 0 } else { n }).collect()),
        created_at: EARLY,
        ..world.photo(couple.id, ana, "a")
    };
    let avatar = Media {
        owner: ben,
        digest: unusual_digest(2),
        crop: Some(Crop { x: 70_000, y: 0, width: 80_000, height: 90_000 }),
        key: "Ö 👋 ".to_owned(),
        source: None,
        width: 0,
        height: 100_000,
        animated: true,
        placeholder: Some(Vec::new()),
        uses: 5_000_000_009,
        created_at: LATE,
        ..world.avatar(ana, "x")
    };
    let long_reason = format!("too_large: {}", long_text("R", 289));
    let states = [MediaState::Processing, MediaState::Ready, MediaState::Rejected(long_reason.clone())];
    let mut all_media = vec![photo.clone(), avatar.clone()];
    for (n, state) in (3..).zip(states) {
        let (animated, alpha) = (n == 4, n == 5);
        let base = world.photo(couple.id, ben, "b");
        all_media.push(Media { state, animated, alpha, digest: unusual_digest(n), crop: None, ..base });
    }
    for media in &all_media {
        must(&store, insert(media)).await;
    }
    for media in &all_media {
        let found = stored_media(&store, media.id).await;
        assert!(found == *media, "a picture reads back otherwise:\n{found:?}\n{media:?}");
        let found = store.media_by_identity(media.space, &media.identity()).await.unwrap();
        assert!(
            found.as_ref() == Some(media),
            "a picture found by its identity reads back otherwise: {found:?}"
        );
        let page = store.media_in(media.space, None, 9).await.unwrap();
        assert!(page.contains(media), "a listed picture reads back otherwise: {page:?}");
    }
    let rendition = |name: &str, format, n: u32, made_at: Timestamp, used: Option<Timestamp>| Rendition {
        name: name.to_owned(),
        format,
        width: 4_000_000_000 + n,
        height: 4_000_000_100 + n,
        bytes: 5_000_000_000 + i64::from(n),
        blob: long_text(&format!("B{n}"), 300),
        made_at,
        used_at: used,
    };
    let just_after = |time: Timestamp| time.plus(Duration::from_micros(1_003));
    let long_name = long_text("N", 64);
    let small = rendition("64", Format::Jpeg, 1, EARLY, None);
    let large = rendition("512", Format::WebP, 2, LATE, Some(just_after(LATE)));
    let upper = rendition("A", Format::Jpeg, 3, just_after(EARLY), Some(EARLY));
    let long = rendition(&long_name, Format::Png, 4, world.now(), Some(LATE));
    let blank = Rendition {
        blob: "Ö 👋 ".to_owned(),
        ..rendition("Ö ", Format::Png, 5, world.now(), Some(EARLY))
    };
    let finish_with = |of: &Media, source, placeholder, flags: [bool; 2], renditions| MediaChange::Finish {
        of: of.as_read(),
        width: 4_000_000_007,
        height: 4_000_000_008,
        animated: flags[0],
        alpha: flags[1],
        placeholder,
        source,
        renditions,
    };
    let placeholder: Vec<u8> = (0..40).map(|n| n * 6 + 1).map(|n| if n == 7 { 0 } else { n }).collect();
    let first = vec![small.clone(), large.clone(), long.clone()];
    let master = Some(long_source("M", 5_000_000_011));
    must(&store, finish_with(&photo, master.clone(), placeholder.clone(), [true, false], first)).await;
    let ready = Media {
        state: MediaState::Ready,
        width: 4_000_000_007,
        height: 4_000_000_008,
        animated: true,
        placeholder: Some(placeholder),
        source: master,
        ..photo.clone()
    };
    let found = stored_media(&store, photo.id).await;
    assert!(found == ready, "a ready picture reads back otherwise:\n{found:?}\n{ready:?}");
    let listed = async |expected: &[&Rendition]| {
        let found = store.renditions(photo.space, photo.id).await.unwrap();
        let expected: Vec<_> = expected.iter().copied().cloned().collect();
        assert!(
            found == expected,
            "renditions read back otherwise, or not by name and format:\n{found:?}\n{expected:?}"
        );
    };
    listed(&[&large, &small, &long]).await;
    let same = rendition("512", Format::Jpeg, 6, world.later(1), Some(world.later(2)));
    let png = rendition("512", Format::Png, 7, world.later(1), Some(world.later(2)));
    let lower = rendition("a", Format::Jpeg, 8, world.later(3), None);
    for added in [&png, &lower, &same, &upper, &blank] {
        must(&store, add_rendition(&photo, added.clone())).await;
    }
    listed(&[&same, &large, &png, &small, &upper, &long, &lower, &blank]).await;
    // From something to nothing, and an empty placeholder.
    let plain = &all_media[2];
    must(&store, finish_with(plain, None, Vec::new(), [false, true], Vec::new())).await;
    let expected = Media {
        state: MediaState::Ready,
        width: 4_000_000_007,
        height: 4_000_000_008,
        alpha: true,
        placeholder: Some(Vec::new()),
        source: None,
        ..plain.clone()
    };
    let found = stored_media(&store, plain.id).await;
    assert!(
        found == expected,
        "a ready picture without a source reads back otherwise:\n{found:?}\n{expected:?}"
    );
    must(&store, MediaChange::Reject { of: avatar.as_read(), reason: long_reason.clone() }).await;
    let rejected = Media { state: MediaState::Rejected(long_reason), source: None, ..avatar.clone() };
    let found = stored_media(&store, avatar.id).await;
    assert!(found == rejected, "a rejected picture reads back otherwise:\n{found:?}\n{rejected:?}");
    let none = store.media(MediaId::from_uuid(uuid::Uuid::max())).await.unwrap();
    assert_eq!(none, None, "a picture is found by an id that none has");
    let unused = store.media_space(Space::Couple(world.couple_id())).await.unwrap();
    assert_eq!(unused, SpaceUsage::default(), "a space without pictures has a usage");
    assert_eq!(names(&store, plain).await, Vec::<String>::new(), "a picture has renditions of another one");
    let elsewhere = store.renditions(avatar.space, photo.id).await.unwrap();
    assert_eq!(elsewhere, [], "renditions are found in another space");
}

/// Concurrent uploads succeed as long as they fit into the quota of their space. Renditions count.
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
        assert_eq!(race(&store, commits).await, 7, "uploads exceed the quota, or fewer succeed than fit");
    }
    let space = Space::Couple(couple.id);
    for (space, expected) in
        [(space, 700), (Space::Account(couple.members[0]), 700), (Space::Account(couple.members[1]), 0)]
    {
        assert_eq!(used_bytes(&store, space).await, expected, "the usage is not the one of the uploads");
    }
    let one_more = world.photo(couple.id, couple.members[0], "more");
    let insert = |most| MediaChange::Insert { media: one_more.clone(), most };
    refused(&store, insert(799), Conflict::QuotaExceeded, "an upload exceeds the quota").await;
    accepted(&*store, insert(800), "an upload that fits exactly is refused").await;
    // An existing picture is reported as existing also when there is no room.
    let found = conflict(&store, insert(0)).await;
    assert_eq!(found, Conflict::MediaExists, "an existing picture is refused for the quota");
    // Renditions count, and may exceed the quota.
    must(&store, finish(&one_more, vec![world.rendition("64", Format::Jpeg)])).await;
    let next = world.photo(couple.id, couple.members[0], "next");
    let insert = |most| MediaChange::Insert { media: next.clone(), most };
    refused(&store, insert(869), Conflict::QuotaExceeded, "an upload exceeds the quota with the renditions")
        .await;
    accepted(&*store, insert(870), "an upload that fits exactly is refused").await;
    // Sizes above 2^32.
    let large = |name: &str| Media {
        source: Some(Source { blob: "u".to_owned(), bytes: 5_000_000_000, media_type: "t".to_owned() }),
        ..world.avatar(couple.members[1], name)
    };
    let insert = |name: &str| MediaChange::Insert { media: large(name), most: 12_000_000_000 };
    must(&store, insert("a")).await;
    accepted(&*store, insert("b"), "an upload that fits is refused").await;
    refused(&store, insert("c"), Conflict::QuotaExceeded, "an upload exceeds a quota above 2^32 bytes").await;
}

/// The usage of a space follows every change, and a commit that conflicts changes nothing.
pub async fn m4_usage_is_the_sum_of_stored_bytes(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let space = photo.space;
    let [other, third, fourth] = ["b", "c", "d"].map(|name| world.photo(couple, ana, name));
    let avatar = world.avatar(ana, "avatar");
    for media in [&other, &third, &fourth, &avatar] {
        must(&store, insert(media)).await;
    }
    let size = |name: &str, bytes| Rendition { bytes, ..world.rendition(name, Format::Jpeg) };
    let no_source = |media: &Media| match finish(media, vec![size("1", 1)]) {
        MediaChange::Finish { of, width, height, animated, alpha, placeholder, renditions, .. } => {
            MediaChange::Finish { of, width, height, animated, alpha, placeholder, source: None, renditions }
        }
        other => other,
    };
    let steps: Vec<(Change, i64)> = vec![
        (finish(&photo, vec![size("64", 10), size("128", 20)]).into(), 300 + 60 + 30),
        (add_rendition(&photo, world.rendition("64", Format::WebP)).into(), 400),
        (reject(&other).into(), 300),
        (no_source(&third).into(), 201),
        (forget(&photo, &["nothing"]).into(), 201),
        (forget(&photo, &["64.webp"]).into(), 191),
        (forget(&photo, &["64.webp", "master.jpg"]).into(), 131),
        (forget(&photo, &["master.jpg"]).into(), 131),
        (forget(&photo, &["64.jpg", "128.jpg"]).into(), 101),
        (add_rendition(&photo, size("64", 5_000_000_000)).into(), 5_000_000_101),
        (finish(&fourth, vec![size("64", 7)]).into(), 5_000_000_068),
        (MediaChange::Delete(fourth.as_read()).into(), 5_000_000_001),
        (MediaChange::Delete(photo.as_read()).into(), 1),
        (MediaChange::Delete(other.as_read()).into(), 1),
        (MediaChange::Delete(third.as_read()).into(), 0),
    ];
    let spaces = [space, avatar.space];
    assert_eq!(used_bytes(&store, space).await, 400, "the usage is not the sum of the uploads");
    for (change, expected) in steps {
        let before = stored(&store, spaces).await;
        let stale = MediaChange::Release(avatar.as_read()).into();
        let found = conflicts(&store, vec![change.clone(), stale]).await;
        assert_eq!(found, Conflict::MediaChanged(avatar.id), "another conflict");
        let after = stored(&store, spaces).await;
        assert!(
            after == before,
            "a commit that conflicted changes pictures: {change:?}\n{before:?}\n{after:?}"
        );
        all(&store, vec![change.clone()]).await;
        let used = used_bytes(&store, space).await;
        assert_eq!(used, expected, "the usage does not follow the bytes after {change:?}");
        let mut sum = 0;
        for media in store.media_in(space, None, 100).await.unwrap() {
            sum += media.source.map_or(0, |source| source.bytes);
            let renditions = store.renditions(space, media.id).await.unwrap();
            sum += renditions.iter().map(|rendition| rendition.bytes).sum::<i64>();
        }
        assert_eq!(sum, expected, "the stored bytes are others after {change:?}");
    }
    assert_eq!(used_bytes(&store, avatar.space).await, 100, "the usage of another space changes");
    // A commit that conflicted took neither an id nor an identity.
    let late = world.photo(couple, ana, "late");
    let stale = MediaChange::Release(avatar.as_read()).into();
    conflicts(&store, vec![insert(&late).into(), stale]).await;
    let found = store.media_by_identity(space, &late.identity()).await.unwrap();
    assert_eq!(
        (store.media(late.id).await.unwrap(), found),
        (None, None),
        "a commit that conflicted adds a picture"
    );
    accepted(&store, insert(&late), "a commit that conflicted took the picture's id or identity").await;
    must(&store, finish(&late, Vec::new())).await;
    let rendition = world.rendition("64", Format::Png);
    let stale = MediaChange::Release(avatar.as_read()).into();
    conflicts(&store, vec![add_rendition(&late, rendition.clone()).into(), stale]).await;
    accepted(&store, add_rendition(&late, rendition), "a commit that conflicted took the rendition's name")
        .await;
}

/// A picture becomes ready or rejected once: one of many concurrent commits succeeds.
pub async fn m5_picture_becomes_ready_or_rejected_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let placeholder = Some(vec![1, 2, 3]);
    let crop = Some(Crop { x: 1, y: 2, width: 3, height: 4 });
    for rejected in [true, false] {
        let name = format!("{rejected}");
        let media = Media { placeholder: placeholder.clone(), crop, ..world.photo(couple, ana, &name) };
        must(&store, insert(&media)).await;
        must(&store, if rejected { reject(&media) } else { finish(&media, Vec::new()) }).await;
        let before = stored_media(&store, media.id).await;
        if rejected {
            let state = MediaState::Rejected("truncated".to_owned());
            let expected = Media { state, source: None, ..media.clone() };
            assert_eq!(before, expected, "a rejected picture keeps its source, or loses another field");
        }
        for late in [finish(&media, Vec::new()), reject(&media)] {
            let what = format!("a picture that is {} becomes ready or rejected again", before.state.as_str());
            refused(&store, late, Conflict::MediaChanged(media.id), &what).await;
        }
        assert_eq!(
            stored_media(&store, media.id).await,
            before,
            "a change that conflicted changes a picture"
        );
    }
    let unknown = world.photo(world.couple_id(), photo.owner, "a");
    for change in [reject(&unknown), finish(&unknown, Vec::new())] {
        refused(&store, change, Conflict::MediaChanged(unknown.id), "a picture that does not exist changes")
            .await;
    }
    // Last, because the order of concurrent commits is not known: a fault that one commit alone shows is found above.
    let commits = (0..50).map(|n| {
        let end = if n % 2 == 0 { finish(&photo, Vec::new()) } else { reject(&photo) };
        vec![end.into()]
    });
    assert_eq!(race(&store, commits.collect()).await, 1, "a picture becomes ready or rejected twice");
    match stored_media(&store, photo.id).await {
        Media { state: MediaState::Ready, source: Some(_), placeholder: Some(_), .. } => {}
        Media { state: MediaState::Rejected(reason), source: None, placeholder: None, .. } => {
            assert_eq!(reason, "truncated", "a picture has another reason");
        }
        other => panic!("a ready picture has no source, or a rejected picture keeps its source: {other:?}"),
    }
}

/// No picture is added to or used in a couple that has ended or does not exist.
pub async fn m6_ended_couple_accepts_no_picture(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let unknown = world.couple_id();
    let nowhere = insert(&world.photo(unknown, ana, "b"));
    refused(&store, nowhere, Conflict::CoupleEnded(unknown), "a picture is added to an unknown couple").await;
    let [bad, used] = ["bad", "used"].map(|name| world.photo(couple, ana, name));
    for media in [&bad, &used] {
        must(&store, insert(media)).await;
    }
    let of = |id| MediaChange::Use { couple, id, owner: ana, ready: false };
    must(&store, of(used.id)).await;
    let members = store.couple(couple).await.unwrap().unwrap().members;
    must(&store, PairingChange::End { id: couple, members, at: world.now() }).await;
    let late = insert(&world.photo(couple, ana, "b"));
    refused(&store, late, Conflict::CoupleEnded(couple), "a picture is added to an ended couple").await;
    let late = of(photo.id);
    refused(&store, late, Conflict::CoupleEnded(couple), "a picture of an ended couple is used").await;
    // The pictures of an ended couple can still be finished, rejected, released and deleted.
    let rendition = world.rendition("64", Format::Jpeg);
    let used = Media { uses: 1, ..used };
    for change in [
        finish(&photo, Vec::new()),
        add_rendition(&photo, rendition),
        forget(&photo, &["master.jpg"]),
        reject(&bad),
        MediaChange::Release(used.as_read()),
        MediaChange::Delete(photo.as_read()),
    ] {
        accepted(&store, change, "a picture of an ended couple cannot be finished or deleted").await;
    }
    assert_eq!(used_bytes(&store, photo.space).await, 100, "the usage of an ended couple");
    let avatar = world.avatar(ana, "a");
    accepted(&store, insert(&avatar), "an account of an ended couple has no avatar").await;
}

/// An entry uses only its author's photo of the same couple, and each use is counted.
pub async fn m7_entry_uses_only_a_photo_of_its_author(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let other = world.stored_couple(&store).await;
    let ben = store.couple(couple).await.unwrap().unwrap().members[1];
    let use_of = |couple, id, owner, ready| MediaChange::Use { couple, id, owner, ready };
    let of = |couple, id, owner| use_of(couple, id, owner, false);
    let avatar = world.avatar(ana, "a");
    let avatar_here = Media { purpose: Purpose::Avatar, ..world.photo(couple, ana, "avatar") };
    let bad = world.photo(couple, ana, "bad");
    for media in [&avatar, &avatar_here, &bad] {
        must(&store, insert(media)).await;
    }
    must(&store, reject(&bad)).await;
    let missing = world.photo(couple, ana, "none").id;
    for (what, change, id) in [
        ("of the partner", of(couple, photo.id, ben), photo.id),
        ("of a stranger", of(couple, photo.id, other.members[0]), photo.id),
        ("of another couple", of(other.id, photo.id, ana), photo.id),
        ("that is an avatar", of(couple, avatar.id, ana), avatar.id),
        ("that is an avatar", of(couple, avatar_here.id, ana), avatar_here.id),
        ("that is rejected", of(couple, bad.id, ana), bad.id),
        ("that is rejected", use_of(couple, bad.id, ana, true), bad.id),
        ("that does not exist", of(couple, missing, ana), missing),
        ("that is still processing, as a ready one,", use_of(couple, photo.id, ana, true), photo.id),
    ] {
        refused(&store, change, Conflict::MediaChanged(id), &format!("an entry uses a picture {what}")).await;
    }
    let untouched = stored(&store, [photo.space, avatar.space]).await;
    let uses = |all: &[StoredSpace]| {
        all.iter().flat_map(|(_, pictures)| pictures).map(|(media, _)| media.uses).sum::<i64>()
    };
    assert_eq!(uses(&untouched), 0, "a use that conflicted is counted");
    let commits = (0..30).map(|_| vec![of(couple, photo.id, ana).into()]).collect();
    assert_eq!(race(&store, commits).await, 30, "uses of a photo conflict with each other");
    assert_eq!(stored_media(&store, photo.id).await.uses, 30, "not each use of a photo is counted");
    assert_eq!(
        uses(&stored(&store, [photo.space, avatar.space]).await),
        30,
        "uses of another picture are counted"
    );
    // Of concurrent commits that read the same number of uses, one counts a use off.
    let as_read = ExpectedMedia { uses: 30, ..photo.as_read() };
    let commits = (0..30).map(|_| vec![MediaChange::Release(as_read).into()]).collect();
    assert_eq!(race(&store, commits).await, 1, "a use is released more than once");
    assert_eq!(stored_media(&store, photo.id).await.uses, 29, "a release does not count one use off");
    let never = MediaChange::Release(bad.as_read());
    refused(&store, never, Conflict::MediaChanged(bad.id), "a picture without uses is released").await;
    // A use conflicts if the photo became ready since it was read: no later entry would tell the couple that it
    // is ready.
    must(&store, finish(&stored_media(&store, photo.id).await, Vec::new())).await;
    let late = of(couple, photo.id, ana);
    let what = "an entry uses a ready picture as one that is still processing";
    refused(&store, late, Conflict::MediaChanged(photo.id), what).await;
    accepted(&*store, use_of(couple, photo.id, ana, true), "a ready photo cannot be used").await;
    assert_eq!(stored_media(&store, photo.id).await.uses, 30, "not each use of a photo is counted");
}

/// A change that read another number of uses conflicts.
pub async fn m8_change_with_a_stale_use_count_conflicts(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let used = MediaChange::Use { couple, id: photo.id, owner: ana, ready: false };
    must(&store, used.clone()).await;
    let before = stored(&store, [photo.space, Space::Account(ana)]).await;
    let twice = Media { uses: 2, ..photo.clone() };
    for stale in [&photo, &twice] {
        let late = [
            ("is finished", finish(stale, vec![world.rendition("64", Format::Jpeg)])),
            ("is rejected", reject(stale)),
            ("is released", MediaChange::Release(stale.as_read())),
            ("is deleted", MediaChange::Delete(stale.as_read())),
        ];
        for (what, change) in late {
            let what = format!("a picture {what} by a change that read another number of uses");
            refused(&store, change, Conflict::MediaChanged(photo.id), &what).await;
        }
    }
    let after = stored(&store, [photo.space, Space::Account(ana)]).await;
    assert_eq!(after, before, "a change that conflicted changes pictures");
    let now = stored_media(&store, photo.id).await;
    assert_eq!(now, Media { uses: 1, ..photo.clone() }, "a use changes other fields than the number of uses");
    // The uses decide, not the state: a finished picture has the uses that were read before.
    must(&store, finish(&now, Vec::new())).await;
    accepted(&store, MediaChange::Delete(now.as_read()), "finishing changes the number of uses").await;
}

/// A rendition is added once, and only to a ready picture.
pub async fn m9_rendition_is_added_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let rendition = world.rendition("sé", Format::Jpeg);
    let changed = Conflict::MediaChanged(photo.id);
    let what = "a picture that is still processing has a rendition";
    refused(&store, add_rendition(&photo, rendition.clone()), changed, what).await;
    must(&store, finish(&photo, Vec::new())).await;
    let commits = (0..50).map(|n| {
        vec![add_rendition(&photo, Rendition { blob: format!("64-{n}.jpg"), ..rendition.clone() }).into()]
    });
    assert_eq!(race(&store, commits.collect()).await, 1, "a rendition is added more than once");
    let there = store.renditions(photo.space, photo.id).await.unwrap();
    assert_eq!(there.len(), 1, "a rendition is added more than once");
    assert_eq!(used_bytes(&store, photo.space).await, 70, "a rendition that was not added is counted");
    let again = Rendition { blob: "again.jpg".to_owned(), bytes: 11, ..rendition.clone() };
    refused(&store, add_rendition(&photo, again), changed, "a rendition is added more than once").await;
    assert_eq!(store.renditions(photo.space, photo.id).await.unwrap(), there, "a rendition is replaced");
    // Other formats and names are other renditions.
    for (name, format) in [
        ("sé", Format::WebP),
        ("sé", Format::Png),
        ("Sé", Format::Jpeg),
        ("se", Format::Jpeg),
        ("sé ", Format::Jpeg),
        ("s%", Format::Jpeg),
    ] {
        let change = add_rendition(&photo, world.rendition(name, format));
        accepted(&*store, change, "a rendition of another name or format is taken for an existing one").await;
    }
    let other = world.photo(couple, ana, "other");
    must(&store, insert(&other)).await;
    must(&store, finish(&other, Vec::new())).await;
    accepted(
        &*store,
        add_rendition(&other, rendition.clone()),
        "a rendition is taken for one of another picture",
    )
    .await;
    let bad = world.photo(couple, ana, "bad");
    must(&store, insert(&bad)).await;
    must(&store, reject(&bad)).await;
    let unknown = world.photo(world.couple_id(), photo.owner, "a");
    for (media, what) in
        [(&bad, "a rejected picture has a rendition"), (&unknown, "an unknown picture has a rendition")]
    {
        let change = add_rendition(media, rendition.clone());
        refused(&store, change, Conflict::MediaChanged(media.id), what).await;
    }
}

/// Unused renditions are listed, the longest unused first, of equal times by picture, name and format; a request only moves the time forward.
pub async fn m10_longest_unused_renditions_are_listed_first(store: impl Store) {
    let world = World::default();
    let (couple, ana, one) = uploaded_photo(&world, &store).await;
    let other = world.photo(couple, ana, "other");
    must(&store, insert(&other)).await;
    let mut photos = [one, other];
    photos.sort_by_key(|media| media.id);
    let used = |name: &str, format, used: Option<u64>, made: u64| Rendition {
        used_at: used.map(|seconds| world.later(seconds)),
        made_at: world.later(made),
        ..world.rendition(name, format)
    };
    let (jpeg, webp) = (Format::Jpeg, Format::WebP);
    // The picture with the higher id has the rendition that is unused for the longest time.
    let first = vec![
        used("a", jpeg, Some(30), 1),
        used("b", webp, Some(10), 4),
        used("b", jpeg, Some(10), 5),
        used("c", jpeg, None, 0),
        used("d", jpeg, Some(20), 2),
        used("e", jpeg, Some(10), 3),
    ];
    let second =
        vec![used("b", jpeg, Some(5), 9), used("a", webp, Some(10), 8), used("c", jpeg, Some(25), 0)];
    must(&store, finish(&photos[0], first)).await;
    must(&store, finish(&photos[1], second)).await;
    let unused = async |before: Timestamp, limit, expected: &[(usize, &str, Format)]| {
        let found = store.unused_renditions(before, limit).await.unwrap();
        let expected: Vec<_> =
            expected.iter().map(|(n, name, format)| (photos[*n].id, *name, *format)).collect();
        let found: Vec<_> = found.iter().map(|(id, one)| (*id, one.name.as_str(), one.format)).collect();
        assert_eq!(found, expected, "unused renditions are others, or not in the order of their last use");
    };
    let all = [
        (1, "b", jpeg),
        (0, "b", jpeg),
        (0, "b", webp),
        (0, "e", jpeg),
        (1, "a", webp),
        (0, "d", jpeg),
        (1, "c", jpeg),
        (0, "a", jpeg),
    ];
    unused(world.later(30), 9, &all[..7]).await;
    unused(world.later(99), 9, &all).await;
    unused(LATE, 2, &all[..2]).await;
    unused(world.later(10), 9, &all[..1]).await;
    unused(world.later(10).plus(Duration::from_micros(1)), 9, &all[..5]).await;
    unused(world.later(5), 9, &[]).await;
    let touch = |n: usize, name: &str, format, at| MediaChange::Touch {
        space: photos[n].space,
        id: photos[n].id,
        name: name.to_owned(),
        format,
        at,
    };
    let before = [&photos[0], &photos[1]].map(|media| (media.space, media.id));
    let mut expected = Vec::new();
    for (space, id) in before {
        expected.push(store.renditions(space, id).await.unwrap());
    }
    let check = async |expected: &[Vec<Rendition>]| {
        for ((space, id), expected) in before.iter().zip(expected) {
            let found = store.renditions(*space, *id).await.unwrap();
            assert_eq!(
                &found, expected,
                "a request changes another time than the one of its rendition, or moves it back"
            );
        }
    };
    // No rendition has these names, formats or pictures; requests before the last one, and of renditions that never expire.
    for change in [
        touch(0, "B", jpeg, LATE),
        touch(0, "b ", jpeg, LATE),
        touch(0, "_", jpeg, LATE),
        touch(0, "é", jpeg, LATE),
        touch(0, "", jpeg, LATE),
        touch(0, "a", webp, LATE),
        touch(0, "z", jpeg, LATE),
        touch(0, "a", jpeg, world.later(5)),
        touch(0, "a", jpeg, EARLY),
        touch(0, "c", jpeg, LATE),
        MediaChange::Touch {
            space: Space::Account(ana),
            id: photos[0].id,
            name: "a".to_owned(),
            format: jpeg,
            at: LATE,
        },
    ] {
        must(&store, change).await;
        check(&expected).await;
    }
    for (n, name, at) in [(0, "b", world.later(40)), (1, "c", LATE), (0, "a", world.later(31))] {
        must(&store, touch(n, name, jpeg, at)).await;
        let found = expected[n].iter_mut().find(|one| one.name == name && one.format == jpeg);
        found.expect("the rendition is there").used_at = Some(at);
        check(&expected).await;
    }
    unused(world.later(99), 3, &[(1, "b", jpeg), (0, "b", webp), (0, "e", jpeg)]).await;
    // Times before 1970, and a finer step than a millisecond.
    let next = EARLY.plus(Duration::from_micros(3));
    let early = |name: &str, at| Rendition { used_at: Some(at), ..world.rendition(name, jpeg) };
    must(&store, add_rendition(&photos[0], early("y", next))).await;
    must(&store, add_rendition(&photos[0], early("z", EARLY))).await;
    unused(world.now(), 9, &[(0, "z", jpeg), (0, "y", jpeg)]).await;
    unused(next, 9, &[(0, "z", jpeg)]).await;
    must(&store, touch(0, "z", jpeg, next.plus(Duration::from_micros(1)))).await;
    unused(next.plus(Duration::from_micros(2)), 9, &[(0, "y", jpeg), (0, "z", jpeg)]).await;
}

/// Forgetting removes the named blobs and no others.
pub async fn m11_forgetting_removes_only_the_named_blobs(store: impl Store) {
    let world = World::default();
    let (couple, ana, photo) = uploaded_photo(&world, &store).await;
    let other = world.photo(couple, ana, "other");
    must(&store, insert(&other)).await;
    for media in [&photo, &other] {
        let renditions = ["64", "128", "Café"].map(|name| world.rendition(name, Format::Jpeg)).to_vec();
        must(&store, finish(media, renditions)).await;
    }
    let spaces = [photo.space, Space::Account(ana)];
    let before = stored(&store, spaces).await;
    // No blob has these names.
    let similar = [
        "64",
        "64.JPG",
        "64.jpg ",
        "64.jp_",
        "6%",
        "64.",
        "Cafe.jpg",
        "café.jpg",
        "Master.jpg",
        "master.jp_",
        "",
    ];
    for blobs in [&similar[..], &[]] {
        must(&store, forget(&photo, blobs)).await;
        let after = stored(&store, spaces).await;
        assert_eq!(after, before, "forgetting removes a blob with a similar name");
    }
    let other_before = (stored_media(&store, other.id).await, names(&store, &other).await);
    must(&store, forget(&photo, &["gone", "64.jpg"])).await;
    let left = names(&store, &photo).await;
    assert_eq!(left, ["128", "Café"], "forgetting removes other renditions than the named one");
    let ready = stored_media(&store, photo.id).await;
    assert!(ready.source.is_some(), "forgetting a rendition removes the source");
    must(&store, forget(&photo, &["master.jpg"])).await;
    let found = stored_media(&store, photo.id).await;
    let expected = Media { source: None, ..ready };
    assert_eq!(found, expected, "forgetting the source does not remove it, or changes other fields");
    assert_eq!(names(&store, &photo).await, ["128", "Café"], "forgetting the source removes renditions");
    let other_after = (stored_media(&store, other.id).await, names(&store, &other).await);
    assert_eq!(other_after, other_before, "forgetting removes blobs of another picture");
    assert_eq!(used_bytes(&store, photo.space).await, 20 + 90, "forgetting does not subtract the bytes");
    // The rendition can be made again.
    let again = add_rendition(&photo, world.rendition("64", Format::Jpeg));
    accepted(&store, again, "a forgotten rendition cannot be made again").await;
    let unknown = Media { space: Space::Account(ana), ..world.avatar(ana, "b") };
    let elsewhere = Media { space: Space::Account(ana), ..photo.clone() };
    for nothing in [forget(&unknown, &["64.jpg"]), forget(&elsewhere, &["64.jpg"])] {
        accepted(&store, nothing, "forgetting blobs of a picture that does not exist conflicts").await;
    }
    assert_eq!(
        names(&store, &photo).await,
        ["128", "64", "Café"],
        "forgetting removes blobs in another space"
    );
}

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
