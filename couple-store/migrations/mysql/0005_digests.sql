-- Mail digests of persons who have asked for them.

CREATE TABLE IF NOT EXISTS couple_digest (
    account_id BINARY(16) NOT NULL PRIMARY KEY,
    -- Minutes from an unread entry to the digest that reports it; NULL without digests.
    delay BIGINT,
    -- Time of the digest that is scheduled, or was scheduled last.
    due_at BIGINT
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
