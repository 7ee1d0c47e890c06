//! O1–O11: blobs.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use couple_core::Timestamp;
use couple_media::blobs::{Blobs, Listed};
use futures_util::TryStreamExt as _;

/// Longer than two of the largest parts in which a blob is written, and no multiple of a part.
const LONG: usize = 11_000_000;
const READ_LIMIT: u64 = 20 << 20;

/// Pseudo-random bytes without repetition.
fn random_bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn read(blobs: &Blobs, name: &str) -> Option<Bytes> {
    blobs.read(name, READ_LIMIT).await.unwrap()
}

async fn read_range(blobs: &Blobs, name: &str, range: Range<u64>) -> (u64, Range<u64>, Bytes) {
    let blob = blobs.get(name, Some(range)).await.unwrap().unwrap();
    let pieces: Vec<Bytes> = blob.bytes.try_collect().await.unwrap();
    (blob.size, blob.range, pieces.concat().into())
}

async fn listed_blobs(blobs: &Blobs, folder: &str) -> Vec<Listed> {
    let mut listed: Vec<Listed> = blobs.list(folder).try_collect().await.unwrap();
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    listed
}

async fn blob_names(blobs: &Blobs, folder: &str) -> Vec<String> {
    listed_blobs(blobs, folder).await.into_iter().map(|listed| listed.name).collect()
}

