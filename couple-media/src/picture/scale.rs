//! Which part of a picture is shown how large, and the way there: the largest first, each smaller one from the one before.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image, images::ImageRef,
};
use image::RgbImage;

use super::{Crop, Fit, Info, Recipe, Rejected, Rendition, limits::Deadline};

/// The most pixels on a side of WebP (RFC 9649, section 2.5).
const SIDE: u32 = 16_383;

pub(super) struct Scaled {
    /// In the recipe's order.
    pub(super) renditions: Vec<RgbImage>,
    /// What the placeholder is made of: the shown part within 100 × 100.
    pub(super) smallest: RgbImage,
}

/// A rectangle of a picture, in fractions of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The crop, cut to the picture.
pub(super) fn shown(info: &Info, recipe: &Recipe) -> Result<Area, Rejected> {
    let Crop { x, y, width, height } =
        recipe.crop.unwrap_or(Crop { x: 0, y: 0, width: info.width, height: info.height });
    let width = width.min(info.width.saturating_sub(x));
    let height = height.min(info.height.saturating_sub(y));
    if width == 0 || height == 0 {
        return Err(Rejected::CropOutside);
    }
    Ok(Area { x: x.into(), y: y.into(), width: width.into(), height: height.into() })
}

/// What of the shown area a rendition takes, and at which size.
fn target(shown: Area, rendition: &Rendition) -> (Area, u32, u32) {
    let (width, height) = (rendition.width.clamp(1, SIDE), rendition.height.clamp(1, SIDE));
    let across = shown.width / f64::from(width);
    let down = shown.height / f64::from(height);
    match rendition.fit {
        Fit::Within => {
            let factor = across.max(down).max(1.0);
            (shown, whole(shown.width / factor), whole(shown.height / factor))
        }
        Fit::Cover => {
            let factor = across.min(down);
            let (taken_width, taken_height) = (f64::from(width) * factor, f64::from(height) * factor);
            let taken = Area {
                x: shown.x + (shown.width - taken_width) / 2.0,
                y: shown.y + (shown.height - taken_height) / 2.0,
                width: taken_width,
                height: taken_height,
            };
            let factor = factor.max(1.0);
            (taken, whole(taken_width / factor), whole(taken_height / factor))
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the largest side")]
fn whole(side: f64) -> u32 {
    side.round().clamp(1.0, f64::from(SIDE)) as u32
}

pub(super) fn cascade(
    picture: &RgbImage,
    shown: Area,
    renditions: &[Rendition],
    deadline: Deadline,
) -> Result<Scaled, Rejected> {
    let mut scaled = Vec::with_capacity(renditions.len());
    for rendition in renditions {
        deadline.check()?;
        let (area, width, height) = target(shown, rendition);
        scaled.push(resize(picture, area, width, height)?);
    }
    let (area, width, height) = target(shown, &Rendition::new("placeholder", Fit::Within, 100, 100));
    let smallest = resize(picture, area, width, height)?;
    Ok(Scaled { renditions: scaled, smallest })
}

fn resize(picture: &RgbImage, area: Area, width: u32, height: u32) -> Result<RgbImage, Rejected> {
    let failed = |error: &dyn std::fmt::Display| Rejected::Corrupt(error.to_string());
    let from =
        ImageRef::new(picture.width(), picture.height(), picture, PixelType::U8x3).map_err(|e| failed(&e))?;
    let mut to = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        area.x,
        area.y,
        area.width,
        area.height,
    );
    Resizer::new().resize(&from, &mut to, &options).map_err(|e| failed(&e))?;
    RgbImage::from_raw(width, height, to.into_vec()).ok_or_else(|| failed(&"a resize of another size"))
}
