-- API keys: the embedded library's, or a copy of those in a library elsewhere, so that they hold while it is away.
CREATE TABLE api_key (
    id         TEXT    PRIMARY KEY NOT NULL,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,                   -- words with commas between them
    digest     BLOB    NOT NULL,                   -- SHA-256 of the secret
    created_ns INTEGER NOT NULL,
    revoked_ns INTEGER
) STRICT;
CREATE UNIQUE INDEX api_key_by_name ON api_key (name) WHERE revoked_ns IS NULL;
