-- Devices: destinations of push messages.

CREATE TABLE couple_device (
    account_id    UUID NOT NULL,
    -- Chosen by the installation of the app.
    id            UUID NOT NULL,
    -- Session that registered the device; NULL with users of a host.
    session_id    UUID,
    -- Digest of service and token or endpoint; unique: a destination belongs to one device.
    destination   BYTEA NOT NULL,
    -- 0 APNs, 1 FCM, 2 Web Push
    service       BIGINT NOT NULL,
    -- Token, or endpoint of a browser.
    token         TEXT NOT NULL,
    -- Id of the app; NULL for a browser.
    app           TEXT,
    -- Whether the token is of Apple's test environment; NULL for other services.
    sandbox       BIGINT,
    -- Public key and authentication secret of a browser.
    p256dh        BYTEA,
    auth          BYTEA,
    -- 0 alert, 1 widget, 2 control, 3 start of a Live Activity, 4 update of a Live Activity
    surface       BIGINT NOT NULL,
    locale        TEXT,
    time_zone     TEXT,
    app_version   TEXT,
    registered_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE UNIQUE INDEX couple_device_destination ON couple_device (destination);
