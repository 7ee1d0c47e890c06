//! Background jobs of pictures.
//!
//! The gallery of `couple-media`, which stores the blobs, has their handlers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Error, MediaId,
    events::{Additions, Event, Listener},
    job::Job,
};

/// Job that decodes an uploaded picture and makes the renditions that are made in advance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderMedia {
    /// Id of the picture.
    pub media: MediaId,
}

impl Job for RenderMedia {
    const NAME: &'static str = "media.render";
    const QUEUE: &'static str = "media";
    /// After this time the picture is rejected.
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Listener that enqueues the rendering of each uploaded picture.
pub(crate) struct RenderPictures;

impl Listener for RenderPictures {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        match event {
            Event::PictureAdded { picture } => additions.enqueue(&RenderMedia { media: picture.id }),
            _ => Ok(()),
        }
    }
}

/// Job that removes blobs that no row names any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiscardBlobs {
    /// Full names of the blobs. A name that ends with `/` stands for all blobs with this prefix.
    pub names: Vec<String>,
}

impl Job for DiscardBlobs {
    const NAME: &'static str = "media.discard";
    const QUEUE: &'static str = "media";
    /// Long enough: the sweep finds later blobs.
    const MAX_AGE: Duration = Duration::from_hours(24 * 7);
    const MAX_ATTEMPTS: i64 = 24;
}
