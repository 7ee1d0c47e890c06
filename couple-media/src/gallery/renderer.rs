//! Port of the engine that decodes, resizes and encodes pictures, and its default implementation.

use std::{fmt::Debug, sync::Arc};

use couple_core::Failure;

use crate::picture::{self, Kind, Limits, Recipe, Rejected, Rendered};

/// Properties of a picture that a recipe can depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureHeader {
    /// Width of the upright picture, in pixels.
    pub width: u32,
    /// Height of the upright picture, in pixels.
    pub height: u32,
    /// Number of frames that [`Encoding::AnimatedWebP`](picture::Encoding::AnimatedWebP) keeps; 1 for a still picture.
    pub frames: u32,
}

/// A recipe for a picture and the memory that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderPlan {
    /// Recipe to render.
    pub recipe: Recipe,
    /// Upper estimate of the memory of [`Renderer::render`], in bytes, without the file itself.
    pub memory: usize,
}

/// Engine that reads uploaded pictures and renders them.
///
/// [`PictureRenderer`] is the default. A host passes another engine to [`Gallery::new`](super::Gallery::new). Its vocabulary is that of
/// [`couple-picture`](crate::picture), whose functions document what each value means.
///
/// # Calls
///
/// Every method is synchronous. The gallery calls [`media_type`](Self::media_type) and [`size`](Self::size) on the threads of the
/// runtime, so they read headers only and return within milliseconds. It calls [`plan`](Self::plan) and [`render`](Self::render) on
/// blocking threads, for one picture in each thread, so they may compute or wait for another process.
///
/// | step | calls |
/// |---|---|
/// | upload | `media_type` of the first 12 bytes, then of the beginning; `size` when all bytes have arrived |
/// | job after the upload | `plan` and `render`: all sizes of an avatar, or the stored copy of a photo |
/// | avatar with transparent parts | `plan` and `render` again: its stored copy |
/// | first request for a size | `plan` and `render` of that size, from the stored copy |
///
/// # Memory
///
/// The gallery holds permits for [`RenderPlan::memory`] and for the file while `render` runs, and lets other pictures wait when
/// the memory of [`GalleryOptions::with_memory_bytes`](super::GalleryOptions::with_memory_bytes) is used up. An estimate that is too low
/// breaks that limit; one that is too high costs concurrency only. A plan above the limit is rendered alone.
///
/// # Guarantees
///
/// - **R1** A file that `media_type` recognises by its first 12 bytes keeps that type when more bytes are known, and the type is in
///   `media_types`.
/// - **R2** `render` returns one image for each rendition of the recipe, in the same order and with the same names. An image is no
///   larger than its rendition, and has the size of [`Rendition::size_of`](picture::Rendition::size_of) for a whole picture.
/// - **R3** Each image is in an encoding that the recipe allows, because clients receive its media type.
/// - **R4** An image shows the picture upright and contains no metadata: no location, no comment, no bytes of the upload after its end.
/// - **R5** It can render its own images: the stored copy is one, and sizes are made from it on request.
/// - **R6** A file beyond the limits is rejected before it costs more memory than the plan, or more time than
///   [`Limits::deadline`]. A call of `plan` or `render` that takes twice the deadline fails as temporary, and the memory reserved for it
///   stays reserved until it returns.
/// - **R7** [`Rejected`] is permanent: the same bytes are rejected again. The gallery rejects the upload with
///   [`Rejected::code`] and does not repeat the job.
///
/// [`Failure::Failed`] is temporary, such as a lost connection to another process, and so is a panic. The job is repeated until its
/// attempts are used up ([`Job::MAX_ATTEMPTS`](couple_core::job::Job::MAX_ATTEMPTS)); a client may repeat the request for a size.
pub trait Renderer: Debug + Send + Sync + 'static {
    /// Media types of the files that it can render, for capabilities and refusals.
    fn media_types(&self) -> &'static [&'static str];

    /// Media type of a file, recognised by its first bytes. None: not a picture that it can render.
    ///
    /// The upload is then refused. `head` has at least 12 bytes, unless the file is shorter.
    fn media_type(&self, head: &[u8]) -> Option<&'static str>;

    /// Width and height of the upright picture in pixels, from the beginning of its file.
    ///
    /// `is_whole`: `head` is the whole file. None: unknown, and found by the job.
    ///
    /// # Errors
    /// [`Rejected::TooLarge`] refuses the upload. Every other reason is as None, because the job reports it with more detail.
    fn size(&self, head: &[u8], is_whole: bool, limits: &Limits) -> Result<Option<(u32, u32)>, Rejected>;

    /// Reads the header of a file, calls `recipe` with it, and estimates the memory of rendering that recipe.
    ///
    /// # Errors
    /// Reasons that the header shows, and a crop outside of the picture.
    fn plan(
        &self,
        file: &[u8],
        recipe: &dyn Fn(PictureHeader) -> Recipe,
        limits: &Limits,
    ) -> Result<RenderPlan, Rejected>;

    /// Decodes a file once and makes the renditions of a recipe, the placeholder, and the flags of the picture.
    ///
    /// # Errors
    /// [`Failure::Refused`] with the reason why the picture is rejected; [`Failure::Failed`] for a temporary failure of the engine.
    fn render(&self, file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Failure<Rejected>>;
}

