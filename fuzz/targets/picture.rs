//! Whatever bytes come as a picture are shown or refused with a reason, and no decoder panics on the way.
#![no_main]

use std::time::Duration;

use couple_media::picture::{AVATARS, Encoding, Limits, PHOTOS, Recipe, Rejected, inspect, render, upright_size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut limits = Limits::default();
    // What a second of fuzzing can look at.
    limits.megapixels = 1;
    limits.memory = 64 << 20;
    limits.deadline = Duration::from_secs(5);
    let inspected = inspect(bytes, &limits);
    if let (Ok(info), Some(size)) = (&inspected, upright_size(bytes, &limits)) {
        assert_eq!(size, (info.width, info.height));
    }
    limits.frames = 20;
    let (renditions, encoding) = match bytes.last().map_or(0, |byte| byte % 4) {
        0 => (PHOTOS.to_vec(), Encoding::JPEG),
        1 => (AVATARS.to_vec(), Encoding::ANIMATED_WEBP),
        _ => (AVATARS.to_vec(), Encoding::JPEG),
    };
    match render(bytes, &Recipe { renditions, crop: None, encoding }, &limits) {
        Ok(rendered) => {
            let info = inspected.expect("what is rendered passed inspection");
            assert_eq!((rendered.width, rendered.height), (info.width, info.height));
            let magic: &[u8] = if encoding == Encoding::JPEG { &[0xFF, 0xD8] } else { b"RIFF" };
            assert!(rendered.images.iter().all(|image| image.bytes.starts_with(magic)));
        }
        Err(reason) => {
            assert_ne!(reason, Rejected::Corrupt("its decoder gave up".into()), "a panic");
            assert_ne!(reason, Rejected::TookTooLong);
        }
    }
});
