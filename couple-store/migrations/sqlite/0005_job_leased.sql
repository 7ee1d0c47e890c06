-- Leased and abandoned jobs are found without reading the jobs that wait.
CREATE INDEX job_leased ON job (queue, due_at, id) WHERE claim IS NOT NULL;
