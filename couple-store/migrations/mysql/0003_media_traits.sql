-- Whether the uploaded file is an animation, and whether a part of it is transparent: 0 or 1; 0 in older rows.
-- MySQL commits the statement immediately: skip it if an earlier, interrupted run has already executed it.
SET @missing = (SELECT COUNT(*) = 0 FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'media' AND column_name = 'animated');
SET @statement = IF(@missing, 'ALTER TABLE media ADD COLUMN animated BIGINT NOT NULL DEFAULT 0, ADD COLUMN alpha BIGINT NOT NULL DEFAULT 0', 'DO 0');
PREPARE change_table FROM @statement;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
