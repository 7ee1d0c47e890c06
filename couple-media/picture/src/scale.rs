//! Crops and scales pictures.
//!
//! Uses means if there are many more samples than a rendition needs, then one step of Lanczos.

use std::rc::Rc;

use fast_image_resize::{
    FilterType, PixelTrait, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::{U8, U8x3, U8x4},
};
use image::{DynamicImage, GrayImage, RgbaImage, metadata::Orientation};

use super::{
    Crop, Encoding, Fit, Info, Recipe, Rejected, Rendition,
    colour::ColourSamples,
    limits::Deadline,
    orientation::swaps_sides,
    pixels::{Pixels, Planes},
    samples::{Colour, Decoded, Packed, Plane, Samples},
};

/// Maximum width and height of a WebP, in pixels (RFC 9649, section 2.5).
const SIDE: u32 = 16_383;

/// Minimum of the shorter side with [`Fit::Readable`], as a share of the rendition's side.
///
/// 720 of 2048 pixels.
const SHORT_SIDE: f64 = 45.0 / 128.0;

/// View from which the placeholder is computed; a ThumbHash keeps about 7 × 7 frequencies of it.
const PLACEHOLDER: Rendition = Rendition::new("placeholder", Fit::Within, 64, 64);

/// A rectangle of a picture, in fractions of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// An area of a picture, and the size at which it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    area: Area,
    width: u32,
    height: u32,
}

impl View {
    /// Pixels of the view per pixel of the picture.
    fn scale(&self) -> f64 {
        (f64::from(self.width) / self.area.width).max(f64::from(self.height) / self.area.height)
    }
}

/// Views to make, computed before decoding.
pub(super) struct Plan {
    picture: (f64, f64),
    orientation: Orientation,
    views: Vec<View>,
    placeholder: View,
    /// Whether all views are encoded as JPEG, so that colours can stay in a JPEG's planes.
    planar: bool,
}

/// Every view of a picture, and the view for its placeholder.
pub(super) type Views = (Vec<Rc<Pixels>>, Rc<Pixels>);

impl Plan {
    pub(super) fn new(info: &Info, recipe: &Recipe) -> Result<Self, Rejected> {
        let shown = shown(info, recipe)?;
        let views: Vec<View> = recipe.renditions.iter().map(|rendition| view(shown, rendition)).collect();
        let area = views.iter().map(|view| view.area).reduce(union).unwrap_or(shown);
        Ok(Self {
            picture: (info.width.into(), info.height.into()),
            orientation: info.orientation,
            views,
            placeholder: view(area, &PLACEHOLDER),
            planar: matches!(recipe.encoding, Encoding::Jpeg { .. } | Encoding::JpegUnlessTransparent { .. }),
        })
    }

    /// Scale at which the picture is needed, relative to its size; at most 1.
    pub(super) fn scale(&self) -> f64 {
        // Without renditions only the placeholder is needed.
        self.views.iter().map(View::scale).reduce(f64::max).unwrap_or(self.placeholder.scale()).min(1.0)
    }

    /// Upper estimate of the bytes for views, and for scaling and encoding them.
    ///
    /// The decoded samples are not included.
    ///
    /// The samples have at most `rows` rows of `channels` channels. `converted` is the number of planes of a JPEG whose colours are converted.
    pub(super) fn memory(&self, rows: f64, channels: f64, converted: Option<f64>) -> f64 {
        let pixels = |view: &View| f64::from(view.width) * f64::from(view.height);
        let all: f64 = self.views.iter().map(pixels).sum();
        let largest = self.views.iter().map(pixels).fold(0.0, f64::max);
        let widest = self.views.iter().map(|view| f64::from(view.width.max(view.height))).fold(0.0, f64::max);
        let (kept, made) = match converted {
            // Planes hold 1.5 bytes per pixel.
            None if self.planar && channels < 4.0 => (1.5, 3.0),
            // Planes of the size of luma are interleaved, and then converted to RGB of 3 bytes per pixel.
            Some(planes) if self.planar => (3.0, (2.0 * planes).max(6.0)),
            // RGBA takes 4 bytes per pixel. Scaling and rotating need a copy each; afterwards libwebp takes about 14.
            _ => (4.0, 18.0),
        };
        // Rows are resized before columns.
        kept * all + made * largest + channels * widest * rows
    }

