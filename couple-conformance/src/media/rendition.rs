//! M9–M11: renditions.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Conflict, Store, Timestamp,
    media::{Format, Media, MediaChange, Rendition, Space},
};

use super::{
    add_rendition, finish, forget, insert, names, reject, stored, stored_media, uploaded_photo, used_bytes,
};
use crate::{
    samples::{EARLY, LATE},
    world::{World, accepted, must, race, refused},
};

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
