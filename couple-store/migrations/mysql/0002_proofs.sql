-- Proofs of an address: session and client network that requested a token, its used form, and persistent tallies.
-- MySQL commits the statement immediately: skip it if an earlier, interrupted run has already executed it.
SET @missing = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'token' AND column_name = 'session_id');
SET @statement = IF(@missing, 'ALTER TABLE token ADD COLUMN session_id BINARY(16), ADD COLUMN network BINARY(32), ADD COLUMN foreign_tries BIGINT NOT NULL DEFAULT 0, ADD COLUMN used_form VARBINARY(16)', 'DO 0');
PREPARE change_table FROM @statement;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;

CREATE TABLE IF NOT EXISTS tally (
    id BINARY(32) NOT NULL PRIMARY KEY,
    counted BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY tally_expiry (expires_at, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