    /// Makes all views, the largest first, each from samples at least eight times as large if possible.
    ///
    /// A view is not made from a larger view, because each step would clip values that Lanczos makes brighter than white or darker than
    /// black.
    pub(super) fn views(&self, decoded: Decoded, deadline: Deadline) -> Result<Views, Rejected> {
        let Decoded { mut samples, profile, grey } = decoded;
        let planar = self.planar && profile.is_none() && matches!(samples, Samples::Planes(_, Colour::YCbCr));
        let mut order: Vec<&View> = self.views.iter().chain([&self.placeholder]).collect();
        order.sort_by(|a, b| b.scale().total_cmp(&a.scale()));
        let mut made: Vec<(View, Rc<Pixels>)> = Vec::with_capacity(order.len());
        for view in order {
            deadline.check()?;
            if made.iter().any(|(other, _)| other == view) {
                continue;
            }
            samples = samples.reduced(view.scale(), planar, deadline)?;
            let pixels = match &samples {
                Samples::Planes(planes, _) if planar => Pixels::Planes(self.planar_view(view, planes)?),
                samples => self.view(view, samples, profile.as_deref(), grey)?,
            };
            made.push((*view, Rc::new(pixels)));
        }
        let find = |view: &View| {
            let found = made.iter().find(|(other, _)| other == view);
            Rc::clone(&found.expect("every view was made above").1)
        };
        Ok((self.views.iter().map(find).collect(), find(&self.placeholder)))
    }

    /// Makes a view, upright and in sRGB.
    fn view(
        &self,
        view: &View,
        samples: &Samples,
        profile: Option<&[u8]>,
        grey: bool,
    ) -> Result<Pixels, Rejected> {
        let View { area, width, height } = self.stored(view);
        let (colours, alpha) = match samples {
            Samples::Planes(planes, colour) => {
                let mut resized = Vec::with_capacity(planes.len());
                for plane in planes {
                    resized.push(resize_plane(plane, area, width, height)?);
                }
                (ColourSamples::of_planes(width, height, resized, *colour), None)
            }
            Samples::Packed(packed) => {
                let area = within(area, packed.density, packed.density);
                let samples = resize(&Raster::of(packed), area, width, height)?;
                let (samples, alpha) = if packed.channels == 4 {
                    let (colours, alpha) = divided(&samples);
                    (colours, Some(alpha))
                } else {
                    (samples, None)
                };
                let colours = ColourSamples { width, height, channels: 3, samples };
                (if grey { colours.with_grey_alone(profile) } else { colours }, alpha)
            }
        };
        let colours = colours.into_srgb(profile)?;
        let Some(alpha) = alpha else {
            let mut upright = DynamicImage::ImageRgb8(colours);
            upright.apply_orientation(self.orientation);
            return Ok(Pixels::Rgb(upright.into_rgb8()));
        };
        let pixels = colours.pixels().zip(alpha).flat_map(|(pixel, alpha)| {
            let [red, green, blue] = pixel.0;
            [red, green, blue, alpha]
        });
        let pixels = RgbaImage::from_raw(width, height, pixels.collect()).ok_or_else(missing)?;
        let mut upright = DynamicImage::ImageRgba8(pixels);
        upright.apply_orientation(self.orientation);
        Ok(Pixels::Rgba(upright.into_rgba8()))
    }

    /// Makes a view in a JPEG's own planes, which are in sRGB without a profile.
    fn planar_view(&self, view: &View, planes: &[Plane]) -> Result<Planes, Rejected> {
        let View { area, width, height } = self.stored(view);
        let mut upright = Vec::with_capacity(planes.len());
        for plane in planes {
            let (width, height) =
                if upright.is_empty() { (width, height) } else { Planes::halved(width, height) };
            let samples = resize_plane(plane, area, width, height)?;
            let grey = GrayImage::from_raw(width, height, samples).ok_or_else(missing)?;
            let mut turned = DynamicImage::ImageLuma8(grey);
            turned.apply_orientation(self.orientation);
            upright.push(turned.into_luma8().into_raw());
        }
        let [luma, cb, cr] = upright.try_into().map_err(|_| missing())?;
        Ok(Planes { width: view.width, height: view.height, luma, chroma: [cb, cr] })
    }

