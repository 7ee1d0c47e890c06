-- SHA-256 of the widget tokens of sessions.

-- MySQL has no ADD COLUMN IF NOT EXISTS, and an interrupted migration runs again.
SET @couple_widget_token = (SELECT IF(COUNT(*) = 0,
    'ALTER TABLE couple_session ADD COLUMN widget_token BINARY(32), ADD UNIQUE KEY couple_session_widget (widget_token)',
    'DO 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'couple_session' AND column_name = 'widget_token');
PREPARE couple_widget_token FROM @couple_widget_token;
EXECUTE couple_widget_token;
DEALLOCATE PREPARE couple_widget_token;
