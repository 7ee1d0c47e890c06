-- Proofs of an address: session and client network that requested a token, its used form, and persistent tallies.
ALTER TABLE token ADD COLUMN session_id BLOB;
ALTER TABLE token ADD COLUMN network BLOB;
ALTER TABLE token ADD COLUMN foreign_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE token ADD COLUMN used_form TEXT;

CREATE TABLE tally (
    id         BLOB NOT NULL PRIMARY KEY,
    counted    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tally_expiry ON tally (expires_at, id);
