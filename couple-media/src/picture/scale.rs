//! Which part of a picture is shown how large, and the way there: one step to the largest rendition, and from there
//! each smaller one from a larger.

use std::rc::Rc;

use fast_image_resize::{
    FilterType, PixelTrait, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};
use image::{DynamicImage, RgbImage, metadata::Orientation};

use super::{
    Crop, Fit, Info, Recipe, Rejected, Rendition, colour::Ink, decode::Decoded, decode::Samples,
    inspect::turned, limits::Deadline,
};

/// The most pixels on a side of WebP (RFC 9649, section 2.5).
const SIDE: u32 = 16_383;

/// What a placeholder is made of; a ThumbHash keeps about 7 × 7 waves of it.
const PLACEHOLDER: Rendition = Rendition::new("placeholder", Fit::Within, 64, 64);

/// A rectangle of a picture, in fractions of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// A part of a picture at a size.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    area: Area,
    width: u32,
    height: u32,
}

impl View {
    /// Pixels of it for one of the picture.
    fn scale(&self) -> f64 {
        (f64::from(self.width) / self.area.width).max(f64::from(self.height) / self.area.height)
    }
}

/// What is to be made, computed before anything is decoded.
pub(super) struct Plan {
    picture: (f64, f64),
    orientation: Orientation,
    /// What all views are parts of.
    base: View,
    views: Vec<View>,
    placeholder: View,
}

impl Plan {
    pub(super) fn new(info: &Info, recipe: &Recipe) -> Result<Self, Rejected> {
        let shown = shown(info, recipe)?;
        let views: Vec<View> = recipe.renditions.iter().map(|rendition| view(shown, rendition)).collect();
        let area = views.iter().map(|view| view.area).reduce(union).unwrap_or(shown);
        let placeholder = view(area, &PLACEHOLDER);
        // The placeholder of a picture of which nothing else is wanted.
        let largest = views.iter().max_by(|a, b| a.scale().total_cmp(&b.scale())).unwrap_or(&placeholder);
        let base = if largest.area == area {
            View { area, ..*largest }
        } else {
            let scale = largest.scale();
            View { area, width: whole(area.width * scale), height: whole(area.height * scale) }
        };
        Ok(Self {
            picture: (info.width.into(), info.height.into()),
            orientation: info.orientation,
            base,
            views,
            placeholder,
        })
    }

    /// How large, for its own size, the picture is needed; 1 at most.
    pub(super) fn scale(&self) -> f64 {
        self.base.scale().min(1.0)
    }

    /// The base, upright and in sRGB.
    pub(super) fn base(&self, decoded: Decoded) -> Result<RgbImage, Rejected> {
        let stored = self.stored();
        let View { area, width, height } = stored;
        let ink = match decoded.samples {
            Samples::Planes(planes, colour) => {
                let mut resized = Vec::with_capacity(planes.len());
                for plane in planes {
                    let area = within(area, plane.across, plane.down);
                    let from = Pixels {
                        kind: PixelType::U8,
                        width: u32::try_from(plane.stride).unwrap_or(plane.width),
                        height: plane.height,
                        samples: &plane.samples,
                        seen: (plane.width, plane.height),
                    };
                    resized.push(resize(&from, area, width, height)?);
                }
                Ink::of_planes(width, height, resized, colour)
            }
            Samples::Rgb { pixels, density } => {
                let samples = resize(&Pixels::of(&pixels), within(area, density, density), width, height)?;
                Ink { width, height, channels: 3, samples }
            }
        };
        let mut upright = DynamicImage::ImageRgb8(ink.into_srgb(decoded.profile.as_deref())?);
        upright.apply_orientation(self.orientation);
        Ok(upright.into_rgb8())
    }

    /// Where the base is in the picture as it is stored, which need not be upright.
    fn stored(&self) -> View {
        let (width, height) = self.picture;
        let Area { x, y, width: w, height: h } = self.base.area;
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
        if turned(self.orientation) {
            View {
                area: Area { x, y, width: h, height: w },
                width: self.base.height,
                height: self.base.width,
            }
        } else {
            View { area: Area { x, y, width: w, height: h }, ..self.base }
        }
    }

