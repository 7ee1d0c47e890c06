//! M5–M8: states and uses of pictures.

use std::sync::Arc;

use couple_core::{
    Conflict, Store,
    media::{Crop, ExpectedMedia, Format, Media, MediaChange, MediaState, Purpose, Space},
    pairing::PairingChange,
};

use super::{
    StoredSpace, add_rendition, finish, forget, insert, reject, stored, stored_media, uploaded_photo,
    used_bytes,
};
use crate::{
    change_races,
    world::{World, accepted, must, race, refused},
};

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
    must(&store, PairingChange::End { id: couple, members, at: world.now(), by: None }).await;
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
    change_races::no_picture_is_added_or_used_after_the_end(&Arc::new(store)).await;
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
