//! Every colour model, depth and layout, checked by pixels.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use couple_picture::{Limits, Rejected, upright_size};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use jpeg_encoder::{ColorType, Encoder};
use moxcms::ColorProfile;
use support::{
    assert_near, colour_at, fields, ihdr, jpeg, jpeg_with, photo, png, png_chunk, render, shown, ssim, webp,
    webp_with, whole, with_chunk, with_segment, written,
};

const PLACES: [(f32, f32); 4] = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)];

#[track_caller]
fn assert_fields(seen: &RgbImage) {
    let wanted = fields(seen.width(), seen.height());
    for (x, y) in PLACES {
        assert_near(colour_at(seen, x, y), colour_at(&wanted, x, y), 10);
    }
}

fn flat(seen: &RgbImage) -> [u8; 3] {
    colour_at(seen, 0.5, 0.5)
}

#[test]
fn every_type_is_decoded() {
    let pixels = fields(120, 88);
    for file in [jpeg(&pixels), png(&pixels), webp(&pixels), support::gif(&pixels)] {
        assert_fields(&shown(&file));
    }
    assert_fields(&shown(&written(pixels.clone(), ImageFormat::WebP)));
    assert_fields(&shown(&jpeg_with(&pixels, |e| e.set_progressive(true))));
}

#[test]
fn sixteen_bit_grey_and_alpha_are_decoded() {
    let wide: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_fn(120, 88, |x, y| {
        Rgb(fields(120, 88).get_pixel(x, y).0.map(|v| u16::from(v) * 257))
    });
    assert_fields(&shown(&written(wide, ImageFormat::Png)));

    let grey = GrayImage::from_pixel(40, 30, Luma([140]));
    assert_near(flat(&shown(&written(grey.clone(), ImageFormat::Png))), [140; 3], 2);
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 95).encode(&grey, 40, 30, ColorType::Luma).unwrap();
    assert_near(flat(&shown(&bytes)), [140; 3], 2);
    let grey_wide: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(40, 30, Luma([140 * 257]));
    assert_near(flat(&shown(&written(grey_wide, ImageFormat::Png))), [140; 3], 2);

    // A half transparent colour is blended with white; a transparent pixel is white, whatever its colour.
    let half = RgbaImage::from_pixel(40, 30, Rgba([200, 0, 100, 128]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        assert_near(flat(&shown(&written(half.clone(), format))), [227, 127, 177], 4);
    }
    let hidden = ImageBuffer::from_pixel(40, 30, LumaA([7_u8, 0]));
    assert_near(flat(&shown(&written(DynamicImage::ImageLumaA8(hidden), ImageFormat::Png))), [255; 3], 1);
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(bytes, 6)
}

/// Two pixels per byte, sixteen colours.
#[test]
fn palettes_and_small_depths_are_decoded() {
    let row = |left: u8, right: u8| [&[0][..], &[left; 20], &[right; 20]].concat();
    let rows = [row(0x00, 0x11).repeat(30), row(0x22, 0x33).repeat(30)].concat();
    let palette = [220, 30, 30, 30, 200, 40, 40, 40, 210, 240, 240, 240];
    let file = [
        ihdr(80, 60, [4, 3, 0, 0, 0]),
        png_chunk(b"PLTE", &palette),
        png_chunk(b"IDAT", &deflated(&rows)),
        png_chunk(b"IEND", &[]),
    ]
    .concat();
    assert_fields(&shown(&file));
    // One bit per pixel.
    let rows: Vec<u8> =
        (0..64).flat_map(|y| [&[0_u8][..], &[if y < 32 { 0x00 } else { 0xFF }; 8]].concat()).collect();
    let file = [ihdr(64, 64, [1, 0, 0, 0, 0]), png_chunk(b"IDAT", &deflated(&rows)), png_chunk(b"IEND", &[])]
        .concat();
    let seen = shown(&file);
    assert_near(colour_at(&seen, 0.5, 0.2), [0; 3], 2);
    assert_near(colour_at(&seen, 0.5, 0.8), [255; 3], 2);
}

