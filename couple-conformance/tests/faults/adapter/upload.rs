//! Resumable uploads in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error, Timestamp, UploadId,
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadReads},
};

use super::{FaultyStore, table::Table};

#[derive(Default)]
pub(super) struct UploadTables {
    uploads: Table<UploadId, ResumableUpload>,
}

impl UploadTables {
    pub(super) fn apply(&mut self, change: UploadChange) -> Result<(), Conflict> {
        match change {
            UploadChange::Insert { upload, most } => {
                if upload.media.is_none() && self.of(upload.owner).count >= most {
                    return Err(Conflict::QuotaExceeded);
                }
                if self.uploads.has(&upload.id) {
                    return Err(Conflict::UploadChanged(upload.id));
                }
                self.uploads.put(upload.id, upload);
            }
            UploadChange::Claim { owner, id, offset, writer, length } => {
                let upload = self.unfinished(owner, id, offset)?;
                if length.is_some() && upload.length.is_some() && upload.length != length {
                    return Err(Conflict::UploadChanged(id));
                }
                let length = upload.length.or(length);
                self.uploads.put(id, ResumableUpload { writer, length, ..upload });
            }
            UploadChange::Append { owner, id, writer, offset, bytes, parts, most } => {
                let upload = self.unfinished(owner, id, offset)?;
                if upload.writer != writer {
                    return Err(Conflict::UploadChanged(id));
                }
                if self.of(owner).bytes + bytes > most {
                    return Err(Conflict::QuotaExceeded);
                }
                self.uploads.put(id, ResumableUpload { offset: offset + bytes, parts, ..upload });
            }
            UploadChange::TakeOver { owner, id, offset } => {
                self.unfinished(owner, id, offset)?;
                self.uploads.remove(&id);
            }
            UploadChange::Finish { owner, id, media } => {
                let upload = self.owned(owner, id).filter(|upload| upload.media.is_none()).cloned();
                let upload = upload.ok_or(Conflict::UploadChanged(id))?;
                let finished = ResumableUpload { media: Some(media), parts: Vec::new(), ..upload };
                self.uploads.put(id, finished);
            }
            UploadChange::ExpireOf { owner, at } => {
                let later = |upload: &&ResumableUpload| upload.owner == owner && upload.expires_at > at;
                for upload in self.uploads.values().filter(later).cloned().collect::<Vec<_>>() {
                    self.uploads.put(upload.id, ResumableUpload { expires_at: at, ..upload });
                }
            }
            UploadChange::Remove { owner, id } => {
                if self.owned(owner, id).is_some() {
                    self.uploads.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn owned(&self, owner: AccountId, id: UploadId) -> Option<&ResumableUpload> {
        self.uploads.get(&id).filter(|upload| upload.owner == owner)
    }

    fn unfinished(&self, owner: AccountId, id: UploadId, offset: i64) -> Result<ResumableUpload, Conflict> {
        let upload = self.owned(owner, id).filter(|upload| upload.media.is_none() && upload.offset == offset);
        upload.cloned().ok_or(Conflict::UploadChanged(id))
    }

    fn of(&self, owner: AccountId) -> UnfinishedUploads {
        let of_owner = self.uploads.values().filter(|upload| upload.owner == owner && upload.media.is_none());
        of_owner.fold(UnfinishedUploads::default(), |sum, upload| UnfinishedUploads {
            count: sum.count + 1,
            bytes: sum.bytes + upload.offset,
        })
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.uploads.end(keep);
    }
}

#[async_trait]
impl UploadReads for FaultyStore {
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error> {
        Ok(self.state()?.upload.uploads.get(&id).cloned())
    }
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        Ok(self.state()?.upload.of(owner))
    }
    async fn unfinished_bytes(&self) -> Result<i64, Error> {
        let state = self.state()?;
        let unfinished = state.upload.uploads.values().filter(|upload| upload.media.is_none());
        Ok(unfinished.map(|upload| upload.offset).sum())
    }
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error> {
        let state = self.state()?;
        let mut expired: Vec<_> =
            state.upload.uploads.values().filter(|upload| upload.expires_at <= now).cloned().collect();
        expired.sort_by_key(|upload| (upload.expires_at, upload.id));
        expired.truncate(limit as usize);
        Ok(expired)
    }
}
