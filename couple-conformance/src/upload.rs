//! U1–U8: resumable uploads.

use std::{sync::Arc, time::Duration};

use couple_core::{
    AccountId, Conflict, MediaId, Store, Timestamp, UploadId,
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart},
};

use crate::{
    samples::{EARLY, LATE, long_text},
    world::{World, accepted, all, commit, conflict, conflicts, must, race, refused},
};

const QUOTA: i64 = 1 << 40;

fn insert(upload: &ResumableUpload) -> UploadChange {
    UploadChange::Insert { upload: upload.clone(), most: QUOTA }
}

fn claim(upload: &ResumableUpload, offset: i64, writer: i64, length: Option<i64>) -> UploadChange {
    UploadChange::Claim { owner: upload.owner, id: upload.id, offset, writer, length }
}

/// Part whose name has no blank.
fn part(name: &str, bytes: i64) -> UploadPart {
    UploadPart { blob: name.replace(' ', "_"), bytes }
}

/// Change that appends `bytes` bytes and replaces the parts by one.
fn append(upload: &ResumableUpload, writer: i64, offset: i64, bytes: i64, most: i64) -> UploadChange {
    let parts = vec![part(&format!("t/{offset}"), offset + bytes)];
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
    store.upload(id).await.unwrap().expect("an upload is not found by its id")
}

/// Expects that an upload reads back as expected; `what` is what was done before.
async fn require_stored(store: &impl Store, expected: &ResumableUpload, what: &str) {
    let found = store.upload(expected.id).await.unwrap();
    assert!(
        found.as_ref() == Some(expected),
        "an upload reads back otherwise {what}:\n{found:?}\n{expected:?}"
    );
}

async fn require_unfinished(store: &impl Store, owner: AccountId, count: i64, bytes: i64) {
    let found = store.unfinished_uploads(owner).await.unwrap();
    let expected = UnfinishedUploads { count, bytes };
    assert_eq!(found, expected, "the unfinished uploads of an account are others");
}

