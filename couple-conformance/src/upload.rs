//! U1–U8: resumable uploads.

use std::sync::Arc;

use couple_core::{
    AccountId, Conflict, MediaId, Store, UploadId,
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart},
};

use crate::world::{World, all, conflict, conflicts, must, race};

const QUOTA: i64 = 1 << 40;

fn insert(upload: &ResumableUpload) -> UploadChange {
    UploadChange::Insert { upload: upload.clone(), most: QUOTA }
}

fn claim(upload: &ResumableUpload, offset: i64, writer: i64, length: Option<i64>) -> UploadChange {
    UploadChange::Claim { owner: upload.owner, id: upload.id, offset, writer, length }
}

/// Change that appends `bytes` bytes and replaces the parts by one.
fn append(upload: &ResumableUpload, writer: i64, offset: i64, bytes: i64, most: i64) -> UploadChange {
    let parts = vec![UploadPart { blob: format!("t/{offset}"), bytes: offset + bytes }];
    UploadChange::Append { owner: upload.owner, id: upload.id, writer, offset, bytes, parts, most }
}

fn take_over(upload: &ResumableUpload, offset: i64) -> UploadChange {
    UploadChange::TakeOver { owner: upload.owner, id: upload.id, offset }
}

fn finish(upload: &ResumableUpload, media: MediaId) -> UploadChange {
    UploadChange::Finish { owner: upload.owner, id: upload.id, media }
}

fn remove(upload: &ResumableUpload) -> UploadChange {
    UploadChange::Remove { owner: upload.owner, id: upload.id }
}

async fn stored_upload(store: &impl Store, id: UploadId) -> ResumableUpload {
    store.upload(id).await.unwrap().expect("the upload exists")
}

async fn unfinished_bytes(store: &impl Store, owner: AccountId) -> i64 {
    store.unfinished_uploads(owner).await.unwrap().bytes
}

/// Every field of an upload reads back, with and without the optional ones; an id is used once.
pub async fn u1_upload_fields_read_back(store: impl Store) {
    let world = World::default();
    let owner = world.account_id();
    let plain = world.upload(owner);
    let full = ResumableUpload {
        couple: Some(world.couple_id()),
        length: None,
        offset: 7,
        parts: vec![
            UploadPart { blob: "t/a-é".to_owned(), bytes: 4 },
            UploadPart { blob: "t/b".to_owned(), bytes: 3 },
        ],
        writer: i64::MIN,
        metadata: "purpose cGhvdG8=, empty,, ".to_owned(),
        concatenation: Some("final;/v1/uploads/a /v1/uploads/b".to_owned()),
        ..world.upload(owner)
    };
    for upload in [&plain, &full] {
        must(&store, insert(upload)).await;
        assert_eq!(&stored_upload(&store, upload.id).await, upload);
        assert_eq!(conflict(&store, insert(upload)).await, Conflict::UploadChanged(upload.id));
    }
    assert_eq!(store.upload(world.upload(owner).id).await.unwrap(), None);
    let unfinished = store.unfinished_uploads(owner).await.unwrap();
    assert_eq!(unfinished, UnfinishedUploads { count: 2, bytes: 7 });
    assert_eq!(store.unfinished_bytes().await.unwrap(), 7);
    assert_eq!(store.unfinished_uploads(world.account_id()).await.unwrap(), UnfinishedUploads::default());
}

