-- Whether the uploaded file is an animation, and whether a part of it is transparent: 0 or 1; 0 in older rows.
ALTER TABLE media ADD COLUMN animated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE media ADD COLUMN alpha INTEGER NOT NULL DEFAULT 0;
