-- Resumable uploads (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE IF NOT EXISTS resumable_upload (
    id BINARY(16) NOT NULL PRIMARY KEY,
    owner BINARY(16) NOT NULL,
    -- Couple of the owner when the upload was created; NULL if the upload does not depend on a couple.
    couple_id BINARY(16),
    -- Length in bytes; NULL until the client declares it.
    total_length BIGINT,
    -- Number of stored bytes.
    received BIGINT NOT NULL,
    -- Blobs as {bytes}:{blob}, separated by spaces.
    parts MEDIUMTEXT NOT NULL,
    -- Fencing token of the latest request that claimed the upload.
    writer BIGINT NOT NULL,
    -- Upload-Metadata and Upload-Concat as the client sent them.
    metadata TEXT NOT NULL,
    concatenation TEXT,
    -- Picture that was created from the upload; NULL while it is unfinished.
    media_id BINARY(16),
    expires_at BIGINT NOT NULL,
    KEY resumable_upload_owner (owner, media_id, id),
    KEY resumable_upload_unfinished (media_id, received),
    KEY resumable_upload_expiry (expires_at, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