impl<R: Renderer + ?Sized> Renderer for Arc<R> {
    fn media_types(&self) -> &'static [&'static str] {
        (**self).media_types()
    }

    fn media_type(&self, head: &[u8]) -> Option<&'static str> {
        (**self).media_type(head)
    }

    fn size(&self, head: &[u8], is_whole: bool, limits: &Limits) -> Result<Option<(u32, u32)>, Rejected> {
        (**self).size(head, is_whole, limits)
    }

    fn plan(
        &self,
        file: &[u8],
        recipe: &dyn Fn(PictureHeader) -> Recipe,
        limits: &Limits,
    ) -> Result<RenderPlan, Rejected> {
        (**self).plan(file, recipe, limits)
    }

    fn render(&self, file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Failure<Rejected>> {
        (**self).render(file, recipe, limits)
    }
}

/// Default engine: [`couple-picture`](crate::picture).
#[derive(Debug, Clone, Copy, Default)]
pub struct PictureRenderer;

impl PictureRenderer {
    const MEDIA_TYPES: [&str; Kind::ALL.len()] = {
        let (mut types, mut at) = ([""; Kind::ALL.len()], 0);
        while at < types.len() {
            types[at] = Kind::ALL[at].media_type();
            at += 1;
        }
        types
    };
}

impl Renderer for PictureRenderer {
    fn media_types(&self) -> &'static [&'static str] {
        &Self::MEDIA_TYPES
    }

    fn media_type(&self, head: &[u8]) -> Option<&'static str> {
        Kind::of(head).map(Kind::media_type)
    }

    fn size(&self, head: &[u8], is_whole: bool, limits: &Limits) -> Result<Option<(u32, u32)>, Rejected> {
        match picture::inspect(head, limits) {
            Ok(info) if is_whole => Ok(Some((info.width, info.height))),
            Err(rejected @ Rejected::TooLarge { .. }) => Err(rejected),
            _ => Ok(picture::upright_size(head, limits)),
        }
    }

    fn plan(
        &self,
        file: &[u8],
        recipe: &dyn Fn(PictureHeader) -> Recipe,
        limits: &Limits,
    ) -> Result<RenderPlan, Rejected> {
        let info = picture::inspect(file, limits)?;
        let recipe = recipe(PictureHeader { width: info.width, height: info.height, frames: info.frames });
        let memory = info.memory(&recipe, limits)?;
        Ok(RenderPlan { recipe, memory })
    }

    fn render(&self, file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Failure<Rejected>> {
        picture::render(file, recipe, limits).map_err(Failure::Refused)
    }
}
