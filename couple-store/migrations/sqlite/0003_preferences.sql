-- Notification preferences of persons who have changed any.

CREATE TABLE couple_preferences (
    account_id  BLOB    NOT NULL PRIMARY KEY,
    -- Number of changes.
    version     INTEGER NOT NULL,
    -- Kinds of event of which the person is notified: 0 off, 1 on.
    entries     INTEGER NOT NULL,
    reactions   INTEGER NOT NULL,
    pairing     INTEGER NOT NULL,
    -- Whether push messages show the text of the partner.
    previews    INTEGER NOT NULL,
    muted_until INTEGER,
    -- Minutes since midnight; NULL without quiet hours.
    quiet_from  INTEGER,
    quiet_to    INTEGER,
    time_zone   TEXT
) STRICT, WITHOUT ROWID;
