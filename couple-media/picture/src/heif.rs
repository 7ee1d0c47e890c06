//! HEIF container (ISO/IEC 23008-12 in ISO/IEC 14496-12): finds the coded pictures and their layout.
//!
//! Reading takes time proportional to the file's length, even if the file is invalid.

use std::{collections::BTreeMap, ops::Range};

use image::metadata::Orientation;

use super::{Limits, Rejected, limits::MAX_PROFILE_BYTES};

/// Maximum number of items, parts of items and properties. A phone's picture has about sixty.
const MAX_ITEMS: usize = 10_000;

/// A picture that consists of coded pictures.
#[derive(Debug)]
pub(super) struct Header {
    /// Width as stored, in pixels.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    pub(super) profile: Option<Vec<u8>>,
    pub(super) picture: Grid,
    /// Opacity of the pixels, as luma.
    pub(super) alpha: Option<Grid>,
}

/// Coded pictures of one size, in rows.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub(super) columns: u32,
    pub(super) tile_width: u32,
    pub(super) tile_height: u32,
    pub(super) tiles: Vec<Coded>,
    pub(super) colour: Option<Nclx>,
}

/// Position of a coded picture in the file.
#[derive(Debug, Clone)]
pub(super) struct Coded {
    pub(super) config: Range<usize>,
    pub(super) data: Vec<Range<usize>>,
}

/// Colour description as code points of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nclx {
    pub(super) primaries: u16,
    pub(super) transfer: u16,
    pub(super) matrix: u16,
    pub(super) full_range: bool,
}

impl Header {
    /// Reads the structure of the picture. Of coded bytes it only checks that they exist.
    pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        let container = Container::read(bytes)?;
        let id = container.primary;
        let item = container.item(id)?;
        let (mut width, mut height, picture) = container.grid(id, limits)?;
        let mut turns = Turns::default();
        for property in container.properties(item)? {
            match *property {
                Property::Rotation(quarters) => turns.rotate(4 - quarters),
                Property::Mirror { top_bottom } => turns.mirror(top_bottom),
                // Written by programs that pad a picture to an even size.
                Property::Aperture(fractions) if turns == Turns::default() => {
                    (width, height) = aperture(fractions, width, height)?;
                }
                Property::Aperture(_) => return Err(unsupported("a crop of a rotated picture")),
                _ => {}
            }
        }
        limits.check_size(width, height)?;
        let alpha = container.alpha.iter().find_map(|&alpha| {
            let item = container.items.get(&alpha)?;
            let is_alpha = container.properties(item).ok()?.any(|one| matches!(one, Property::Alpha));
            is_alpha.then(|| container.grid(alpha, limits))
        });
        let alpha = match alpha.transpose()? {
            Some((w, h, _)) if w < width || h < height => return Err(unsupported("alpha of another size")),
            alpha => alpha.map(|(_, _, grid)| grid),
        };
        let of_first = container.inputs.first().and_then(|first| container.items.get(first));
        let mut profile = None;
        for item in [Some(item), of_first].into_iter().flatten() {
            profile = profile.or(container.properties(item)?.find_map(|property| match property {
                Property::Profile(range) if range.len() <= MAX_PROFILE_BYTES => {
                    Some(bytes[range.clone()].to_vec())
                }
                _ => None,
            }));
        }
        Ok(Self { width, height, orientation: turns.orientation(), profile, picture, alpha })
    }
}

/// Rotation and mirroring: a number of clockwise quarter turns, then mirrored or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turns {
    quarters: u8,
    mirrored: bool,
}

impl Turns {
    fn rotate(&mut self, clockwise: u8) {
        let clockwise = if self.mirrored { 8 - clockwise } else { clockwise };
        self.quarters = (self.quarters + clockwise) % 4;
    }

    fn mirror(&mut self, top_bottom: bool) {
        if top_bottom {
            self.rotate(2);
        }
        self.mirrored = !self.mirrored;
    }

    fn orientation(self) -> Orientation {
        match (self.quarters, self.mirrored) {
            (1, false) => Orientation::Rotate90,
            (2, false) => Orientation::Rotate180,
            (3, false) => Orientation::Rotate270,
            (1, true) => Orientation::Rotate90FlipH,
            (2, true) => Orientation::FlipVertical,
            (3, true) => Orientation::Rotate270FlipH,
            (_, true) => Orientation::FlipHorizontal,
            (_, false) => Orientation::NoTransforms,
        }
    }
}

