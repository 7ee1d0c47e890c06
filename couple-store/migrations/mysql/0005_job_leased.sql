-- Leased and abandoned jobs are found without reading the jobs that wait: MySQL has no partial indexes.
-- The statement commits by itself: it is skipped where an earlier, interrupted run has already made it.
SET @missing = (SELECT COUNT(*) = 0 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'job' AND index_name = 'job_claim');
SET @statement = IF(@missing, 'ALTER TABLE job ADD KEY job_claim (queue, claim, due_at, id), DROP KEY job_due', 'DO 0');
PREPARE change_table FROM @statement;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
