//! Jobs that render uploaded pictures and delete blobs that no row names.

use async_trait::async_trait;
use bytes::Bytes;
use couple_core::{
    Error, Timestamp,
    job::{Context, Handler, Job as _, JobError},
    media::{self, DiscardBlobs, Format, Media, MediaState, Purpose, RenderMedia, Source, rules},
};

use super::{Gallery, PictureHeader, UploadError};
use crate::picture::{self, Crop, Encoding, Fit, Limits, Recipe, Rejected};

/// Encoding of the stored copy of an animation.
const ANIMATED_COPY: Encoding = Encoding::AnimatedWebP { quality: 90 };
/// Name of the copy in a recipe and, with a random suffix, among the picture's blobs.
const COPY_NAME: &str = "copy";

/// Renders uploaded pictures.
#[derive(Debug, Clone)]
pub struct RenderMediaHandler(pub Gallery);

#[async_trait]
impl Handler<RenderMedia> for RenderMediaHandler {
    async fn run(&self, job: RenderMedia, context: &Context) -> Result<(), JobError> {
        let gallery = &self.0.0;
        let media = gallery.ports.store.media(job.media).await?;
        let Some(media) = media.filter(|media| media.state == MediaState::Processing) else { return Ok(()) };
        // All attempts failed, or killed their process without reporting an error. The last attempt is not tried: it rejects the
        // picture with a reason, so that it does not stay in processing.
        if context.attempt >= RenderMedia::MAX_ATTEMPTS {
            tracing::error!(media = %media.id, "cannot render a picture: all attempts failed");
            gallery.pictures.reject(media.id, "unavailable").await?;
            return Ok(());
        }
        self.try_run(&media).await.map_err(JobError::Retry)
    }
}

impl RenderMediaHandler {
    async fn try_run(&self, media: &Media) -> Result<(), Error> {
        let Self(gallery) = self;
        let inner = &gallery.0;
        let reject = async |reason: &str| inner.pictures.reject(media.id, reason).await.map(drop);
        let Some(source) = &media.source else { return reject("lost").await };
        let size = (media.width, media.height);
        let recipe = {
            let (gallery, media) = (gallery.clone(), media.clone());
            move |header| gallery.recipe(&media, header)
        };
        let rendered = match gallery.render(media, source, size, recipe).await? {
            None => return reject("lost").await,
            Some(Ok(rendered)) => rendered,
            Some(Err(rejected)) => return reject(&reason(&rejected, &inner.options.limits)).await,
        };
        let picture::Rendered { width, height, animated, alpha, placeholder, mut images } = rendered;
        // WebP and PNG of an avatar with transparent parts are made on request, from a copy.
        if media.purpose == Purpose::Avatar && alpha {
            let recipe = {
                let (gallery, media) = (gallery.clone(), media.clone());
                move |header| gallery.transparent_copy(&media, header)
            };
            if let Some(Ok(copy)) = gallery.render(media, source, size, recipe).await? {
                images.extend(copy.images);
            }
        }
        let now = inner.ports.now();
        let (mut copy, mut renditions) = (None, Vec::new());
        for image in images {
            let (rendition, bytes) = gallery.store_rendition(media, image, None, now).await?;
            if rendition.name == COPY_NAME {
                let media_type = rendition.format.media_type().to_owned();
                copy = Some(Source { blob: rendition.blob, bytes, media_type });
            } else {
                renditions.push(rendition);
            }
        }
        let written: Vec<String> = renditions
            .iter()
            .map(|one| one.blob.clone())
            .chain(copy.iter().map(|copy| copy.blob.clone()))
            .collect();
        let rendered =
            rules::Rendered { width, height, animated, alpha, placeholder, source: copy, renditions };
        if !inner.pictures.finish(media.id, rendered).await? {
            for blob in written {
                inner.blobs.delete(&media.path(&blob)).await?;
            }
        }
        Ok(())
    }
}

/// Formats the reason for a rejection, with the exceeded limit.
fn reason(rejected: &Rejected, limits: &Limits) -> String {
    let detail = match *rejected {
        Rejected::TooLarge { width, height } => {
            let (side, megapixels) = (limits.side(), limits.megapixels());
            UploadError::TooLarge { width, height, side, megapixels }.to_string()
        }
        Rejected::TooManyBytes { .. } | Rejected::TooComplex(_) => rejected.to_string(),
        Rejected::TookTooLong => {
            format!("it takes more than {} s to decode", limits.deadline().as_secs_f32())
        }
        _ => return rejected.code().to_owned(),
    };
    format!("{}: {detail}", rejected.code())
}