/// Every field of an upload reads back, with and without the optional ones; an id is used once.
///
/// `Upload-Metadata` has up to 2,048 bytes, `Upload-Concat` 8,000. Names of parts contain no blank.
pub async fn u1_upload_fields_read_back(store: impl Store) {
    const LARGE: i64 = 5_000_000_000;
    let world = World::default();
    let owner = world.account_id();
    let plain = world.upload(owner);
    let full = ResumableUpload {
        couple: Some(world.couple_id()),
        length: Some(LARGE * 2 + 99),
        offset: LARGE + 7,
        parts: vec![part(&long_text("t/B", 300), LARGE + 2), part("t/a-é👋", 0), part("t/A-:%_\\", 5)],
        writer: i64::MIN + 1,
        metadata: long_text("purpose cGhvdG8=, empty,, ", 2_048),
        concatenation: Some(long_text("final;/v1/uploads/A /v1/uploads/b ", 8_000)),
        expires_at: EARLY,
        ..world.upload(owner)
    };
    let finished = ResumableUpload {
        couple: Some(world.couple_id()),
        length: None,
        offset: LARGE + 11,
        writer: i64::MAX,
        metadata: String::new(),
        media: Some(world.photo(world.couple_id(), owner, "a").id),
        expires_at: LATE,
        ..world.upload(owner)
    };
    let parts = (0..200).rev().map(|n| part(&format!("t/{n}"), n + 1)).collect::<Vec<_>>();
    let many = ResumableUpload {
        length: None,
        offset: parts.iter().map(|part| part.bytes).sum(),
        parts,
        writer: -1,
        metadata: " A ".to_owned(),
        concatenation: Some("partial 👋 ".to_owned()),
        expires_at: world.now().plus(Duration::from_micros(1)),
        ..world.upload(owner)
    };
    let unknown = store.upload(world.upload(owner).id).await.unwrap();
    assert_eq!(unknown, None, "an upload is found by an id that none has");
    let uploads = [&plain, &full, &finished, &many];
    for upload in uploads {
        must(&store, insert(upload)).await;
        require_stored(&store, upload, "after it was added").await;
    }
    for upload in uploads {
        let theirs =
            ResumableUpload { owner: world.account_id(), metadata: "other".to_owned(), ..upload.clone() };
        for again in [upload, &theirs] {
            let what = "an upload with an existing id is added";
            refused(&store, insert(again), Conflict::UploadChanged(upload.id), what).await;
        }
        require_stored(&store, upload, "after its id was added again").await;
    }
    let mut expected: Vec<_> = uploads.into_iter().cloned().collect();
    expected.sort_by_key(|upload| upload.expires_at);
    let found = store.expired_uploads(LATE, 9).await.unwrap();
    assert!(found == expected, "a listed upload reads back otherwise: {found:?}");
    let bytes = full.offset + many.offset;
    require_unfinished(&store, owner, 3, bytes).await;
    require_unfinished(&store, world.account_id(), 0, 0).await;
    let all_bytes = store.unfinished_bytes().await.unwrap();
    assert_eq!(all_bytes, bytes, "the bytes of all unfinished uploads are others");
    // Every change of a field, from and to extreme values.
    let mut changed = full.clone();
    must(&store, claim(&full, full.offset, i64::MAX, None)).await;
    changed.writer = i64::MAX;
    require_stored(&store, &changed, "after a claim").await;
    changed.parts = vec![part("t/Z", LARGE), part(&long_text("t/Y", 300), LARGE + 9)];
    changed.offset = LARGE * 2 + 9;
    let appended = UploadChange::Append {
        owner,
        id: full.id,
        writer: i64::MAX,
        offset: full.offset,
        bytes: changed.offset - full.offset,
        parts: changed.parts.clone(),
        most: QUOTA,
    };
    must(&store, appended).await;
    require_stored(&store, &changed, "after an append").await;
    let media = world.photo(world.couple_id(), owner, "b").id;
    must(&store, finish(&full, media)).await;
    let expected = ResumableUpload { media: Some(media), parts: Vec::new(), ..changed };
    require_stored(&store, &expected, "after it was finished").await;
    must(&store, claim(&many, many.offset, 8, Some(LARGE + 3))).await;
    let expected = ResumableUpload { writer: 8, length: Some(LARGE + 3), ..many.clone() };
    require_stored(&store, &expected, "after its length was declared").await;
    require_unfinished(&store, owner, 2, many.offset).await;
}

