-- Ids are UUIDv7, digests 32 bytes, times microseconds since 1970-01-01 UTC, booleans 0 or 1.
-- An index for an ordered read ends with the key.
-- Each name that begins with `couple_`, except `couple_id`, is replaced if the host chose another prefix.

CREATE TABLE couple_account (
    id           UUID NOT NULL PRIMARY KEY,
    email_key    TEXT COLLATE "C" NOT NULL,
    email        TEXT NOT NULL,
    display_name TEXT NOT NULL,
    locale       TEXT,
    time_zone    TEXT,
    birthday     TEXT,
    password     TEXT,
    created_at   BIGINT NOT NULL,
    deletion_due BIGINT,
    version      BIGINT NOT NULL
);
CREATE UNIQUE INDEX couple_account_email ON couple_account (email_key);
CREATE INDEX couple_account_deletion ON couple_account (deletion_due, id) WHERE deletion_due IS NOT NULL;

CREATE TABLE couple_token (
    id              UUID NOT NULL PRIMARY KEY,
    kind            TEXT COLLATE "C" NOT NULL,
    email_key       TEXT COLLATE "C" NOT NULL,
    email           TEXT NOT NULL,
    account_id      UUID,
    link            BYTEA NOT NULL,
    tries           BIGINT NOT NULL,
    display_name    TEXT,
    locale          TEXT,
    created_at      BIGINT NOT NULL,
    code_expires_at BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    used_at         BIGINT,
    -- Session and client network that requested the token.
    session_id      UUID,
    network         BYTEA,
    foreign_tries   BIGINT NOT NULL,
    used_form       TEXT COLLATE "C"
);
CREATE UNIQUE INDEX couple_token_link ON couple_token (link);
CREATE INDEX couple_token_target ON couple_token (email_key, kind, created_at, id);
CREATE INDEX couple_token_account ON couple_token (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX couple_token_expiry ON couple_token (expires_at, id);

CREATE TABLE couple_session (
    account_id       UUID NOT NULL,
    id               UUID NOT NULL,
    token            BYTEA NOT NULL,
    device           TEXT,
    created_at       BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL,
    seen_at          BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE UNIQUE INDEX couple_session_token ON couple_session (token);
CREATE INDEX couple_session_expiry ON couple_session (expires_at, account_id, id);
CREATE INDEX couple_session_seen ON couple_session (seen_at, account_id, id);

CREATE TABLE couple_invite (
    id            UUID NOT NULL PRIMARY KEY,
    inviter       UUID NOT NULL,
    inviter_email TEXT COLLATE "C" NOT NULL,
    target_key    TEXT COLLATE "C",
    target        TEXT,
    message       TEXT,
    code          BYTEA NOT NULL,
    link          BYTEA NOT NULL,
    -- Set while the invite is open and has a target address. Unique: a pair of addresses has one open invite.
    pair_key      BYTEA,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    -- 0 open, 1 accepted, 2 declined, 3 withdrawn
    state         BIGINT NOT NULL,
    accepted_by   UUID,
    couple_id     UUID
);
CREATE UNIQUE INDEX couple_invite_code ON couple_invite (code);
CREATE UNIQUE INDEX couple_invite_link ON couple_invite (link);
CREATE UNIQUE INDEX couple_invite_pair ON couple_invite (pair_key);
CREATE INDEX couple_invite_inviter ON couple_invite (inviter, state, created_at, id);
CREATE INDEX couple_invite_target ON couple_invite (target_key, state, created_at, id);
CREATE INDEX couple_invite_expiry ON couple_invite (expires_at, id);

CREATE TABLE couple_couple (
    id             UUID NOT NULL PRIMARY KEY,
    first          UUID NOT NULL,
    second         UUID NOT NULL,
    since          BIGINT NOT NULL,
    epoch          BIGINT NOT NULL,
    ended_at       BIGINT,
    title          TEXT,
    anniversary    TEXT,
    previous       UUID,
    restore_first  BIGINT NOT NULL,
    restore_second BIGINT NOT NULL,
    head_seq       BIGINT NOT NULL,
    read_first     BIGINT NOT NULL,
    read_second    BIGINT NOT NULL
);

-- Current couple of an account; the primary key allows one. NULL for an account without a couple that sends
-- invites or was in a couple: its row exists because only an existing row can be locked.
CREATE TABLE couple_member (
    account_id UUID NOT NULL PRIMARY KEY,
    couple_id  UUID
);

-- All couples that an account has been in.
CREATE TABLE couple_membership (
    account_id UUID NOT NULL,
    couple_id  UUID NOT NULL,
    PRIMARY KEY (account_id, couple_id)
);

-- Persons of a host whose data is to be erased, with the time. An account has it in its own row.
CREATE TABLE couple_erasure (
    account_id UUID   NOT NULL PRIMARY KEY,
    due_at     BIGINT NOT NULL
);
CREATE INDEX couple_erasure_due ON couple_erasure (due_at, account_id);

CREATE TABLE couple_block (
    blocker       UUID NOT NULL,
    blocked       UUID NOT NULL,
    blocker_email TEXT COLLATE "C" NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (blocker, blocked)
);
CREATE INDEX couple_block_email ON couple_block (blocker_email, blocked);
CREATE INDEX couple_block_blocked ON couple_block (blocked);

CREATE TABLE couple_entry (
    couple_id       UUID NOT NULL,
    seq             BIGINT NOT NULL,
    -- 0 first member, 1 second member, NULL system
    author          BIGINT,
    client_id       TEXT COLLATE "C",
    kind            TEXT COLLATE "C" NOT NULL,
    body            TEXT,
    target          BIGINT,
    created_at      BIGINT NOT NULL,
    edited_at       BIGINT,
    deleted_at      BIGINT,
    reaction_first  TEXT,
    reaction_second TEXT,
    PRIMARY KEY (couple_id, seq)
);
CREATE UNIQUE INDEX couple_entry_client ON couple_entry (couple_id, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX couple_entry_kind ON couple_entry (couple_id, kind, seq);

CREATE TABLE couple_media (
    -- 0 avatars of an account, 1 photos of a couple
    space_kind   BIGINT NOT NULL,
    space_id     UUID NOT NULL,
    id           UUID NOT NULL,
    -- Digest of owner, purpose, content and crop; unique within a space.
    identity     BYTEA NOT NULL,
    owner        UUID NOT NULL,
    -- 0 avatar, 1 photo
    purpose      BIGINT NOT NULL,
    -- 0 processing, 1 ready, 2 rejected
    state        BIGINT NOT NULL,
    reason       TEXT,
    digest       BYTEA NOT NULL,
    crop_x       BIGINT,
    crop_y       BIGINT,
    crop_width   BIGINT,
    crop_height  BIGINT,
    blob_key     TEXT NOT NULL,
    source       TEXT,
    source_bytes BIGINT,
    source_type  TEXT,
    width        BIGINT NOT NULL,
    height       BIGINT NOT NULL,
    placeholder  BYTEA,
    uses         BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    -- Whether the uploaded file is an animation, and whether a part of it is transparent.
    animated     BIGINT NOT NULL,
    alpha        BIGINT NOT NULL,
    PRIMARY KEY (space_id, id)
);
CREATE UNIQUE INDEX couple_media_id ON couple_media (id);
CREATE UNIQUE INDEX couple_media_identity ON couple_media (space_id, identity);

CREATE TABLE couple_media_rendition (
    space_id  UUID NOT NULL,
    media_id  UUID NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    -- 0 JPEG, 1 WebP, 2 PNG
    format    BIGINT NOT NULL,
    width     BIGINT NOT NULL,
    height    BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    blob_name TEXT NOT NULL,
    made_at   BIGINT NOT NULL,
    -- Time of the last request; NULL for a rendition that never expires.
    used_at   BIGINT,
    PRIMARY KEY (space_id, media_id, name, format)
);
CREATE INDEX couple_media_rendition_used ON couple_media_rendition (used_at, media_id, name, format) WHERE used_at IS NOT NULL;

-- Usage of each space. The row of a closed space stays, so that it accepts no late picture.
CREATE TABLE couple_media_space (
    space_id UUID NOT NULL PRIMARY KEY,
    kind     BIGINT NOT NULL,
    bytes    BIGINT NOT NULL,
    avatar   UUID,
    closed   BIGINT NOT NULL
);

CREATE TABLE couple_job (
    id           UUID NOT NULL PRIMARY KEY,
    queue        TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    payload      TEXT NOT NULL,
    dedupe_key   TEXT COLLATE "C",
    -- Time of the next possible claim; the end of the lease while a worker holds the job.
    due_at       BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    claim        BIGINT
);
CREATE INDEX couple_job_due ON couple_job (queue, due_at, id);
-- Leased and abandoned jobs are found without reading the jobs that wait.
CREATE INDEX couple_job_leased ON couple_job (queue, due_at, id) WHERE claim IS NOT NULL;
CREATE UNIQUE INDEX couple_job_key ON couple_job (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE TABLE couple_dead_job (
    id           UUID NOT NULL PRIMARY KEY,
    queue        TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    payload      TEXT NOT NULL,
    dedupe_key   TEXT COLLATE "C",
    due_at       BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    error        TEXT NOT NULL,
    died_at      BIGINT NOT NULL
);
CREATE INDEX couple_dead_job_queue ON couple_dead_job (queue);
CREATE INDEX couple_dead_job_died ON couple_dead_job (died_at, id);

CREATE TABLE couple_outcome (
    scope       BYTEA NOT NULL PRIMARY KEY,
    request     BYTEA NOT NULL,
    outcome     TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX couple_outcome_expiry ON couple_outcome (expires_at, scope);

-- Counts of attempts that outlive a process, by keyed digest.
CREATE TABLE couple_tally (
    id         BYTEA NOT NULL PRIMARY KEY,
    counted    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX couple_tally_expiry ON couple_tally (expires_at, id);

-- Resumable uploads (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE couple_resumable_upload (
    id            UUID NOT NULL PRIMARY KEY,
    owner         UUID NOT NULL,
    -- Couple of the owner when the upload was created; NULL if the upload does not depend on a couple.
    couple_id     UUID,
    -- Length in bytes; NULL until the client declares it.
    total_length  BIGINT,
    -- Number of stored bytes.
    received      BIGINT NOT NULL,
    -- Blobs as {bytes}:{blob}, separated by spaces.
    parts         TEXT NOT NULL,
    -- Fencing token of the latest request that claimed the upload.
    writer        BIGINT NOT NULL,
    -- Upload-Metadata and Upload-Concat as the client sent them.
    metadata      TEXT NOT NULL,
    concatenation TEXT,
    -- Picture that was created from the upload; NULL while it is unfinished.
    media_id      UUID,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX couple_resumable_upload_owner ON couple_resumable_upload (owner, media_id, id);
CREATE INDEX couple_resumable_upload_unfinished ON couple_resumable_upload (media_id, received);
CREATE INDEX couple_resumable_upload_expiry ON couple_resumable_upload (expires_at, id);
