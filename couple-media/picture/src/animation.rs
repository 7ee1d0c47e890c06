//! Animations: writes frames as WebP (RFC 9649, section 2.7).

use std::{io::Cursor, rc::Rc};

use image::{
    AnimationDecoder, Frames, ImageBuffer, ImageDecoder, Pixel, RgbaImage,
    codecs::{gif::GifDecoder, webp::WebPDecoder},
    imageops,
};

use super::{
    Encoding, Image, Info, Kind, Limits, Recipe, Rejected, Rendered, encode,
    frame_count::FrameCount,
    gif,
    image_decoder::{image_limits, profile, rejected},
    limits::Deadline,
    pixels::Pixels,
    samples::{Decoded, Packed, Samples},
    scale::Plan,
};

/// Maximum value of a frame's position and duration, which have 24 bits.
const U24: u32 = 0xFF_FFFF;

/// Encodes all renditions of all frames. None if a rendition would be larger than an upload may be.
pub(super) fn render(
    bytes: &[u8],
    info: &Info,
    plan: &Plan,
    recipe: &Recipe,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Option<Rendered>, Rejected> {
    let mut writers = vec![Writer::default(); recipe.renditions.len()];
    let (mut placeholder, mut alpha) = (None, false);
    let bytes = &*gif::with_screen(bytes);
    let (frames, profile) = frames(bytes, info.kind, limits)?;
    for frame in frames.take(info.frames as usize) {
        deadline.check()?;
        let frame = frame.map_err(rejected)?;
        let (time, parts) = frame.delay().numer_denom_ms();
        let pixels = frame.into_buffer();
        let packed = Packed::of_rgba(pixels.width(), pixels.height(), pixels.into_raw());
        let samples = Samples::Packed(packed);
        let decoded = Decoded { samples, profile: profile.clone(), grey: false };
        let (views, smallest) = plan.views(decoded, deadline)?;
        alpha |= smallest.transparent();
        placeholder.get_or_insert_with(|| encode::placeholder(&smallest));
        for (writer, pixels) in writers.iter_mut().zip(views) {
            deadline.check()?;
            writer.show(pixels, time / parts.max(1), recipe.encoding)?;
            if writer.body.len() > limits.bytes {
                return Ok(None);
            }
        }
    }
    let loops = FrameCount::of(info.kind, bytes).loops;
    let images = recipe.renditions.iter().zip(writers).map(|(rendition, writer)| {
        let (width, height) = writer.size();
        let bytes = writer.finish(loops, alpha);
        Image { name: rendition.name.clone(), width, height, bytes, encoding: recipe.encoding }
    });
    let images = images.collect();
    let (width, height) = (info.width, info.height);
    Ok(placeholder.map(|placeholder| Rendered { width, height, animated: true, alpha, placeholder, images }))
}

/// Decoded frames, each a whole picture, and their colour profile.
fn frames<'a>(
    bytes: &'a [u8],
    kind: Kind,
    limits: &Limits,
) -> Result<(Frames<'a>, Option<Vec<u8>>), Rejected> {
    fn prepared(decoder: &mut impl ImageDecoder, limits: &Limits) -> Result<Option<Vec<u8>>, Rejected> {
        decoder.set_limits(image_limits(limits)).map_err(rejected)?;
        Ok(profile(decoder))
    }
    let source = Cursor::new(bytes);
    if kind == Kind::Gif {
        let mut decoder = GifDecoder::new(source).map_err(rejected)?;
        let profile = prepared(&mut decoder, limits)?;
        Ok((decoder.into_frames(), profile))
    } else {
        let mut decoder = WebPDecoder::new(source).map_err(rejected)?;
        let profile = prepared(&mut decoder, limits)?;
        Ok((decoder.into_frames(), profile))
    }
}

/// Encodes the frames of a rendition. Of each frame it keeps the rectangle in which something changed.
#[derive(Clone, Default)]
struct Writer {
    /// The `ANMF` chunks.
    body: Vec<u8>,
    last: Option<Last>,
}

#[derive(Clone)]
struct Last {
    pixels: Rc<Pixels>,
    /// Duration in milliseconds, and its position in the body.
    time: u32,
    time_at: usize,
}

