//! Animations: how much of one is kept, and its frames as a WebP (RFC 9649, section 2.7).

use std::{io::Cursor, rc::Rc};

use image::{
    AnimationDecoder, Frames, ImageDecoder, RgbImage,
    codecs::{gif::GifDecoder, webp::WebPDecoder},
    imageops,
};

use super::{
    Encoding, Image, Info, Kind, Limits, Recipe, Rejected, Rendered,
    decode::{Decoded, Samples, flattened, image_limits, rejected},
    encode,
    limits::Deadline,
    pixels::Pixels,
    scale::Plan,
    vp8l,
};

/// What a frame's place and time are written in, and so at most.
const U24: u32 = 0xFF_FFFF;

/// The whole frames of a file, and how often they are shown; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) frames: u32,
    loops: u16,
}

impl Run {
    /// Counts without decoding. Of a file that ends too early, what is there.
    pub(super) fn of(kind: Kind, bytes: &[u8]) -> Self {
        let mut run = Self { frames: 0, loops: 1 };
        match kind {
            Kind::Gif => run.gif(bytes),
            Kind::WebP => run.webp(bytes),
            _ => None,
        };
        run
    }

    /// The blocks of a file (`GIF89a`, sections 18 to 27).
    fn gif(&mut self, bytes: &[u8]) -> Option<()> {
        let mut rest = bytes.get(6..)?;
        let screen = take(&mut rest, 7)?;
        colour_table(&mut rest, screen[4])?;
        loop {
            match take(&mut rest, 1)? {
                [0x21] => {
                    let label = take(&mut rest, 1)?;
                    let application = label == [0xFF] && rest.starts_with(b"\x0bNETSCAPE2.0\x03\x01");
                    if let (true, &[low, high]) = (application, rest.get(14..16)?) {
                        // It says how often it is shown again.
                        self.loops = match u16::from_le_bytes([low, high]) {
                            0 => 0,
                            again => again.saturating_add(1),
                        };
                    }
                    blocks(&mut rest)?;
                }
                [0x2C] => {
                    let frame = take(&mut rest, 9)?;
                    colour_table(&mut rest, frame[8])?;
                    take(&mut rest, 1)?;
                    blocks(&mut rest)?;
                    self.frames = self.frames.saturating_add(1);
                }
                _ => return None,
            }
        }
    }