/// Adam7: seven passes over the picture (PNG, third edition, 8.2).
#[test]
fn interlaced_png_is_decoded() {
    let pixels = fields(120, 88);
    let mut rows = Vec::new();
    for (left, top, across, down) in
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    {
        for y in (top..88).step_by(down) {
            rows.push(0);
            rows.extend((left..120).step_by(across).flat_map(|x| pixels.get_pixel(x, y).0));
        }
    }
    let file =
        [ihdr(120, 88, [8, 2, 0, 0, 1]), png_chunk(b"IDAT", &deflated(&rows)), png_chunk(b"IEND", &[])]
            .concat();
    assert_fields(&shown(&file));
}

/// CMYK and YCCK as Adobe's programs write them, with 255 for no ink.
#[test]
fn cmyk_and_ycck_are_converted_to_rgb() {
    for (ink, light) in [
        ([255, 0, 0, 0], [0, 255, 255]),
        ([0, 200, 40, 0], [255, 55, 215]),
        ([0, 0, 0, 128], [127, 127, 127]),
        ([30, 60, 90, 64], [168, 146, 123]),
    ] {
        for model in [ColorType::Cmyk, ColorType::CmykAsYcck] {
            let mut bytes = Vec::new();
            Encoder::new(&mut bytes, 98).encode(&ink.repeat(48 * 32), 48, 32, model).unwrap();
            assert_near(flat(&shown(&bytes)), light, 6);
        }
    }
}

/// Converts a colour from Display P3 to sRGB.
///
/// Both have sRGB's curve; the matrices are those of CSS Color 4, section 18.
fn from_p3(colour: [u8; 3]) -> [u8; 3] {
    let linear = colour.map(|value| {
        let v = f64::from(value) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let rows =
        [[1.224_940, -0.224_940, 0.0], [-0.042_057, 1.042_057, 0.0], [-0.019_638, -0.078_636, 1.098_274]];
    rows.map(|row: [f64; 3]| {
        let v = row.iter().zip(linear).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0);
        let v = if v <= 0.003_130_8 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (v * 255.0).round() as u8
    })
}

#[test]
fn display_p3_becomes_srgb() {
    let profile = ColorProfile::new_display_p3().encode().unwrap();
    let deflated_profile = [b"p3\0\0", &deflated(&profile)[..]].concat();
    for colour in [[200, 90, 80], [60, 180, 90], [90, 100, 200], [128; 3], [250, 40, 20]] {
        let pixels = RgbImage::from_pixel(48, 32, Rgb(colour));
        let segment = [b"ICC_PROFILE\0\x01\x01", &profile[..]].concat();
        for file in [
            with_segment(&jpeg(&pixels), 0xE2, &segment),
            with_chunk(&png(&pixels), b"iCCP", &deflated_profile),
            webp_with(&pixels, 0x20, &[(b"ICCP", &profile)]),
        ] {
            assert_near(flat(&shown(&file)), from_p3(colour), 5);
        }
        // The profile in two chunks, the second first.
        let (a, b) = profile.split_at(profile.len() / 2);
        let file = with_segment(&jpeg(&pixels), 0xE2, &[b"ICC_PROFILE\0\x01\x02", a].concat());
        let file = with_segment(&file, 0xE2, &[b"ICC_PROFILE\0\x02\x02", b].concat());
        assert_near(flat(&shown(&file)), from_p3(colour), 5);
    }
    assert_ne!(from_p3([200, 90, 80]), [200, 90, 80]);
}

#[test]
fn unsuitable_profiles_are_ignored() {
    let pixels = fields(120, 88);
    let grey = ColorProfile::new_gray_with_gamma(2.2).encode().unwrap();
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let mut broken = p3.clone();
    broken.truncate(p3.len() / 2);
    for profile in [&grey[..], &broken, b"", &[0xFF; 5_000]] {
        let segment = [b"ICC_PROFILE\0\x01\x01", profile].concat();
        assert_fields(&shown(&with_segment(&jpeg(&pixels), 0xE2, &segment)));
    }
    // 64 MiB of zeros, deflated.
    let bomb = [b"bomb\0\0", &deflated(&vec![0; 64 << 20])[..]].concat();
    assert_fields(&shown(&with_chunk(&png(&pixels), b"iCCP", &bomb)));
}

#[test]
fn still_encoding_shows_the_first_frame() {
    let mut bytes = Vec::new();
    {
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for pixels in [fields(120, 88), RgbImage::new(120, 88)] {
            encoder.encode_frame(image::Frame::new(DynamicImage::from(pixels).into_rgba8())).unwrap();
        }
    }
    assert_fields(&shown(&bytes));
}

/// 12 bits, arithmetic coding and lossless files are distinguished from damage.
#[test]
fn unsupported_kinds_of_jpeg_are_named() {
    let file = jpeg(&photo(64, 64));
    let frame = file.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    for marker in [0xC3, 0xC5, 0xC9, 0xCA] {
        let mut other = file.clone();
        other[frame + 1] = marker;
        let refused = render(&other, &whole()).unwrap_err();
        let code = if marker < 0xC9 { "unsupported" } else { "arithmetic_jpeg" };
        assert_eq!(refused.code(), code, "{refused}");
    }
    let mut twelve = file;
    twelve[frame + 4] = 12;
    assert!(matches!(render(&twelve, &whole()), Err(Rejected::Unsupported(_))));
}

/// The file without segments of one marker.
fn without(file: &[u8], marker: u8) -> Vec<u8> {
    let (mut kept, mut at) = (file[..2].to_vec(), 2);
    while file[at + 1] != 0xDA {
        let after = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] != marker {
            kept.extend(&file[at..after]);
        }
        at = after;
    }
    kept.extend(&file[at..]);
    kept
}