/// Writes a blob in pieces that do not align with parts.
async fn write_in_pieces(blobs: &Blobs, name: &str, bytes: &Bytes) {
    let mut writer = blobs.write(name).unwrap();
    let mut at = 0;
    for length in [1, 70_000, 3, 2_000_000].into_iter().cycle() {
        let end = bytes.len().min(at + length);
        writer.write(bytes.slice(at..end)).await.unwrap();
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    writer.finish().await.unwrap();
}

/// Blobs of any length read back byte for byte, written at once or in pieces.
pub async fn o1_blob_reads_back_byte_for_byte(blobs: Blobs) {
    for length in [0, 1, 131_072, 5 << 20, LONG] {
        let (whole, pieces) = (random_bytes(1, length), random_bytes(2, length));
        blobs.put("a/whole", whole.clone()).await.unwrap();
        write_in_pieces(&blobs, "a/pieces", &pieces).await;
        let other = "has other bytes than were written";
        assert!(
            read(&blobs, "a/whole").await.unwrap() == whole,
            "a blob of {length} bytes, written at once, {other}"
        );
        assert!(
            read(&blobs, "a/pieces").await.unwrap() == pieces,
            "a blob of {length} bytes, written in pieces, {other}"
        );
        assert_eq!(
            blobs.size("a/pieces").await.unwrap(),
            Some(length as u64),
            "a blob has another size than was written"
        );
    }
    let shorter = random_bytes(3, 10);
    write_in_pieces(&blobs, "a/pieces", &shorter).await;
    assert_eq!(read(&blobs, "a/pieces").await.unwrap(), shorter, "a second write replaces the whole blob");
    assert!(blobs.read("a/whole", 10).await.is_err(), "a blob above the limit is an error");
    // Nothing of the longer blob is left after the end of the shorter one.
    for length in [100_000, 10, 0] {
        let shorter = random_bytes(4, length);
        blobs.put("a/whole", shorter.clone()).await.unwrap();
        let found = read(&blobs, "a/whole").await.unwrap();
        let what = "a shorter write leaves a tail of the longer blob before it";
        assert!(found == shorter, "{what}: {} bytes instead of {length}", found.len());
        assert_eq!(blobs.size("a/whole").await.unwrap(), Some(length as u64), "{what}");
        let listed = listed_blobs(&blobs, "a").await;
        let size = listed.iter().find(|listed| listed.name == "a/whole").map(|listed| listed.size);
        assert_eq!(size, Some(length as u64), "{what}: in a list");
        let (_, _, beyond) = read_range(&blobs, "a/whole", length as u64..length as u64 + 10).await;
        assert!(beyond.is_empty(), "{what}: in a range");
    }
}

/// A blob does not exist before its writer has finished, and never if the writer is dropped.
pub async fn o2_blob_exists_completely_or_not_at_all(blobs: Blobs) {
    let long = random_bytes(4, LONG);
    let mut writer = blobs.write("a/b").unwrap();
    writer.write(long.clone()).await.unwrap();
    let early = "a blob is visible before its writer has finished";
    assert_eq!(blobs.size("a/b").await.unwrap(), None, "{early}");
    assert!(blob_names(&blobs, "").await.is_empty(), "{early}: in a list");
    drop(writer);
    let dropped = "a writer that was dropped leaves a blob";
    assert_eq!(read(&blobs, "a/b").await, None, "{dropped}");
    assert!(blob_names(&blobs, "").await.is_empty(), "{dropped}: in a list");

    blobs.put("a/b", random_bytes(5, 10)).await.unwrap();
    let mut writer = blobs.write("a/b").unwrap();
    writer.write(long.clone()).await.unwrap();
    assert_eq!(
        read(&blobs, "a/b").await.unwrap(),
        random_bytes(5, 10),
        "an unfinished write does not change the blob"
    );
    writer.finish().await.unwrap();
    assert!(read(&blobs, "a/b").await.unwrap() == long, "a finished write has no effect");
}

/// Ranges read the requested part; a range beyond the end reads up to the end.
pub async fn o3_range_reads_only_the_requested_part(blobs: Blobs) {
    let whole = random_bytes(6, 300_000);
    blobs.put("a/b", whole.clone()).await.unwrap();
    for part in [0..1, 7..200_007, 299_999..300_000] {
        let at = usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
        let read = read_range(&blobs, "a/b", part.clone()).await;
        assert!(
            read == (300_000, part.clone(), whole.slice(at)),
            "the range {part:?} has other bytes, or another size"
        );
    }
    let read = read_range(&blobs, "a/b", 299_000..400_000).await;
    let end = (300_000, 299_000..300_000, whole.slice(299_000..));
    assert!(read == end, "a range beyond the end does not end at the end of the blob");
    for beyond in [300_000..300_001, 400_000..u64::MAX] {
        let (size, _, bytes) = read_range(&blobs, "a/b", beyond).await;
        assert_eq!((size, bytes.len()), (300_000, 0), "a range that begins beyond the end has bytes");
    }
    let missing = blobs.get("a/c", Some(0..1)).await.unwrap();
    assert!(missing.is_none(), "a range of a missing blob is not reported as missing");
}

/// Missing blobs are reported as missing, not as an error.
pub async fn o4_missing_blob_is_reported_as_missing(blobs: Blobs) {
    blobs.put("a/b", random_bytes(7, 10)).await.unwrap();
    for name in ["a", "a/c", "c/b"] {
        assert_eq!(read(&blobs, name).await, None, "the missing blob {name} is read");
        assert_eq!(blobs.size(name).await.unwrap(), None, "the missing blob {name} has a size");
    }
    for name in ["a/c", "c/b", "a/b", "a/b"] {
        let deleted = blobs.delete(name).await;
        assert!(deleted.is_ok(), "deleting the missing blob {name} is an error: {deleted:?}");
    }
    assert_eq!(read(&blobs, "a/b").await, None, "a deleted blob is read");
    let deleted = blobs.delete_folder("a").await.unwrap();
    assert_eq!(deleted, 0, "deleting an empty folder reports {deleted} blobs");
    assert!(blob_names(&blobs, "a").await.is_empty(), "an empty folder lists blobs");
}

/// Lists contain sizes and times; a folder does not include names that only share its prefix.
pub async fn o5_list_contains_only_blobs_of_its_folder(blobs: Blobs) {
    for (name, length) in [("c/1/x/source", 5), ("c/1/y/320.jpg", 6), ("c/10/x/source", 7), ("a/1/z", 8)] {
        blobs.put(name, random_bytes(8, length)).await.unwrap();
    }
    let other = "a folder lists other blobs than its own, or in another order";
    assert_eq!(blob_names(&blobs, "c/1").await, ["c/1/x/source", "c/1/y/320.jpg"], "{other}");
    assert_eq!(blob_names(&blobs, "c/1/x").await, ["c/1/x/source"], "{other}");
    let all = listed_blobs(&blobs, "").await;
    let sizes = all.iter().map(|listed| listed.size).collect::<Vec<_>>();
    assert_eq!(sizes, [8, 5, 6, 7], "a list has other sizes than the blobs, or another order");
    assert_eq!(all[0].name, "a/1/z", "a list is not in the order of names");
    for listed in &all {
        // The store's clock: check only that it is a plausible time.
        assert!(listed.modified > Timestamp::from_micros(1_700_000_000_000_000), "{listed:?}");
    }
    // Times are in whole seconds on S3.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    blobs.put("a/1/z", random_bytes(8, 8)).await.unwrap();
    write_in_pieces(&blobs, "c/1/y/320.jpg", &random_bytes(8, 6)).await;
    blobs.put("c/1/x/320.jpg", random_bytes(8, 9)).await.unwrap();
    let later = listed_blobs(&blobs, "").await;
    let time = |of: &[Listed], name: &str| of.iter().find(|listed| listed.name == name).unwrap().modified;
    for rewritten in ["a/1/z", "c/1/y/320.jpg"] {
        let (before, after) = (time(&all, rewritten), time(&later, rewritten));
        assert!(
            after > before,
            "a list has not the time of the last write of {rewritten}: {after:?}, before {before:?}"
        );
    }
    for unchanged in ["c/1/x/source", "c/10/x/source"] {
        let (before, after) = (time(&all, unchanged), time(&later, unchanged));
        assert_eq!(
            after, before,
            "a list has another time for a blob that was not written again: {unchanged}"
        );
    }
    let (new, old) = (time(&later, "c/1/x/320.jpg"), time(&all, "c/1/x/source"));
    assert!(new > old, "a list has no later time for a later blob: {new:?}, before {old:?}");
    let mut page = blobs.page(None, 10).await.unwrap();
    page.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(page, later, "a page has other names, sizes or times than a list");
}

/// Deleting a folder deletes all of its blobs and no others.
pub async fn o6_folder_is_deleted_completely(blobs: Blobs) {
    for n in 0..1_100 {
        blobs.put(&format!("c/1/{n}/source"), random_bytes(9, 1)).await.unwrap();
    }
    blobs.put("c/10/x", random_bytes(9, 1)).await.unwrap();
    let deleted = blobs.delete_folder("c/1").await.unwrap();
    assert_eq!(deleted, 1_100, "deleting a folder of 1,100 blobs reports {deleted}");
    assert_eq!(
        blob_names(&blobs, "").await,
        ["c/10/x"],
        "deleting a folder deletes other blobs, or leaves some of its own"
    );
    blobs.put("c/1/x", random_bytes(9, 2)).await.unwrap();
    assert_eq!(blob_names(&blobs, "c").await, ["c/1/x", "c/10/x"], "a deleted folder can be used again");
}

/// Concurrent writers each read back their own blob; of writers of one name, one wins completely.
pub async fn o7_one_of_concurrent_writes_wins_completely(blobs: Blobs) {
    let blobs = Arc::new(blobs);
    let tasks: Vec<_> = (0..16)
        .map(|n: u64| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                let (own, same) = (random_bytes(n, 6_000_000), random_bytes(100 + n, 400_000));
                write_in_pieces(&blobs, &format!("a/{n}"), &own).await;
                write_in_pieces(&blobs, "a/same", &same).await;
                let read = read(&blobs, &format!("a/{n}")).await.unwrap();
                assert!(read == own, "concurrent writes of different blobs mix their bytes");
                blobs.delete(&format!("a/{n}")).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let same = read(&blobs, "a/same").await.unwrap();
    let is_whole = (0..16).any(|n| same == random_bytes(100 + n, 400_000));
    assert!(is_whole, "concurrent writes of one blob mix their bytes");
    assert_eq!(blob_names(&blobs, "").await, ["a/same"], "concurrent writes leave other blobs");
}

/// A signed link differs by blob and expiry. The adapter's own tests read through it.
pub async fn o8_signed_link_depends_on_blob_and_expiry(blobs: Blobs) {
    blobs.put("a/b", random_bytes(10, 10)).await.unwrap();
    if let Some(link) = blobs.signed("a/b", Duration::from_mins(1)).await.unwrap() {
        assert!(link.starts_with("http") && link.contains("a/b?"), "{link}");
        let longer = blobs.signed("a/b", Duration::from_mins(2)).await.unwrap();
        let other = blobs.signed("a/c", Duration::from_mins(1)).await.unwrap();
        let differ = longer.as_ref() != Some(&link) && other.as_ref() != Some(&link) && longer != other;
        assert!(differ, "signed links of different blobs or expiries are equal");
    }
}

/// Staged bytes, before and after whole parts, are joined in order.
///
/// No other blob is left behind, also by a writer that is dropped.
pub async fn o9_staged_bytes_are_joined_in_order(blobs: Blobs) {
    let whole = random_bytes(11, LONG);
    for stages in [vec![0, 1, 200_000], vec![6_000_000, 6_000_001, LONG], vec![LONG - 1]] {
        let mut writer = blobs.write("a/b").unwrap();
        let mut at = 0;
        for stage in stages {
            writer.write(whole.slice(at..stage)).await.unwrap();
            writer.stage().await.unwrap();
            assert_eq!(writer.held(), 0, "a writer holds bytes that it has staged");
            at = stage;
        }
        writer.write(whole.slice(at..)).await.unwrap();
        assert_eq!(
            blobs.size("a/b").await.unwrap(),
            None,
            "a blob does not exist before its writer has finished"
        );
        writer.finish().await.unwrap();
        assert!(read(&blobs, "a/b").await.unwrap() == whole, "staged bytes are not joined in order");
        wait_until_only(&blobs, &["a/b"]).await;
        blobs.delete("a/b").await.unwrap();
    }
    let mut writer = blobs.write("a/c").unwrap();
    writer.write(whole.slice(..1_000)).await.unwrap();
    writer.stage().await.unwrap();
    drop(writer);
    wait_until_only(&blobs, &[]).await;
}

/// Waits until only these blobs exist: staged blobs are deleted in the background.
async fn wait_until_only(blobs: &Blobs, expected: &[&str]) {
    let wait = async {
        while blob_names(blobs, "").await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("staged blobs are deleted in time");
}

/// Pages list every blob once, also when blobs before the page are deleted.
///
/// Many blobs are deleted together.
pub async fn o10_pages_list_every_blob_once(blobs: Blobs) {
    let mut all = vec!["sweep".to_owned()];
    for n in 0..30 {
        all.push(format!("c/{}/x{}/source", n % 3, n / 3));
        all.push(format!("c/{}/x{}/320.jpg", n % 3, n / 3));
        all.push(format!("t/{n}/k"));
    }
    for name in &all {
        blobs.put(name, random_bytes(11, 3)).await.unwrap();
    }
    all.sort();
    let (mut after, mut seen): (Option<String>, Vec<String>) = (None, Vec::new());
    loop {
        let page = blobs.page(after.as_deref(), 7).await.unwrap();
        assert!(page.iter().all(|listed| listed.size == 3 && listed.modified > Timestamp::from_micros(0)));
        seen.extend(page.iter().map(|listed| listed.name.clone()));
        if page.len() < 7 {
            break;
        }
        after = page.last().map(|listed| listed.name.clone());
        // The page is deleted, including the blob after which the next page starts.
        blobs.delete_all(page.into_iter().map(|listed| listed.name).collect()).await.unwrap();
    }
    seen.sort();
    assert_eq!(seen, all, "pages leave out blobs, or list them twice");
    let beyond = blobs.page(Some("zzz"), 7).await.unwrap();
    assert!(beyond.is_empty(), "a page after the last name lists {beyond:?}");
    blobs.delete_all(all).await.unwrap();
    let left = blob_names(&blobs, "").await;
    assert!(left.is_empty(), "blobs that were deleted together are left: {left:?}");
    assert!(blobs.page(None, 7).await.unwrap().is_empty(), "a page lists deleted blobs");
}

/// A read beside a write returns the former or the new bytes completely, also if it began before the write.
pub async fn o11_read_beside_a_write_is_not_mixed(blobs: Blobs) {
    let old = random_bytes(20, LONG);
    for length in [LONG, 70_000, LONG + 3_000_000] {
        let new = random_bytes(21, length);
        blobs.put("a/b", old.clone()).await.unwrap();
        let mut blob = blobs.get("a/b", None).await.unwrap().unwrap();
        let first = blob.bytes.try_next().await.unwrap().unwrap_or_default();
        blobs.put("a/b", new.clone()).await.unwrap();
        let rest: Vec<Bytes> = blob.bytes.try_collect().await.unwrap();
        let found = [[first].as_slice(), &rest].concat().concat();
        assert!(
            found == old || found == new,
            "a read that began before a write returns neither the former bytes nor the new ones: {} bytes",
            found.len()
        );
        assert!(read(&blobs, "a/b").await.unwrap() == new, "a write beside a read does not take effect");
    }
    let versions = [random_bytes(22, 3_000_000), random_bytes(23, 1_000_000)];
    blobs.put("a/c", versions[0].clone()).await.unwrap();
    let is_written = AtomicBool::new(false);
    let writes = async {
        for n in 1..=10 {
            let version = &versions[n % 2];
            if n % 3 == 0 {
                write_in_pieces(&blobs, "a/c", version).await;
            } else {
                blobs.put("a/c", version.clone()).await.unwrap();
            }
        }
        is_written.store(true, Ordering::SeqCst);
    };
    let reads = async {
        while !is_written.load(Ordering::SeqCst) {
            let found = read(&blobs, "a/c").await.expect("a blob is missing while it is written again");
            assert!(
                versions.contains(&found),
                "a read beside writes returns a mixture: {} bytes",
                found.len()
            );
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writes, reads);
}
