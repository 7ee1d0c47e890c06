-- Proofs of an address: who requested a token, which of its forms was used, and counts that outlive a process.
ALTER TABLE token
    ADD COLUMN session_id BINARY(16),
    ADD COLUMN network BINARY(32),
    ADD COLUMN foreign_tries BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN used_form VARBINARY(16);

CREATE TABLE IF NOT EXISTS tally (
    id BINARY(32) NOT NULL PRIMARY KEY,
    counted BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY tally_expiry (expires_at, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
