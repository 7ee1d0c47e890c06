-- Devices: destinations of push messages.

CREATE TABLE couple_device (
    account_id    BLOB    NOT NULL,
    -- Chosen by the installation of the app.
    id            BLOB    NOT NULL,
    -- Session that registered the device; NULL with users of a host.
    session_id    BLOB,
    -- Digest of service and token or endpoint; unique: a destination belongs to one device.
    destination   BLOB    NOT NULL,
    -- 0 APNs, 1 FCM, 2 Web Push
    service       INTEGER NOT NULL,
    -- Token, or endpoint of a browser.
    token         TEXT    NOT NULL,
    -- Id of the app; NULL for a browser.
    app           TEXT,
    -- Whether the token is of Apple's test environment; NULL for other services.
    sandbox       INTEGER,
    -- Public key and authentication secret of a browser.
    p256dh        BLOB,
    auth          BLOB,
    -- 0 alert, 1 widget, 2 control, 3 start of a Live Activity, 4 update of a Live Activity
    surface       INTEGER NOT NULL,
    locale        TEXT,
    time_zone     TEXT,
    app_version   TEXT,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX couple_device_destination ON couple_device (destination);
