-- Dates of couples: days that become reminders.

CREATE TABLE couple_date (
    couple_id  UUID NOT NULL,
    id         UUID NOT NULL,
    -- Number of changes, counted from 1.
    version    BIGINT NOT NULL,
    -- 0 anniversary, 1 first date, 2 birthday, 3 other
    kind       BIGINT NOT NULL,
    title      TEXT,
    -- YYYY-MM-DD, or --MM-DD without a year.
    day        TEXT NOT NULL,
    -- 0 once, 1 every year
    yearly     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (couple_id, id)
);
