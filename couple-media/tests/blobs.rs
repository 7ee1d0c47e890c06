//! Blobs in memory and as files, checked by `couple-conformance`.

use std::time::Duration;

use couple_core::{ErrorKind, Timestamp};
use couple_media::blobs::Blobs;

mod memory {
    use super::*;
    couple_conformance::blobs!(async { Blobs::memory() });
}

mod within_a_folder {
    use super::*;
    couple_conformance::blobs!(async { Blobs::memory().prefix("apps/one").unwrap() });
}

mod files {
    use super::*;
    couple_conformance::blobs!(async {
        // The system removes the folder: the checks take the blobs only, without a guard for the folder.
        Blobs::files(tempfile::tempdir().unwrap().keep()).unwrap()
    });
}

/// A process that dies leaves unfinished files.
///
/// They are found by their age; those still being written are kept.
#[tokio::test]
async fn unfinished_file_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::files(folder.path()).unwrap();
    let mut writer = blobs.write("c/1/source").unwrap();
    writer.write(vec![1; 1_000_000].into()).await.unwrap();
    let there = |name: &str| folder.path().join(name).exists();
    assert!(there("c/1/source#1") && !there("c/1/source"));

    std::fs::create_dir_all(folder.path().join("c/2")).unwrap();
    let old = std::fs::File::create(folder.path().join("c/2/320.jpg#7")).unwrap();
    let theirs = std::fs::File::create(folder.path().join("notes#7")).unwrap();
    for file in [old, theirs] {
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    }
    let before = Timestamp::from_micros(2_000_000_000_000);
    assert_eq!(blobs.remove_unfinished(before, |name| name == "c/2/320.jpg").await.unwrap(), 1);
    assert!(!there("c/2/320.jpg#7") && there("notes#7"));
    writer.finish().await.unwrap();
    assert!(there("c/1/source") && !there("c/1/source#1"));
}

#[tokio::test]
async fn removed_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::files(folder.path()).unwrap();
    blobs.ping().await.unwrap();
    Blobs::memory().ping().await.unwrap();
    drop(folder);
    assert_eq!(blobs.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A name cannot lead out of the folder.
#[tokio::test]
async fn names_stay_within_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::files(folder.path().join("media")).unwrap();
    for name in ["../x", "a/../../x", "", "a//b", "."] {
        assert!(blobs.put(name, vec![1].into()).await.is_err(), "{name}");
    }
    blobs.put("/etc/passwd", vec![1].into()).await.unwrap();
    assert!(folder.path().join("media/etc/passwd").exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn folder_that_cannot_be_created_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Blobs::files(file.path().join("media")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn existing_folder_is_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _blobs = Blobs::files(folder.path()).unwrap();
    let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o750, "{mode:o}");
}