/// Rendition for the stored copy of a photo.
pub(super) fn copy(side: u32) -> picture::Rendition {
    picture::Rendition::new(COPY_NAME, Fit::Readable, side, side)
}

fn crop(media: &Media) -> Option<Crop> {
    media.crop.map(|media::Crop { x, y, width, height }| Crop { x, y, width, height })
}

impl Gallery {
    /// Recipe of the renditions that are made after the upload.
    fn recipe(&self, media: &Media, header: PictureHeader) -> Recipe {
        let options = &self.0.options;
        let (renditions, encoding) = match (media.purpose, options.copy_side) {
            (Purpose::Avatar, _) => (options.avatars.clone(), Encoding::JPEG),
            (Purpose::Photo, None) => (options.photos.clone(), Encoding::JPEG),
            (Purpose::Photo, Some(side)) => {
                let encoding =
                    if options.animated && header.frames > 1 { ANIMATED_COPY } else { Encoding::COPY };
                (vec![copy(side)], encoding)
            }
        };
        Recipe { renditions, crop: crop(media), encoding }
    }

    /// Recipe of the copy of an avatar with transparent parts.
    ///
    /// The copy shows the crop, and is no larger than the largest size of an avatar needs.
    fn transparent_copy(&self, media: &Media, header: PictureHeader) -> Recipe {
        let crop = crop(media);
        let (width, height) = crop.map_or((header.width, header.height), |crop| {
            (
                crop.width.min(header.width.saturating_sub(crop.x)),
                crop.height.min(header.height.saturating_sub(crop.y)),
            )
        });
        let needed = |size: &picture::Rendition| {
            (f64::from(size.width) / f64::from(width)).max(f64::from(size.height) / f64::from(height))
        };
        let scale = self.0.options.avatars.iter().map(needed).fold(0.0, f64::max).min(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the side")]
        let [width, height] = [width, height].map(|side| (f64::from(side) * scale).ceil() as u32);
        let copy = picture::Rendition::new(COPY_NAME, Fit::Fill, width, height);
        Recipe { renditions: vec![copy], crop, encoding: Encoding::COPY }
    }

    /// Width and height in pixels of a rendition of a photo.
    ///
    /// Computed from the uploaded size and limited by the stored copy.
    #[must_use]
    pub fn size_of(&self, media: &Media, size: &picture::Rendition) -> (u32, u32) {
        let (width, height) = size.size_of(media.width, media.height);
        match self.0.options.copy_side {
            Some(side) => {
                let most = copy(side).size_of(media.width, media.height);
                (width.min(most.0), height.min(most.1))
            }
            None => (width, height),
        }
    }

    /// Writes a rendition's blob, before the commit that names it.
    pub(super) async fn store_rendition(
        &self,
        media: &Media,
        image: picture::Image,
        used_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(media::Rendition, i64), Error> {
        let format = match image.encoding {
            Encoding::WebP { .. } | Encoding::AnimatedWebP { .. } => Format::WebP,
            Encoding::Png => Format::Png,
            Encoding::Jpeg { .. } | Encoding::JpegUnlessTransparent { .. } => Format::Jpeg,
        };
        let bytes = i64::try_from(image.bytes.len()).unwrap_or(i64::MAX);
        let rendition = media::Rendition {
            blob: self.fresh(&image.name, format.extension()),
            name: image.name.into_owned(),
            format,
            width: image.width,
            height: image.height,
            bytes,
            made_at: now,
            used_at,
        };
        self.0.blobs.put(&media.path(&rendition.blob), Bytes::from(image.bytes)).await?;
        Ok((rendition, bytes))
    }
}

/// Deletes blobs that no row names any more.
#[derive(Debug, Clone)]
pub struct DiscardBlobsHandler(pub Gallery);

#[async_trait]
impl Handler<DiscardBlobs> for DiscardBlobsHandler {
    async fn run(&self, job: DiscardBlobs, _: &Context) -> Result<(), JobError> {
        let blobs = self.0.blobs();
        for name in job.names {
            match name.strip_suffix('/') {
                Some(folder) => blobs.delete_folder(folder).await.map(drop)?,
                None => blobs.delete(&name).await?,
            }
        }
        Ok(())
    }
}
