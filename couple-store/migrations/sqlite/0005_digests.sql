-- Mail digests of persons who have asked for them.

CREATE TABLE couple_digest (
    account_id BLOB NOT NULL PRIMARY KEY,
    -- Minutes from an unread entry to the digest that reports it; NULL without digests.
    delay      INTEGER,
    -- Time of the digest that is scheduled, or was scheduled last.
    due_at     INTEGER
) STRICT, WITHOUT ROWID;
