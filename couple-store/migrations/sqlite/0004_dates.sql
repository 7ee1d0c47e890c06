-- Dates of couples: days that become reminders.

CREATE TABLE couple_date (
    couple_id  BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    -- Number of changes, counted from 1.
    version    INTEGER NOT NULL,
    -- 0 anniversary, 1 first date, 2 birthday, 3 other
    kind       INTEGER NOT NULL,
    title      TEXT,
    -- YYYY-MM-DD, or --MM-DD without a year.
    day        TEXT    NOT NULL,
    -- 0 once, 1 every year
    yearly     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (couple_id, id)
) STRICT, WITHOUT ROWID;
