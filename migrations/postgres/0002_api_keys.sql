-- API keys of all servers that share this library.
CREATE TABLE api_key (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,                   -- words with commas between them
    digest     BYTEA   NOT NULL,                   -- SHA-256 of the secret
    created_ns BIGINT  NOT NULL,
    revoked_ns BIGINT
);
CREATE UNIQUE INDEX api_key_by_name ON api_key (name) WHERE revoked_ns IS NULL;
