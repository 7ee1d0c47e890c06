//! Resumable uploads in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error, Timestamp, UploadId,
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart, UploadReads},
};

use super::{FaultyStore, column::column, table::Table};
use crate::planted;

#[derive(Clone, Default)]
pub(super) struct UploadTables {
    uploads: Table<UploadId, ResumableUpload>,
}

fn parts(parts: Vec<UploadPart>) -> Vec<UploadPart> {
    let mut parts: Vec<UploadPart> = parts
        .into_iter()
        .map(|part| UploadPart {
            blob: column("upload-part").text(&part.blob),
            bytes: column("upload-part-bytes").number(part.bytes),
        })
        .collect();
    if planted("upload-parts-are-ordered-by-blob") {
        parts.sort_by(|one, other| one.blob.cmp(&other.blob));
    }
    if planted("upload-has-the-last-part") && parts.len() > 1 {
        parts.drain(..parts.len() - 1);
    }
    if planted("upload-has-at-most-16-parts") {
        parts.truncate(16);
    }
    if planted("upload-parts-of-no-bytes-are-lost") {
        parts.retain(|part| part.bytes > 0);
    }
    parts
}

/// The upload as it is written.
fn columns(upload: ResumableUpload) -> ResumableUpload {
    let mut upload = ResumableUpload {
        length: upload.length.map(|length| column("upload-length").number(length)),
        offset: column("upload-offset").number(upload.offset),
        parts: parts(upload.parts),
        writer: column("upload-writer").number(upload.writer),
        metadata: column("upload-metadata").text(&upload.metadata),
        concatenation: upload.concatenation.map(|text| column("upload-concatenation").text(&text)),
        expires_at: column("upload-expires-at").time(upload.expires_at),
        ..upload
    };
    if planted("upload-couple-is-lost") {
        upload.couple = None;
    }
    if planted("upload-picture-is-lost") {
        upload.media = None;
    }
    if planted("upload-length-and-offset-are-swapped")
        && let Some(length) = &mut upload.length
    {
        std::mem::swap(length, &mut upload.offset);
    }
    if planted("upload-metadata-and-concatenation-are-swapped")
        && let Some(text) = &mut upload.concatenation
    {
        std::mem::swap(text, &mut upload.metadata);
    }
    if planted("upload-absent-concatenation-is-empty") {
        upload.concatenation = Some(upload.concatenation.unwrap_or_default());
    }
    if planted("upload-absent-length-is-zero") {
        upload.length = Some(upload.length.unwrap_or_default());
    }
    if planted("upload-starts-at-zero") {
        upload.offset = 0;
    }
    if planted("upload-starts-without-parts") {
        upload.parts.clear();
    }
    if planted("upload-starts-without-a-writer") {
        upload.writer = 0;
    }
    upload
}

