//! Compares renditions with a whole picture decoded by another decoder and resized in one step.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use couple_picture::{self as picture, AVATARS, Encoding, Limits, PHOTOS, Recipe};
use image::{Rgb, RgbImage, imageops, imageops::FilterType};
use support::{exif, gif, jpeg, jpeg_with, photo, png, render, seen, ssim, webp, webp_with, whole, written};

fn recipe(renditions: &[couple_picture::Rendition]) -> Recipe {
    Recipe { renditions: renditions.to_vec(), crop: None, encoding: Encoding::Jpeg { quality: 100 } }
}

/// The largest square in the middle of a picture.
fn square(pixels: &RgbImage) -> RgbImage {
    let (width, height) = pixels.dimensions();
    let side = width.min(height);
    imageops::crop_imm(pixels, (width - side) / 2, (height - side) / 2, side, side).to_image()
}

#[test]
fn avatars_are_similar_to_the_reference() {
    // Sizes that are decoded at every number of eighths.
    for (width, height) in [(640, 512), (1100, 900), (1701, 1301), (2600, 2050)] {
        let pixels = photo(width, height);
        for file in
            [jpeg(&pixels), jpeg_with(&pixels, |e| e.set_progressive(true)), png(&pixels), webp(&pixels)]
        {
            let reference = square(&image::load_from_memory(&file).unwrap().into_rgb8());
            for image in render(&file, &recipe(&AVATARS)).unwrap().images {
                let wanted = imageops::resize(&reference, image.width, image.height, FilterType::Lanczos3);
                let alike = ssim(&seen(&image), &wanted);
                assert!(alike > 0.99, "{width} × {height}, {}: {alike}", image.name);
            }
        }
    }
}

#[test]
fn photos_are_similar_to_the_reference() {
    for (width, height) in [(900, 700), (2500, 1000), (3000, 2200)] {
        let pixels = photo(width, height);
        for file in [jpeg(&pixels), png(&pixels)] {
            let reference = image::load_from_memory(&file).unwrap().into_rgb8();
            for image in render(&file, &recipe(&PHOTOS)).unwrap().images {
                let wanted = imageops::resize(&reference, image.width, image.height, FilterType::Lanczos3);
                let alike = ssim(&seen(&image), &wanted);
                assert!(alike > 0.99, "{width} × {height}, {}: {alike}", image.name);
            }
        }
    }
}

/// Thin white lines on black, and black ones on white.
///
/// Between the lines Lanczos goes below black and above white, which is clipped when an intermediate step is stored.
#[test]
fn line_drawings_keep_their_brightness() {
    for (line, ground) in [(255, 0), (0, 255)] {
        let pixels = RgbImage::from_fn(2000, 2000, |x, y| {
            Rgb([if x % 23 < 3 || y % 29 < 3 { line } else { ground }; 3])
        });
        // Blocks of a JPEG that are decoded at a reduced size are clipped.
        for (file, most) in [(png(&pixels), 2.5), (jpeg(&pixels), 4.0)] {
            for image in render(&file, &recipe(&AVATARS)).unwrap().images {
                let wanted = imageops::resize(&pixels, image.width, image.height, FilterType::Lanczos3);
                let mean = |pixels: &RgbImage| {
                    pixels.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels.len() as f64
                };
                let (seen, wanted) = (mean(&seen(&image)), mean(&wanted));
                assert!(
                    (seen - wanted).abs() < most,
                    "{line} on {ground}, {}: {seen}, not {wanted}",
                    image.name
                );
            }
        }
    }
}

#[test]
fn small_picture_keeps_its_pixels() {
    let pixels = photo(60, 40);
    for file in [jpeg(&pixels), png(&pixels), webp(&pixels), gif(&pixels)] {
        let rendered = render(&file, &recipe(&AVATARS)).unwrap();
        assert!(rendered.images.iter().all(|image| (image.width, image.height) == (40, 40)));
        let rendered = render(&file, &recipe(&PHOTOS)).unwrap();
        assert!(rendered.images.iter().all(|image| (image.width, image.height) == (60, 40)));
        let wanted = image::load_from_memory(&file).unwrap().into_rgb8();
        assert!(ssim(&seen(&rendered.images[0]), &wanted) > 0.98);
    }
}

/// Rings that become finer than the output can show must vanish, and not appear as other rings.
#[test]
fn zone_plate_has_no_aliasing() {
    const SIDE: u32 = 3_024;
    let pixels = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (x, y) = (f64::from(x) - 1511.5, f64::from(y) - 1511.5);
        // At the edge it reaches the file's own limit of half a wave per pixel.
        let phase = std::f64::consts::PI * (x * x + y * y) / f64::from(SIDE);
        Rgb([(128.0 + 100.0 * phase.cos()) as u8; 3])
    });
    let grey = written(image::DynamicImage::from(pixels.clone()).into_luma8(), image::ImageFormat::Png);
    for (file, least) in
        [(jpeg(&pixels), 0.98), (jpeg_with(&pixels, |e| e.set_progressive(true)), 0.98), (grey, 0.99)]
    {
        let reference = image::load_from_memory(&file).unwrap().into_rgb8();
        for image in render(&file, &recipe(&AVATARS)).unwrap().images {
            let wanted = imageops::resize(&reference, image.width, image.height, FilterType::Lanczos3);
            let alike = ssim(&seen(&image), &wanted);
            assert!(alike > least, "{}: {alike}", image.name);
        }
    }
}