    fn webp(&mut self, bytes: &[u8]) -> Option<()> {
        let mut rest = bytes.get(12..)?;
        loop {
            let kind = take(&mut rest, 4)?;
            let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?) as usize;
            let payload = take(&mut rest, length)?;
            match (kind, payload) {
                (b"ANIM", &[_, _, _, _, low, high, ..]) => self.loops = u16::from_le_bytes([low, high]),
                (b"ANMF", _) => self.frames = self.frames.saturating_add(1),
                _ => {}
            }
            rest = rest.get(length % 2..)?;
        }
    }

    /// How many frames are kept: one, unless all of them are within the limits.
    pub(super) fn kept(self, width: u32, height: u32, limits: &Limits) -> u32 {
        let pixels = u64::from(width) * u64::from(height) * u64::from(self.frames);
        let within = self.frames <= limits.frames && pixels <= u64::from(limits.megapixels) * 1_000_000;
        if within { self.frames.max(1) } else { 1 }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Skips a GIF's colour table, if its flags say that there is one.
fn colour_table(rest: &mut &[u8], flags: u8) -> Option<()> {
    if flags & 0x80 != 0 {
        take(rest, 6 << (flags & 7))?;
    }
    Some(())
}

/// Skips a GIF's data blocks, to their end.
fn blocks(rest: &mut &[u8]) -> Option<()> {
    loop {
        match take(rest, 1)? {
            [0] => return Some(()),
            length => take(rest, length[0].into())?,
        };
    }
}

/// All renditions of all frames. None if a rendition would be larger than an upload may be.
pub(super) fn render(
    bytes: &[u8],
    info: &Info,
    plan: &Plan,
    recipe: &Recipe,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Option<Rendered>, Rejected> {
    let mut writers = vec![Writer::default(); recipe.renditions.len()];
    let mut placeholder = None;
    let (frames, profile) = frames(bytes, info.kind, limits)?;
    for frame in frames.take(info.frames as usize) {
        deadline.check()?;
        let frame = frame.map_err(rejected)?;
        let (time, parts) = frame.delay().numer_denom_ms();
        let pixels = flattened(frame.buffer())?;
        let decoded = Decoded { samples: Samples::Rgb { pixels, density: 1.0 }, profile: profile.clone() };
        let (views, smallest) = plan.cascade(plan.base(decoded)?, deadline)?;
        placeholder.get_or_insert_with(|| encode::placeholder(&smallest));
        for (writer, pixels) in writers.iter_mut().zip(views) {
            deadline.check()?;
            writer.show(pixels, time / parts.max(1), recipe.encoding)?;
            if writer.body.len() > limits.bytes {
                return Ok(None);
            }
        }
    }
    let loops = Run::of(info.kind, bytes).loops;
    let images = recipe.renditions.iter().zip(writers).map(|(rendition, writer)| {
        let (width, height) = writer.size();
        Image { name: rendition.name.clone(), width, height, bytes: writer.finish(loops) }
    });
    Ok(placeholder.map(|placeholder| Rendered {
        width: info.width,
        height: info.height,
        placeholder,
        images: images.collect(),
    }))
}

/// Whole pictures, one for each frame, and their colours' profile.
fn frames<'a>(
    bytes: &'a [u8],
    kind: Kind,
    limits: &Limits,
) -> Result<(Frames<'a>, Option<Vec<u8>>), Rejected> {
    fn prepared(decoder: &mut impl ImageDecoder, limits: &Limits) -> Result<Option<Vec<u8>>, Rejected> {
        decoder.set_limits(image_limits(limits)).map_err(rejected)?;
        Ok(super::decode::profile(decoder))
    }
    let source = Cursor::new(bytes);
    if kind == Kind::Gif {
        let mut decoder = GifDecoder::new(source).map_err(rejected)?;
        let profile = prepared(&mut decoder, limits)?;
        Ok((decoder.into_frames(), profile))
    } else {
        vp8l::check(bytes, limits)?;
        let mut decoder = WebPDecoder::new(source).map_err(rejected)?;
        let profile = prepared(&mut decoder, limits)?;
        Ok((decoder.into_frames(), profile))
    }
}

/// A rendition as its frames come. Of each frame it keeps the rectangle in which something changed.
#[derive(Clone, Default)]
struct Writer {
    /// The `ANMF` chunks.
    body: Vec<u8>,
    last: Option<Last>,
}

#[derive(Clone)]
struct Last {
    pixels: Rc<Pixels>,
    /// Milliseconds, and where in the body they are.
    time: u32,
    time_at: usize,
}

impl Writer {
    fn show(&mut self, pixels: Rc<Pixels>, time: u32, encoding: Encoding) -> Result<(), Rejected> {
        let (whole_width, whole_height) = pixels.size();
        let whole = Rectangle { left: 0, top: 0, right: whole_width, bottom: whole_height };
        let area = match &mut self.last {
            None => Some(whole),
            Some(last) => Rectangle::of_change(&last.pixels.to_rgb(), &pixels.to_rgb()),
        };
        let time = time.min(U24);
        let Some(area) = area else {
            // The picture before stays for longer.
            if let Some(last) = &mut self.last {
                last.time = last.time.saturating_add(time).min(U24);
                self.body[last.time_at..last.time_at + 3].copy_from_slice(&u24(last.time));
            }
            return Ok(());
        };
        // Places are written as halves.
        let (left, top) = (area.left & !1, area.top & !1);
        let (width, height) = (area.right - left, area.bottom - top);
        let file = if area == whole {
            encode::encode(&pixels, encoding)?
        } else {
            let changed = imageops::crop_imm(&*pixels.to_rgb(), left, top, width, height).to_image();
            encode::encode(&Pixels::Rgb(changed), encoding)?
        };
        // The file of one picture without its own header.
        let chunk = file.get(12..).unwrap_or_default();
        self.body.extend(b"ANMF");
        self.body.extend(u32::try_from(16 + chunk.len()).unwrap_or(u32::MAX).to_le_bytes());
        for value in [left / 2, top / 2, width - 1, height - 1] {
            self.body.extend(u24(value));
        }
        let time_at = self.body.len();
        self.body.extend(u24(time));
        // In the place of what was there, and it stays.
        self.body.push(0b10);
        self.body.extend(chunk);
        self.last = Some(Last { pixels, time, time_at });
        Ok(())
    }

    fn size(&self) -> (u32, u32) {
        self.last.as_ref().map_or((1, 1), |last| last.pixels.size())
    }

    fn finish(self, loops: u16) -> Vec<u8> {
        let (width, height) = self.size();
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(u32::try_from(4 + 18 + 14 + self.body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(b"WEBPVP8X\x0a\0\0\0\x02\0\0\0");
        bytes.extend([u24(width - 1), u24(height - 1)].concat());
        bytes.extend(b"ANIM\x06\0\0\0\xff\xff\xff\xff");
        bytes.extend(loops.to_le_bytes());
        bytes.extend(self.body);
        bytes
    }
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
    /// What differs between two pictures of one size.
    fn of_change(before: &RgbImage, after: &RgbImage) -> Option<Self> {
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
