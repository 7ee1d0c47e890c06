-- SHA-256 of the widget tokens of sessions.

-- The key has no name of its own, so that one clause adds it with the column, or neither. MySQL ignores the comment.
ALTER TABLE couple_session ADD COLUMN /*M! IF NOT EXISTS */ widget_token BINARY(32) UNIQUE;
