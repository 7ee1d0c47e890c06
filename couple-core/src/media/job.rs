//! What is to be done with a picture after the commit that asks for it. Whoever keeps the blobs handles it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{MediaId, job::Job};

/// Decodes an uploaded picture and makes what is made at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderMedia {
    /// Which.
    pub media: MediaId,
}

impl Job for RenderMedia {
    const NAME: &'static str = "media.render";
    const QUEUE: &'static str = "media";
    /// Whose job it was ends as rejected when it is not done by then.
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Removes blobs that nothing names any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiscardBlobs {
    /// Their whole names. One that ends with `/` stands for all that begin with it.
    pub names: Vec<String>,
}

impl Job for DiscardBlobs {
    const NAME: &'static str = "media.discard";
    const QUEUE: &'static str = "media";
    /// Until the sweep would find them anyway.
    const MAX_AGE: Duration = Duration::from_hours(24 * 7);
    const MAX_ATTEMPTS: i64 = 24;
}
