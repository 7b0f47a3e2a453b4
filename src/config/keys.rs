//! Every key of the configuration, named once: its help, its placeholder and its default.
//! `--help`, the environment's names, the file's keys and the table shown at start are all made from this list.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file; `LATENTD_<NAME>` in the environment, `--<name>` with dashes as a flag.
    pub name: &'static str,
    /// Under which heading `--help` shows it.
    pub heading: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// The default as text, read like any other source; empty means none, or worked out at start (`workers`).
    pub default: &'static str,
    /// For people, without a full stop.
    pub help: &'static str,
}

impl Key {
    /// `LATENTD_<NAME>`.
    pub fn env(&self) -> String {
        format!("LATENTD_{}", self.name.to_uppercase())
    }

    /// The flag without its two dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether the flag may stand without a value.
    pub fn is_switch(&self) -> bool {
        self.value == "BOOL"
    }
}

/// Environment variable by which ONNX Runtime's library is commonly named; `LATENTD_ONNXRUNTIME` comes before it.
pub const ORT_DYLIB_PATH: &str = "ORT_DYLIB_PATH";

/// Environment variable by which a collector is commonly named; `LATENTD_OTLP_ENDPOINT` comes before it.
pub const OTEL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

const PLACES: &str = "Where things are";
const LANES: &str = "Lanes and admission";
const SESSIONS: &str = "Sessions and streams";
const DOOR: &str = "Limits at the door";
const POSTGRES: &str = "A library in PostgreSQL";
const RECORDING: &str = "Recording and repository";
const STOPPING: &str = "Stopping and logging";
const TRACES: &str = "Traces";

const fn key(
    heading: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key { name, heading, value, default, help }
}

/// All keys, in the order in which people read them.
pub const KEYS: &[Key] = &[
    key(PLACES, "models", "DIR", "models", "The model repository"),
    key(PLACES, "data", "DIR", "data", "Journal and embedded library"),
    key(
        PLACES,
        "database_url",
        "URL",
        "embedded",
        "The library: `embedded`, a SQLite file in the data directory, or postgres://USER@HOST:PORT/DATABASE",
    ),
    key(PLACES, "http", "ADDR", "127.0.0.1:8080", "Address of the HTTP API; port 0 takes a free one"),
    key(PLACES, "grpc", "ADDR", "127.0.0.1:8081", "Address of the gRPC API; port 0 takes a free one"),
    key(
        PLACES,
        "endpoint",
        "URL",
        "",
        "Public address that open answers, where it is not the bound HTTP address",
    ),
    key(PLACES, "ready_file", "FILE", "", "File to write when ready: {\"http\", \"grpc\", \"pid\"}"),
    key(
        PLACES,
        "onnxruntime",
        "FILE",
        "",
        "ONNX Runtime's shared library (also ORT_DYLIB_PATH), where it is not found by itself",
    ),
    key(
        LANES,
        "workers",
        "N",
        "",
        "Threads that run CPU lanes; by default the cores granted - 1, at least 1",
    ),
    key(LANES, "max_sessions", "N", "10000", "Open sessions; one more is refused (429)"),
    key(
        LANES,
        "load_limit",
        "SHARE",
        "0.8",
        "Share of the workers' time up to which sessions are admitted, by runs of their models and ingest",
    ),
    key(LANES, "queue", "ROWS", "256", "Places for rows without a session; one more is refused (429)"),
    key(
        LANES,
        "inline_us",
        "US",
        "50",
        "A lone row runs in place where its model's measured run is under this, and frames are fed in place under 4 times this; 0 never",
    ),
    key(
        LANES,
        "run_limit_ms",
        "MS",
        "5000",
        "A model's run over this is ended, at twice this its lane is given up",
    ),
    key(LANES, "max_abandoned", "N", "2", "Past so many lanes given up the process ends (exit code 70)"),
    key(SESSIONS, "window", "FRAMES", "32", "Unanswered frames that a rig may have"),
    key(
        SESSIONS,
        "invalid_limit",
        "BINS",
        "5",
        "Bins in a row with invalid output before the state is reset",
    ),
    key(
        SESSIONS,
        "subscriber_buffer",
        "N",
        "64",
        "Messages held for a slow subscriber; more are dropped and counted",
    ),
    key(SESSIONS, "ping_s", "S", "5", "Interval of pings on streams"),
    key(SESSIONS, "dead_after_s", "S", "15", "A stream without a sign of life for so long is dead"),
    key(
        DOOR,
        "allow_unauthenticated",
        "BOOL",
        "false",
        "Serve off the loopback address without asking for API keys",
    ),
    key(DOOR, "require_keys", "BOOL", "false", "Ask for API keys on the loopback address, too"),
    key(DOOR, "open_metrics", "BOOL", "false", "Answer /metrics without an API key"),
    key(
        DOOR,
        "cors_origins",
        "ORIGINS",
        "",
        "Web pages that may use the API from a browser: origins like https://lab.example, comma-separated, or *",
    ),
    key(DOOR, "body_limit", "SIZE", "64 MiB", "Largest HTTP body"),
    key(DOOR, "message_limit", "SIZE", "16 MiB", "Largest message on a stream"),
    key(DOOR, "header_limit", "SIZE", "64 KiB", "Largest HTTP request header"),
    key(DOOR, "max_connections", "N", "16384", "HTTP connections; one more is refused (429)"),
    key(DOOR, "first_byte_s", "S", "10", "Time a new connection has for its first byte"),
    key(DOOR, "header_s", "S", "30", "Time for a whole header; also how long an idle connection is kept"),
    key(DOOR, "body_stall_s", "S", "30", "Time that a request's body may stand still"),
    key(RECORDING, "commit_ms", "MS", "20", "Interval of the journal's group commits"),
    key(
        RECORDING,
        "chunk_s",
        "S",
        "10",
        "Age at which a chunk is moved to the library though it is not full",
    ),
    key(RECORDING, "wal_limit_mb", "MB", "64", "Size of the write-ahead log past which it is truncated"),
    key(RECORDING, "scan_ms", "MS", "500", "Interval of the repository's scans"),
    key(RECORDING, "memory_limit", "SIZE", "0", "What all loaded versions may hold together; 0: no limit"),
    key(RECORDING, "settle_ms", "MS", "500", "How long a version must stand unchanged before it is loaded"),
    key(
        POSTGRES,
        "database_password_file",
        "FILE",
        "",
        "File that holds the database's password, where the URL has none",
    ),
    key(POSTGRES, "database_connections", "N", "8", "Connections at the same time"),
    key(
        POSTGRES,
        "database_connect_s",
        "S",
        "3",
        "Time for a connection, and for a free one; after that the library is away",
    ),
    key(
        POSTGRES,
        "database_statement_s",
        "S",
        "10",
        "Time for a statement, a transaction, a lock; after that it is given up",
    ),
    key(STOPPING, "drain_s", "S", "10", "Time for answering what came, after SIGTERM"),
    key(
        STOPPING,
        "log_level",
        "LEVEL",
        "info,ort=warn",
        "error, warn, info, debug, trace, or directives (`info,latentd::batch=debug`)",
    ),
    key(STOPPING, "log_format", "FORMAT", "text", "text or json"),
    key(
        TRACES,
        "otlp_endpoint",
        "URL",
        "",
        "Collector that takes traces by OTLP over gRPC (also OTEL_EXPORTER_OTLP_ENDPOINT): http://HOST:4317; none: no traces",
    ),
    key(
        TRACES,
        "otlp_sample",
        "SHARE",
        "0.01",
        "Share of steps that are traced, from 0 to 1; requests all are",
    ),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
