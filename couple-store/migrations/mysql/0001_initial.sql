-- Ids are UUIDv7 as 16 bytes, digests 32 bytes, times microseconds since 1970 UTC, truth 0 or 1. Text that is looked up is kept
-- as bytes: a collation would fold case or trailing spaces. MySQL commits each definition by itself, so each can be run again.

CREATE TABLE IF NOT EXISTS account (
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
    UNIQUE KEY account_email (email_key),
    KEY account_deletion (deletion_due)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS token (
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
    UNIQUE KEY token_link (link),
    KEY token_target (email_key, kind, created_at),
    KEY token_account (account_id),
    KEY token_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS session (
    account_id BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    token BINARY(32) NOT NULL,
    device TEXT,
    created_at BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE KEY session_token (token),
    KEY session_expiry (expires_at),
    KEY session_seen (seen_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS invite (
    id BINARY(16) NOT NULL PRIMARY KEY,
    inviter BINARY(16) NOT NULL,
    inviter_email VARBINARY(320) NOT NULL,
    target_key VARBINARY(320),
    target TEXT,
    message TEXT,
    code BINARY(32) NOT NULL,
    link BINARY(32) NOT NULL,
    -- Set while the invite is open and bound to an address: at most one open invite joins two addresses.
    pair_key BINARY(32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- 0 open, 1 accepted, 2 declined, 3 withdrawn
    state BIGINT NOT NULL,
    accepted_by BINARY(16),
    couple_id BINARY(16),
    UNIQUE KEY invite_code (code),
    UNIQUE KEY invite_link (link),
    UNIQUE KEY invite_pair (pair_key),
    KEY invite_inviter (inviter, state, created_at),
    KEY invite_target (target_key, state, created_at),
    KEY invite_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS couple (
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

-- Who is in a couple now: the key keeps everybody to one. Who invites or was in one has a row without a couple: a row that
-- is there can be locked.
CREATE TABLE IF NOT EXISTS member (
    account_id BINARY(16) NOT NULL PRIMARY KEY,
    couple_id BINARY(16)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Who ever was in which couple.
CREATE TABLE IF NOT EXISTS membership (
    account_id BINARY(16) NOT NULL,
    couple_id BINARY(16) NOT NULL,
    PRIMARY KEY (account_id, couple_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS block (
    blocker BINARY(16) NOT NULL,
    blocked BINARY(16) NOT NULL,
    blocker_email VARBINARY(320) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (blocker, blocked),
    KEY block_email (blocker_email, blocked),
    KEY block_blocked (blocked)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS entry (
    couple_id BINARY(16) NOT NULL,
    seq BIGINT NOT NULL,
    -- 0 the first of the two, 1 the second, none the system
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
    UNIQUE KEY entry_client (couple_id, author, client_id),
    KEY entry_kind (couple_id, kind, seq)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS media (
    -- 0 a person's avatars, 1 a couple's photos
    space_kind BIGINT NOT NULL,
    space_id BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    -- Of owner, purpose, digest and crop: the same picture is there once.
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
    PRIMARY KEY (space_id, id),
    UNIQUE KEY media_id (id),
    UNIQUE KEY media_identity (space_id, identity)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS media_rendition (
    space_id BINARY(16) NOT NULL,
    media_id BINARY(16) NOT NULL,
    name VARBINARY(64) NOT NULL,
    -- 0 JPEG, 1 WebP
    format BIGINT NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    blob_name TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    -- None: kept however long nobody asks.
    used_at BIGINT,
    PRIMARY KEY (space_id, media_id, name, format),
    KEY media_rendition_used (used_at, media_id, name, format)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- What is kept in each space. A closed one stays, so that nothing comes in late.
CREATE TABLE IF NOT EXISTS media_space (
    space_id BINARY(16) NOT NULL PRIMARY KEY,
    kind BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    avatar BINARY(16),
    closed BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS job (
    id BINARY(16) NOT NULL PRIMARY KEY,
    queue VARBINARY(255) NOT NULL,
    name VARBINARY(255) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    dedupe_key VARBINARY(512),
    -- When it may next be claimed: the end of the lease while a worker holds it.
    due_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    claim BIGINT,
    KEY job_due (queue, due_at, id),
    UNIQUE KEY job_key (dedupe_key)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS dead_job (
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
    KEY dead_job_queue (queue),
    KEY dead_job_died (died_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS outcome (
    scope BINARY(32) NOT NULL PRIMARY KEY,
    request BINARY(32) NOT NULL,
    outcome MEDIUMTEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY outcome_expiry (expires_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
