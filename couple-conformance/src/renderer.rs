//! R1–R7: renderer of pictures, as far as its results show them.

use couple_core::Failure;
use couple_media::{
    gallery::{PictureHeader, Renderer},
    picture::{Encoding, Kind, Limits, PHOTOS, Recipe, Rejected, Rendered, Rendition},
};

/// A file of a type that the renderer reads.
#[derive(Debug, Clone)]
pub struct PictureSample {
    /// Content of the file, with `marker` in its metadata or after its end. The picture is opaque.
    pub file: Vec<u8>,
    /// Width and height of the upright picture, in pixels; both at least 2. They differ, so that a missing rotation shows.
    pub size: (u32, u32),
    /// Bytes that no image may contain, at least 8.
    pub marker: Vec<u8>,
}

fn recipe(renditions: &[Rendition], encoding: Encoding) -> Recipe {
    Recipe { renditions: renditions.to_vec(), crop: None, encoding }
}

/// Plans and renders as the gallery does.
fn render(
    renderer: &impl Renderer,
    file: &[u8],
    recipe: &Recipe,
    limits: &Limits,
) -> Result<Rendered, Rejected> {
    let planned = renderer.plan(file, &|_| recipe.clone(), limits)?;
    assert_eq!(&planned.recipe, recipe, "the plan contains the recipe of the caller");
    match renderer.render(file, recipe, limits) {
        Ok(rendered) => Ok(rendered),
        Err(Failure::Refused(rejected)) => Err(rejected),
        Err(Failure::Failed(error)) => panic!("temporary failure: {error:?}"),
    }
}

fn rendered(renderer: &impl Renderer, file: &[u8], encoding: Encoding) -> Rendered {
    render(renderer, file, &recipe(&PHOTOS, encoding), &Limits::default()).unwrap()
}

/// The type found by the first 12 bytes is listed, and stays the same when more bytes are known.
pub async fn r1_type_of_a_file_does_not_change((renderer, sample): (impl Renderer, PictureSample)) {
    let known = renderer.media_type(&sample.file[..12]).expect("the sample's type is known");
    assert!(renderer.media_types().contains(&known), "{known} is not listed");
    for length in [13, 100, 1_000, sample.file.len()] {
        let head = &sample.file[..length.min(sample.file.len())];
        assert_eq!(renderer.media_type(head), Some(known), "{length} bytes");
    }
}

/// Images have the names, the order and the sizes of the renditions.
pub async fn r2_images_match_the_renditions((renderer, sample): (impl Renderer, PictureSample)) {
    let (width, height) = sample.size;
    let small = Rendition { width: width.div_ceil(2), height: height.div_ceil(2), ..PHOTOS[0].clone() };
    let renditions = [PHOTOS[3].clone(), Rendition { name: "half".into(), ..small }, PHOTOS[0].clone()];
    let recipe = recipe(&renditions, Encoding::JPEG);
    let rendered = render(&renderer, &sample.file, &recipe, &Limits::default()).unwrap();
    assert_eq!((rendered.width, rendered.height), sample.size);
    assert_eq!(rendered.images.len(), renditions.len());
    for (image, rendition) in rendered.images.iter().zip(&renditions) {
        assert_eq!(image.name, rendition.name);
        assert_eq!((image.width, image.height), rendition.size_of(width, height), "{}", image.name);
    }
}

/// Each image is in an encoding that the recipe allows, also by its own first bytes.
pub async fn r3_images_have_an_allowed_encoding((renderer, sample): (impl Renderer, PictureSample)) {
    for encoding in [Encoding::JPEG, Encoding::WEBP, Encoding::COPY, Encoding::Png] {
        for image in rendered(&renderer, &sample.file, encoding).images {
            assert_eq!(image.encoding.media_type(), encoding.media_type(), "{encoding:?}");
            assert_eq!(Kind::of(&image.bytes).map(Kind::media_type), Some(encoding.media_type()));
        }
    }
}

/// Images are upright and contain no metadata and no bytes after the end of the file.
///
/// The rotation is seen by width and height.
pub async fn r4_images_are_upright_without_metadata((renderer, sample): (impl Renderer, PictureSample)) {
    let contains = |bytes: &[u8]| bytes.windows(sample.marker.len()).any(|part| part == sample.marker);
    assert!(sample.marker.len() >= 8 && contains(&sample.file), "the sample contains the marker");
    assert_ne!(sample.size.0, sample.size.1, "the sample is not a square");
    let limits = Limits::default();
    let known = renderer.size(&sample.file, true, &limits).unwrap();
    assert!(known.is_none_or(|known| known == sample.size), "{known:?}");
    let seen = std::cell::Cell::new(None);
    let recipe = |header: PictureHeader| {
        seen.set(Some((header.width, header.height)));
        recipe(&PHOTOS, Encoding::COPY)
    };
    renderer.plan(&sample.file, &recipe, &limits).unwrap();
    assert_eq!(seen.get(), Some(sample.size));
    for encoding in [Encoding::JPEG, Encoding::WEBP, Encoding::COPY, Encoding::Png] {
        let rendered = rendered(&renderer, &sample.file, encoding);
        assert_eq!((rendered.width, rendered.height), sample.size);
        for image in rendered.images {
            assert!(!contains(&image.bytes), "{} in {encoding:?} contains the marker", image.name);
        }
    }
}

/// The stored copy, an image of the renderer, is rendered to every size.
pub async fn r5_own_images_can_be_rendered((renderer, sample): (impl Renderer, PictureSample)) {
    for encoding in [Encoding::JPEG, Encoding::WEBP, Encoding::COPY] {
        let copy = rendered(&renderer, &sample.file, encoding).images.swap_remove(0);
        let again = rendered(&renderer, &copy.bytes, Encoding::JPEG);
        assert_eq!((again.width, again.height), (copy.width, copy.height));
        assert_eq!(again.images.len(), PHOTOS.len());
    }
}

/// A picture beyond the limits of bytes, sides or pixels is rejected by its plan, before it is decoded.
///
/// Memory and time are not measured.
pub async fn r6_plan_rejects_a_picture_beyond_the_limits((renderer, sample): (impl Renderer, PictureSample)) {
    let limits = Limits::default();
    let (longest, length) = (sample.size.0.max(sample.size.1), sample.file.len());
    let plan = |limits: &Limits| renderer.plan(&sample.file, &|_| recipe(&PHOTOS, Encoding::COPY), limits);
    assert!(plan(&limits).unwrap().memory > 0);
    let code = |limits: &Limits| plan(limits).unwrap_err().code();
    assert_eq!(code(&limits.clone().with_side(longest - 1)), "too_large");
    assert_eq!(code(&limits.clone().with_megapixels(0)), "too_large");
    assert_eq!(code(&limits.with_bytes(length - 1)), "too_many_bytes");
}

/// A file that ends after its first 12 bytes is rejected each time, for the same reason.
pub async fn r7_rejection_is_permanent((renderer, sample): (impl Renderer, PictureSample)) {
    let recipe = recipe(&PHOTOS, Encoding::COPY);
    let reject = || render(&renderer, &sample.file[..12], &recipe, &Limits::default()).unwrap_err();
    assert_eq!(reject().code(), reject().code());
    let direct = renderer.render(&sample.file[..12], &recipe, &Limits::default());
    assert!(matches!(direct, Err(Failure::Refused(_))), "{direct:?}");
}
