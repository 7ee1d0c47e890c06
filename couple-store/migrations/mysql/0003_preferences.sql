-- Notification preferences of persons who have changed any.

CREATE TABLE IF NOT EXISTS couple_preferences (
    account_id BINARY(16) NOT NULL PRIMARY KEY,
    -- Number of changes.
    version BIGINT NOT NULL,
    -- Kinds of event of which the person is notified: 0 off, 1 on.
    entries BIGINT NOT NULL,
    reactions BIGINT NOT NULL,
    pairing BIGINT NOT NULL,
    -- Whether push messages show the text of the partner.
    previews BIGINT NOT NULL,
    muted_until BIGINT,
    -- Minutes since midnight; NULL without quiet hours.
    quiet_from BIGINT,
    quiet_to BIGINT,
    time_zone TEXT
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
