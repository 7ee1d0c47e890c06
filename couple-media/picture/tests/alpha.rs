//! Transparent pictures: which renditions keep the transparency, and the background in JPEG.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use std::io::Cursor;

use couple_picture::{Encoding, Fit, Image, Recipe, Rendered, Rendition};
use image::{
    AnimationDecoder as _, DynamicImage, Frame, ImageFormat, LumaA, Rgba, RgbaImage,
    codecs::{gif::GifEncoder, webp::WebPDecoder},
};
use support::{assert_near, render, with_chunk, written};

const KEPT: Encoding = Encoding::JpegUnlessTransparent { quality: 90 };

/// A red disc with a soft edge on a transparent background.
fn sticker() -> RgbaImage {
    RgbaImage::from_fn(400, 300, |x, y| {
        let distance = (x as f32 - 200.0).hypot(y as f32 - 150.0);
        Rgba([220, 30, 40, (255.0 * (120.0 - distance) / 20.0).clamp(0.0, 255.0) as u8])
    })
}

fn shown(file: &[u8], encoding: Encoding) -> Rendered {
    let renditions = vec![Rendition::new("one", Fit::Within, 200, 200)];
    render(file, &Recipe { renditions, crop: None, encoding }).unwrap()
}

fn pixels(image: &Image) -> RgbaImage {
    image::load_from_memory(&image.bytes).unwrap().into_rgba8()
}

#[track_caller]
fn assert_sticker(image: &Image) {
    let seen = pixels(image);
    assert_eq!(seen.dimensions(), (200, 150));
    let (corner, middle) = (seen.get_pixel(3, 3).0, seen.get_pixel(100, 75).0);
    assert_eq!((corner[3], middle[3]), (0, 255));
    assert_near([middle[0], middle[1], middle[2]], [220, 30, 40], 12);
    // A half transparent pixel has the colour of opaque pixels, not that of adjacent transparent ones.
    let edge = seen.pixels().find(|pixel| (100..160).contains(&pixel.0[3])).unwrap().0;
    assert_near([edge[0], edge[1], edge[2]], [220, 30, 40], 40);
}

#[test]
fn transparency_is_kept_in_webp_and_png() {
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let file = written(sticker(), format);
        for (encoding, used) in [
            (KEPT, Encoding::WebP { quality: 90 }),
            (Encoding::WEBP, Encoding::WEBP),
            (Encoding::Png, Encoding::Png),
        ] {
            let rendered = shown(&file, encoding);
            assert!(rendered.alpha && !rendered.animated);
            assert_eq!(rendered.images[0].encoding, used);
            assert_sticker(&rendered.images[0]);
            // The hash has the flag of alpha (evanw.github.io/thumbhash).
            assert_ne!(rendered.placeholder[2] & 0x80, 0);
        }
        let flat = shown(&file, Encoding::JPEG);
        let seen = pixels(&flat.images[0]);
        assert_near(seen.get_pixel(3, 3).0[..3].try_into().unwrap(), [255; 3], 3);
        assert_near(seen.get_pixel(100, 75).0[..3].try_into().unwrap(), [220, 30, 40], 8);
    }
}

/// Of two adjacent pixels, an opaque one has twice the weight of one that is half transparent.
#[test]
fn colours_are_weighted_by_alpha_once() {
    let stripes = RgbaImage::from_fn(400, 300, |x, _| {
        if x % 2 == 0 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 255, 0, 128]) }
    });
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let rendered = shown(&written(stripes.clone(), format), Encoding::Png);
        let [red, green, blue, alpha] = pixels(&rendered.images[0]).get_pixel(100, 75).0;
        assert_near([red, green, blue], [170, 85, 0], 4);
        assert!(alpha.abs_diff(191) <= 3, "{alpha}");
    }
}

#[test]
fn opaque_picture_with_an_alpha_channel_is_stored_as_jpeg() {
    let opaque = RgbaImage::from_pixel(400, 300, Rgba([220, 30, 40, 255]));
    let grey = DynamicImage::ImageLumaA8(image::GrayAlphaImage::from_pixel(40, 30, LumaA([9, 255])));
    for file in [
        written(opaque.clone(), ImageFormat::Png),
        written(opaque, ImageFormat::WebP),
        written(grey, ImageFormat::Png),
    ] {
        let rendered = shown(&file, KEPT);
        assert!(!rendered.alpha);
        assert_eq!(rendered.images[0].encoding, Encoding::Jpeg { quality: 90 });
        assert_eq!(rendered.placeholder[2] & 0x80, 0);
    }
}

/// Colour values that mark transparent pixels (PNG, third edition, 11.3.1.1).
#[test]
fn transparent_colours_of_png_are_transparent() {
    let file = support::png(&image::RgbImage::from_fn(40, 30, |x, _| {
        image::Rgb(if x < 20 { [10, 20, 30] } else { [200, 90, 80] })
    }));
    let file = with_chunk(&file, b"tRNS", &[0, 10, 0, 20, 0, 30]);
    let rendered = shown(&file, Encoding::Png);
    let seen = pixels(&rendered.images[0]);
    assert!(rendered.alpha);
    assert_eq!((seen.get_pixel(3, 3).0[3], seen.get_pixel(33, 3).0), (0, [200, 90, 80, 255]));
}

#[test]
fn transparency_of_an_animation_is_kept() {
    let still = sticker();
    let moved = RgbaImage::from_fn(400, 300, |x, y| *still.get_pixel((x + 60) % 400, y));
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new(&mut file);
    for pixels in [still, moved] {
        encoder.encode_frame(Frame::new(pixels)).unwrap();
    }
    drop(encoder);
    let rendered = shown(&file, Encoding::AnimatedWebP { quality: 95 });
    assert!(rendered.animated && rendered.alpha);
    let decoder = WebPDecoder::new(Cursor::new(&rendered.images[0].bytes)).unwrap();
    let frames = decoder.into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 2);
    for (frame, x) in frames.iter().zip([100, 70]) {
        assert_eq!((frame.buffer().get_pixel(3, 3).0[3], frame.buffer().get_pixel(x, 75).0[3]), (0, 255));
    }
    assert_eq!(frames[1].buffer().get_pixel(150, 75).0[3], 0, "the disc has left this pixel");
    // Only the first frame, if the encoding is not animated.
    let still = shown(&file, KEPT);
    assert!(still.animated && still.alpha);
    assert_eq!(still.images[0].encoding, Encoding::WebP { quality: 90 });
}