/// Width and height after a crop at the right and bottom.
///
/// The fractions are width, height, and offsets of the crop's centre.
fn aperture(fractions: [u32; 8], width: u32, height: u32) -> Result<(u32, u32), Rejected> {
    let [w, wd, h, hd, x, xd, y, yd] = fractions;
    if [wd, hd, xd, yd].contains(&0) {
        return Err(corrupt("a crop without size"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is compared")]
    let side = |value: u32, divisor: u32| (f64::from(value) / f64::from(divisor)).round() as u32;
    let (w, h) = (side(w, wd), side(h, hd));
    let signed = |value: u32, divisor: u32| f64::from(value.cast_signed()) / f64::from(divisor);
    let left = signed(x, xd) + (f64::from(width) - f64::from(w)) / 2.0;
    let top = signed(y, yd) + (f64::from(height) - f64::from(h)) / 2.0;
    if w > width || h > height || left.abs() >= 1.0 || top.abs() >= 1.0 {
        return Err(unsupported("a crop at the left or above"));
    }
    Ok((w, h))
}

#[derive(Debug)]
enum Property {
    Size(u32, u32),
    Config(Range<usize>),
    Profile(Range<usize>),
    Colour(Nclx),
    Rotation(u8),
    Mirror {
        top_bottom: bool,
    },
    Aperture([u32; 8]),
    Alpha,
    /// Supported property without effect: bit depths, brightness, the type of an auxiliary picture.
    Known,
    /// Unknown property: ignored, unless the file marks it as essential.
    Other,
}

#[derive(Debug, Default)]
struct Item {
    kind: [u8; 4],
    data: Vec<Range<usize>>,
    /// Index of each property, from 1, and whether it is essential.
    properties: Vec<(usize, bool)>,
}

struct Container<'a> {
    bytes: &'a [u8],
    primary: u32,
    items: BTreeMap<u32, Item>,
    properties: Vec<Property>,
    /// Items that the primary item, and its alpha, are composed of.
    inputs: Vec<u32>,
    alpha_inputs: BTreeMap<u32, Vec<u32>>,
    /// Auxiliary items that refer to the primary item.
    alpha: Vec<u32>,
}

impl<'a> Container<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let mut file = Reader { bytes, at: 0, end: bytes.len() };
        let mut meta = loop {
            if let (b"meta", content) = file.next_box()?.ok_or(Rejected::Truncated)? {
                break content;
            }
        };
        meta.take(4)?;
        let mut boxes = BTreeMap::new();
        while let Some((kind, content)) = meta.next_box()? {
            if let b"pitm" | b"iinf" | b"iloc" | b"idat" | b"iprp" | b"iref" = kind {
                boxes.insert(*kind, content);
            }
        }
        let mut part = |kind: &[u8; 4]| boxes.remove(kind);
        let missing = || corrupt("the file has no picture");
        let mut pitm = part(b"pitm").ok_or_else(missing)?;
        let primary = if pitm.version()?.0 == 0 { pitm.u16()?.into() } else { pitm.u32()? };
        let mut container = Self {
            bytes,
            primary,
            items: BTreeMap::new(),
            properties: Vec::new(),
            inputs: Vec::new(),
            alpha_inputs: BTreeMap::new(),
            alpha: Vec::new(),
        };
        container.infos(part(b"iinf").ok_or_else(missing)?)?;
        let idat = part(b"idat");
        container.locations(part(b"iloc").ok_or_else(missing)?, idat)?;
        let mut iprp = part(b"iprp").ok_or_else(missing)?;
        while let Some((kind, content)) = iprp.next_box()? {
            match kind {
                b"ipco" if container.properties.is_empty() => container.container(content)?,
                b"ipma" => container.associations(content)?,
                _ => {}
            }
        }
        if let Some(iref) = part(b"iref") {
            container.references(iref)?;
        }
        Ok(container)
    }

    fn infos(&mut self, mut iinf: Reader<'a>) -> Result<(), Rejected> {
        let (version, _) = iinf.version()?;
        iinf.take(if version == 0 { 2 } else { 4 })?;
        while let Some((kind, mut infe)) = iinf.next_box()? {
            let (version, _) = infe.version()?;
            if kind != b"infe" || version < 2 {
                continue;
            }
            let id = if version == 2 { infe.u16()?.into() } else { infe.u32()? };
            infe.take(2)?;
            let kind = *infe.take(4)?.first_chunk().ok_or(Rejected::Truncated)?;
            self.items.insert(id, Item { kind, ..Item::default() });
            check_item_count(self.items.len())?;
        }
        Ok(())
    }

    fn locations(&mut self, mut iloc: Reader<'a>, idat: Option<Reader<'a>>) -> Result<(), Rejected> {
        let (version, _) = iloc.version()?;
        if version > 2 {
            return Err(unsupported("locations of another version"));
        }
        let sizes = iloc.u16()?;
        let size = |shift: u16| usize::from(sizes >> shift & 15);
        let index_size = if version == 0 { 0 } else { size(0) };
        let count = if version < 2 { iloc.u16()?.into() } else { iloc.u32()? };
        let mut parts = 0;
        for _ in 0..count {
            let id = if version < 2 { iloc.u16()?.into() } else { iloc.u32()? };
            let method = if version == 0 { 0 } else { iloc.u16()? & 15 };
            iloc.take(2)?;
            let base = iloc.number(size(4))?;
            let extents = usize::from(iloc.u16()?);
            parts += extents;
            check_item_count(parts)?;
            let source = match (method, &idat) {
                (0, _) => Some(0..self.bytes.len()),
                (1, Some(idat)) => Some(idat.at..idat.end),
                _ => None,
            };
            let mut data = Vec::with_capacity(extents);
            for _ in 0..extents {
                iloc.take(index_size)?;
                let (offset, length) = (iloc.number(size(12))?, iloc.number(size(8))?);
                let Some(source) = &source else { continue };
                let begin = source.start.saturating_add(base).saturating_add(offset);
                let end = if length == 0 { source.end } else { begin.saturating_add(length) };
                data.push(begin..end);
            }
            if let Some(item) = self.items.get_mut(&id) {
                item.data = data;
            }
        }
        Ok(())
    }

    fn container(&mut self, mut ipco: Reader<'a>) -> Result<(), Rejected> {
        while let Some((kind, mut content)) = ipco.next_box()? {
            let property = match kind {
                b"ispe" => {
                    content.take(4)?;
                    Property::Size(content.u32()?, content.u32()?)
                }
                b"hvcC" => Property::Config(content.at..content.end),
                b"colr" => match content.take(4)? {
                    b"prof" | b"rICC" => Property::Profile(content.at..content.end),
                    b"nclx" => Property::Colour(Nclx {
                        primaries: content.u16()?,
                        transfer: content.u16()?,
                        matrix: content.u16()?,
                        full_range: content.take(1)?[0] & 0x80 != 0,
                    }),
                    _ => Property::Known,
                },
                b"irot" => Property::Rotation(content.take(1)?[0] & 3),
                b"imir" => Property::Mirror { top_bottom: content.take(1)?[0] & 1 == 0 },
                b"clap" => {
                    let mut fractions = [0; 8];
                    for fraction in &mut fractions {
                        *fraction = content.u32()?;
                    }
                    Property::Aperture(fractions)
                }
                b"auxC" => {
                    content.take(4)?;
                    let name = &self.bytes[content.at..content.end];
                    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                    match name {
                        b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha" | b"urn:mpeg:hevc:2015:auxid:1" => {
                            Property::Alpha
                        }
                        _ => Property::Known,
                    }
                }
                b"pixi" | b"pasp" | b"clli" | b"mdcv" => Property::Known,
                _ => Property::Other,
            };
            self.properties.push(property);
            check_item_count(self.properties.len())?;
        }
        Ok(())
    }

    fn associations(&mut self, mut ipma: Reader<'a>) -> Result<(), Rejected> {
        let (version, flags) = ipma.version()?;
        let count = ipma.u32()?;
        let mut parts = 0;
        for _ in 0..count {
            let id = if version == 0 { ipma.u16()?.into() } else { ipma.u32()? };
            let properties = ipma.take(1)?[0];
            // An item without properties counts as one.
            parts += usize::from(properties.max(1));
            check_item_count(parts)?;
            let mut of_item = Vec::with_capacity(properties.into());
            for _ in 0..properties {
                of_item.push(if flags & 1 == 0 {
                    let value = ipma.take(1)?[0];
                    (usize::from(value & 0x7F), value & 0x80 != 0)
                } else {
                    let value = ipma.u16()?;
                    (usize::from(value & 0x7FFF), value & 0x8000 != 0)
                });
            }
            if let Some(item) = self.items.get_mut(&id) {
                item.properties = of_item;
            }
        }
        Ok(())
    }

    fn references(&mut self, mut iref: Reader<'a>) -> Result<(), Rejected> {
        let (version, _) = iref.version()?;
        while let Some((kind, mut content)) = iref.next_box()? {
            let id = |content: &mut Reader<'a>| match version {
                0 => content.u16().map(u32::from),
                _ => content.u32(),
            };
            let from = id(&mut content)?;
            let count = content.u16()?;
            let to = (0..count).map(|_| id(&mut content)).collect::<Result<Vec<_>, _>>()?;
            match kind {
                b"dimg" if from == self.primary => self.inputs = to,
                b"dimg" => drop(self.alpha_inputs.insert(from, to)),
                b"auxl" if to.contains(&self.primary) => self.alpha.push(from),
                _ => {}
            }
            check_item_count(self.alpha.len() + self.alpha_inputs.len())?;
        }
        Ok(())
    }

    fn item(&self, id: u32) -> Result<&Item, Rejected> {
        self.items.get(&id).ok_or_else(|| corrupt("an item is missing"))
    }

    fn properties(&self, item: &Item) -> Result<impl Iterator<Item = &Property>, Rejected> {
        let of = |index: usize| index.checked_sub(1).and_then(|index| self.properties.get(index));
        for &(index, must) in &item.properties {
            if must && matches!(of(index), None | Some(Property::Other)) {
                return Err(unsupported("a property that must be understood"));
            }
        }
        Ok(item.properties.iter().filter_map(move |&(index, _)| of(index)))
    }

    /// Size of an image item, and the grid of its coded pictures.
    fn grid(&self, id: u32, limits: &Limits) -> Result<(u32, u32, Grid), Rejected> {
        let item = self.item(id)?;
        let (columns, rows, size, ids) = match &item.kind {
            b"hvc1" => (1, 1, None, &[id][..]),
            b"grid" => {
                let (columns, rows, size) = self.layout(item)?;
                let inputs = if id == self.primary {
                    &self.inputs[..]
                } else {
                    self.alpha_inputs.get(&id).map_or(&[][..], Vec::as_slice)
                };
                (columns, rows, Some(size), inputs)
            }
            _ => return Err(unsupported("a picture that is neither HEVC nor a grid of HEVC pictures")),
        };
        let (width, height) = match size {
            Some(size) => size,
            None => self.size(item)?,
        };
        limits.check_size(width, height)?;
        if ids.len() != (columns * rows) as usize {
            return Err(corrupt("the number of tiles differs from the grid"));
        }
        check_item_count(ids.len())?;
        let mut colour = self.colour(item)?;
        let mut tiles = Vec::with_capacity(ids.len());
        let (mut tile, mut parts) = (None, 0);
        for &part in ids {
            let item = self.item(part)?;
            parts += item.data.len();
            check_item_count(parts)?;
            let turned = |property| {
                matches!(property, &Property::Rotation(1..) | Property::Mirror { .. } | Property::Aperture(_))
            };
            if item.kind != *b"hvc1" || part != id && self.properties(item)?.any(turned) {
                return Err(unsupported("tiles that are not plain HEVC pictures"));
            }
            if *tile.get_or_insert(self.size(item)?) != self.size(item)? {
                return Err(unsupported("tiles of several sizes"));
            }
            let config = self.properties(item)?.find_map(|property| match property {
                Property::Config(range) => Some(range.clone()),
                _ => None,
            });
            if item.data.iter().any(|range| range.start > range.end || range.end > self.bytes.len()) {
                return Err(Rejected::Truncated);
            }
            colour = colour.or(self.colour(item)?);
            let config = config.ok_or_else(|| corrupt("a coded picture without its parameter sets"))?;
            tiles.push(Coded { config, data: item.data.clone() });
        }
        let (tile_width, tile_height) = tile.unwrap_or_default();
        limits.check_size(tile_width, tile_height)?;
        // The tiles cover the picture, and no tile lies completely outside of it.
        let fits = |count: u32, part: u32, whole: u32| {
            let (count, part, whole) = (u64::from(count), u64::from(part), u64::from(whole));
            count * part >= whole && (count - 1) * part < whole
        };
        if !fits(columns, tile_width, width) || !fits(rows, tile_height, height) {
            return Err(corrupt("the tiles do not fit the picture"));
        }
        Ok((width, height, Grid { columns, tile_width, tile_height, tiles, colour }))
    }

    /// Properties of a grid: columns, rows, width and height.
    fn layout(&self, item: &Item) -> Result<(u32, u32, (u32, u32)), Rejected> {
        let [range] = &item.data[..] else { return Err(unsupported("a grid in several parts")) };
        let mut grid = Reader { bytes: self.bytes, at: range.start, end: range.end.min(self.bytes.len()) };
        let (flags, rows, columns) = match grid.take(4)? {
            &[0, flags, rows, columns] => (flags, u32::from(rows) + 1, u32::from(columns) + 1),
            _ => return Err(unsupported("a grid of another version")),
        };
        let mut side = || if flags & 1 == 0 { grid.u16().map(u32::from) } else { grid.u32() };
        Ok((columns, rows, (side()?, side()?)))
    }

    fn size(&self, item: &Item) -> Result<(u32, u32), Rejected> {
        let size = self.properties(item)?.find_map(|property| match *property {
            Property::Size(width, height) => Some((width, height)),
            _ => None,
        });
        size.ok_or_else(|| corrupt("a picture without size"))
    }

    fn colour(&self, item: &Item) -> Result<Option<Nclx>, Rejected> {
        Ok(self.properties(item)?.find_map(|property| match *property {
            Property::Colour(colour) => Some(colour),
            _ => None,
        }))
    }
}

