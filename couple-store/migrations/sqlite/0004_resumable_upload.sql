-- Resumable uploads (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE resumable_upload (
    id            BLOB    NOT NULL PRIMARY KEY,
    owner         BLOB    NOT NULL,
    -- Couple of the owner when the upload was created; NULL if the upload does not depend on a couple.
    couple_id     BLOB,
    -- Length in bytes; NULL until the client declares it.
    total_length  INTEGER,
    -- Number of stored bytes.
    received      INTEGER NOT NULL,
    -- Blobs as {bytes}:{blob}, separated by spaces.
    parts         TEXT    NOT NULL,
    -- Fencing token of the latest request that claimed the upload.
    writer        INTEGER NOT NULL,
    -- Upload-Metadata and Upload-Concat as the client sent them.
    metadata      TEXT    NOT NULL,
    concatenation TEXT,
    -- Picture that was created from the upload; NULL while it is unfinished.
    media_id      BLOB,
    expires_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX resumable_upload_owner ON resumable_upload (owner, media_id);
CREATE INDEX resumable_upload_unfinished ON resumable_upload (media_id, received);
CREATE INDEX resumable_upload_expiry ON resumable_upload (expires_at);
