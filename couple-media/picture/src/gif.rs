//! Blocks of a GIF file (`GIF89a`, sections 18 to 27).

use std::borrow::Cow;

/// A block that follows the screen descriptor of a file.
pub(super) enum Block {
    /// An image, with its descriptor: left, top, width and height in two bytes each, and flags.
    Frame([u8; 9]),
    /// Number of repetitions of the animation; 0 is endless (Netscape's application extension).
    Again(u16),
    /// Another extension.
    Other,
}

/// Blocks of a file, to its trailer or to the first incomplete block.
pub(super) struct Blocks<'a>(&'a [u8]);

impl<'a> Blocks<'a> {
    /// None if the header is incomplete.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.get(6..)?;
        let screen = take(&mut rest, 7)?;
        skip_colour_table(&mut rest, screen[4])?;
        Some(Self(rest))
    }

    fn read(&mut self) -> Option<Block> {
        let rest = &mut self.0;
        match take(rest, 1)? {
            [0x21] => {
                let label = take(rest, 1)?;
                let application = label == [0xFF] && rest.starts_with(b"\x0bNETSCAPE2.0\x03\x01");
                let block = match (application, rest.get(14..16)?) {
                    (true, &[low, high]) => Block::Again(u16::from_le_bytes([low, high])),
                    _ => Block::Other,
                };
                skip_data(rest)?;
                Some(block)
            }
            [0x2C] => {
                let descriptor = *take(rest, 9)?.first_chunk()?;
                skip_colour_table(rest, descriptor[8])?;
                take(rest, 1)?;
                skip_data(rest)?;
                Some(Block::Frame(descriptor))
            }
            _ => None,
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        self.read()
    }
}

/// The file; if its screen is empty, with a screen that fits its first frame, as browsers show it.
pub(super) fn with_screen(bytes: &[u8]) -> Cow<'_, [u8]> {
    let screen = screen(bytes).map(|size| size.concat());
    match screen {
        Some(screen) if bytes[6..10] != screen => {
            let mut bytes = bytes.to_vec();
            bytes[6..10].copy_from_slice(&screen);
            Cow::Owned(bytes)
        }
        _ => Cow::Borrowed(bytes),
    }
}

/// Width and height of the screen, in two bytes each.
///
/// If the screen is empty, it is the extent of the first frame.
pub(super) fn screen(bytes: &[u8]) -> Option<[[u8; 2]; 2]> {
    let &[w0, w1, h0, h1] = bytes.strip_prefix(b"GIF8")?.get(2..6)?.first_chunk()?;
    if [w0, w1] != [0; 2] && [h0, h1] != [0; 2] {
        return Some([[w0, w1], [h0, h1]]);
    }
    let first = Blocks::of(bytes)?.find_map(|block| match block {
        Block::Frame(descriptor) => Some(descriptor),
        _ => None,
    });
    let [l0, l1, t0, t1, w0, w1, h0, h1, _] = first?;
    let reach = |start: [u8; 2], length: [u8; 2]| {
        u16::from_le_bytes(start).saturating_add(u16::from_le_bytes(length)).to_le_bytes()
    };
    Some([reach([l0, l1], [w0, w1]), reach([t0, t1], [h0, h1])])
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Skips a colour table, if the flags declare one.
fn skip_colour_table(rest: &mut &[u8], flags: u8) -> Option<()> {
    if flags & 0x80 != 0 {
        take(rest, 6 << (flags & 7))?;
    }
    Some(())
}

/// Skips data blocks up to the empty one that ends them.
fn skip_data(rest: &mut &[u8]) -> Option<()> {
    loop {
        match take(rest, 1)? {
            [0] => return Some(()),
            length => take(rest, length[0].into())?,
        };
    }
}
