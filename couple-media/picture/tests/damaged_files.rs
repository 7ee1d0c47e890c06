//! Truncated or altered files are rendered, or rejected with a reason, within a bounded time.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use std::time::Duration;

use couple_picture::{AVATARS, Encoding, Recipe, Rejected};
use support::{gif, ihdr, jpeg, jpeg_with, photo, png, png_chunk, render, webp};
use tokio::time::Instant;

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = photo(97, 61);
    let interlaceless = png(&pixels);
    vec![
        ("jpeg", jpeg(&pixels)),
        ("restarts", jpeg_with(&pixels, |e| e.set_restart_interval(3))),
        ("progressive", jpeg_with(&pixels, |e| e.set_progressive_scans(9))),
        ("png", interlaceless),
        ("webp", webp(&pixels)),
        ("gif", gif(&pixels)),
    ]
}

fn avatars() -> Recipe {
    Recipe { renditions: AVATARS.to_vec(), crop: None, encoding: Encoding::JPEG }
}

/// Cut off at every hundredth of the length: an incomplete picture is not shown as if it were complete.
#[test]
fn truncated_file_is_rejected() {
    for (name, file) in files() {
        for percent in 0..100 {
            let cut = &file[..file.len() * percent / 100];
            let refused = render(cut, &avatars()).expect_err(name);
            let fits = matches!(refused, Rejected::Truncated | Rejected::UnknownType | Rejected::Corrupt(_));
            assert!(fits, "{name} at {percent} %: {refused:?}");
            assert!(!refused.code().is_empty());
        }
        // For the other types the last byte contains no pixels.
        if name == "webp" {
            assert_eq!(render(&file[..file.len() - 1], &avatars()), Err(Rejected::Truncated));
        }
        render(&file, &avatars()).expect(name);
    }
}

/// Bytes that some files have in place of the end marker.
fn trailers() -> [Vec<u8>; 6] {
    let other = jpeg(&photo(16, 16));
    [
        Vec::new(),
        vec![0; 1000],
        b"a trailer that a camera wrote, with its length in front".to_vec(),
        other,
        b"\xff\xe2\xff\xff".to_vec(),
        b"\xff".to_vec(),
    ]
}

#[test]
fn jpeg_without_eoi_is_shown_if_all_blocks_exist() {
    for (name, file) in files().into_iter().filter(|(_, file)| file.starts_with(&[0xFF, 0xD8])) {
        let (wanted, unended) = (render(&file, &avatars()).unwrap(), &file[..file.len() - 2]);
        for trailer in trailers() {
            let shown = render(&[unended, &trailer].concat(), &avatars());
            assert_eq!(shown.as_ref(), Ok(&wanted), "{name}, {} bytes behind it", trailer.len());
        }
        for behind in [&b""[..], b"\xff\xd9", b"\xff\xd8\xff\xe0"] {
            let cut = [&unended[..unended.len() * 3 / 5], behind].concat();
            render(&cut, &avatars()).expect_err(name);
        }
    }
}

/// Even if the wanted sizes do not need the scan.
#[test]
fn progressive_jpeg_without_one_of_its_scans_is_rejected() {
    let file = jpeg_with(&photo(97, 61), |e| e.set_progressive_scans(9));
    let tiny = Recipe { renditions: AVATARS[3..].to_vec(), ..avatars() };
    let scans: Vec<usize> = memchr(&file, [0xFF, 0xDA]);
    assert!(scans.len() > 5);
    for at in scans {
        assert_eq!(render(&file[..at], &tiny), Err(Rejected::Truncated), "{at}");
        // The scan's header and one byte.
        assert_eq!(render(&file[..at + 11], &tiny), Err(Rejected::Truncated), "{at}");
    }
}

fn memchr(bytes: &[u8], marker: [u8; 2]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&marker)).collect()
}

#[test]
fn png_without_iend_is_shown_if_all_rows_exist() {
    let pixels = photo(97, 61);
    let rows: Vec<u8> =
        pixels.rows().flat_map(|row| [0].into_iter().chain(row.flat_map(|pixel| pixel.0))).collect();
    let stream = miniz_oxide::deflate::compress_to_vec_zlib(&rows, 6);
    let (first, second) = stream.split_at(stream.len() / 2);
    let header = ihdr(97, 61, [8, 2, 0, 0, 0]);
    let chunks = [png_chunk(b"IDAT", first), png_chunk(b"IDAT", second)].concat();
    let whole = [&header[..], &chunks, &png_chunk(b"IEND", b"")].concat();
    let wanted = render(&whole, &avatars()).unwrap();
    let all = header.len() + chunks.len();
    for trailer in trailers() {
        let shown = render(&[&whole[..all], &trailer].concat(), &avatars());
        assert_eq!(shown.as_ref(), Ok(&wanted), "{} bytes behind it", trailer.len());
    }
    // Without a part of IEND, without the chunk's checksum, and without the stream's checksum.
    for missing in [1, 11, 12 + 1, 12 + 4, 12 + 8] {
        assert_eq!(render(&whole[..whole.len() - missing], &avatars()).as_ref(), Ok(&wanted), "{missing}");
    }
    for cut in [header.len(), header.len() + first.len() + 12, whole.len() * 3 / 5, all - 12 - 50] {
        assert_eq!(render(&whole[..cut], &avatars()), Err(Rejected::Truncated), "{cut}");
    }
}

/// 10,000 files with one wrong bit each.
#[test]
fn single_bit_errors_do_not_panic() {
    let files = files();
    let variants = 10_000 / files.len() + 1;
    let mut state = 1_u32;
    for (name, file) in &files {
        let (mut shown, mut refused) = (0, 0);
        for _ in 0..variants {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bit = state as usize % (8 * file.len());
            let mut altered = file.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let started = Instant::now();
            match render(&altered, &avatars()) {
                Ok(rendered) => {
                    assert_eq!(rendered.images.len(), AVATARS.len());
                    shown += 1;
                }
                Err(reason) => {
                    assert!(!reason.code().is_empty());
                    assert_ne!(reason, Rejected::Corrupt("the decoder panicked".into()), "{name}, bit {bit}");
                    refused += 1;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{name}, bit {bit}");
        }
        assert!(shown + refused == variants && refused > 0, "{name}: {shown} {refused}");
    }
}

/// All bytes after the headers are replaced.
#[test]
fn noise_after_a_header_is_rejected_or_shown() {
    let mut state = 7_u32;
    for (name, file) in files() {
        for _ in 0..50 {
            let mut altered = file.clone();
            let from = altered.len() / 3;
            for byte in &mut altered[from..] {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            if let Err(reason) = render(&altered, &avatars()) {
                assert_ne!(reason, Rejected::Corrupt("the decoder panicked".into()), "{name}");
            }
        }
    }
}