/// Only the latest writer appends, once at each offset.
pub async fn u2_only_the_latest_writer_appends(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let upload = world.upload(world.account_id());
    let changed = Conflict::UploadChanged(upload.id);
    assert_eq!(conflict(&store, claim(&upload, 0, 1, None)).await, changed, "it does not exist");
    must(&store, insert(&upload)).await;
    must(&store, claim(&upload, 0, 1, None)).await;
    let commits = (1..=50).map(|n| vec![append(&upload, 1, 0, n, QUOTA).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let offset = stored_upload(&store, upload.id).await.offset;
    let parts = vec![UploadPart { blob: "t/0".to_owned(), bytes: offset }];
    assert_eq!(stored_upload(&store, upload.id).await.parts, parts);

    assert_eq!(conflict(&store, claim(&upload, 0, 2, None)).await, changed, "it has more bytes");
    must(&store, claim(&upload, offset, 2, None)).await;
    assert_eq!(
        conflict(&store, append(&upload, 1, offset, 5, QUOTA)).await,
        changed,
        "the first is fenced off"
    );
    must(&store, append(&upload, 2, offset, 5, QUOTA)).await;
    assert_eq!(stored_upload(&store, upload.id).await.offset, offset + 5);
    let commits = (3..53).map(|n| vec![claim(&upload, offset + 5, n, None).into()]).collect();
    assert_eq!(race(&store, commits).await, 50, "each claim succeeds; the last one counts");
    let writer = stored_upload(&store, upload.id).await.writer;
    must(&store, append(&upload, writer, offset + 5, 1, QUOTA)).await;

    let other = ResumableUpload { owner: world.account_id(), ..upload.clone() };
    assert_eq!(conflict(&store, claim(&other, offset + 6, 9, None)).await, changed, "another account's");
    must(&store, remove(&other)).await;
    assert_eq!(stored_upload(&store, upload.id).await.offset, offset + 6, "another account removes nothing");
}

/// Each append counts the bytes of all unfinished uploads of the account.
pub async fn u3_unfinished_bytes_never_exceed_the_limit(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (owner, other) = (world.account_id(), world.account_id());
    let uploads: Vec<_> = (0..50).map(|_| world.upload(owner)).collect();
    for upload in &uploads {
        all(&store, vec![insert(upload).into(), claim(upload, 0, 1, None).into()]).await;
    }
    let commits = uploads.iter().map(|upload| vec![append(upload, 1, 0, 10, 105).into()]).collect();
    assert_eq!(race(&store, commits).await, 10);
    assert_eq!(unfinished_bytes(&*store, owner).await, 100);
    let mut empty = None;
    for upload in &uploads {
        if stored_upload(&*store, upload.id).await.offset == 0 {
            empty = Some(upload);
        }
    }
    let empty = empty.expect("40 uploads have no bytes");
    assert_eq!(conflict(&store, append(empty, 1, 0, 6, 105)).await, Conflict::QuotaExceeded);
    must(&store, append(empty, 1, 0, 5, 105)).await;
    let theirs = world.upload(other);
    all(&store, vec![insert(&theirs).into(), claim(&theirs, 0, 1, None).into()]).await;
    must(&store, append(&theirs, 1, 0, 105, 105)).await;
    assert_eq!(store.unfinished_bytes().await.unwrap(), 210);
    must(&store, remove(empty)).await;
    assert_eq!(unfinished_bytes(&*store, owner).await, 100);
}

/// An upload is finished once, and then does not count as unfinished.
pub async fn u4_upload_is_finished_once(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let upload = world.upload(world.account_id());
    all(&store, vec![insert(&upload).into(), claim(&upload, 0, 1, None).into()]).await;
    must(&store, append(&upload, 1, 0, 30, QUOTA)).await;
    let media: Vec<_> = (0..50).map(|_| world.photo(world.couple_id(), upload.owner, "a").id).collect();
    let commits = media.iter().map(|media| vec![finish(&upload, *media).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let finished = stored_upload(&*store, upload.id).await;
    assert!(finished.media.is_some_and(|id| media.contains(&id)) && finished.parts.is_empty());
    assert_eq!(finished.offset, 30, "the offset does not change");
    let changed = Conflict::UploadChanged(upload.id);
    for change in [claim(&upload, 30, 2, None), append(&upload, 1, 30, 1, QUOTA), take_over(&upload, 30)] {
        assert_eq!(conflict(&store, change).await, changed);
    }
    assert_eq!(store.unfinished_uploads(upload.owner).await.unwrap(), UnfinishedUploads::default());
    assert_eq!(store.unfinished_bytes().await.unwrap(), 0);
}

/// A length is declared once; declaring the same length again is no conflict.
pub async fn u5_declared_length_does_not_change(store: impl Store) {
    let world = World::default();
    let upload = ResumableUpload { length: None, ..world.upload(world.account_id()) };
    let changed = Conflict::UploadChanged(upload.id);
    must(&store, insert(&upload)).await;
    must(&store, claim(&upload, 0, 1, None)).await;
    assert_eq!(stored_upload(&store, upload.id).await.length, None);
    must(&store, claim(&upload, 0, 2, Some(9))).await;
    assert_eq!(stored_upload(&store, upload.id).await.length, Some(9));
    assert_eq!(conflict(&store, claim(&upload, 0, 3, Some(10))).await, changed);
    must(&store, claim(&upload, 0, 4, Some(9))).await;
    must(&store, claim(&upload, 0, 5, None)).await;
    let now = stored_upload(&store, upload.id).await;
    assert_eq!((now.length, now.writer), (Some(9), 5));
}

/// Parts move from some uploads to another in one commit.
pub async fn u6_takeover_of_parts_is_atomic(store: impl Store) {
    let world = World::default();
    let owner = world.account_id();
    let (first, second) = (world.upload(owner), world.upload(owner));
    for upload in [&first, &second] {
        all(&store, vec![insert(upload).into(), claim(upload, 0, 1, None).into()]).await;
        must(&store, append(upload, 1, 0, 4, QUOTA)).await;
    }
    let joined = ResumableUpload { offset: 8, ..world.upload(owner) };
    let join =
        |offset| vec![take_over(&first, 4).into(), take_over(&second, offset).into(), insert(&joined).into()];
    assert_eq!(conflicts(&store, join(3)).await, Conflict::UploadChanged(second.id));
    assert_eq!(stored_upload(&store, first.id).await.offset, 4, "a commit that conflicts changes nothing");
    all(&store, join(4)).await;
    assert_eq!(store.upload(first.id).await.unwrap(), None);
    assert_eq!(store.unfinished_uploads(owner).await.unwrap(), UnfinishedUploads { count: 1, bytes: 8 });
    assert_eq!(conflicts(&store, join(4)).await, Conflict::UploadChanged(first.id), "once");
}

/// Expired uploads are listed by expiry, page by page, finished or not.
pub async fn u7_expired_uploads_are_listed_by_expiry(store: impl Store) {
    let world = World::default();
    let owner = world.account_id();
    let uploads: Vec<_> = [30, 10, 20, 40]
        .into_iter()
        .map(|seconds| ResumableUpload { expires_at: world.later(seconds), ..world.upload(owner) })
        .collect();
    for upload in &uploads {
        must(&store, insert(upload)).await;
    }
    must(&store, finish(&uploads[1], world.photo(world.couple_id(), owner, "a").id)).await;
    let expired = async |seconds, limit| {
        let expired = store.expired_uploads(world.later(seconds), limit).await.unwrap();
        expired.into_iter().map(|upload| upload.id).collect::<Vec<_>>()
    };
    assert!(expired(9, 9).await.is_empty());
    assert_eq!(expired(30, 9).await, [uploads[1].id, uploads[2].id, uploads[0].id]);
    assert_eq!(expired(30, 2).await, [uploads[1].id, uploads[2].id]);
    all(&store, vec![remove(&uploads[1]).into(), remove(&uploads[2]).into()]).await;
    all(&store, vec![remove(&uploads[1]).into(), remove(&uploads[2]).into()]).await;
    assert_eq!(expired(99, 9).await, [uploads[0].id, uploads[3].id]);
    // All uploads of one account expire, finished or not, and none later than before.
    let other = ResumableUpload { expires_at: world.later(40), ..world.upload(world.account_id()) };
    must(&store, insert(&other)).await;
    must(&store, finish(&uploads[3], world.photo(world.couple_id(), owner, "b").id)).await;
    for (at, expiry) in [(35, [30, 35]), (20, [20, 20])] {
        must(&store, UploadChange::ExpireOf { owner, at: world.later(at) }).await;
        for (upload, seconds) in [&uploads[0], &uploads[3]].into_iter().zip(expiry) {
            assert_eq!(stored_upload(&store, upload.id).await.expires_at, world.later(seconds));
        }
    }
    assert_eq!(stored_upload(&store, other.id).await, other);
}

/// Concurrent inserts never exceed the number of unfinished uploads together.
pub async fn u8_number_of_unfinished_uploads_is_limited(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (owner, other) = (world.account_id(), world.account_id());
    let insert = |upload: &ResumableUpload| UploadChange::Insert { upload: upload.clone(), most: 5 };
    let uploads: Vec<_> = (0..50).map(|_| world.upload(owner)).collect();
    let commits = uploads.iter().map(|upload| vec![insert(upload).into()]).collect();
    assert_eq!(race(&store, commits).await, 5);
    assert_eq!(store.unfinished_uploads(owner).await.unwrap().count, 5);
    assert_eq!(conflict(&store, insert(&world.upload(owner))).await, Conflict::QuotaExceeded);
    must(&store, insert(&world.upload(other))).await;
    // A finished upload does not count, neither when it is inserted nor afterwards.
    let media = world.photo(world.couple_id(), owner, "a").id;
    must(&store, insert(&ResumableUpload { media: Some(media), ..world.upload(owner) })).await;
    let mut stored = None;
    for upload in &uploads {
        if store.upload(upload.id).await.unwrap().is_some() {
            stored = Some(upload);
        }
    }
    must(&store, finish(stored.expect("five uploads are stored"), media)).await;
    must(&store, insert(&world.upload(owner))).await;
    assert_eq!(conflict(&store, insert(&world.upload(owner))).await, Conflict::QuotaExceeded);
}
