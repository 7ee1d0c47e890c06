//! Buffers of uploads: bounds the memory of large parts, also for clients that send slowly.
//!
//! A store may require large parts (S3: 5 MiB), and a limited number of uploads may hold one in memory. A slow client must not hold
//! one: an upload starts with a small buffer, takes the memory of a part if its bytes arrive quickly, and returns it, with its
//! bytes [staged](BlobWriter::stage), when they no longer do. So a slow client can keep the memory of a part from others for at most
//! [`FLUSH_INTERVAL`].

use std::time::Duration;

use bytes::Bytes;
use couple_core::Error;
use tokio::time::Instant;

use super::UploadError;
use crate::{
    blobs::BlobWriter,
    fair_permits::{FairPermit, FairPermits},
};

/// Bytes that every upload may hold without a permit.
const SMALL_UPLOAD_BYTES: usize = 128 << 10;
/// Time in which an upload with a part in memory must receive [`SMALL_UPLOAD_BYTES`]: 32 KiB/s.
const FLUSH_INTERVAL: Duration = Duration::from_secs(4);
/// Maximum time that a fast upload waits for a part's memory before it is treated as a slow one.
const PERMIT_WAIT: Duration = Duration::from_secs(1);
/// Maximum time that a complete upload waits for memory to join its staged parts.
const JOIN_WAIT: Duration = Duration::from_secs(30);

/// Writes an upload, in small staged parts while its bytes arrive slowly.
#[derive(Debug)]
pub(super) struct UploadBuffer {
    writer: BlobWriter,
    parts: FairPermits<()>,
    permit: Option<FairPermit<()>>,
    /// Time at which the counted bytes began to arrive, without the time that the store took.
    since: Instant,
    counted: usize,
}

impl UploadBuffer {
    pub(super) fn new(writer: BlobWriter, parts: FairPermits<()>) -> Self {
        Self { writer, parts, permit: None, since: Instant::now(), counted: 0 }
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = match self.permit {
                Some(_) => bytes.len(),
                None if self.writer.part_size() <= SMALL_UPLOAD_BYTES => bytes.len(),
                None => SMALL_UPLOAD_BYTES.saturating_sub(self.writer.held()),
            };
            if room == 0 {
                self.make_room().await?;
                continue;
            }
            let taken = bytes.split_to(room.min(bytes.len()));
            self.count(taken.len());
            let started = Instant::now();
            self.writer.write(taken).await?;
            self.since += started.elapsed();
        }
        if self.release_at().is_some_and(|at| Instant::now() >= at) {
            self.release().await?;
        }
        Ok(())
    }

    /// Counts bytes that arrived. After enough of them, the time of a permit starts again.
    fn count(&mut self, bytes: usize) {
        self.counted += bytes;
        if self.permit.is_some() && self.counted >= SMALL_UPLOAD_BYTES {
            (self.counted, self.since) = (0, Instant::now());
        }
    }

    /// Takes a part's memory if the bytes in the small buffer arrived quickly; otherwise stages them.
    async fn make_room(&mut self) -> Result<(), Error> {
        if self.since.elapsed() < FLUSH_INTERVAL {
            // Waits only once: an upload that got no memory continues with small parts, which need no permit.
            let wait = if self.writer.is_staged() { Duration::ZERO } else { PERMIT_WAIT };
            self.permit = self.parts.acquire((), Some(wait)).await.ok();
        }
        if self.permit.is_none() {
            self.writer.stage().await?;
        }
        (self.counted, self.since) = (0, Instant::now());
        Ok(())
    }

    pub(super) fn release_at(&self) -> Option<Instant> {
        self.permit.as_ref().map(|_| self.since + FLUSH_INTERVAL)
    }

    pub(super) async fn release(&mut self) -> Result<(), Error> {
        if self.writer.held() > SMALL_UPLOAD_BYTES {
            self.writer.stage().await?;
        }
        self.writer.shrink();
        self.permit = None;
        (self.counted, self.since) = (0, Instant::now());
        Ok(())
    }

    /// Writes the rest, after which the blob exists.
    pub(super) async fn finish(mut self) -> Result<(), UploadError> {
        if self.writer.is_staged() && self.permit.is_none() {
            let permit = self.parts.acquire((), Some(JOIN_WAIT)).await;
            let busy = |_| UploadError::Busy { expected_wait: self.parts.expected_wait(&()) };
            self.permit = Some(permit.map_err(busy)?);
        }
        Ok(self.writer.finish().await?)
    }
}
