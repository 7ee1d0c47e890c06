//! HEIC files of libheif and x265, compared with libheif's decoding.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{path::PathBuf, process::Command};

use support::{render, seen, ssim, whole, within};

#[test]
fn heic_of_libheif_decodes_as_with_libheif() {
    let clients = std::env::var_os("COUPLE_TEST_CLIENTS")
        .expect("COUPLE_TEST_CLIENTS is not set: ./test runs tests/clients/install FOLDER and sets it");
    let folder = tempfile::tempdir().unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/libheif.py");
    let python = PathBuf::from(clients).join("venv/bin/python");
    let ran = Command::new(python).arg(script).arg(folder.path()).status().unwrap();
    assert!(ran.success());

    let mut compared = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "heic") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let wanted = image::open(path.with_extension("png")).unwrap().into_rgb8();
        let bytes = std::fs::read(&path).unwrap();
        let rendered = render(&bytes, &whole()).unwrap();
        assert_eq!((rendered.width, rendered.height), wanted.dimensions(), "{name}");
        let likeness = if wanted.height() < 16 { 1.0 } else { ssim(&seen(&rendered.images[0]), &wanted) };
        assert!(likeness > 0.98, "{name}: {likeness}");
        assert!(!rendered.images[0].bytes.windows(3).any(|part| part == b"Mkr"), "{name}");
        // Scaled down while decoding, compared with a resize of the whole.
        if name.starts_with("tiles") {
            let small = seen(&render(&bytes, &within(100)).unwrap().images[0]);
            let filter = image::imageops::FilterType::Lanczos3;
            let wanted = image::imageops::resize(&wanted, small.width(), small.height(), filter);
            let likeness = ssim(&small, &wanted);
            assert!(likeness > 0.98, "{name}, smaller: {likeness}");
        }
        compared += 1;
    }
    assert_eq!(compared, 8 + 2 + 3 + 3 + 3 + 4);
}