/// Only the latest writer appends, once at each offset.
pub async fn u2_only_the_latest_writer_appends(store: impl Store) {
    // Tokens that differ in the lowest bit, and are equal as floating-point numbers.
    const TOKEN: i64 = (1 << 61) + 1;
    let (world, store) = (World::default(), Arc::new(store));
    let upload = world.upload(world.account_id());
    let changed = || Conflict::UploadChanged(upload.id);
    refused(&store, claim(&upload, 0, 1, None), changed(), "an upload that does not exist is claimed").await;
    must(&store, insert(&upload)).await;
    let unclaimed = append(&upload, 1, 0, 5, QUOTA);
    refused(&store, unclaimed, changed(), "bytes are appended without a claim").await;
    must(&store, claim(&upload, 0, TOKEN, None)).await;
    let commits = (1..=50).map(|n| vec![append(&upload, TOKEN, 0, n, QUOTA).into()]).collect();
    assert_eq!(race(&store, commits).await, 1, "appends at the same offset succeed more than once");
    let offset = stored_upload(&store, upload.id).await.offset;
    let appended =
        ResumableUpload { writer: TOKEN, offset, parts: vec![part("t/0", offset)], ..upload.clone() };
    require_stored(&store, &appended, "after an append").await;
    for (wrong, what) in [(0, "a claim"), (offset - 1, "a claim"), (offset + 1, "a claim")] {
        let what = format!("{what} at another offset than the stored one succeeds");
        refused(&store, claim(&upload, wrong, 2, None), changed(), &what).await;
        let what = "an append at another offset than the stored one succeeds";
        refused(&store, append(&upload, TOKEN, wrong, 5, QUOTA), changed(), what).await;
        let what = "a takeover at another offset than the stored one succeeds";
        refused(&store, take_over(&upload, wrong), changed(), what).await;
    }
    require_stored(&store, &appended, "after changes that conflicted").await;
    must(&store, claim(&upload, offset, TOKEN - 1, None)).await;
    for writer in [TOKEN, TOKEN + 1, 0, -TOKEN, i64::MAX] {
        let fenced = append(&upload, writer, offset, 5, QUOTA);
        refused(&store, fenced, changed(), "a writer that is not the latest one appends").await;
    }
    accepted(&*store, append(&upload, TOKEN - 1, offset, 5, QUOTA), "the latest writer cannot append").await;
    accepted(&*store, append(&upload, TOKEN - 1, offset + 5, 5, QUOTA), "a writer cannot append twice").await;
    let mut offset = offset + 10;
    let appended = ResumableUpload {
        writer: TOKEN - 1,
        offset,
        parts: vec![part(&format!("t/{}", offset - 5), offset)],
        ..upload.clone()
    };
    require_stored(&store, &appended, "after two appends").await;
    let commits = (3..53).map(|n| vec![claim(&upload, offset, n, None).into()]).collect();
    assert_eq!(race(&store, commits).await, 50, "a claim conflicts with another one at the same offset");
    let writer = stored_upload(&store, upload.id).await.writer;
    must(&store, append(&upload, writer, offset, 1, QUOTA)).await;
    offset += 1;
    for writer in [7, i64::MIN, -1, i64::MAX] {
        must(&store, claim(&upload, offset, writer, None)).await;
        let found = stored_upload(&store, upload.id).await.writer;
        assert_eq!(found, writer, "the stored writer is not the latest one");
        accepted(&*store, append(&upload, writer, offset, 1, QUOTA), "the latest writer cannot append").await;
        offset += 1;
    }
    let before = stored_upload(&store, upload.id).await;
    let other = ResumableUpload { owner: world.account_id(), ..upload.clone() };
    let media = world.photo(world.couple_id(), other.owner, "a").id;
    for (what, change) in [
        ("claims", claim(&other, offset, i64::MAX, None)),
        ("appends to", append(&other, i64::MAX, offset, 1, QUOTA)),
        ("takes over", take_over(&other, offset)),
        ("finishes", finish(&other, media)),
    ] {
        refused(&store, change, changed(), &format!("another account {what} an upload")).await;
    }
    accepted(&*store, remove(&other), "removing an upload that does not exist conflicts").await;
    assert_eq!(store.upload(upload.id).await.unwrap(), Some(before), "another account removes an upload");
}

/// Each append counts the bytes of all unfinished uploads of the account.
pub async fn u3_unfinished_bytes_never_exceed_the_limit(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (owner, other) = (world.account_id(), world.account_id());
    let uploads: Vec<_> = (0..50).map(|_| world.upload(owner)).collect();
    // A finished upload does not count.
    let media = Some(world.photo(world.couple_id(), owner, "a").id);
    must(&store, insert(&ResumableUpload { offset: 40, media, ..world.upload(owner) })).await;
    for upload in &uploads {
        all(&store, vec![insert(upload).into(), claim(upload, 0, 1, None).into()]).await;
    }
    let commits = uploads.iter().map(|upload| vec![append(upload, 1, 0, 10, 105).into()]).collect();
    assert_eq!(
        race(&store, commits).await,
        10,
        "appends exceed the limit together, or fewer succeed than fit"
    );
    require_unfinished(&*store, owner, 50, 100).await;
    let mut empty = None;
    for upload in &uploads {
        if stored_upload(&*store, upload.id).await.offset == 0 {
            empty = Some(upload);
        }
    }
    let empty = empty.expect("40 uploads have no bytes");
    let beyond = append(empty, 1, 0, 6, 105);
    refused(&store, beyond, Conflict::QuotaExceeded, "an append exceeds the limit of the account").await;
    accepted(&*store, append(empty, 1, 0, 5, 105), "an append that fits exactly is refused").await;
    let theirs = world.upload(other);
    all(&store, vec![insert(&theirs).into(), claim(&theirs, 0, 1, None).into()]).await;
    accepted(&*store, append(&theirs, 1, 0, 105, 105), "the uploads of another account count").await;
    let sum = store.unfinished_bytes().await.unwrap();
    assert_eq!(sum, 210, "the bytes of all unfinished uploads are not their sum");
    must(&store, remove(empty)).await;
    require_unfinished(&*store, owner, 49, 100).await;
    let next = uploads.iter().find(|upload| upload.id != empty.id).expect("there are others");
    let offset = stored_upload(&store, next.id).await.offset;
    let again = append(next, 1, offset, 5, 105);
    accepted(&*store, again, "the bytes of a removed upload still count").await;
    // A wrong offset or writer is reported before the limit.
    let stale = conflict(&store, append(next, 1, offset, 999, 105)).await;
    assert_eq!(stale, Conflict::UploadChanged(next.id), "a stale append is refused for the limit");
    // Sizes above 2^32.
    let large = ResumableUpload { offset: 5_000_000_000, ..world.upload(world.account_id()) };
    all(&store, vec![insert(&large).into(), claim(&large, large.offset, 1, None).into()]).await;
    let most = 12_000_000_000;
    must(&store, append(&large, 1, large.offset, 6_000_000_000, most)).await;
    let beyond = append(&large, 1, 11_000_000_000, 1_000_000_001, most);
    refused(&store, beyond, Conflict::QuotaExceeded, "an append exceeds a limit above 2^32 bytes").await;
    require_unfinished(&*store, large.owner, 1, 11_000_000_000).await;
}

