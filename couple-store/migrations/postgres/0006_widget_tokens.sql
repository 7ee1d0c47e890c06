-- SHA-256 of the widget tokens of sessions.

ALTER TABLE couple_session ADD COLUMN widget_token BYTEA;
CREATE UNIQUE INDEX couple_session_widget ON couple_session (widget_token);
