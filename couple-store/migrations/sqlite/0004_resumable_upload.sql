-- Uploads that come in several requests (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE resumable_upload (
    id            BLOB    NOT NULL PRIMARY KEY,
    owner         BLOB    NOT NULL,
    -- Couple of the owner when the upload was created; NULL: independent of a couple.
    couple_id     BLOB,
    -- In bytes; NULL until the client declares it.
    total_length  INTEGER,
    -- Stored bytes.
    received      INTEGER NOT NULL,
    -- {bytes}:{blob}, separated by spaces.
    parts         TEXT    NOT NULL,
    -- Fencing token of the latest request that claimed the upload.
    writer        INTEGER NOT NULL,
    -- Upload-Metadata and Upload-Concat as the client sent them.
    metadata      TEXT    NOT NULL,
    concatenation TEXT,
    -- Picture that the upload became; NULL: unfinished.
    media_id      BLOB,
    expires_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX resumable_upload_owner ON resumable_upload (owner, media_id);
CREATE INDEX resumable_upload_unfinished ON resumable_upload (media_id, received);
CREATE INDEX resumable_upload_expiry ON resumable_upload (expires_at);