/// An upload is finished once, and then does not count as unfinished.
pub async fn u4_upload_is_finished_once(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let upload = ResumableUpload { couple: Some(world.couple_id()), ..world.upload(world.account_id()) };
    let other = world.upload(upload.owner);
    for upload in [&upload, &other] {
        all(&store, vec![insert(upload).into(), claim(upload, 0, 1, None).into()]).await;
        must(&store, append(upload, 1, 0, 30, QUOTA)).await;
    }
    let media: Vec<_> = (0..50).map(|_| world.photo(world.couple_id(), upload.owner, "a").id).collect();
    let commits = media.iter().map(|media| vec![finish(&upload, *media).into()]).collect();
    assert_eq!(race(&store, commits).await, 1, "an upload is finished more than once");
    let found = store.upload(upload.id).await.unwrap();
    let picture = found.expect("a finished upload is not found by its id").media;
    assert!(
        picture.is_some_and(|id| media.contains(&id)),
        "a finished upload has no picture, or another one"
    );
    let finished = ResumableUpload { media: picture, offset: 30, writer: 1, ..upload.clone() };
    require_stored(&store, &finished, "after it was finished").await;
    let changed = || Conflict::UploadChanged(upload.id);
    for (what, change) in [
        ("claimed", claim(&upload, 30, 2, None)),
        ("appended to", append(&upload, 1, 30, 1, QUOTA)),
        ("taken over", take_over(&upload, 30)),
        ("finished again", finish(&upload, media[0])),
        ("finished again", finish(&upload, media[49])),
    ] {
        refused(&store, change, changed(), &format!("a finished upload is {what}")).await;
    }
    require_stored(&store, &finished, "after changes that conflicted").await;
    require_unfinished(&*store, upload.owner, 1, 30).await;
    let bytes = store.unfinished_bytes().await.unwrap();
    assert_eq!(bytes, 30, "the bytes of a finished upload count as unfinished");
    let missing = world.upload(upload.owner);
    let change = finish(&missing, media[0]);
    refused(&store, change, Conflict::UploadChanged(missing.id), "a missing upload is finished").await;
}

