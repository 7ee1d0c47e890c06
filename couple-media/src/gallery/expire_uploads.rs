//! Job that removes expired resumable uploads.

use std::time::Duration;

use async_trait::async_trait;
use couple_core::{
    Change, CommitError, Error, ErrorKind,
    job::{Context, Handler, Job, JobError, Schedule},
    upload::{ResumableUpload, UploadChange},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Gallery;

/// Uploads that are removed with one commit: few, since a commit must end within two seconds.
const MAX_ROWS_PER_READ: u32 = 10;
/// Maximum duration of a run; the next run continues.
const MAX_RUN_TIME: Duration = Duration::from_mins(4);

/// Removes expired resumable uploads and their bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireUploads {}

impl Job for ExpireUploads {
    const NAME: &'static str = "media.expire_uploads";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handles [`ExpireUploads`].
#[derive(Debug, Clone)]
pub struct ExpireUploadsHandler(pub Gallery);

impl ExpireUploadsHandler {
    /// Schedule of the job: every 10 minutes.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_mins(10), || ExpireUploads {})
    }
}

#[async_trait]
impl Handler<ExpireUploads> for ExpireUploadsHandler {
    async fn run(&self, _: ExpireUploads, _: &Context) -> Result<(), JobError> {
        let (gallery, until) = (&self.0, Instant::now() + MAX_RUN_TIME);
        let ports = &gallery.0.ports;
        while Instant::now() < until {
            let mut expired = ports.store.expired_uploads(ports.now(), MAX_ROWS_PER_READ).await?;
            let last = expired.len() < MAX_ROWS_PER_READ as usize;
            // Sorted by the order in which commits lock rows.
            expired.sort_by_key(|upload| upload.owner);
            let remove =
                |upload: &ResumableUpload| UploadChange::Remove { owner: upload.owner, id: upload.id };
            match ports.commit(expired.iter().map(remove).map(Change::from).collect()).await {
                Ok(_) => {}
                Err(CommitError::Failed(error)) => return Err(error.into()),
                Err(CommitError::Conflict(conflict)) => {
                    return Err(Error::new(ErrorKind::Internal, "expire uploads").source(conflict).into());
                }
            }
            let parts = expired.into_iter().flat_map(|upload| upload.parts);
            gallery.discard(parts.map(|part| part.blob).collect()).await;
            if last {
                break;
            }
        }
        Ok(())
    }
}