    /// The view in the stored picture, which need not be upright.
    fn stored(&self, view: &View) -> View {
        let (width, height) = self.picture;
        let Area { x, y, width: w, height: h } = view.area;
        let (right, below) = (width - x - w, height - y - h);
        let (x, y) = match self.orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (right, y),
            Orientation::Rotate180 => (right, below),
            Orientation::FlipVertical => (x, below),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate90 => (y, right),
            Orientation::Rotate270FlipH => (below, right),
            Orientation::Rotate270 => (below, x),
        };
        if swaps_sides(self.orientation) {
            View { area: Area { x, y, width: h, height: w }, width: view.height, height: view.width }
        } else {
            View { area: Area { x, y, width: w, height: h }, ..*view }
        }
    }
}

/// RGB and alpha of samples that are multiplied by alpha. Completely transparent samples are black.
fn divided(samples: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let pixels = samples.as_chunks::<4>().0;
    let colours = pixels.iter().flat_map(|&[red, green, blue, alpha]| {
        let by = |value: u8| {
            let value = u32::from(value.min(alpha)) * 255 + u32::from(alpha) / 2;
            value.checked_div(alpha.into()).unwrap_or(0).to_le_bytes()[0]
        };
        [by(red), by(green), by(blue)]
    });
    (colours.collect(), pixels.iter().map(|pixel| pixel[3]).collect())
}

fn missing() -> Rejected {
    Rejected::Corrupt("samples are missing".into())
}

/// The crop, limited to the picture.
fn shown(info: &Info, recipe: &Recipe) -> Result<Area, Rejected> {
    let whole = Crop { x: 0, y: 0, width: info.width, height: info.height };
    let Crop { x, y, width, height } = recipe.crop.unwrap_or(whole);
    let width = width.min(info.width.saturating_sub(x));
    let height = height.min(info.height.saturating_sub(y));
    if width == 0 || height == 0 {
        return Err(Rejected::CropOutside);
    }
    Ok(Area { x: x.into(), y: y.into(), width: width.into(), height: height.into() })
}

impl Rendition {
    /// Size in pixels of the rendition of a picture of the given size.
    #[must_use]
    pub fn size_of(&self, width: u32, height: u32) -> (u32, u32) {
        let view = view(Area { x: 0.0, y: 0.0, width: width.into(), height: height.into() }, self);
        (view.width, view.height)
    }
}

