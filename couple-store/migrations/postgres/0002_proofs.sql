-- Proofs of an address: session and client network that requested a token, its used form, and persistent tallies.
ALTER TABLE token ADD COLUMN session_id UUID;
ALTER TABLE token ADD COLUMN network BYTEA;
ALTER TABLE token ADD COLUMN foreign_tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE token ADD COLUMN used_form TEXT COLLATE "C";

CREATE TABLE tally (
    id         BYTEA NOT NULL PRIMARY KEY,
    counted    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tally_expiry ON tally (expires_at, id);
