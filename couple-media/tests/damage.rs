//! Files that were cut off or altered: shown or refused with a reason, soon, whatever is wrong with them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use std::time::Duration;

use couple_media::picture::{AVATARS, Encoding, Recipe, Rejected};
use support::{gif, jpeg, jpeg_with, photo, png, render, webp};
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

/// At every hundredth of its length: a picture of which a part is missing is not shown as if it were whole.
#[test]
fn what_is_cut_off_is_refused() {
    for (name, file) in files() {
        for percent in 0..100 {
            let cut = &file[..file.len() * percent / 100];
            let refused = render(cut, &avatars()).expect_err(name);
            let fits = matches!(refused, Rejected::Truncated | Rejected::UnknownType | Rejected::Corrupt(_));
            assert!(fits, "{name} at {percent} %: {refused:?}");
            assert!(!refused.code().is_empty());
        }
        // To the last byte, but for GIF, whose last byte says no more than that nothing follows.
        if name != "gif" {
            assert_eq!(
                render(&file[..file.len() - 1], &avatars()).unwrap_err(),
                Rejected::Truncated,
                "{name}"
            );
        }
        render(&file, &avatars()).expect(name);
    }
}

/// 10,000 files with one bit wrong each.
#[test]
fn single_bits_do_no_harm() {
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
            let begun = Instant::now();
            match render(&altered, &avatars()) {
                Ok(rendered) => {
                    assert_eq!(rendered.images.len(), AVATARS.len());
                    shown += 1;
                }
                Err(reason) => {
                    assert!(!reason.code().is_empty());
                    assert_ne!(reason, Rejected::Corrupt("its decoder gave up".into()), "{name}, bit {bit}");
                    refused += 1;
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{name}, bit {bit}");
        }
        assert!(shown + refused == variants && refused > 0, "{name}: {shown} {refused}");
    }
}

/// What is behind the headers is other bytes altogether.
#[test]
fn noise_behind_a_header_is_refused_or_shown() {
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
                assert_ne!(reason, Rejected::Corrupt("its decoder gave up".into()), "{name}");
            }
        }
    }
}
