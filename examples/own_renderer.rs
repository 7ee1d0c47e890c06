//! A custom renderer that also reads binary PPM pictures (`P6`), checked by `couple-conformance`.
//!
//! It converts them to PNG and passes them to the default renderer. `cargo run --example own_renderer` uploads one, `cargo test --example
//! own_renderer` checks the renderer.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::borrow::Cow;

use couple::{
    Backend, Failure, RequestContext,
    gallery::{Accepts, PictureHeader, PictureRenderer, RenderPlan, Renderer},
    media::Purpose,
    pairing::{Couple, PairingChange},
    picture::{Limits, Recipe, Rejected, Rendered},
};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

const PPM: &str = "image/x-portable-pixmap";

#[derive(Debug)]
struct PpmRenderer;

/// Width, height, and the position of the first pixel.
fn ppm_header(file: &[u8]) -> Option<(u32, u32, usize)> {
    let mut fields = file.splitn(5, u8::is_ascii_whitespace);
    let [magic, width, height, depth] = std::array::from_fn(|_| fields.next().unwrap_or_default());
    fields.next().filter(|_| magic == b"P6" && depth == b"255")?;
    let number = |digits| std::str::from_utf8(digits).ok()?.parse().ok();
    Some((number(width)?, number(height)?, 4 + magic.len() + width.len() + height.len() + depth.len()))
}

/// Refuses a file by its header, before its pixels are read.
fn check(file: &[u8], limits: &Limits) -> Result<(u32, u32, usize), Rejected> {
    if file.len() > limits.bytes() {
        return Err(Rejected::TooManyBytes { limit: limits.bytes() });
    }
    let (width, height, start) =
        ppm_header(file).ok_or_else(|| Rejected::Corrupt("no header of PPM".into()))?;
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.side() || pixels > u64::from(limits.megapixels()) * 1_000_000 {
        return Err(Rejected::TooLarge { width, height });
    }
    Ok((width, height, start))
}

/// Converts PPM to PNG. Every other file, such as a stored copy, is passed as it is.
fn convert<'a>(file: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, Rejected> {
    if !file.starts_with(b"P6") {
        return Ok(file.into());
    }
    let (width, height, start) = check(file, limits)?;
    let length = u64::from(width) * u64::from(height) * 3;
    let pixels = usize::try_from(length).ok().and_then(|length| file[start..].get(..length));
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(pixels.ok_or(Rejected::Truncated)?, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Rejected::Corrupt(error.to_string()))?;
    Ok(png.into())
}

impl Renderer for PpmRenderer {
    fn media_types(&self) -> &'static [&'static str] {
        &["image/jpeg", "image/png", "image/webp", "image/gif", PPM]
    }

    fn media_type(&self, head: &[u8]) -> Option<&'static str> {
        if head.starts_with(b"P6") {
            return Some(PPM);
        }
        PictureRenderer.media_type(head).filter(|known| self.media_types().contains(known))
    }

    fn size(&self, head: &[u8], is_whole: bool, limits: &Limits) -> Result<Option<(u32, u32)>, Rejected> {
        match head.starts_with(b"P6") {
            true => check(head, limits).map(|(width, height, _)| Some((width, height))),
            false => PictureRenderer.size(head, is_whole, limits),
        }
    }

    fn plan(
        &self,
        file: &[u8],
        recipe: &dyn Fn(PictureHeader) -> Recipe,
        limits: &Limits,
    ) -> Result<RenderPlan, Rejected> {
        let png = convert(file, limits)?;
        let plan = PictureRenderer.plan(&png, recipe, limits)?;
        // The PNG is in memory beside the pixels that are made of it.
        Ok(RenderPlan { memory: plan.memory + 2 * png.len(), ..plan })
    }

    fn render(&self, file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Failure<Rejected>> {
        let png = convert(file, limits).map_err(Failure::Refused)?;
        PictureRenderer.render(&png, recipe, limits)
    }
}

/// A PPM picture of one colour.
fn plum(width: usize, height: usize) -> Vec<u8> {
    [format!("P6\n{width} {height}\n255\n").into_bytes(), [142, 69, 133].repeat(width * height)].concat()
}

/// Creates a couple without accounts.
async fn couple(backend: &Backend) -> Result<Couple, Box<dyn std::error::Error>> {
    let ports = backend.ports();
    let couple = Couple {
        id: ports.new_id(),
        members: [0, 1].map(|_| ports.new_id()),
        since: ports.now(),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: None,
        restore: [false, false],
        head_seq: 0,
        read: [0, 0],
    };
    ports.commit(vec![PairingChange::Pair(couple.clone()).into()]).await?;
    Ok(couple)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::builder().renderer(PpmRenderer).build()?;
    let [ana, _] = couple(&backend).await?.members;
    let gallery = backend.gallery();
    let mut upload = gallery.upload(ana, Purpose::Photo.into(), None).await?;
    upload.write(plum(800, 400).into()).await?;
    let stored = upload.finish(|_| RequestContext::default(), async { Ok(true) }).await?;
    backend.worker().run_until_idle().await?;
    let (media, renditions) = gallery.pictures().view(ana, stored.media.id).await?;
    let rendition = gallery.find(&media, &renditions, "320", Accepts::default()).await?;
    let shown = gallery.open(&media, rendition, None).await?;
    let (width, height) = (shown.rendition.width, shown.rendition.height);
    println!("a PPM of 800 × 400 is shown as a JPEG of {width} × {height} in {} bytes", shown.blob.size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use couple_conformance::renderer::PictureSample;

    use super::*;

    couple_conformance::renderer!(async {
        let marker = b"a text after the pixels".to_vec();
        (
            PpmRenderer,
            PictureSample { file: [plum(600, 300), marker.clone()].concat(), size: (600, 300), marker },
        )
    });
}
