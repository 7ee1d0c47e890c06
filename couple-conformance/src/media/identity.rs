//! M1 and M2: identity and fields of pictures.

use std::{sync::Arc, time::Duration};

use couple_core::{
    AccountId, Conflict, CoupleId, Digest, MediaId, Store, Timestamp, digest,
    media::{Crop, Format, Media, MediaChange, MediaState, Rendition, Source, Space, SpaceUsage},
};

use super::{add_rendition, finish, insert, names, reject, stored_media};
use crate::{
    samples::{EARLY, LATE, long_text},
    world::{World, accepted, must, race, refused},
};

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
