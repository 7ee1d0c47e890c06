-- Whether the uploaded file is an animation, and whether a part of it is transparent: 1 if so. Not known of pictures from before.
ALTER TABLE media ADD COLUMN animated BIGINT NOT NULL DEFAULT 0;
ALTER TABLE media ADD COLUMN alpha BIGINT NOT NULL DEFAULT 0;