/// Reader of the rest of a box.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Rejected> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.end).ok_or(Rejected::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Rejected::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// Reads a big-endian number. One that does not fit becomes the maximum, which is beyond every end.
    fn number(&mut self, size: usize) -> Result<usize, Rejected> {
        let value = self.take(size)?.iter().fold(0_u128, |value, &byte| value << 8 | u128::from(byte));
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    }

    fn u16(&mut self) -> Result<u16, Rejected> {
        Ok(u16::from_be_bytes(*self.take(2)?.first_chunk().ok_or(Rejected::Truncated)?))
    }

    fn u32(&mut self) -> Result<u32, Rejected> {
        Ok(u32::from_be_bytes(*self.take(4)?.first_chunk().ok_or(Rejected::Truncated)?))
    }

    /// Reads version and flags of a full box.
    fn version(&mut self) -> Result<(u8, u32), Rejected> {
        let value = self.u32()?;
        Ok((value.to_be_bytes()[0], value & 0xFF_FFFF))
    }

    fn next_box(&mut self) -> Result<Option<(&'a [u8; 4], Self)>, Rejected> {
        if self.at >= self.end {
            return Ok(None);
        }
        let begin = self.at;
        let size = self.number(4)?;
        let kind = self.take(4)?.first_chunk().ok_or(Rejected::Truncated)?;
        let end = match size {
            0 => self.end,
            1 => begin.saturating_add(self.number(8)?),
            size => begin + size,
        };
        if end < self.at {
            return Err(corrupt("a box is shorter than its header"));
        }
        if end > self.end {
            return Err(Rejected::Truncated);
        }
        let content = Self { bytes: self.bytes, at: self.at, end };
        self.at = end;
        Ok(Some((kind, content)))
    }
}

fn check_item_count(count: usize) -> Result<(), Rejected> {
    if count > MAX_ITEMS { Err(Rejected::TooComplex("the file has too many parts".into())) } else { Ok(()) }
}

fn corrupt(what: &str) -> Rejected {
    Rejected::Corrupt(what.into())
}

fn unsupported(what: &str) -> Rejected {
    Rejected::Unsupported(what.into())
}
