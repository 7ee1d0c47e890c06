//! Renders an uploaded file to its renditions.
//!
//! ```
//! use couple_picture::{self as picture, AVATARS, Encoding, Limits, Recipe, Rejected};
//!
//! # fn upload() -> Vec<u8> {
//! #     let mut bytes = std::io::Cursor::new(Vec::new());
//! #     image::RgbImage::new(300, 200).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
//! #     bytes.into_inner()
//! # }
//! # fn main() -> Result<(), Rejected> {
//! let bytes = upload();
//! let limits = Limits::default();
//! let info = picture::inspect(&bytes, &limits)?; // reads headers only: cheap enough for the request's own task
//! assert_eq!((info.width, info.height), (300, 200));
//!
//! let recipe = Recipe { renditions: AVATARS.to_vec(), crop: None, encoding: Encoding::JPEG };
//! let rendered = picture::render(&bytes, &recipe, &limits)?; // decodes once; on a worker's blocking thread
//! assert_eq!(rendered.images.len(), AVATARS.len());
//! # Ok(())
//! # }
//! ```
//!
//! Every output is encoded from pixels, so it contains no metadata, comments or trailing bytes of the input. It is upright and in sRGB;
//! in JPEG, transparent parts are white; it is never larger than the picture. Of an animation only the first frame is shown, unless
//! the encoding is [`Encoding::AnimatedWebP`].

/// The example in `README.md`, compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod animation;
mod colour;
mod decode;
mod encode;
mod frame_count;
mod gif;
#[cfg(feature = "heic")]
mod heic;
#[cfg(feature = "heic")]
mod heif;
mod image_decoder;
mod inspect;
mod jpeg;
mod kind;
mod limits;
mod means;
mod orientation;
mod pixels;
mod png;
mod recipe;
mod rejected;
mod rendered;
mod samples;
mod scale;
mod size;
mod vp8l;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use inspect::{Info, inspect};
pub use kind::Kind;
pub use limits::Limits;
pub use recipe::{AVATARS, Crop, Encoding, Fit, PHOTOS, Recipe, Rendition};
pub use rejected::Rejected;
pub use rendered::{Image, Rendered};
pub use size::upright_size;

use limits::Deadline;

/// Decodes a picture once and makes all its renditions.
///
/// Synchronous, and takes tens of milliseconds of CPU time: call it on a blocking thread. A panic of a decoder is caught and returned as
/// [`Rejected::Corrupt`].
///
/// # Errors
///
/// The reason why the picture is rejected. All reasons are permanent: the same bytes are rejected again. Only
/// [`Rejected::TookTooLong`] depends on the machine.
pub fn render(bytes: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Rejected> {
    catch_unwind(AssertUnwindSafe(|| render_or_panic(bytes, recipe, limits)))
        .unwrap_or_else(|_| Err(Rejected::Corrupt("the decoder panicked".into())))
}

fn render_or_panic(bytes: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Rejected> {
    let deadline = Deadline::after(limits.deadline);
    let info = inspect(bytes, limits)?;
    let (width, height, animated) = (info.width, info.height, info.animated);
    let plan = scale::Plan::new(&info, recipe)?;
    if matches!(recipe.encoding, Encoding::AnimatedWebP { .. })
        && info.frames > 1
        // If the animation fails, or takes half of the time, the first frame may still be shown.
        && let moving = Deadline::after(limits.deadline / 2)
        && let Ok(Some(rendered)) = animation::render(bytes, &info, &plan, recipe, limits, moving)
    {
        return Ok(rendered);
    }
    let source = info.quantisation().cloned();
    let decoded = decode::decode(bytes, info, plan.scale(), limits, deadline)?;
    deadline.check()?;
    let (views, smallest) = plan.views(decoded, deadline)?;
    let mut images = Vec::with_capacity(views.len());
    for (rendition, pixels) in recipe.renditions.iter().zip(views) {
        deadline.check()?;
        let size = pixels.size();
        images.push(Image {
            name: rendition.name.clone(),
            width: size.0,
            height: size.1,
            bytes: encode::encode(
                &pixels,
                recipe.encoding,
                source.as_ref().filter(|_| size == (width, height)),
            )?,
            encoding: encode::used(&pixels, recipe.encoding),
        });
    }
    let (alpha, placeholder) = (smallest.transparent(), encode::placeholder(&smallest));
    Ok(Rendered { width, height, animated, alpha, placeholder, images })
}
