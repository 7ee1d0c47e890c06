//! The sweep completes, whatever it finds and however long it takes.

use std::{collections::BTreeSet, time::Duration};

use couple::{
    Backend, ErrorKind,
    core::limits::Unlimited,
    gallery::{Sweep, SweepReport},
    http::HttpOptions,
};

use crate::{
    media::{blob_names, forgetful},
    world::{World, png},
};

const WEEK: Duration = Duration::from_hours(24 * 7);

/// If most pictures of a round miss blobs, their rows stay, and the sweep continues to the end.
#[tokio::test]
async fn suspicious_round_does_not_stop_the_sweep() {
    let world = World::of(Backend::builder().limits(Unlimited), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (cleo, _) = world.couple("cleo@example.org", "dan@example.org").await;
    let lost = [world.photo(&ana, 300).await, world.photo(&ana, 301).await];
    let (whole, stuck) =
        (world.photo(&cleo, 302).await, world.upload(&cleo, "purpose=photo", png(303, 303)).await.text("id"));
    let gallery = world.backend.gallery();
    let mut away = Vec::new();
    for name in blob_names(&world).await.into_iter().filter(|name| lost.iter().any(|id| name.contains(id))) {
        away.push((name.clone(), gallery.blobs().read(&name, 1 << 20).await.unwrap().unwrap()));
        gallery.blobs().delete(&name).await.unwrap();
    }
    world.later(Duration::from_hours(72));
    // Two rounds: the first is full of lost pictures.
    let error = gallery.sweep(Sweep { cap: 2, ..Sweep::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        !blob_names(&world).await.contains("sweep"),
        "the sweep is complete: the next starts at the beginning"
    );
    let cleo = world.sign_in("cleo@example.org").await;
    assert_eq!(world.get(&format!("/v1/media/{stuck}"), &cleo).await.text("state"), "rejected");
    assert_eq!(world.get(&format!("/v1/media/{whole}"), &cleo).await.text("state"), "ready");
    for (name, bytes) in away {
        gallery.blobs().put(&name, bytes).await.unwrap();
    }
    assert_eq!(gallery.sweep(Sweep::default()).await.unwrap(), SweepReport::default(), "no row was changed");
}

/// The next sweep continues within a space, however many pictures it has.
#[tokio::test]
async fn sweep_continues_within_a_space() {
    let world = forgetful();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut ids = BTreeSet::new();
    for side in 300..303 {
        ids.insert(world.photo(&ana, side).await);
    }
    world.later(WEEK + Duration::from_hours(1));
    let gallery = world.backend.gallery();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let swept = gallery.sweep(Sweep { cap: 1, ..Sweep::default() }).await.unwrap();
        let [id] = swept.unposted[..] else { panic!("{swept:?}") };
        let cursor = gallery.blobs().read("sweep", 100).await.unwrap().unwrap();
        assert!(cursor.ends_with(id.to_string().as_bytes()), "the cursor is the last checked picture");
        seen.insert(id.to_string());
    }
    assert_eq!(seen, ids);
    assert_eq!(gallery.sweep(Sweep::default()).await.unwrap(), SweepReport::default());
    assert!(!blob_names(&world).await.contains("sweep"), "the sweep is complete");
}

/// A photo that no entry names stays, unless the host sets a limit: an app's own entries may name it.
#[tokio::test]
async fn photo_without_an_entry_stays_by_default() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 300).await;
    world.later(WEEK * 100);
    assert_eq!(world.backend.gallery().sweep(Sweep::default()).await.unwrap(), SweepReport::default());
    let ana = world.sign_in("ana@example.org").await;
    assert_eq!(world.get(&format!("/v1/media/{id}"), &ana).await.text("state"), "ready");
}
