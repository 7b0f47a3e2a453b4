-- The library that this journal feeds, so that the tail of a run never goes to another one than its beginning.
ALTER TABLE journal_identity ADD COLUMN library TEXT NOT NULL DEFAULT 'embedded';
