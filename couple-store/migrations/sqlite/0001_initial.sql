-- Ids are UUIDv7 (16 bytes), digests 32 bytes, times microseconds since 1970-01-01 UTC, booleans 0 or 1.
-- WITHOUT ROWID stores rows in the order of the primary key, so that the rows of a couple are adjacent.

CREATE TABLE account (
    id           BLOB    NOT NULL PRIMARY KEY,
    email_key    TEXT    NOT NULL,
    email        TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    locale       TEXT,
    time_zone    TEXT,
    birthday     TEXT,
    password     TEXT,
    created_at   INTEGER NOT NULL,
    deletion_due INTEGER,
    version      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX account_email ON account (email_key);
CREATE INDEX account_deletion ON account (deletion_due) WHERE deletion_due IS NOT NULL;

CREATE TABLE token (
    id              BLOB    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL,
    email_key       TEXT    NOT NULL,
    email           TEXT    NOT NULL,
    account_id      BLOB,
    link            BLOB    NOT NULL,
    tries           INTEGER NOT NULL,
    display_name    TEXT,
    locale          TEXT,
    created_at      INTEGER NOT NULL,
    code_expires_at INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    used_at         INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX token_link ON token (link);
CREATE INDEX token_target ON token (email_key, kind, created_at);
CREATE INDEX token_account ON token (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX token_expiry ON token (expires_at);

CREATE TABLE session (
    account_id       BLOB    NOT NULL,
    id               BLOB    NOT NULL,
    token            BLOB    NOT NULL,
    device           TEXT,
    created_at       INTEGER NOT NULL,
    authenticated_at INTEGER NOT NULL,
    seen_at          INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL,
    PRIMARY KEY (account_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX session_token ON session (token);
CREATE INDEX session_expiry ON session (expires_at);
CREATE INDEX session_seen ON session (seen_at);

CREATE TABLE invite (
    id            BLOB    NOT NULL PRIMARY KEY,
    inviter       BLOB    NOT NULL,
    inviter_email TEXT    NOT NULL,
    target_key    TEXT,
    target        TEXT,
    message       TEXT,
    code          BLOB    NOT NULL,
    link          BLOB    NOT NULL,
    -- Set while the invite is open and has a target address. Unique: a pair of addresses has one open invite.
    pair_key      BLOB,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    -- 0 open, 1 accepted, 2 declined, 3 withdrawn
    state         INTEGER NOT NULL,
    accepted_by   BLOB,
    couple_id     BLOB
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX invite_code ON invite (code);
CREATE UNIQUE INDEX invite_link ON invite (link);
CREATE UNIQUE INDEX invite_pair ON invite (pair_key);
CREATE INDEX invite_inviter ON invite (inviter, state, created_at);
CREATE INDEX invite_target ON invite (target_key, state, created_at);
CREATE INDEX invite_expiry ON invite (expires_at);

CREATE TABLE couple (
    id             BLOB    NOT NULL PRIMARY KEY,
    first          BLOB    NOT NULL,
    second         BLOB    NOT NULL,
    since          INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    ended_at       INTEGER,
    title          TEXT,
    anniversary    TEXT,
    previous       BLOB,
    restore_first  INTEGER NOT NULL,
    restore_second INTEGER NOT NULL,
    head_seq       INTEGER NOT NULL,
    read_first     INTEGER NOT NULL,
    read_second    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Current couple of an account; the primary key allows one. NULL for an account without a couple that sends
-- invites or was in a couple: its row exists because only an existing row can be locked.
CREATE TABLE member (
    account_id BLOB NOT NULL PRIMARY KEY,
    couple_id  BLOB
) STRICT, WITHOUT ROWID;

-- All couples that an account has been in.
CREATE TABLE membership (
    account_id BLOB NOT NULL,
    couple_id  BLOB NOT NULL,
    PRIMARY KEY (account_id, couple_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE block (
    blocker       BLOB    NOT NULL,
    blocked       BLOB    NOT NULL,
    blocker_email TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;
CREATE INDEX block_email ON block (blocker_email, blocked);
CREATE INDEX block_blocked ON block (blocked);

CREATE TABLE entry (
    couple_id       BLOB    NOT NULL,
    seq             INTEGER NOT NULL,
    -- 0 first member, 1 second member, NULL system
    author          INTEGER,
    client_id       TEXT,
    kind            TEXT    NOT NULL,
    body            TEXT,
    target          INTEGER,
    created_at      INTEGER NOT NULL,
    edited_at       INTEGER,
    deleted_at      INTEGER,
    reaction_first  TEXT,
    reaction_second TEXT,
    PRIMARY KEY (couple_id, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entry_client ON entry (couple_id, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX entry_kind ON entry (couple_id, kind, seq);

CREATE TABLE media (
    -- 0 avatars of an account, 1 photos of a couple
    space_kind   INTEGER NOT NULL,
    space_id     BLOB    NOT NULL,
    id           BLOB    NOT NULL,
    -- Digest of owner, purpose, content and crop; unique within a space.
    identity     BLOB    NOT NULL,
    owner        BLOB    NOT NULL,
    -- 0 avatar, 1 photo
    purpose      INTEGER NOT NULL,
    -- 0 processing, 1 ready, 2 rejected
    state        INTEGER NOT NULL,
    reason       TEXT,
    digest       BLOB    NOT NULL,
    crop_x       INTEGER,
    crop_y       INTEGER,
    crop_width   INTEGER,
    crop_height  INTEGER,
    blob_key     TEXT    NOT NULL,
    source       TEXT,
    source_bytes INTEGER,
    source_type  TEXT,
    width        INTEGER NOT NULL,
    height       INTEGER NOT NULL,
    placeholder  BLOB,
    uses         INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (space_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX media_id ON media (id);
CREATE UNIQUE INDEX media_identity ON media (space_id, identity);

CREATE TABLE media_rendition (
    space_id  BLOB    NOT NULL,
    media_id  BLOB    NOT NULL,
    name      TEXT    NOT NULL,
    -- 0 JPEG, 1 WebP, 2 PNG
    format    INTEGER NOT NULL,
    width     INTEGER NOT NULL,
    height    INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    blob_name TEXT    NOT NULL,
    made_at   INTEGER NOT NULL,
    -- Time of the last request; NULL for a rendition that never expires.
    used_at   INTEGER,
    PRIMARY KEY (space_id, media_id, name, format)
) STRICT, WITHOUT ROWID;
CREATE INDEX media_rendition_used ON media_rendition (used_at, media_id, name, format) WHERE used_at IS NOT NULL;

-- Usage of each space. The row of a closed space stays, so that it accepts no late picture.
CREATE TABLE media_space (
    space_id BLOB    NOT NULL PRIMARY KEY,
    kind     INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    avatar   BLOB,
    closed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    id           BLOB    NOT NULL PRIMARY KEY,
    queue        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    payload      TEXT    NOT NULL,
    dedupe_key   TEXT,
    -- Time of the next possible claim; the end of the lease while a worker holds the job.
    due_at       INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    claim        INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX job_due ON job (queue, due_at, id);
CREATE UNIQUE INDEX job_key ON job (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE TABLE dead_job (
    id           BLOB    NOT NULL PRIMARY KEY,
    queue        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    payload      TEXT    NOT NULL,
    dedupe_key   TEXT,
    due_at       INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    error        TEXT    NOT NULL,
    died_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_job_queue ON dead_job (queue);
CREATE INDEX dead_job_died ON dead_job (died_at);

CREATE TABLE outcome (
    scope       BLOB    NOT NULL PRIMARY KEY,
    request     BLOB    NOT NULL,
    outcome     TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outcome_expiry ON outcome (expires_at);
