-- Ids are UUIDv7, digests 32 bytes, times microseconds since 1970-01-01 UTC, booleans 0 or 1.
-- An index for an ordered read ends with the key.

CREATE TABLE account (
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
CREATE UNIQUE INDEX account_email ON account (email_key);
CREATE INDEX account_deletion ON account (deletion_due, id) WHERE deletion_due IS NOT NULL;

CREATE TABLE token (
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
    used_at         BIGINT
);
CREATE UNIQUE INDEX token_link ON token (link);
CREATE INDEX token_target ON token (email_key, kind, created_at, id);
CREATE INDEX token_account ON token (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX token_expiry ON token (expires_at, id);

CREATE TABLE session (
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
CREATE UNIQUE INDEX session_token ON session (token);
CREATE INDEX session_expiry ON session (expires_at, account_id, id);
CREATE INDEX session_seen ON session (seen_at, account_id, id);

CREATE TABLE invite (
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
CREATE UNIQUE INDEX invite_code ON invite (code);
CREATE UNIQUE INDEX invite_link ON invite (link);
CREATE UNIQUE INDEX invite_pair ON invite (pair_key);
CREATE INDEX invite_inviter ON invite (inviter, state, created_at, id);
CREATE INDEX invite_target ON invite (target_key, state, created_at, id);
CREATE INDEX invite_expiry ON invite (expires_at, id);

CREATE TABLE couple (
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
CREATE TABLE member (
    account_id UUID NOT NULL PRIMARY KEY,
    couple_id  UUID
);

-- All couples that an account has been in.
CREATE TABLE membership (
    account_id UUID NOT NULL,
    couple_id  UUID NOT NULL,
    PRIMARY KEY (account_id, couple_id)
);

CREATE TABLE block (
    blocker       UUID NOT NULL,
    blocked       UUID NOT NULL,
    blocker_email TEXT COLLATE "C" NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (blocker, blocked)
);
CREATE INDEX block_email ON block (blocker_email, blocked);
CREATE INDEX block_blocked ON block (blocked);

CREATE TABLE entry (
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
CREATE UNIQUE INDEX entry_client ON entry (couple_id, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX entry_kind ON entry (couple_id, kind, seq);

CREATE TABLE media (
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
    PRIMARY KEY (space_id, id)
);
CREATE UNIQUE INDEX media_id ON media (id);
CREATE UNIQUE INDEX media_identity ON media (space_id, identity);

CREATE TABLE media_rendition (
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
CREATE INDEX media_rendition_used ON media_rendition (used_at, media_id, name, format) WHERE used_at IS NOT NULL;

-- Usage of each space. The row of a closed space stays, so that it accepts no late picture.
CREATE TABLE media_space (
    space_id UUID NOT NULL PRIMARY KEY,
    kind     BIGINT NOT NULL,
    bytes    BIGINT NOT NULL,
    avatar   UUID,
    closed   BIGINT NOT NULL
);

CREATE TABLE job (
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
CREATE INDEX job_due ON job (queue, due_at, id);
CREATE UNIQUE INDEX job_key ON job (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE TABLE dead_job (
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
CREATE INDEX dead_job_queue ON dead_job (queue);
CREATE INDEX dead_job_died ON dead_job (died_at, id);

CREATE TABLE outcome (
    scope       BYTEA NOT NULL PRIMARY KEY,
    request     BYTEA NOT NULL,
    outcome     TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX outcome_expiry ON outcome (expires_at, scope);