/// A length is declared once; declaring the same length again is no conflict.
pub async fn u5_declared_length_does_not_change(store: impl Store) {
    const LENGTH: i64 = 5_000_000_009;
    let world = World::default();
    let upload = ResumableUpload { length: None, ..world.upload(world.account_id()) };
    must(&store, insert(&upload)).await;
    let stored = async |length, writer, what: &str| {
        let expected = ResumableUpload { length, writer, ..upload.clone() };
        require_stored(&store, &expected, what).await;
    };
    must(&store, claim(&upload, 0, 1, None)).await;
    stored(None, 1, "after a claim without a length").await;
    must(&store, claim(&upload, 0, 2, Some(LENGTH))).await;
    stored(Some(LENGTH), 2, "after its length was declared").await;
    for other in [LENGTH + 1, LENGTH - 1, 0, LENGTH & 0xffff_ffff] {
        let what = "a declared length is replaced by another one, or another one is ignored";
        refused(&store, claim(&upload, 0, 3, Some(other)), Conflict::UploadChanged(upload.id), what).await;
    }
    stored(Some(LENGTH), 2, "after another length was declared").await;
    accepted(&store, claim(&upload, 0, 4, Some(LENGTH)), "a declared length cannot be repeated").await;
    stored(Some(LENGTH), 4, "after its length was repeated").await;
    must(&store, claim(&upload, 0, 5, None)).await;
    stored(Some(LENGTH), 5, "after a claim without a length").await;
    // A length of 0 is a length.
    let empty = ResumableUpload { length: Some(0), ..world.upload(upload.owner) };
    must(&store, insert(&empty)).await;
    let what = "a declared length is replaced by another one, or another one is ignored";
    refused(&store, claim(&empty, 0, 3, Some(1)), Conflict::UploadChanged(empty.id), what).await;
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
    let before = [stored_upload(&store, first.id).await, stored_upload(&store, second.id).await];
    let parts = before.iter().flat_map(|upload| upload.parts.clone()).collect();
    let joined = ResumableUpload { offset: 8, parts, ..world.upload(owner) };
    let join =
        |offset| vec![take_over(&first, 4).into(), take_over(&second, offset).into(), insert(&joined).into()];
    let found = conflicts(&store, join(3)).await;
    assert_eq!(found, Conflict::UploadChanged(second.id), "a takeover at another offset");
    // A commit that conflicts with its last change changes nothing.
    let mut late = join(4);
    late.push(take_over(&first, 4).into());
    let twice = commit(&store, late).await;
    assert!(twice.is_err(), "an upload is taken over twice");
    for upload in &before {
        require_stored(&store, upload, "after a takeover that conflicted").await;
    }
    let found = store.upload(joined.id).await.unwrap();
    assert_eq!(found, None, "a takeover that conflicted adds the joined upload");
    require_unfinished(&store, owner, 2, 8).await;
    all(&store, join(4)).await;
    for upload in [&first, &second] {
        let left = store.upload(upload.id).await.unwrap();
        assert_eq!(left, None, "an upload that was taken over is still there");
    }
    require_stored(&store, &joined, "after it took over others").await;
    require_unfinished(&store, owner, 1, 8).await;
    let found = conflicts(&store, join(4)).await;
    assert_eq!(found, Conflict::UploadChanged(first.id), "an upload is taken over twice");
}

