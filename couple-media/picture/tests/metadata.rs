//! Renditions contain pixels only, and no metadata of the upload.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use couple_picture::{AVATARS, Encoding, PHOTOS, Recipe, Rejected};
use support::{
    exif, fields, jpeg, jpeg_exif, photo, png, render, shown, webp_with, with_chunk, with_segment,
};

const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><exif:GPSLatitude>48,51.49N</exif:GPSLatitude>\
    <xmpGImg:image>SECRETTHUMB</xmpGImg:image></x:xmpmeta>";

/// Checks that a JPEG or WebP of ours has no segments or chunks that could hold metadata.
fn assert_bare(bytes: &[u8]) {
    if bytes.starts_with(b"RIFF") {
        assert_eq!(&bytes[8..12], b"WEBP");
        assert_eq!(&bytes[12..16], b"VP8 ", "the simple format, with one chunk");
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        assert_eq!(20 + length + length % 2, bytes.len());
        return;
    }
    let mut at = 2;
    while bytes[at + 1] != 0xDA {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        match bytes[at + 1] {
            0xE0 => assert_eq!(&bytes[at + 4..at + 9], b"JFIF\0"),
            0xC0 | 0xC4 | 0xDB => {}
            marker => panic!("a segment of {marker:x}"),
        }
        at += 2 + length;
    }
    let end = bytes.windows(2).position(|pair| pair == [0xFF, 0xD9]).unwrap();
    assert_eq!(end + 2, bytes.len(), "no bytes after the end");
}

fn assert_clean(file: &[u8]) {
    for encoding in [Encoding::JPEG, Encoding::WEBP] {
        for renditions in [AVATARS.to_vec(), PHOTOS.to_vec()] {
            let rendered = render(file, &Recipe { renditions, crop: None, encoding }).unwrap();
            for image in &rendered.images {
                assert_bare(&image.bytes);
                for secret in
                    [&b"Exif"[..], b"GPS", b"SECRET", b"Mkr", b"<script", b"PK\x03\x04", b"ICC_PROFILE"]
                {
                    assert!(!image.bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
                }
            }
        }
    }
}

#[test]
fn location_thumbnail_and_text_are_removed() {
    let pixels = photo(600, 400);
    for orientation in [1, 6] {
        let exif = exif(orientation, true);
        let file = jpeg_exif(&jpeg(&pixels), &exif);
        let file = with_segment(&file, 0xE1, XMP);
        let file = with_segment(&file, 0xFE, b"SECRET comment");
        let file = with_segment(&file, 0xED, b"Photoshop 3.0\08BIM SECRET caption");
        let file = with_segment(&file, 0xE2, b"MPF\0SECRET more pictures");
        assert_clean(&[&file[..], b"SECRET behind the end"].concat());

        let file = with_chunk(&png(&pixels), b"eXIf", &exif);
        let file = with_chunk(&file, b"tEXt", b"Comment\0SECRET");
        let file = with_chunk(&file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET");
        assert_clean(&[&file[..], b"SECRET behind the end"].concat());

        assert_clean(&webp_with(&pixels, 0x0C, &[(b"EXIF", &exif), (b"XMP ", XMP)]));
    }
}

#[test]
fn polyglot_file_becomes_a_plain_picture() {
    let pixels = photo(300, 200);
    let html = b"<html><script>alert('SECRET')</script></html>";
    assert_clean(&with_segment(&jpeg(&pixels), 0xFE, html));
    assert_clean(&[&jpeg(&pixels)[..], html].concat());
    let zip = b"PK\x03\x04SECRET\x14\0PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    assert_clean(&[&png(&pixels)[..], zip].concat());
    assert_clean(&with_chunk(&png(&pixels), b"zIPd", zip));
}

#[test]
fn other_file_types_are_rejected() {
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>";
    for file in [
        &svg[..],
        b"<?xml version=\"1.0\"?><svg/>",
        b"",
        b"\xff",
        b"%PDF-1.7",
        b"BM\0\0\0\0",
        b"II\x2a\0\x08\0\0\0",
        b"<html></html>",
        b"PK\x03\x04",
    ] {
        assert_eq!(render(file, &support::whole()).unwrap_err(), Rejected::UnknownType);
    }
}

/// The placeholder also shows only the cropped area.
#[test]
fn placeholder_shows_the_crop() {
    let file = jpeg(&fields(400, 400));
    let average = |crop| {
        let recipe = Recipe { crop, ..support::within(64) };
        let placeholder = render(&file, &recipe).unwrap().placeholder;
        assert!(placeholder.len() <= 25, "a ThumbHash has at most 25 bytes");
        fast_thumbhash::thumb_hash_to_average_rgba(&placeholder).unwrap()
    };
    let red = average(Some(couple_picture::Crop { x: 0, y: 0, width: 180, height: 180 }));
    assert!(red.0 > 0.6 && red.1 < 0.35 && red.2 < 0.35, "{red:?}");
    assert!(average(None).2 > 0.35);
    assert_eq!(shown(&file).dimensions(), (400, 400));
}
