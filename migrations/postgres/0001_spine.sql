-- The library in PostgreSQL. The journal is always the local file; of it only each run's mark is here.
-- Expand only: a migration never breaks the version that is running, of which there may be several on one database.
-- Text holds no NUL here; `store/postgres/text.rs` says what stands in its place.

-- A run. `moved_to`: every row of it up to there, in its owner's journal, is in the library.
CREATE TABLE run (
    -- "C": ids are compared as bytes, whatever language the database speaks.
    run          TEXT COLLATE "C" PRIMARY KEY,
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
    t0_ns        BIGINT,
    width_ns     BIGINT  NOT NULL,
    from_bin     BIGINT  NOT NULL,                 -- the first bin that the session could answer
    first_bin    BIGINT,                           -- the first recorded bin
    end_bin      BIGINT,                           -- one past the last recorded bin
    bins         BIGINT  NOT NULL DEFAULT 0,
    skipped_bins BIGINT  NOT NULL DEFAULT 0,
    started_ns   BIGINT  NOT NULL,
    last_ns      BIGINT  NOT NULL,
    ended_ns     BIGINT,
    summary      TEXT,
    segments     TEXT    NOT NULL DEFAULT '[]',    -- JSON [{from_bin, body}]
    settings     TEXT    NOT NULL DEFAULT '[]',    -- JSON [{from_bin, body}]
    owner        TEXT    NOT NULL,                 -- the journal that it comes from
    boot         BIGINT  NOT NULL,                 -- and which start of that
    moved_to     BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX run_by_state ON run (state, owner);

-- Unbroken bins of one track inside one chunk [chunk·N, (chunk+1)·N). Track -1 is the flags, which every recorded
-- bin has; track k is output k. A chunk in the making has one row per move; they are joined when it is full.
CREATE TABLE chunk (
    id        BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run       TEXT COLLATE "C" NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    track     INTEGER NOT NULL,
    chunk     BIGINT  NOT NULL,
    first_bin BIGINT  NOT NULL,
    n         BIGINT  NOT NULL,
    dtype     TEXT    NOT NULL,
    row_bytes BIGINT  NOT NULL,
    bytes     BYTEA   NOT NULL
);
CREATE UNIQUE INDEX chunk_by_place ON chunk (run, track, chunk, first_bin);

-- Frames of one signal (track k), or what else replay must repeat (track -1), as the session gave them.
-- `first_at`: place in the session's own order, over all tracks.
CREATE TABLE frame_chunk (
    id        BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run       TEXT COLLATE "C" NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    track     INTEGER NOT NULL,
    first_at  BIGINT  NOT NULL,
    n         BIGINT  NOT NULL,
    bytes     BYTEA   NOT NULL
);
CREATE UNIQUE INDEX frame_chunk_by_place ON frame_chunk (run, track, first_at);

-- Events of one kind and signal: one entry per 10 s. Ids of one run rise in the order of its entries.
CREATE TABLE event (
    id       BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run      TEXT COLLATE "C" NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    kind     TEXT    NOT NULL,
    signal   TEXT    NOT NULL,                     -- '' for none
    from_bin BIGINT,
    to_bin   BIGINT,
    count    BIGINT  NOT NULL,
    first_ns BIGINT  NOT NULL,
    last_ns  BIGINT  NOT NULL,
    detail   TEXT    NOT NULL
);
CREATE INDEX event_by_kind ON event (run, kind, signal, id);

CREATE TABLE annotation (
    id       BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run      TEXT COLLATE "C" NOT NULL REFERENCES run (run) ON DELETE CASCADE,
    label    TEXT    NOT NULL,
    from_bin BIGINT  NOT NULL,
    to_bin   BIGINT  NOT NULL,
    body     TEXT    NOT NULL                      -- opaque
);
CREATE INDEX annotation_by_run ON annotation (run, id);