impl UploadTables {
    pub(super) fn apply(&mut self, change: UploadChange) -> Result<(), Conflict> {
        match change {
            UploadChange::Insert { upload, most } => {
                let exists = self.uploads.has(&upload.id);
                if exists && planted("upload-existing-one-comes-before-the-limit") {
                    return Err(Conflict::UploadChanged(upload.id));
                }
                let limited = upload.media.is_none() || planted("upload-finished-one-is-limited");
                let count = if planted("upload-count-is-of-all-accounts") {
                    i64::try_from(self.uploads.values().filter(|one| one.media.is_none()).count())
                        .unwrap_or(0)
                } else if planted("upload-count-has-finished-ones") {
                    i64::try_from(self.uploads.values().filter(|one| one.owner == upload.owner).count())
                        .unwrap_or(0)
                } else if planted("upload-count-lacks-empty-ones") {
                    let of =
                        self.uploads.values().filter(|one| one.owner == upload.owner && one.media.is_none());
                    i64::try_from(of.filter(|one| one.offset > 0).count()).unwrap_or(0)
                } else {
                    self.of(upload.owner).count
                };
                let count = if planted("upload-count-exceeds-by-one") { count - 1 } else { count };
                let count = if planted("upload-count-is-one-less") { count + 1 } else { count };
                if limited && count >= most && !planted("upload-count-is-unlimited") {
                    return Err(Conflict::QuotaExceeded);
                }
                if exists && !planted("upload-replaces-an-existing-one") {
                    if planted("upload-existing-one-is-no-conflict") {
                        return Ok(());
                    }
                    return Err(Conflict::UploadChanged(upload.id));
                }
                self.uploads.put(upload.id, columns(upload));
            }
            UploadChange::Claim { owner, id, offset, writer, length } => {
                let upload = self.unfinished(owner, id, offset, "claim")?;
                let differs = length.is_some() && upload.length.is_some() && upload.length != length;
                if differs
                    && !planted("upload-length-changes")
                    && !planted("upload-length-of-a-claim-is-ignored")
                {
                    return Err(Conflict::UploadChanged(id));
                }
                if length.is_some() && upload.length.is_some() && planted("upload-length-cannot-be-repeated")
                {
                    return Err(Conflict::UploadChanged(id));
                }
                let length = length.map(|length| column("upload-declared-length").number(length));
                let length = if planted("upload-length-changes") {
                    length.or(upload.length)
                } else if planted("upload-length-is-lost-in-a-claim") {
                    length
                } else if planted("upload-length-cannot-be-declared-later") {
                    upload.length
                } else {
                    upload.length.or(length)
                };
                let mut writer = column("upload-claimed-writer").number(writer);
                if planted("upload-first-writer-stays") && upload.writer != 0 {
                    writer = upload.writer;
                }
                if planted("upload-greatest-writer-stays") {
                    writer = writer.max(upload.writer);
                }
                let mut claimed = ResumableUpload { writer, length, ..upload };
                if planted("upload-claim-extends-the-expiry") {
                    claimed.expires_at = Timestamp::from_micros(claimed.expires_at.micros() + 60_000_000);
                }
                if planted("upload-claim-removes-parts") {
                    claimed.parts.clear();
                }
                self.uploads.put(id, claimed);
            }
            UploadChange::Append { owner, id, writer, offset, bytes, parts: new, most } => {
                let upload = self.unfinished(owner, id, offset, "append")?;
                let writer = column("upload-claimed-writer").number(writer);
                if upload.writer != writer && !planted("upload-append-of-any-writer") {
                    return Err(Conflict::UploadChanged(id));
                }
                let before = if planted("upload-limit-is-of-one-upload") {
                    offset
                } else if planted("upload-limit-is-of-all-accounts") {
                    self.uploads.values().filter(|one| one.media.is_none()).map(|one| one.offset).sum()
                } else if planted("upload-limit-has-finished-ones") {
                    self.uploads.values().filter(|one| one.owner == owner).map(|one| one.offset).sum()
                } else {
                    self.of(owner).bytes
                };
                let all = before + if planted("upload-limit-lacks-new-bytes") { 0 } else { bytes };
                let all = column("upload-limit").number(all);
                let exceeded = if planted("upload-limit-is-one-less") { all >= most } else { all > most };
                if exceeded && !planted("upload-bytes-are-unlimited") {
                    return Err(Conflict::QuotaExceeded);
                }
                let mut new = parts(new);
                if planted("upload-append-adds-to-the-parts") {
                    new = upload.parts.iter().cloned().chain(new).collect();
                }
                if planted("upload-append-keeps-the-parts") {
                    new.clone_from(&upload.parts);
                }
                let mut offset = column("upload-appended-offset").number(offset + bytes);
                if planted("upload-append-counts-the-offset-twice") {
                    offset += upload.offset;
                }
                if planted("upload-append-keeps-the-offset") {
                    offset = upload.offset;
                }
                let mut appended = ResumableUpload { offset, parts: new, ..upload };
                if planted("upload-append-ends-the-claim") {
                    appended.writer = 0;
                }
                if planted("upload-append-declares-the-length") {
                    appended.length = Some(offset);
                }
                self.uploads.put(id, appended);
            }
            UploadChange::TakeOver { owner, id, offset } => {
                let upload = self.unfinished(owner, id, offset, "take over")?;
                if planted("upload-taken-over-stays-empty") {
                    self.uploads.put(id, ResumableUpload { offset: 0, parts: Vec::new(), ..upload });
                } else if !planted("upload-taken-over-stays") {
                    self.uploads.remove(&id);
                }
            }
            UploadChange::Finish { owner, id, media } => {
                let upload = self.owned(owner, id, "finish");
                let upload =
                    upload.filter(|upload| upload.media.is_none() || planted("upload-is-finished-twice"));
                let upload = upload.cloned().ok_or(Conflict::UploadChanged(id))?;
                let mut finished =
                    ResumableUpload { media: Some(media), parts: Vec::new(), ..upload.clone() };
                if planted("upload-finished-keeps-its-parts") {
                    finished.parts = upload.parts;
                }
                if planted("upload-finished-starts-at-zero") {
                    finished.offset = 0;
                }
                if planted("upload-finished-loses-its-couple") {
                    finished.couple = None;
                }
                if planted("upload-finished-is-removed") {
                    self.uploads.remove(&id);
                } else {
                    self.uploads.put(id, finished);
                }
            }
            UploadChange::ExpireOf { owner, at } => {
                let at = column("upload-expired-at").time(at);
                let chosen = |upload: &&ResumableUpload| {
                    let of_owner = upload.owner == owner || planted("upload-expiry-is-of-all-accounts");
                    let later = upload.expires_at > at || planted("upload-expiry-moves-later");
                    let open = upload.media.is_none() || !planted("upload-expiry-skips-finished-ones");
                    let finished = upload.media.is_some() || !planted("upload-expiry-skips-unfinished-ones");
                    of_owner && later && open && finished
                };
                let chosen: Vec<_> = self.uploads.values().filter(chosen).cloned().collect();
                let count = if planted("upload-expiry-is-of-the-first-one") { 1 } else { usize::MAX };
                for upload in chosen.into_iter().take(count) {
                    if planted("upload-expiry-removes-them") {
                        self.uploads.remove(&upload.id);
                    } else {
                        self.uploads.put(upload.id, ResumableUpload { expires_at: at, ..upload });
                    }
                }
            }
            UploadChange::Remove { owner, id } => {
                let found = self.owned(owner, id, "remove").map(|upload| upload.media.is_some());
                match found {
                    Some(true) if planted("upload-finished-one-is-not-removed") => {}
                    Some(false) if planted("upload-unfinished-one-is-not-removed") => {}
                    Some(_) => drop(self.uploads.remove(&id)),
                    None if planted("upload-removal-of-a-missing-one-conflicts") => {
                        return Err(Conflict::UploadChanged(id));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn owned(&self, owner: AccountId, id: UploadId, change: &str) -> Option<&ResumableUpload> {
        let any = match change {
            "claim" => planted("upload-claim-of-another-account"),
            "append" => planted("upload-append-of-another-account"),
            "take over" => planted("upload-takeover-of-another-account"),
            "finish" => planted("upload-finish-of-another-account"),
            _ => planted("upload-removal-of-another-account"),
        };
        self.uploads.get(&id).filter(|upload| upload.owner == owner || any)
    }

    fn unfinished(
        &self,
        owner: AccountId,
        id: UploadId,
        offset: i64,
        change: &str,
    ) -> Result<ResumableUpload, Conflict> {
        let [any_offset, finished] = match change {
            "claim" => [planted("upload-claim-at-any-offset"), planted("upload-claim-of-a-finished-one")],
            "append" => [planted("upload-append-at-any-offset"), planted("upload-append-to-a-finished-one")],
            _ => [planted("upload-takeover-at-any-offset"), planted("upload-takeover-of-a-finished-one")],
        };
        let upload = self
            .owned(owner, id, change)
            .filter(|upload| (upload.media.is_none() || finished) && (upload.offset == offset || any_offset));
        upload.cloned().ok_or(Conflict::UploadChanged(id))
    }

    fn of(&self, owner: AccountId) -> UnfinishedUploads {
        let of_owner = self.uploads.values().filter(|upload| upload.owner == owner && upload.media.is_none());
        of_owner.fold(UnfinishedUploads::default(), |sum, upload| UnfinishedUploads {
            count: sum.count + 1,
            bytes: sum.bytes + upload.offset,
        })
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        if kind == "-uploads" {
            self.uploads = Table::default();
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.uploads.end(keep || planted("upload-conflict-keeps-changes"));
    }
}

#[async_trait]
impl UploadReads for FaultyStore {
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error> {
        let upload = self.state()?.upload.uploads.get(&id).cloned();
        Ok(upload.filter(|upload| upload.media.is_none() || !planted("upload-finished-one-is-hidden")))
    }
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        let state = self.state()?;
        let mut of = state.upload.of(owner);
        let all = state.upload.uploads.values();
        if planted("upload-unfinished-are-of-all-accounts") {
            of.count = i64::try_from(all.filter(|one| one.media.is_none()).count()).unwrap_or(0);
        } else if planted("upload-unfinished-bytes-are-of-all-accounts") {
            of.bytes = all.filter(|one| one.media.is_none()).map(|one| one.offset).sum();
        } else if planted("upload-unfinished-count-finished-ones") {
            of.count = i64::try_from(all.filter(|one| one.owner == owner).count()).unwrap_or(0);
        } else if planted("upload-unfinished-count-bytes-of-finished-ones") {
            of.bytes = all.filter(|one| one.owner == owner).map(|one| one.offset).sum();
        } else if planted("upload-unfinished-count-declared-bytes") {
            let of_owner = all.filter(|one| one.owner == owner && one.media.is_none());
            of.bytes = of_owner.filter_map(|one| one.length).sum();
        } else if planted("upload-count-and-bytes-are-swapped") {
            std::mem::swap(&mut of.count, &mut of.bytes);
        }
        of.bytes = column("upload-unfinished-bytes").number(of.bytes);
        Ok(of)
    }
    async fn unfinished_bytes(&self) -> Result<i64, Error> {
        let state = self.state()?;
        let unfinished = state
            .upload
            .uploads
            .values()
            .filter(|upload| upload.media.is_none() || planted("upload-bytes-of-all-have-finished-ones"));
        let unfinished = unfinished.map(|upload| upload.offset);
        let sum: i64 = if planted("upload-bytes-of-all-are-of-one") {
            unfinished.max().unwrap_or(0)
        } else {
            unfinished.sum()
        };
        Ok(column("upload-bytes-of-all").number(sum))
    }
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error> {
        let state = self.state()?;
        let mut expired: Vec<_> = state
            .upload
            .uploads
            .values()
            .filter(|upload| {
                let now = Timestamp::from_micros(
                    now.micros() - i64::from(planted("upload-expires-after-its-time")),
                );
                upload.expires_at <= now || planted("upload-expires-before-its-time")
            })
            .filter(|upload| upload.media.is_none() || !planted("upload-finished-one-never-expires"))
            .filter(|upload| upload.media.is_some() || !planted("upload-unfinished-one-never-expires"))
            .cloned()
            .collect();
        expired.sort_by_key(|upload| (upload.expires_at, upload.id));
        if planted("upload-expired-are-in-the-order-of-ids") {
            expired.sort_by_key(|upload| upload.id);
        }
        if planted("upload-expired-have-the-latest-first") {
            expired.reverse();
        }
        if planted("upload-expired-of-equal-times-have-the-latest-first") {
            expired.sort_by_key(|upload| (upload.expires_at, std::cmp::Reverse(upload.id)));
        }
        expired.truncate(if planted("upload-expired-ignore-the-limit") {
            usize::MAX
        } else {
            limit as usize
        });
        Ok(expired)
    }
}