/// libwebp decodes the same pixels as the safe decoder, which handles files that are not for libwebp.
#[test]
fn libwebp_decodes_the_same_pixels() {
    let with = |libwebp| Limits::default().with_libwebp(libwebp);
    let pixels = photo(600, 400);
    let clear = image::RgbaImage::from_fn(60, 40, |x, _| image::Rgba([200, 30, 30, x as u8 * 4]));
    let files = [
        webp(&pixels),
        webp_with(&pixels, 0x08, &[(b"EXIF", &exif(6, true))]),
        written(pixels, image::ImageFormat::WebP),
        written(clear, image::ImageFormat::WebP),
    ];
    for file in &files {
        let [safe, fast] = [false, true].map(|fast| picture::render(file, &whole(), &with(fast)).unwrap());
        assert_eq!((safe.width, safe.height), (fast.width, fast.height));
        assert!(ssim(&seen(&safe.images[0]), &seen(&fast.images[0])) > 0.99);
        for length in (0..file.len()).step_by(file.len() / 50) {
            let cut = &file[..length];
            let [safe, fast] = [false, true].map(|fast| picture::render(cut, &whole(), &with(fast)));
            assert_eq!(safe.unwrap_err(), fast.unwrap_err());
        }
    }
}

#[test]
fn webp_is_smaller_than_jpeg_of_equal_similarity() {
    let pixels = photo(1600, 1200);
    let file = jpeg(&pixels);
    let of = |encoding| render(&file, &Recipe { encoding, ..recipe(&PHOTOS[1..]) }).unwrap().images;
    let (references, jpegs) = (of(Encoding::Png), of(Encoding::JPEG));
    let webps = [70, 75, 80, 85].map(|quality| of(Encoding::WebP { quality }));
    for (n, (reference, jpeg)) in references.iter().zip(&jpegs).enumerate() {
        let similarity = |image| ssim(&seen(image), &seen(reference));
        let wanted = similarity(jpeg);
        let webp = webps.iter().map(|images| &images[n]).find(|webp| similarity(webp) >= wanted).unwrap();
        assert_eq!((jpeg.width, jpeg.height), (webp.width, webp.height));
        let (bytes, bytes_of_jpeg) = (webp.bytes.len(), jpeg.bytes.len());
        assert!(bytes <= bytes_of_jpeg, "{}: {bytes} bytes, JPEG {bytes_of_jpeg}", jpeg.name);
    }
}

/// A rendition as large as the stored copy is encoded twice; it must be as similar and as small as one encoded once.
///
/// The copy of an upload of at most the copy's quality has the coefficients of the upload, except for a few that rounding changes: within
/// 0.1 % of the bytes. Above that quality, the copy loses a part of the grain.
#[test]
fn rendition_of_the_stored_copy_is_as_good_as_one_of_the_upload() {
    for (width, height) in [(640, 480), (1024, 768), (1500, 1001)] {
        for quality in [70, 80, 85, 90, 92, 93, 95, 98] {
            let upload = jpeg_with(&photo(width, height), |e| e.set_quality(quality));
            let reference = image::load_from_memory(&upload).unwrap().into_rgb8();
            let encoded = |file: &[u8], encoding| {
                let recipe = Recipe { encoding, ..recipe(&PHOTOS[..1]) };
                render(file, &recipe).unwrap().images.remove(0)
            };
            let once = encoded(&upload, Encoding::JPEG);
            let copy = encoded(&upload, Encoding::COPY);
            let twice = encoded(&copy.bytes, Encoding::JPEG);
            let [once_alike, twice_alike] = [&once, &twice].map(|image| ssim(&seen(image), &reference));
            let (bytes, bytes_once) = (twice.bytes.len(), once.bytes.len());
            let (least, most) = if quality <= 93 { (0.001, 1_001) } else { (0.01, 1_000) };
            assert!(
                twice_alike > once_alike - least,
                "{width} × {height}, {quality}: {twice_alike}, once {once_alike}"
            );
            assert!(
                bytes * 1_000 <= bytes_once * most,
                "{width} × {height}, {quality}: {bytes} bytes, once {bytes_once}"
            );
            if quality <= 93 {
                assert!(copy.bytes.len() <= upload.len(), "{width} × {height}, {quality}");
            }
        }
    }
}
