//! M1–M15: pictures, their sources and their renditions.

mod identity;
mod quota;
mod rendition;
mod space;
mod state;

use couple_core::{
    AccountId, CoupleId, MediaId, Store,
    media::{Media, MediaChange, Rendition, Source, Space, SpaceUsage},
};

use crate::world::{World, must};

pub use self::{
    identity::{m1_identical_bytes_are_one_picture, m2_picture_and_rendition_fields_read_back},
    quota::{m3_uploads_never_exceed_the_quota, m4_usage_is_the_sum_of_stored_bytes},
    rendition::{
        m9_rendition_is_added_once, m10_longest_unused_renditions_are_listed_first,
        m11_forgetting_removes_only_the_named_blobs,
    },
    space::{
        m12_avatar_is_a_picture_of_its_account, m13_deletion_removes_picture_and_renditions,
        m14_closed_space_accepts_no_picture, m15_spaces_and_pictures_are_listed_by_id,
    },
    state::{
        m5_picture_becomes_ready_or_rejected_once, m6_ended_couple_accepts_no_picture,
        m7_entry_uses_only_a_photo_of_its_author, m8_change_with_a_stale_use_count_conflicts,
    },
};

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
