-- Which library this is, wherever its database lies and whatever that is called: made once, with the schema, and kept
-- by a dump. A journal compares it with the one that it has fed, so that the tail of a run never goes to another
-- library than its beginning.
-- Why "if not exists": a dump from before this step, restored with `--clean`, leaves the table and forgets the step.
CREATE TABLE IF NOT EXISTS library_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id       TEXT    NOT NULL                      -- a UUID
);
INSERT INTO library_identity (only_row, id) VALUES (1, gen_random_uuid()::text) ON CONFLICT DO NOTHING;
