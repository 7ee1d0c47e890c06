-- Ids are UUIDv7 (16 bytes), digests 32 bytes, times microseconds since 1970-01-01 UTC, booleans 0 or 1.
-- Text that is compared is stored as bytes, because a collation would ignore case or trailing spaces.
-- MySQL commits each definition immediately, so each statement can be repeated.
-- Each name that begins with `couple_`, except `couple_id`, is replaced if the host chose another prefix.

CREATE TABLE IF NOT EXISTS couple_account (
    id BINARY(16) NOT NULL PRIMARY KEY,
    email_key VARBINARY(320) NOT NULL,
    email TEXT NOT NULL,
    display_name TEXT NOT NULL,
    locale TEXT,
    time_zone TEXT,
    birthday TEXT,
    password TEXT,
    created_at BIGINT NOT NULL,
    deletion_due BIGINT,
    version BIGINT NOT NULL,
    UNIQUE KEY couple_account_email (email_key),
    KEY couple_account_deletion (deletion_due)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_token (
    id BINARY(16) NOT NULL PRIMARY KEY,
    kind VARBINARY(255) NOT NULL,
    email_key VARBINARY(320) NOT NULL,
    email TEXT NOT NULL,
    account_id BINARY(16),
    link BINARY(32) NOT NULL,
    tries BIGINT NOT NULL,
    display_name TEXT,
    locale TEXT,
    created_at BIGINT NOT NULL,
    code_expires_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    -- Session and client network that requested the token.
    session_id BINARY(16),
    network BINARY(32),
    foreign_tries BIGINT NOT NULL,
    used_form VARBINARY(16),
    UNIQUE KEY couple_token_link (link),
    KEY couple_token_target (email_key, kind, created_at),
    KEY couple_token_account (account_id),
    KEY couple_token_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_session (
    account_id BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    token BINARY(32) NOT NULL,
    device TEXT,
    created_at BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE KEY couple_session_token (token),
    KEY couple_session_expiry (expires_at),
    KEY couple_session_seen (seen_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_invite (
    id BINARY(16) NOT NULL PRIMARY KEY,
    inviter BINARY(16) NOT NULL,
    inviter_email VARBINARY(320) NOT NULL,
    target_key VARBINARY(320),
    target TEXT,
    message TEXT,
    code BINARY(32) NOT NULL,
    link BINARY(32) NOT NULL,
    -- Set while the invite is open and has a target address. Unique: a pair of addresses has one open invite.
    pair_key BINARY(32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- 0 open, 1 accepted, 2 declined, 3 withdrawn
    state BIGINT NOT NULL,
    accepted_by BINARY(16),
    couple_id BINARY(16),
    UNIQUE KEY couple_invite_code (code),
    UNIQUE KEY couple_invite_link (link),
    UNIQUE KEY couple_invite_pair (pair_key),
    KEY couple_invite_inviter (inviter, state, created_at),
    KEY couple_invite_target (target_key, state, created_at),
    KEY couple_invite_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_couple (
    id BINARY(16) NOT NULL PRIMARY KEY,
    first BINARY(16) NOT NULL,
    second BINARY(16) NOT NULL,
    since BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    ended_at BIGINT,
    title TEXT,
    anniversary TEXT,
    previous BINARY(16),
    restore_first BIGINT NOT NULL,
    restore_second BIGINT NOT NULL,
    head_seq BIGINT NOT NULL,
    read_first BIGINT NOT NULL,
    read_second BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Current couple of an account; the primary key allows one. NULL for an account without a couple that sends
-- invites or was in a couple: its row exists because only an existing row can be locked.
CREATE TABLE IF NOT EXISTS couple_member (
    account_id BINARY(16) NOT NULL PRIMARY KEY,
    couple_id BINARY(16)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- All couples that an account has been in.
CREATE TABLE IF NOT EXISTS couple_membership (
    account_id BINARY(16) NOT NULL,
    couple_id BINARY(16) NOT NULL,
    PRIMARY KEY (account_id, couple_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Persons of a host whose data is to be erased, with the time. An account has it in its own row.
CREATE TABLE IF NOT EXISTS couple_erasure (
    account_id BINARY(16) NOT NULL PRIMARY KEY,
    due_at BIGINT NOT NULL,
    INDEX couple_erasure_due (due_at, account_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_block (
    blocker BINARY(16) NOT NULL,
    blocked BINARY(16) NOT NULL,
    blocker_email VARBINARY(320) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (blocker, blocked),
    KEY couple_block_email (blocker_email, blocked),
    KEY couple_block_blocked (blocked)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_entry (
    couple_id BINARY(16) NOT NULL,
    seq BIGINT NOT NULL,
    -- 0 first member, 1 second member, NULL system
    author BIGINT,
    client_id VARBINARY(255),
    kind VARBINARY(255) NOT NULL,
    body MEDIUMTEXT,
    target BIGINT,
    created_at BIGINT NOT NULL,
    edited_at BIGINT,
    deleted_at BIGINT,
    reaction_first TEXT,
    reaction_second TEXT,
    PRIMARY KEY (couple_id, seq),
    UNIQUE KEY couple_entry_client (couple_id, author, client_id),
    KEY couple_entry_kind (couple_id, kind, seq)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_media (
    -- 0 avatars of an account, 1 photos of a couple
    space_kind BIGINT NOT NULL,
    space_id BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    -- Digest of owner, purpose, content and crop; unique within a space.
    identity BINARY(32) NOT NULL,
    owner BINARY(16) NOT NULL,
    -- 0 avatar, 1 photo
    purpose BIGINT NOT NULL,
    -- 0 processing, 1 ready, 2 rejected
    state BIGINT NOT NULL,
    reason TEXT,
    digest BINARY(32) NOT NULL,
    crop_x BIGINT,
    crop_y BIGINT,
    crop_width BIGINT,
    crop_height BIGINT,
    blob_key TEXT NOT NULL,
    source TEXT,
    source_bytes BIGINT,
    source_type TEXT,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    placeholder VARBINARY(255),
    uses BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Whether the uploaded file is an animation, and whether a part of it is transparent.
    animated BIGINT NOT NULL,
    alpha BIGINT NOT NULL,
    PRIMARY KEY (space_id, id),
    UNIQUE KEY couple_media_id (id),
    UNIQUE KEY couple_media_identity (space_id, identity)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_media_rendition (
    space_id BINARY(16) NOT NULL,
    media_id BINARY(16) NOT NULL,
    name VARBINARY(64) NOT NULL,
    -- 0 JPEG, 1 WebP, 2 PNG
    format BIGINT NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    blob_name TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    -- Time of the last request; NULL for a rendition that never expires.
    used_at BIGINT,
    PRIMARY KEY (space_id, media_id, name, format),
    KEY couple_media_rendition_used (used_at, media_id, name, format)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Usage of each space. The row of a closed space stays, so that it accepts no late picture.
CREATE TABLE IF NOT EXISTS couple_media_space (
    space_id BINARY(16) NOT NULL PRIMARY KEY,
    kind BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    avatar BINARY(16),
    closed BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_job (
    id BINARY(16) NOT NULL PRIMARY KEY,
    queue VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    dedupe_key VARBINARY(512),
    -- Time of the next possible claim; the end of the lease while a worker holds the job.
    due_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    claim BIGINT,
    -- Finds waiting, leased and abandoned jobs: MySQL has no partial indexes.
    KEY couple_job_claim (queue, claim, due_at, id),
    UNIQUE KEY couple_job_key (dedupe_key)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_dead_job (
    id BINARY(16) NOT NULL PRIMARY KEY,
    queue VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    dedupe_key VARBINARY(512),
    due_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    error TEXT NOT NULL,
    died_at BIGINT NOT NULL,
    KEY couple_dead_job_queue (queue),
    KEY couple_dead_job_died (died_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple_outcome (
    scope BINARY(32) NOT NULL PRIMARY KEY,
    request BINARY(32) NOT NULL,
    outcome MEDIUMTEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY couple_outcome_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Counts of attempts that outlive a process, by keyed digest.
CREATE TABLE IF NOT EXISTS couple_tally (
    id BINARY(32) NOT NULL PRIMARY KEY,
    counted BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY couple_tally_expiry (expires_at, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Resumable uploads (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE IF NOT EXISTS couple_resumable_upload (
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
    KEY couple_resumable_upload_owner (owner, media_id, id),
    KEY couple_resumable_upload_unfinished (media_id, received),
    KEY couple_resumable_upload_expiry (expires_at, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