    /// The views in their order, and what the placeholder is made of.
    pub(super) fn cascade(
        &self,
        base: RgbImage,
        deadline: Deadline,
    ) -> Result<(Vec<Rc<RgbImage>>, Rc<RgbImage>), Rejected> {
        let mut made = vec![(self.base, Rc::new(base))];
        let mut order: Vec<&View> = self.views.iter().chain([&self.placeholder]).collect();
        order.sort_by(|a, b| b.scale().total_cmp(&a.scale()));
        for view in order {
            deadline.check()?;
            if !made.iter().any(|(other, _)| other == view) {
                let pixels = Rc::new(from_larger(&made, view)?);
                made.push((*view, pixels));
            }
        }
        let find = |view: &View| {
            let found = made.iter().find(|(other, _)| other == view);
            Rc::clone(&found.expect("every view was made above").1)
        };
        Ok((self.views.iter().map(find).collect(), find(&self.placeholder)))
    }
}

/// Makes a view from the smallest that holds all of it in at least twice its size, or else from the base.
fn from_larger(made: &[(View, Rc<RgbImage>)], view: &View) -> Result<RgbImage, Rejected> {
    let (from, pixels) = made[1..]
        .iter()
        .filter(|(from, _)| from.area == view.area && from.scale() >= 1.99 * view.scale())
        .min_by(|(a, _), (b, _)| a.scale().total_cmp(&b.scale()))
        .unwrap_or(&made[0]);
    let area = Area { x: view.area.x - from.area.x, y: view.area.y - from.area.y, ..view.area };
    let across = f64::from(from.width) / from.area.width;
    let down = f64::from(from.height) / from.area.height;
    let samples = resize(&Pixels::of(pixels), within(area, across, down), view.width, view.height)?;
    RgbImage::from_raw(view.width, view.height, samples)
        .ok_or_else(|| Rejected::Corrupt("samples are missing".into()))
}

/// The crop, cut to the picture.
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

/// How large a rendition of a whole picture is.
pub(super) fn size(rendition: &Rendition, width: u32, height: u32) -> (u32, u32) {
    let view = view(Area { x: 0.0, y: 0.0, width: width.into(), height: height.into() }, rendition);
    (view.width, view.height)
}

/// What of the shown area a rendition takes, and at which size.
fn view(shown: Area, rendition: &Rendition) -> View {
    let (width, height) =
        (f64::from(rendition.width.clamp(1, SIDE)), f64::from(rendition.height.clamp(1, SIDE)));
    let (across, down) = (shown.width / width, shown.height / height);
    match rendition.fit {
        Fit::Within => {
            let factor = across.max(down).max(1.0);
            View { area: shown, width: whole(shown.width / factor), height: whole(shown.height / factor) }
        }
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

/// An area where each pixel is `across` by `down` samples.
fn within(area: Area, across: f64, down: f64) -> Area {
    Area { x: area.x * across, y: area.y * down, width: area.width * across, height: area.height * down }
}

/// Samples to resize.
struct Pixels<'a> {
    kind: PixelType,
    /// Of a row in memory.
    width: u32,
    height: u32,
    samples: &'a [u8],
    /// What of it is picture.
    seen: (u32, u32),
}

impl<'a> Pixels<'a> {
    fn of(pixels: &'a RgbImage) -> Self {
        let (width, height) = pixels.dimensions();
        Self { kind: PixelType::U8x3, width, height, samples: pixels, seen: (width, height) }
    }
}

/// Lanczos3, the steps' rounding aside what Pillow and libvips compute.
fn resize(from: &Pixels<'_>, area: Area, width: u32, height: u32) -> Result<Vec<u8>, Rejected> {
    // Not the library's own choice among all its types: that would be compiled for each of them.
    match from.kind {
        PixelType::U8 => resize_typed::<U8>(from, area, width, height),
        _ => resize_typed::<U8x3>(from, area, width, height),
    }
}

fn resize_typed<P: PixelTrait>(
    from: &Pixels<'_>,
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
    // Rounding must not put the area's edge a hair outside.
    let (right, bottom) = (f64::from(from.seen.0), f64::from(from.seen.1));
    let (x, y) = (area.x.clamp(0.0, right), area.y.clamp(0.0, bottom));
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        x,
        y,
        area.width.min(right - x),
        area.height.min(bottom - y),
    );
    Resizer::new().resize_typed(&image, &mut to, &options).map_err(|error| failed(&error))?;
    Ok(samples)
}