/// Expired uploads are listed by expiry, then by id, page by page, finished or not.
pub async fn u7_expired_uploads_are_listed_by_expiry(store: impl Store) {
    let world = World::default();
    let owner = world.account_id();
    let mut uploads: Vec<_> = (0..6).map(|_| world.upload(owner)).collect();
    uploads.sort_by_key(|upload| upload.id);
    for (upload, seconds) in uploads.iter_mut().zip([30, 10, 20, 40, 20, 20]) {
        upload.expires_at = world.later(seconds);
    }
    for n in [5, 4, 0, 1, 2, 3] {
        must(&store, insert(&uploads[n])).await;
    }
    must(&store, finish(&uploads[1], world.photo(world.couple_id(), owner, "a").id)).await;
    let expired = async |now: Timestamp, limit, expected: &[usize]| {
        let found = store.expired_uploads(now, limit).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|upload| upload.id).collect();
        let expected: Vec<_> = expected.iter().map(|n| uploads[*n].id).collect();
        assert_eq!(found, expected, "expired uploads are others, or not in the order of their expiry");
    };
    let just_before = |seconds| world.later(seconds).minus(Duration::from_micros(1));
    expired(just_before(10), 9, &[]).await;
    expired(world.later(10), 9, &[1]).await;
    expired(world.later(30), 9, &[1, 2, 4, 5, 0]).await;
    expired(world.later(30), 3, &[1, 2, 4]).await;
    expired(just_before(30), 9, &[1, 2, 4, 5]).await;
    let removals = || [1, 2, 4, 5].map(|n| remove(&uploads[n]).into()).to_vec();
    all(&store, removals()).await;
    for n in [1, 2, 4, 5] {
        let left = store.upload(uploads[n].id).await.unwrap();
        assert_eq!(left, None, "a removed upload is still there");
    }
    for n in [1, 2] {
        accepted(&store, remove(&uploads[n]), "removing an upload twice conflicts").await;
    }
    expired(world.later(99), 9, &[0, 3]).await;
    // All uploads of one account expire, finished or not, and none later than before.
    let other = ResumableUpload { expires_at: world.later(40), ..world.upload(world.account_id()) };
    let much_later = ResumableUpload { expires_at: LATE.plus(Duration::from_secs(9)), ..world.upload(owner) };
    for upload in [&other, &much_later] {
        must(&store, insert(upload)).await;
    }
    must(&store, finish(&uploads[3], world.photo(world.couple_id(), owner, "b").id)).await;
    let before = [uploads[0].clone(), stored_upload(&store, uploads[3].id).await, much_later.clone()];
    let sooner = EARLY.plus(Duration::from_micros(1));
    for (at, expiry) in [
        (LATE, [world.later(30), world.later(40), LATE]),
        (world.later(35), [world.later(30), world.later(35), world.later(35)]),
        (sooner, [sooner; 3]),
        (world.later(20), [sooner; 3]),
        (EARLY, [EARLY; 3]),
    ] {
        must(&store, UploadChange::ExpireOf { owner, at }).await;
        for (upload, expires_at) in before.iter().zip(expiry) {
            let expected = ResumableUpload { expires_at, ..upload.clone() };
            require_stored(&store, &expected, "after the uploads of its account were made to expire").await;
        }
        require_stored(&store, &other, "after the uploads of another account were made to expire").await;
    }
}

/// Concurrent inserts never exceed the number of unfinished uploads together.
pub async fn u8_number_of_unfinished_uploads_is_limited(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (owner, other) = (world.account_id(), world.account_id());
    let insert = |upload: &ResumableUpload| UploadChange::Insert { upload: upload.clone(), most: 5 };
    let uploads: Vec<_> = (0..50).map(|_| world.upload(owner)).collect();
    let commits = uploads.iter().map(|upload| vec![insert(upload).into()]).collect();
    assert_eq!(
        race(&store, commits).await,
        5,
        "inserts exceed the number of uploads, or fewer succeed than fit"
    );
    require_unfinished(&*store, owner, 5, 0).await;
    let what = "an account has more unfinished uploads than the limit";
    refused(&store, insert(&world.upload(owner)), Conflict::QuotaExceeded, what).await;
    accepted(&*store, insert(&world.upload(other)), "the uploads of another account count").await;
    // A finished upload does not count, neither when it is inserted nor afterwards.
    let media = world.photo(world.couple_id(), owner, "a").id;
    let finished = ResumableUpload { media: Some(media), ..world.upload(owner) };
    accepted(&*store, insert(&finished), "a finished upload is refused for the limit").await;
    let mut stored = None;
    for upload in &uploads {
        if store.upload(upload.id).await.unwrap().is_some() {
            stored = Some(upload);
        }
    }
    let stored = stored.expect("five uploads are stored");
    // The limit is reported before an existing id.
    let found = conflict(&store, insert(stored)).await;
    assert_eq!(found, Conflict::QuotaExceeded, "an existing upload is reported before the limit");
    must(&store, finish(stored, media)).await;
    let next = insert(&world.upload(owner));
    accepted(&*store, next, "a finished upload counts towards the limit").await;
    refused(&store, insert(&world.upload(owner)), Conflict::QuotaExceeded, what).await;
    require_unfinished(&*store, owner, 5, 0).await;
}
