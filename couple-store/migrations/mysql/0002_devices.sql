-- Devices: destinations of push messages.

CREATE TABLE IF NOT EXISTS couple_device (
    account_id BINARY(16) NOT NULL,
    -- Chosen by the installation of the app.
    id BINARY(16) NOT NULL,
    -- Session that registered the device; NULL with users of a host.
    session_id BINARY(16),
    -- Digest of service and token or endpoint; unique: a destination belongs to one device.
    destination BINARY(32) NOT NULL,
    -- 0 APNs, 1 FCM, 2 Web Push
    service BIGINT NOT NULL,
    -- Token, or endpoint of a browser.
    token TEXT NOT NULL,
    -- Id of the app; NULL for a browser.
    app TEXT,
    -- Whether the token is of Apple's test environment; NULL for other services.
    sandbox BIGINT,
    -- Public key and authentication secret of a browser.
    p256dh VARBINARY(65),
    auth VARBINARY(16),
    -- 0 alert, 1 widget, 2 control, 3 start of a Live Activity, 4 update of a Live Activity
    surface BIGINT NOT NULL,
    locale TEXT,
    time_zone TEXT,
    app_version TEXT,
    registered_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE KEY couple_device_destination (destination)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
