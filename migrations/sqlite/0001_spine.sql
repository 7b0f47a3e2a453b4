-- The local file: the journal, and the embedded library beside it.
-- Expand only: a migration never breaks the version that is running.

-- Who writes here: the journal's own name, and how often it was opened. A run carries both, so that a start can
-- tell the runs that an earlier start of this journal left open.
CREATE TABLE journal_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    owner    TEXT    NOT NULL,
    boot     INTEGER NOT NULL
) STRICT;

-- One row per run and group commit; `ord` is the one order. AUTOINCREMENT: a number is never given twice, also
-- when the table was empty in between, because a run's `moved_to` compares with it.
-- No index by run: each commit holds rows of many runs and would write a page of it for each of them. The journal
-- keeps that index in memory.
CREATE TABLE journal (
    ord          INTEGER PRIMARY KEY AUTOINCREMENT,
    run          TEXT    NOT NULL,
    committed_ns INTEGER NOT NULL,
    records      BLOB    NOT NULL
) STRICT;

-- A run. `moved_to`: every journal row of it up to there is in the library.
CREATE TABLE run (
    run          TEXT    PRIMARY KEY NOT NULL,
    session      TEXT    NOT NULL,
    rig          TEXT    NOT NULL,
    pipeline     TEXT    NOT NULL,
    pinned       TEXT    NOT NULL,                 -- JSON [{stage, model, version, digest}]
    resolved     TEXT    NOT NULL,                 -- opaque: what open answered
    outputs      TEXT    NOT NULL,                 -- JSON [{number, name, stage, output, ...}]
    recorded     TEXT    NOT NULL,                 -- JSON [number]
    signals      TEXT    NOT NULL,                 -- JSON [name]
    engine       TEXT    NOT NULL,
    tags         TEXT    NOT NULL,                 -- JSON [text]
    notes        TEXT    NOT NULL,
    state        TEXT    NOT NULL,                 -- open, closed, interrupted
    recording    TEXT    NOT NULL,                 -- on, stopped
    t0_ns        INTEGER,
    width_ns     INTEGER NOT NULL,
    from_bin     INTEGER NOT NULL,                 -- the first bin that the session could answer
    first_bin    INTEGER,                          -- the first recorded bin
    end_bin      INTEGER,                          -- one past the last recorded bin
    bins         INTEGER NOT NULL DEFAULT 0,
    skipped_bins INTEGER NOT NULL DEFAULT 0,
    started_ns   INTEGER NOT NULL,
    last_ns      INTEGER NOT NULL,
    ended_ns     INTEGER,
    summary      TEXT,
    segments     TEXT    NOT NULL DEFAULT '[]',    -- JSON [{from_bin, body}]
    settings     TEXT    NOT NULL DEFAULT '[]',    -- JSON [{from_bin, body}]
    owner        TEXT    NOT NULL,
    boot         INTEGER NOT NULL,
    moved_to     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX run_by_state ON run (state, owner);

-- Unbroken bins of one track inside one chunk [chunk·N, (chunk+1)·N). Track -1 is the flags, which every recorded
-- bin has; track k is output k. A chunk in the making has one row per move; they are joined when it is full.
CREATE TABLE chunk (
    id        INTEGER PRIMARY KEY,
    run       TEXT    NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    track     INTEGER NOT NULL,
    chunk     INTEGER NOT NULL,
    first_bin INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    dtype     TEXT    NOT NULL,
    row_bytes INTEGER NOT NULL,
    bytes     BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunk_by_place ON chunk (run, track, chunk, first_bin);

-- Frames of one signal (track k), or what else replay must repeat (track -1), as the session gave them.
-- `first_at`: place in the session's own order, over all tracks.
CREATE TABLE frame_chunk (
    id        INTEGER PRIMARY KEY,
    run       TEXT    NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    track     INTEGER NOT NULL,
    first_at  INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    bytes     BLOB    NOT NULL                      -- each with its arrival, as `store::pack` lays them out
) STRICT;
CREATE UNIQUE INDEX frame_chunk_by_place ON frame_chunk (run, track, first_at);

-- Events of one kind and signal: one entry per 10 s.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY,
    run      TEXT    NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    kind     TEXT    NOT NULL,
    signal   TEXT    NOT NULL,                     -- '' for none
    from_bin INTEGER,
    to_bin   INTEGER,
    count    INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns  INTEGER NOT NULL,
    detail   TEXT    NOT NULL
) STRICT;
CREATE INDEX event_by_kind ON event (run, kind, signal);

CREATE TABLE annotation (
    id       INTEGER PRIMARY KEY,
    run      TEXT    NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    label    TEXT    NOT NULL,
    from_bin INTEGER NOT NULL,
    to_bin   INTEGER NOT NULL,
    body     TEXT    NOT NULL                      -- opaque
) STRICT;
CREATE INDEX annotation_by_run ON annotation (run);