impl Writer {
    fn show(&mut self, pixels: Rc<Pixels>, time: u32, encoding: Encoding) -> Result<(), Rejected> {
        let (whole_width, whole_height) = pixels.size();
        let whole = Rectangle { left: 0, top: 0, right: whole_width, bottom: whole_height };
        let area = match &mut self.last {
            None => Some(whole),
            Some(last) => Rectangle::of_change(&last.pixels.to_rgba(), &pixels.to_rgba()),
        };
        let time = time.min(U24);
        let Some(area) = area else {
            // Nothing changed: the previous frame is shown for longer.
            if let Some(last) = &mut self.last {
                last.time = last.time.saturating_add(time).min(U24);
                self.body[last.time_at..last.time_at + 3].copy_from_slice(&u24(last.time));
            }
            return Ok(());
        };
        // Positions are stored as halves, so they must be even.
        let (left, top) = (area.left & !1, area.top & !1);
        let (width, height) = (area.right - left, area.bottom - top);
        let file = if area == whole {
            encode::encode(&pixels, encoding, None)?
        } else {
            let crop = (left, top, width, height);
            let changed = if pixels.transparent() {
                Pixels::Rgba(cropped(&*pixels.to_rgba(), crop))
            } else {
                Pixels::Rgb(cropped(&*pixels.to_rgb(), crop))
            };
            encode::encode(&changed, encoding, None)?
        };
        // The encoded frame without the file header; without the extended header, which exists if a part is transparent.
        let chunk = match file.get(12..) {
            Some([b'V', b'P', b'8', b'X', header @ ..]) => header.get(14..).unwrap_or_default(),
            chunk => chunk.unwrap_or_default(),
        };
        self.body.extend(b"ANMF");
        self.body.extend(u32::try_from(16 + chunk.len()).unwrap_or(u32::MAX).to_le_bytes());
        for value in [left / 2, top / 2, width - 1, height - 1] {
            self.body.extend(u24(value));
        }
        let time_at = self.body.len();
        self.body.extend(u24(time));
        // Flags: no blending, and no disposal.
        self.body.push(0b10);
        self.body.extend(chunk);
        self.last = Some(Last { pixels, time, time_at });
        Ok(())
    }

    fn size(&self) -> (u32, u32) {
        self.last.as_ref().map_or((1, 1), |last| last.pixels.size())
    }

    fn finish(self, loops: u16, alpha: bool) -> Vec<u8> {
        let (width, height) = self.size();
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(u32::try_from(4 + 18 + 14 + self.body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(b"WEBPVP8X\x0a\0\0\0");
        bytes.extend([if alpha { 0b1_0010 } else { 0b10 }, 0, 0, 0]);
        bytes.extend([u24(width - 1), u24(height - 1)].concat());
        bytes.extend(b"ANIM\x06\0\0\0\xff\xff\xff\xff");
        bytes.extend(loops.to_le_bytes());
        bytes.extend(self.body);
        bytes
    }
}

fn cropped<P: Pixel<Subpixel = u8> + 'static>(
    pixels: &ImageBuffer<P, Vec<u8>>,
    (left, top, width, height): (u32, u32, u32, u32),
) -> ImageBuffer<P, Vec<u8>> {
    imageops::crop_imm(pixels, left, top, width, height).to_image()
}

fn u24(value: u32) -> [u8; 3] {
    let [low, middle, high, _] = value.to_le_bytes();
    [low, middle, high]
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Rectangle {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

impl Rectangle {
    /// Bounding box of the difference between two pictures of one size.
    fn of_change(before: &RgbaImage, after: &RgbaImage) -> Option<Self> {
        let mut changed: Option<Self> = None;
        for (y, (old, new)) in (0..).zip(before.rows().zip(after.rows())) {
            let differs = |(x, (old, new))| (old != new).then_some(x);
            let mut columns = (0..before.width()).zip(old.zip(new));
            let Some(left) = columns.by_ref().find_map(differs) else { continue };
            let right = columns.rev().find_map(differs).unwrap_or(left) + 1;
            let other = changed.unwrap_or(Self { left, top: y, right, bottom: y });
            let (left, right) = (left.min(other.left), right.max(other.right));
            changed = Some(Self { left, top: other.top, right, bottom: y + 1 });
        }
        changed
    }
}