/// View of a rendition: its part of the shown area, and its size.
fn view(shown: Area, rendition: &Rendition) -> View {
    let (width, height) =
        (f64::from(rendition.width.clamp(1, SIDE)), f64::from(rendition.height.clamp(1, SIDE)));
    let (across, down) = (shown.width / width, shown.height / height);
    match rendition.fit {
        Fit::Within => {
            let factor = across.max(down).max(1.0);
            View { area: shown, width: whole(shown.width / factor), height: whole(shown.height / factor) }
        }
        Fit::Readable => {
            let (long, short) = (shown.width.max(shown.height), shown.width.min(shown.height));
            let by_short = (short / (SHORT_SIDE * width.min(height))).max(long / f64::from(SIDE));
            let factor = across.max(down).min(by_short).max(1.0);
            View { area: shown, width: whole(shown.width / factor), height: whole(shown.height / factor) }
        }
        Fit::Fill => View {
            area: shown,
            width: whole(width.min(shown.width)),
            height: whole(height.min(shown.height)),
        },
        Fit::Cover => {
            let factor = across.min(down);
            let (taken_width, taken_height) = (width * factor, height * factor);
            let area = Area {
                x: shown.x + (shown.width - taken_width) / 2.0,
                y: shown.y + (shown.height - taken_height) / 2.0,
                width: taken_width,
                height: taken_height,
            };
            let factor = factor.max(1.0);
            View { area, width: whole(taken_width / factor), height: whole(taken_height / factor) }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the largest side")]
fn whole(side: f64) -> u32 {
    side.round().clamp(1.0, f64::from(SIDE)) as u32
}

fn union(a: Area, b: Area) -> Area {
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    Area {
        x,
        y,
        width: (a.x + a.width).max(b.x + b.width) - x,
        height: (a.y + a.height).max(b.y + b.height) - y,
    }
}

/// Converts an area from pixels to samples: `across` by `down` samples per pixel.
fn within(area: Area, across: f64, down: f64) -> Area {
    Area { x: area.x * across, y: area.y * down, width: area.width * across, height: area.height * down }
}

/// Samples to resize.
struct Raster<'a> {
    kind: PixelType,
    /// Width of a row in memory.
    width: u32,
    height: u32,
    samples: &'a [u8],
    /// Width and height of the picture; rows in memory may be longer.
    seen: (u32, u32),
}

impl<'a> Raster<'a> {
    fn of(packed: &'a Packed) -> Self {
        let (width, height) = (packed.width, packed.height);
        let kind = if packed.channels == 4 { PixelType::U8x4 } else { PixelType::U8x3 };
        Self { kind, width, height, samples: &packed.samples, seen: (width, height) }
    }

    fn grey((width, height): (u32, u32), samples: &'a [u8]) -> Self {
        Self { kind: PixelType::U8, width, height, samples, seen: (width, height) }
    }
}

fn resize_plane(plane: &Plane, area: Area, width: u32, height: u32) -> Result<Vec<u8>, Rejected> {
    let stride = u32::try_from(plane.stride).unwrap_or(plane.width);
    let from =
        Raster { seen: (plane.width, plane.height), ..Raster::grey((stride, plane.height), &plane.samples) };
    resize(&from, within(area, plane.across, plane.down), width, height)
}

/// Enlarges a plane to `width` × `height`. A plane of this size is returned unchanged.
#[cfg(feature = "heic")]
pub(super) fn enlarged(plane: Plane, width: u32, height: u32) -> Result<Vec<u8>, Rejected> {
    if (plane.width, plane.height, plane.stride) == (width, height, width as usize) {
        return Ok(plane.samples);
    }
    let area = Area { x: 0.0, y: 0.0, width: plane.width.into(), height: plane.height.into() };
    resize_plane(&Plane { across: 1.0, down: 1.0, ..plane }, area, width, height)
}

/// Resizes with Lanczos3; the result equals that of Pillow and libvips up to rounding.
fn resize(from: &Raster<'_>, area: Area, width: u32, height: u32) -> Result<Vec<u8>, Rejected> {
    // Not through the library's own dispatch over all its pixel types, which would compile the code for each of them.
    match from.kind {
        PixelType::U8 => resize_typed::<U8>(from, area, width, height),
        PixelType::U8x4 => resize_typed::<U8x4>(from, area, width, height),
        _ => resize_typed::<U8x3>(from, area, width, height),
    }
}

fn resize_typed<P: PixelTrait>(
    from: &Raster<'_>,
    area: Area,
    width: u32,
    height: u32,
) -> Result<Vec<u8>, Rejected> {
    let failed = |error: &dyn std::fmt::Display| Rejected::Corrupt(error.to_string());
    let image = TypedImageRef::<P>::from_buffer(from.width, from.height, from.samples)
        .map_err(|error| failed(&error))?;
    let image = TypedCroppedImage::from_ref(&image, 0, 0, from.seen.0, from.seen.1)
        .map_err(|error| failed(&error))?;
    let mut samples = vec![0; width as usize * height as usize * P::size()];
    let mut to = TypedImage::<P>::from_buffer(width, height, &mut samples).map_err(|error| failed(&error))?;
    // Rounding must not move the area's edge outside.
    let (right, bottom) = (f64::from(from.seen.0), f64::from(from.seen.1));
    let (x, y) = (area.x.clamp(0.0, right), area.y.clamp(0.0, bottom));
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
        // Samples are multiplied by alpha already. By default the library multiplies a copy of them again.
        .use_alpha(false)
        .crop(x, y, area.width.min(right - x), area.height.min(bottom - y));
    Resizer::new().resize_typed(&image, &mut to, &options).map_err(|error| failed(&error))?;
    Ok(samples)
}
