-- Ids are UUIDv7 (16 bytes), digests 32 bytes, times microseconds since 1970-01-01 UTC, booleans 0 or 1.
-- WITHOUT ROWID stores rows in the order of the primary key, so that the rows of a couple are adjacent.
-- Each name that begins with `couple_`, except `couple_id`, is replaced if the host chose another prefix.

CREATE TABLE couple_account (
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
CREATE UNIQUE INDEX couple_account_email ON couple_account (email_key);
CREATE INDEX couple_account_deletion ON couple_account (deletion_due) WHERE deletion_due IS NOT NULL;

CREATE TABLE couple_token (
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
    used_at         INTEGER,
    -- Session and client network that requested the token.
    session_id      BLOB,
    network         BLOB,
    foreign_tries   INTEGER NOT NULL,
    used_form       TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX couple_token_link ON couple_token (link);
CREATE INDEX couple_token_target ON couple_token (email_key, kind, created_at);
CREATE INDEX couple_token_account ON couple_token (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX couple_token_expiry ON couple_token (expires_at);

CREATE TABLE couple_session (
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
CREATE UNIQUE INDEX couple_session_token ON couple_session (token);
CREATE INDEX couple_session_expiry ON couple_session (expires_at);
CREATE INDEX couple_session_seen ON couple_session (seen_at);

CREATE TABLE couple_invite (
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
CREATE UNIQUE INDEX couple_invite_code ON couple_invite (code);
CREATE UNIQUE INDEX couple_invite_link ON couple_invite (link);
CREATE UNIQUE INDEX couple_invite_pair ON couple_invite (pair_key);
CREATE INDEX couple_invite_inviter ON couple_invite (inviter, state, created_at);
CREATE INDEX couple_invite_target ON couple_invite (target_key, state, created_at);
CREATE INDEX couple_invite_expiry ON couple_invite (expires_at);

CREATE TABLE couple_couple (
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
CREATE TABLE couple_member (
    account_id BLOB NOT NULL PRIMARY KEY,
    couple_id  BLOB
) STRICT, WITHOUT ROWID;

-- All couples that an account has been in.
CREATE TABLE couple_membership (
    account_id BLOB NOT NULL,
    couple_id  BLOB NOT NULL,
    PRIMARY KEY (account_id, couple_id)
) STRICT, WITHOUT ROWID;

-- Persons of a host whose data is to be erased, with the time. An account has it in its own row.
CREATE TABLE couple_erasure (
    account_id BLOB    NOT NULL PRIMARY KEY,
    due_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX couple_erasure_due ON couple_erasure (due_at, account_id);

CREATE TABLE couple_block (
    blocker       BLOB    NOT NULL,
    blocked       BLOB    NOT NULL,
    blocker_email TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;
CREATE INDEX couple_block_email ON couple_block (blocker_email, blocked);
CREATE INDEX couple_block_blocked ON couple_block (blocked);

CREATE TABLE couple_entry (
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
CREATE UNIQUE INDEX couple_entry_client ON couple_entry (couple_id, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX couple_entry_kind ON couple_entry (couple_id, kind, seq);

CREATE TABLE couple_media (
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
    -- Whether the uploaded file is an animation, and whether a part of it is transparent.
    animated     INTEGER NOT NULL,
    alpha        INTEGER NOT NULL,
    PRIMARY KEY (space_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX couple_media_id ON couple_media (id);
CREATE UNIQUE INDEX couple_media_identity ON couple_media (space_id, identity);

CREATE TABLE couple_media_rendition (
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
CREATE INDEX couple_media_rendition_used ON couple_media_rendition (used_at, media_id, name, format) WHERE used_at IS NOT NULL;

-- Usage of each space. The row of a closed space stays, so that it accepts no late picture.
CREATE TABLE couple_media_space (
    space_id BLOB    NOT NULL PRIMARY KEY,
    kind     INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    avatar   BLOB,
    closed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE couple_job (
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
CREATE INDEX couple_job_due ON couple_job (queue, due_at, id);
-- Leased and abandoned jobs are found without reading the jobs that wait.
CREATE INDEX couple_job_leased ON couple_job (queue, due_at, id) WHERE claim IS NOT NULL;
CREATE UNIQUE INDEX couple_job_key ON couple_job (dedupe_key) WHERE dedupe_key IS NOT NULL;

CREATE TABLE couple_dead_job (
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
CREATE INDEX couple_dead_job_queue ON couple_dead_job (queue);
CREATE INDEX couple_dead_job_died ON couple_dead_job (died_at);

CREATE TABLE couple_outcome (
    scope       BLOB    NOT NULL PRIMARY KEY,
    request     BLOB    NOT NULL,
    outcome     TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX couple_outcome_expiry ON couple_outcome (expires_at);

-- Counts of attempts that outlive a process, by keyed digest.
CREATE TABLE couple_tally (
    id         BLOB NOT NULL PRIMARY KEY,
    counted    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX couple_tally_expiry ON couple_tally (expires_at, id);

-- Resumable uploads (tus). The bytes are in the blobs that `parts` names.
CREATE TABLE couple_resumable_upload (
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
CREATE INDEX couple_resumable_upload_owner ON couple_resumable_upload (owner, media_id);
CREATE INDEX couple_resumable_upload_unfinished ON couple_resumable_upload (media_id, received);
CREATE INDEX couple_resumable_upload_expiry ON couple_resumable_upload (expires_at);