/// Like frames of a Motion JPEG stream, which define no tables.
#[test]
fn jpeg_without_huffman_tables_is_decoded_by_the_standard_ones() {
    let pixels = photo(97, 61);
    for file in [jpeg(&pixels), jpeg_with(&pixels, |e| e.set_restart_interval(3))] {
        let bare = without(&file, 0xC4);
        assert!(bare.len() < file.len() - 400);
        assert_eq!(render(&bare, &whole()), render(&file, &whole()));
    }
    let progressive = without(&jpeg_with(&pixels, |e| e.set_progressive(true)), 0xC4);
    assert!(matches!(render(&progressive, &whole()), Err(Rejected::Corrupt(_))));
}

#[test]
fn gif_with_an_empty_screen_is_as_large_as_its_first_frame() {
    let pixels = fields(120, 88);
    let mut file = support::gif(&pixels);
    file[6..10].fill(0);
    assert_fields(&shown(&file));
    assert_eq!(upright_size(&file, &Limits::default()), Some((120, 88)));
    // A file without a frame has nothing to show.
    assert!(matches!(render(&file[..13], &whole()), Err(Rejected::Corrupt(_) | Rejected::Truncated)));
}

/// Numbers in the format of gAMA and cHRM.
fn hundred_thousandths<const N: usize>(numbers: [u32; N]) -> Vec<u8> {
    numbers.map(u32::to_be_bytes).concat()
}

const LINEAR: u32 = 100_000;
/// Chromaticities of white, red, green and blue of Display P3.
const P3: [u32; 8] = [31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000];

#[test]
fn png_colours_without_a_profile_are_honoured() {
    for colour in [[200, 90, 80], [60, 180, 90], [90, 100, 200], [128; 3]] {
        let file = png(&RgbImage::from_pixel(48, 32, Rgb(colour)));
        let chromaticities = with_chunk(&file, b"cHRM", &hundred_thousandths(P3));
        for file in [&chromaticities, &with_chunk(&file, b"cICP", &[12, 13, 0, 1])] {
            assert_near(flat(&shown(file)), from_p3(colour), 4);
        }
        // An sRGB chunk takes precedence over the numbers; a gamma of 1/2.2 stands for sRGB.
        let gamma = with_chunk(&file, b"gAMA", &hundred_thousandths([45_455]));
        for file in [&with_chunk(&chromaticities, b"sRGB", &[0]), &gamma] {
            assert_near(flat(&shown(file)), colour, 3);
        }
    }
    let linear = with_chunk(
        &png(&RgbImage::from_pixel(48, 32, Rgb([55; 3]))),
        b"gAMA",
        &hundred_thousandths([LINEAR]),
    );
    assert_near(flat(&shown(&linear)), [128; 3], 2);
    let grey = written(GrayImage::from_pixel(40, 30, Luma([55])), ImageFormat::Png);
    let grey = with_chunk(&grey, b"gAMA", &hundred_thousandths([LINEAR]));
    assert_near(flat(&shown(&grey)), [128; 3], 2);
    // 203 cd/m² in PQ, and a signal of 0.75 in HLG, are white; half of the light is half of white.
    for (transfer, white, half) in [(16, 148, 130), (18, 191, 155)] {
        for (signal, wanted) in [(white, 254), (half, 188), (255, 255)] {
            let file = with_chunk(
                &png(&RgbImage::from_pixel(48, 32, Rgb([signal; 3]))),
                b"cICP",
                &[9, transfer, 0, 1],
            );
            assert_near(flat(&shown(&file)), [wanted; 3], 6);
        }
    }
}

