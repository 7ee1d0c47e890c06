//! Names of file types that are not accepted as pictures, for error messages.

/// Names the type of a file that the [`Renderer`](super::Renderer) does not recognise.
pub(super) fn describe(head: &[u8]) -> &'static str {
    let has = |prefix: &[u8]| head.starts_with(prefix);
    let brand = |brands: &[&[u8; 4]]| brands.iter().any(|brand| head.get(8..12) == Some(&brand[..]));
    let riff = |form: &[u8; 4]| has(b"RIFF") && head.get(8..12) == Some(&form[..]);
    match head {
        [] => "an empty body",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => {
            if brand(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
                "HEIC/HEIF"
            } else if brand(&[b"avif", b"avis"]) {
                "AVIF"
            } else if brand(&[b"crx "]) {
                "a raw photo (CR3)"
            } else {
                "a video (MP4 or QuickTime)"
            }
        }
        _ if has(b"%PDF-") => "a PDF document",
        _ if has(&[0x1A, 0x45, 0xDF, 0xA3]) => "a video (WebM or Matroska)",
        _ if riff(b"AVI ") => "a video (AVI)",
        _ if riff(b"WAVE") || has(b"ID3") || has(b"OggS") || has(b"fLaC") => "audio",
        _ if has(b"II*\0") || has(b"MM\0*") => "TIFF or a raw photo (DNG)",
        _ if has(b"BM") => "BMP",
        _ if has(&[0xFF, 0x0A]) || has(b"\0\0\0\x0CJXL ") => "JPEG XL",
        _ if has(b"\0\0\0\x0CjP  ") || has(&[0xFF, 0x4F, 0xFF, 0x51]) => "JPEG 2000",
        _ if has(b"8BPS") => "a Photoshop document",
        _ if has(&[0, 0, 1, 0]) => "an icon (ICO)",
        _ if has(b"PK\x03\x04") => "a ZIP archive",
        _ if has(&[0x1F, 0x8B]) => "gzip",
        _ if has(b"data:") => "a data: URL; send the bytes that it encodes",
        _ => describe_text(head),
    }
}

fn describe_text(head: &[u8]) -> &'static str {
    let text = head.trim_ascii_start();
    let is_base64 =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    let pictures: [&[u8]; 4] = [b"/9j/", b"iVBORw", b"R0lGOD", b"UklGR"];
    if pictures.iter().any(|start| text.starts_with(start)) {
        "a picture in base64; send the bytes that it encodes"
    } else if text.starts_with(b"<svg") || text.starts_with(b"<?xml") {
        "SVG or XML"
    } else if text.starts_with(b"<") {
        "HTML"
    } else if text.starts_with(b"{") || text.starts_with(b"[") {
        "JSON"
    } else if text.len() >= 12 && text.iter().take(64).all(is_base64) {
        "text, perhaps base64; send the bytes that it encodes"
    } else if head.iter().take(64).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        "text"
    } else {
        "an unknown type"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_unaccepted_types_are_named() {
        for (head, name) in [
            (&b""[..], "an empty body"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC/HEIF"),
            (b"\0\0\0\x1Cftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video (MP4 or QuickTime)"),
            (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video (MP4 or QuickTime)"),
            (b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81", "a video (WebM or Matroska)"),
            (b"%PDF-1.7 and more", "a PDF document"),
            (b"/9j/4AAQSkZJRgABAQAAAQABAAD", "a picture in base64; send the bytes that it encodes"),
            (b"iVBORw0KGgoAAAANSUhEUg", "a picture in base64; send the bytes that it encodes"),
            (b"data:image/png;base64,iVBOR", "a data: URL; send the bytes that it encodes"),
            (b"AAAAGGZ0eXBoZWljAAAAAG1pZjE", "text, perhaps base64; send the bytes that it encodes"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG or XML"),
            (b"II*\0\x08\0\0\0", "TIFF or a raw photo (DNG)"),
            (b"hello, world", "text"),
            (&[0, 1, 2, 3], "an unknown type"),
        ] {
            assert_eq!(describe(head), name, "{head:?}");
        }
    }
}
