//! M3 and M4: quota and usage of a space.

use std::sync::Arc;

use couple_core::{
    Change, Conflict, Store,
    media::{Format, Media, MediaChange, Rendition, Source, Space},
};

use super::{add_rendition, finish, forget, insert, reject, stored, uploaded_photo, used_bytes};
use crate::world::{World, accepted, all, conflict, conflicts, must, race, refused};

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