#[test]
fn damaged_colour_chunks_are_ignored() {
    let file = png(&fields(120, 88));
    let chunks: [(&[u8; 4], Vec<u8>); 7] = [
        (b"gAMA", hundred_thousandths([0])),
        (b"gAMA", vec![1, 2]),
        (b"cHRM", hundred_thousandths([0; 8])),
        (b"cHRM", hundred_thousandths([31_270, 32_900, 50_000, 50_000, 50_000, 50_000, 50_000, 50_000])),
        (b"cICP", vec![2, 2, 0, 1]),
        (b"cICP", vec![255, 255, 0, 1]),
        (b"cICP", vec![9]),
    ];
    for (kind, payload) in chunks {
        assert_fields(&shown(&with_chunk(&file, kind, &payload)));
    }
}

#[test]
fn png_colour_chunks_take_precedence_in_order() {
    let profile = |profile: ColorProfile| [b"some\0\0", &deflated(&profile.encode().unwrap())[..]].concat();
    let p3 = profile(ColorProfile::new_display_p3());
    let colour = [200, 90, 80];
    let file = png(&RgbImage::from_pixel(48, 32, Rgb(colour)));
    let with_profile = with_chunk(&file, b"iCCP", &p3);
    assert_near(flat(&shown(&with_chunk(&with_profile, b"sRGB", &[0]))), from_p3(colour), 4);
    let code_points = with_chunk(&with_profile, b"cICP", &[1, 13, 0, 1]);
    assert_near(flat(&shown(&code_points)), colour, 3);
    // Instead of an invalid profile the other chunks apply.
    let broken =
        with_chunk(&with_chunk(&file, b"iCCP", b"some\0\0not deflated"), b"cHRM", &hundred_thousandths(P3));
    assert_near(flat(&shown(&broken)), from_p3(colour), 4);
}

#[test]
fn grey_profile_applies_to_grey_png_only() {
    let profile = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let profile = [b"grey\0\0", &deflated(&profile)[..]].concat();
    let grey = written(GrayImage::from_pixel(40, 30, Luma([55])), ImageFormat::Png);
    assert_near(flat(&shown(&with_chunk(&grey, b"iCCP", &profile))), [128; 3], 3);
    let alpha = ImageBuffer::from_pixel(40, 30, LumaA([55_u8, 255]));
    let alpha = written(DynamicImage::ImageLumaA8(alpha), ImageFormat::Png);
    assert_near(flat(&shown(&with_chunk(&alpha, b"iCCP", &profile))), [128; 3], 3);
    // It does not apply to a picture in colours.
    let colours = png(&RgbImage::from_pixel(48, 32, Rgb([55; 3])));
    assert_near(flat(&shown(&with_chunk(&colours, b"iCCP", &profile))), [55; 3], 3);
}

#[test]
fn every_jpeg_structure_gives_the_same_picture() {
    let pixels = photo(333, 222);
    let reference = shown(&jpeg(&pixels));
    for scans in [2, 9, 30] {
        let progressive = shown(&jpeg_with(&pixels, |e| e.set_progressive_scans(scans)));
        assert!(ssim(&progressive, &reference) > 0.999);
    }
    let restarted = shown(&jpeg_with(&pixels, |e| e.set_restart_interval(2)));
    assert!(ssim(&restarted, &reference) > 0.999);
}
