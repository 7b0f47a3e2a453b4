//! The configuration: flags, environment, file and defaults become proven values.
//! Enters: flags as pairs, the environment as a function, one TOML file. Leaves: a `Config`, or every bad key at once.
//! Owns: the list of keys (`keys`). Must hold: nothing else in latentd reads a configuration file or the environment;
//! past this door there is no text to parse and no value out of its range.
//! Must not know: any other room; rooms take values out of it, not the whole.

pub mod keys; // every key, named once
mod source; // where a value comes from, what is said of a bad one

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

pub use source::{BadKey, ConfigError, Source};

use crate::domain::signal::word;
use crate::error::clip;
use keys::KEYS;
use source::{Found, Item, Kind};

word!(
    /// How the log is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
);

/// Where the library is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file in the data directory, the same as the journal's.
    Embedded,
    /// A PostgreSQL database.
    Postgres {
        /// Its URL, which may hold a password.
        url: Secret,
        /// The password, where it comes from a file.
        password: Option<Secret>,
    },
}

/// A text that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for whom it is meant.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

/// All settings, proven. Field names are the keys', less the unit where the type carries it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model repository. Whether it is there is seen at the first scan.
    pub models: PathBuf,
    /// Directory of journal and embedded library.
    pub data: PathBuf,
    /// The library.
    pub database: Database,
    /// Connections to a library in PostgreSQL.
    pub database_connections: NonZeroUsize,
    /// Time for such a connection, and for a free one.
    pub database_connect: Duration,
    /// Time for a call of such a library.
    pub database_statement: Duration,
    /// HTTP address to bind.
    pub http: SocketAddr,
    /// gRPC address to bind.
    pub grpc: SocketAddr,
    /// Public address for open's answer. `None`: the address that was bound.
    pub endpoint: Option<String>,
    /// File to write when ready.
    pub ready_file: Option<PathBuf>,
    /// ONNX Runtime's library. `None`: the engine looks where `make setup` puts it.
    pub onnxruntime: Option<PathBuf>,
    /// Threads that run CPU lanes.
    pub workers: NonZeroUsize,
    /// Open sessions.
    pub max_sessions: usize,
    /// Share of the workers' time up to which sessions are admitted; in (0, 1].
    pub load_limit: f64,
    /// Places for rows without a session.
    pub queue: NonZeroUsize,
    /// A lone row runs in place under this measured run time; zero: never.
    pub inline: Duration,
    /// A run over this is ended.
    pub run_limit: Duration,
    /// Lanes given up before the process ends.
    pub max_abandoned: usize,
    /// Unanswered frames that a rig may have.
    pub window: NonZeroU32,
    /// Invalid bins in a row before the state is reset.
    pub invalid_limit: NonZeroU32,
    /// Messages held for a slow subscriber.
    pub subscriber_buffer: NonZeroUsize,
    /// Interval of pings on streams.
    pub ping: Duration,
    /// A stream silent for so long is dead; longer than `ping`.
    pub dead_after: Duration,
    /// Serve off the loopback address without keys.
    pub allow_unauthenticated: bool,
    /// Ask for keys on the loopback address, too; not together with `allow_unauthenticated`.
    pub require_keys: bool,
    /// Answer `/metrics` without a key.
    pub open_metrics: bool,
    /// Origins of web pages that may use the API from a browser; `*` is any.
    pub cors_origins: Vec<String>,
    /// Largest HTTP body.
    pub body_limit_bytes: usize,
    /// Largest message on a stream.
    pub message_limit_bytes: usize,
    /// Largest HTTP request header.
    pub header_limit_bytes: usize,
    /// HTTP connections.
    pub max_connections: NonZeroUsize,
    /// Time to a connection's first byte.
    pub first_byte: Duration,
    /// Time for a whole header, and for an idle connection.
    pub header: Duration,
    /// Time that a request's body may stand still.
    pub body_stall: Duration,
    /// Interval of group commits.
    pub commit: Duration,
    /// Age at which a chunk is moved.
    pub chunk: Duration,
    /// Size of the write-ahead log past which it is truncated.
    pub wal_limit_bytes: u64,
    /// Interval of the repository's scans.
    pub scan: Duration,
    /// Most bytes that loaded versions may hold together; `None`: no limit.
    pub memory_limit_bytes: Option<u64>,
    /// How long a version must stand unchanged.
    pub settle: Duration,
    /// Time for answering what came, after SIGTERM.
    pub drain: Duration,
    /// Directives for the log's filter; proven to parse.
    pub log_level: String,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Collector that takes traces. `None`: nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// Share of steps that are traced; in [0, 1].
    pub otlp_sample: f64,
    table: Vec<Row>,
}

/// A key with the value in force, as shown at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: &'static str,
    /// Its value as text; `-` where there is none.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

impl Config {
    /// Reads all sources; flags come before environment, file and defaults. `flags` are pairs of key and text, where
    /// `config` names the file; `env` answers for a variable (`process_env` in production).
    /// Errors: every bad key with where it stands, what was found and what was expected.
    pub fn read(
        flags: &[(String, String)],
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let Found { items, bad } = source::gather(flags, env);
        let mut reader = Reader { items, bad, rows: Vec::new() };
        let config = reader.config();
        reader.relations(&config);
        match reader.bad.is_empty() {
            true => Ok(Self { table: reader.rows, ..config }),
            false => Err(ConfigError { bad: reader.bad }),
        }
    }

    /// The defaults with these keys set and no environment: what in-process servers and tests start from.
    pub fn with<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigError> {
        let pairs: Vec<_> = pairs.into_iter().map(|(key, text)| (key.into(), text.into())).collect();
        Self::read(&pairs, &|_| None)
    }

    /// Whether whoever comes by this address needs an API key.
    pub fn asks_for_keys(&self, address: SocketAddr) -> bool {
        self.require_keys || !(self.allow_unauthenticated || is_loopback(address.ip()))
    }

    /// Every key with the value in force and its source, in the order of `keys::KEYS`. Holds no secret.
    pub fn table(&self) -> &[Row] {
        &self.table
    }
}

/// The process's environment. The one place that reads it.
#[expect(clippy::disallowed_methods, reason = "config is the reader that the rule points to")]
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Cores granted (affinity and quota) less one for the network, at least one.
fn workers_granted() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}

/// Takes values by key. A bad one is noted and the default goes on, so that all are found in one pass.
struct Reader {
    items: std::collections::BTreeMap<&'static str, Item>,
    bad: Vec<BadKey>,
    rows: Vec<Row>,
}

impl Reader {
    fn config(&mut self) -> Config {
        let config = Config {
            models: self.path("models").unwrap_or_default(),
            data: self.path("data").unwrap_or_default(),
            database: self.database(),
            database_connections: self.at_least_one("database_connections", 1_000),
            database_connect: self.duration("database_connect_s", 0.1, 600.0),
            database_statement: self.duration("database_statement_s", 0.1, 3_600.0),
            http: self.address("http"),
            grpc: self.address("grpc"),
            endpoint: self.endpoint(),
            ready_file: self.path("ready_file"),
            onnxruntime: self.path("onnxruntime"),
            workers: self.workers(),
            max_sessions: self.whole("max_sessions", 1, 10_000_000) as usize,
            load_limit: self.share("load_limit"),
            queue: self.at_least_one("queue", 1_000_000),
            inline: self.duration("inline_us", 0.0, 1e6),
            run_limit: self.duration("run_limit_ms", 1.0, 3_600_000.0),
            max_abandoned: self.whole("max_abandoned", 0, 1_000) as usize,
            window: self.at_least_one_u32("window", 65_536),
            invalid_limit: self.at_least_one_u32("invalid_limit", 1_000_000),
            subscriber_buffer: self.at_least_one("subscriber_buffer", 1_000_000),
            ping: self.duration("ping_s", 0.01, 3_600.0),
            dead_after: self.duration("dead_after_s", 0.01, 86_400.0),
            allow_unauthenticated: self.switch("allow_unauthenticated"),
            require_keys: self.switch("require_keys"),
            open_metrics: self.switch("open_metrics"),
            cors_origins: self.origins(),
            body_limit_bytes: self.bytes("body_limit", 1 << 10, 1 << 40) as usize,
            // Why 2 GiB: protobuf's own limit.
            message_limit_bytes: self.bytes("message_limit", 1 << 10, (1 << 31) - 1) as usize,
            // Why 8 KiB: the least that an HTTP/1 reader's buffer can be.
            header_limit_bytes: self.bytes("header_limit", 8 << 10, 16 << 20) as usize,
            max_connections: self.at_least_one("max_connections", 1_000_000),
            first_byte: self.duration("first_byte_s", 0.01, 3_600.0),
            header: self.duration("header_s", 0.01, 3_600.0),
            body_stall: self.duration("body_stall_s", 0.01, 3_600.0),
            commit: self.duration("commit_ms", 0.0, 10_000.0),
            chunk: self.duration("chunk_s", 0.01, 3_600.0),
            wal_limit_bytes: self.whole("wal_limit_mb", 1, 1 << 20) << 20,
            scan: self.duration("scan_ms", 10.0, 3_600_000.0),
            memory_limit_bytes: Some(self.bytes("memory_limit", 0, 1 << 50)).filter(|bytes| *bytes > 0),
            settle: self.duration("settle_ms", 0.0, 3_600_000.0),
            drain: self.duration("drain_s", 0.0, 86_400.0),
            log_level: self.log_level(),
            log_format: self.log_format(),
            otlp_endpoint: self.collector(),
            otlp_sample: self.share_or_none("otlp_sample"),
            table: Vec::new(),
        };
        let place = |row: &Row| KEYS.iter().position(|key| key.name == row.key);
        self.rows.sort_by_key(place);
        config
    }

    /// What must hold between keys.
    fn relations(&mut self, config: &Config) {
        if config.require_keys && config.allow_unauthenticated {
            self.refuse_key(
                "require_keys",
                "false where `allow_unauthenticated` is true: the two contradict each other",
            );
        }
        if config.http == config.grpc && config.http.port() != 0 {
            self.refuse_key("grpc", "another address than http's");
        }
        if config.dead_after <= config.ping {
            self.refuse_key(
                "dead_after_s",
                "more than ping_s, or every stream would be dead between two pings",
            );
        }
    }

    /// The text in force: the strongest source's, else the default's. Notes the row for the table.
    fn item(&mut self, name: &'static str) -> Item {
        let key = keys::find(name).expect("every field's key is in KEYS, which a test holds");
        let item = self.items.get(name).cloned().unwrap_or_else(|| Item {
            text: key.default.into(),
            kind: Kind::Any,
            source: Source::Default,
        });
        let value = if item.text.is_empty() { "-".into() } else { shown(name, &item.text) };
        self.rows.push(Row { key: name, value, source: item.source.clone() });
        item
    }

    fn refuse(&mut self, name: &str, item: &Item, expected: impl Into<String>) {
        self.bad.push(BadKey {
            source: item.source.clone(),
            key: name.into(),
            found: format!("`{}`", clip(&shown(name, &item.text))),
            expected: expected.into(),
        });
    }

    /// As `refuse`, for a value that is fine by itself.
    fn refuse_key(&mut self, name: &str, expected: &str) {
        if self.bad.iter().any(|bad| bad.key == name) {
            return;
        }
        let default = keys::find(name).map_or("", |key| key.default);
        let item = self.items.get(name).cloned().unwrap_or_else(|| Item {
            text: default.into(),
            kind: Kind::Any,
            source: Source::Default,
        });
        self.refuse(name, &item, expected);
    }

    fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let item = self.item(name);
        if !matches!(item.kind, Kind::Any | Kind::Text) {
            self.refuse(name, &item, "a path in quotes");
        }
        (!item.text.is_empty()).then(|| PathBuf::from(item.text))
    }

    fn address(&mut self, name: &'static str) -> SocketAddr {
        let item = self.item(name);
        let text = match item.text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => item.text.clone(),
        };
        text.trim().parse().unwrap_or_else(|_| {
            self.refuse(name, &item, "an address with a port, like 127.0.0.1:8080 or [::1]:0");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn database(&mut self) -> Database {
        let item = self.item("database_url");
        let password = self.secret_file("database_password_file");
        let scheme = item.text.trim().split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("postgres" | "postgresql") if item.kind != Kind::Bool && item.kind != Kind::Number => {
                return Database::Postgres { url: Secret(item.text.trim().into()), password };
            }
            None if item.text.trim().eq_ignore_ascii_case("embedded") => {
                if password.is_some() {
                    let only = "none: only a library in PostgreSQL (`database_url`) takes a password";
                    self.refuse_key("database_password_file", only);
                }
            }
            _ => {
                let expected =
                    "`embedded` (a SQLite file in the data directory) or postgres://USER@HOST:PORT/DATABASE";
                self.refuse("database_url", &item, expected);
            }
        }
        Database::Embedded
    }

    /// The first line of a file that holds a secret.
    fn secret_file(&mut self, name: &'static str) -> Option<Secret> {
        let path = self.path(name)?;
        let read = std::fs::read_to_string(&path);
        match read.as_ref().map(|text| text.lines().next().unwrap_or_default()) {
            Ok(line) if !line.is_empty() => return Some(Secret(line.into())),
            Ok(_) => self.refuse_key(name, "a file with the password in its first line"),
            Err(error) => self.refuse_key(name, &format!("a file that can be read ({error})")),
        }
        None
    }

    fn endpoint(&mut self) -> Option<String> {
        self.origin(
            "endpoint",
            &["https://", "http://"],
            "a URL without path, like https://latentd-3.lab.example:8443",
        )
    }

    fn collector(&mut self) -> Option<String> {
        self.origin(
            "otlp_endpoint",
            &["http://"],
            "a collector's address for OTLP over gRPC without TLS, like http://127.0.0.1:4317 (one beside latentd \
             brings it on with TLS and keys)",
        )
    }

    /// A URL of one of the schemes, without a path.
    fn origin(&mut self, name: &'static str, schemes: &[&str], expected: &str) -> Option<String> {
        let item = self.item(name);
        if item.text.is_empty() {
            return None;
        }
        let text = item.text.trim().trim_end_matches('/').to_string();
        let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let fits = host.is_some_and(|host| host.parse::<http::uri::Authority>().is_ok());
        if !fits || !matches!(item.kind, Kind::Any | Kind::Text) {
            self.refuse(name, &item, expected);
        }
        Some(text)
    }

    fn origins(&mut self) -> Vec<String> {
        let item = self.item("cors_origins");
        // As a browser sends it: scheme, host, and a port where it is not the scheme's.
        let fits = |word: &String| {
            let host = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"));
            let is_host = |host: &str| {
                host.parse::<http::uri::Authority>().is_ok() && !host.contains(['@', '/']) && !host.is_empty()
            };
            word == "*" || (host.is_some_and(is_host) && *word == word.to_ascii_lowercase())
        };
        let words = item.text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(Into::into).collect();
        if !words.iter().all(fits) || !matches!(item.kind, Kind::Any | Kind::Text) {
            let expected = "origins as a browser sends them, comma-separated, like \
                            `https://lab.example,http://localhost:3000`, or *";
            self.refuse("cors_origins", &item, expected);
        }
        words
    }

    fn workers(&mut self) -> NonZeroUsize {
        if self.items.contains_key("workers") {
            return self.at_least_one("workers", 4_096);
        }
        let workers = workers_granted();
        self.rows.push(Row { key: "workers", value: workers.to_string(), source: Source::Default });
        workers
    }

    /// A whole number in the range; the default where it is not.
    fn whole(&mut self, name: &'static str, least: u64, most: u64) -> u64 {
        let item = self.item(name);
        let number = item.text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        match number {
            Some(number) if matches!(item.kind, Kind::Any | Kind::Number) => number,
            _ => {
                self.refuse(name, &item, format!("a whole number from {least} to {most}"));
                least
            }
        }
    }

    fn at_least_one(&mut self, name: &'static str, most: u64) -> NonZeroUsize {
        NonZeroUsize::new(self.whole(name, 1, most) as usize).unwrap_or(NonZeroUsize::MIN)
    }

    fn at_least_one_u32(&mut self, name: &'static str, most: u32) -> NonZeroU32 {
        NonZeroU32::new(self.whole(name, 1, u64::from(most)) as u32).unwrap_or(NonZeroU32::MIN)
    }

    /// A finite number in the range.
    fn number(item: &Item, fits: impl Fn(f64) -> bool) -> Option<f64> {
        let number: f64 = item.text.trim().parse().ok()?;
        let typed = matches!(item.kind, Kind::Any | Kind::Number);
        (typed && number.is_finite() && fits(number)).then_some(number)
    }

    /// As `share`, where nothing of it is a choice, too.
    fn share_or_none(&mut self, name: &'static str) -> f64 {
        let item = self.item(name);
        Self::number(&item, |share| (0.0..=1.0).contains(&share)).unwrap_or_else(|| {
            self.refuse(name, &item, "a number from 0 to 1");
            0.0
        })
    }

    fn share(&mut self, name: &'static str) -> f64 {
        let item = self.item(name);
        Self::number(&item, |share| share > 0.0 && share <= 1.0).unwrap_or_else(|| {
            self.refuse(name, &item, "a number over 0 and at most 1");
            1.0
        })
    }

    /// A time in the unit that the key's name ends with.
    fn duration(&mut self, name: &'static str, least: f64, most: f64) -> Duration {
        let (unit, unit_ns) = match name.rsplit('_').next() {
            Some("us") => ("µs", 1e3),
            Some("ms") => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        let item = self.item(name);
        match Self::number(&item, |number| number >= least && number <= most) {
            Some(number) => Duration::from_nanos((number * unit_ns).round() as u64),
            None => {
                self.refuse(name, &item, format!("a number of {unit} from {least} to {most}"));
                Duration::from_secs(1)
            }
        }
    }

    fn switch(&mut self, name: &'static str) -> bool {
        let item = self.item(name);
        match (item.text.trim(), item.kind) {
            ("true", Kind::Any | Kind::Bool) => true,
            ("false", Kind::Any | Kind::Bool) => false,
            _ => {
                self.refuse(name, &item, "true or false");
                false
            }
        }
    }

    /// A size: bytes, or with one of B, KiB, MiB, GiB.
    fn bytes(&mut self, name: &'static str, least: u64, most: u64) -> u64 {
        let item = self.item(name);
        match bytes_from(&item.text).filter(|bytes| (least..=most).contains(bytes)) {
            Some(bytes) if item.kind != Kind::Bool => bytes,
            _ => {
                let range =
                    format!("a size from {least} to {most} bytes, like 65536, \"64 KiB\" or \"16 MiB\"");
                self.refuse(name, &item, range);
                least
            }
        }
    }

    fn log_level(&mut self) -> String {
        let item = self.item("log_level");
        // Why not `EnvFilter` alone: it takes any word for the name of a crate, so that `infos` would silence the log.
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let plain = |part: &str| part.contains('=') || levels.contains(&part.trim());
        let parses = tracing_subscriber::EnvFilter::try_new(&item.text).is_ok();
        if !parses || !item.text.split(',').all(plain) {
            let expected =
                "error, warn, info, debug, trace or off, or directives like `info,latentd::batch=debug`";
            self.refuse("log_level", &item, expected);
        }
        item.text
    }

    fn log_format(&mut self) -> LogFormat {
        let item = self.item("log_format");
        LogFormat::parse(&item.text).unwrap_or_else(|| {
            self.refuse("log_format", &item, format!("one of {}", LogFormat::words()));
            LogFormat::Text
        })
    }
}

/// Whether only this machine reaches the address.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A value as people may see it: a URL of a database without what stands after its scheme.
fn shown(name: &str, text: &str) -> String {
    match (name, text.split_once(':')) {
        ("database_url", Some((scheme, _))) => format!("{scheme}:..."),
        _ => text.into(),
    }
}

fn bytes_from(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect()
    }

    fn environment(list: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |asked| list.iter().find(|(name, _)| *name == asked).map(|(_, text)| text.into())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn read_file(text: &str) -> Result<Config, ConfigError> {
        Config::with([("config", file(text).path().to_str().unwrap())])
    }

    /// The only fault, less where it stands.
    fn fault(key: &str, text: &str) -> String {
        let error = Config::with([(key, text)]).unwrap_err();
        assert_eq!(error.bad.len(), 1, "{error}");
        error.bad[0].to_string()
    }

    #[test]
    fn the_defaults_are_the_wires() {
        let config = Config::with([]).unwrap();
        assert_eq!(config.max_sessions, 10_000);
        assert_eq!(config.load_limit, 0.8);
        assert_eq!(config.queue.get(), 256);
        assert_eq!(config.window.get(), 32);
        assert_eq!(config.inline, Duration::from_micros(50));
        assert_eq!(config.invalid_limit.get(), 5);
        assert!(!config.allow_unauthenticated);
        assert_eq!(config.body_limit_bytes, 64 << 20);
        assert_eq!(config.message_limit_bytes, 16 << 20);
        assert_eq!(config.settle, Duration::from_millis(500));
        assert_eq!(config.scan, Duration::from_millis(500));
        assert_eq!(config.chunk, Duration::from_secs(10));
        assert_eq!(config.commit, Duration::from_millis(20));
        assert_eq!(config.drain, Duration::from_secs(10));
        assert_eq!(config.run_limit, Duration::from_secs(5));
        assert_eq!(config.max_abandoned, 2);
        assert_eq!(config.wal_limit_bytes, 64 << 20);
        assert_eq!(config.subscriber_buffer.get(), 64);
        assert_eq!(config.ping, Duration::from_secs(5));
        assert_eq!(config.dead_after, Duration::from_secs(15));
        assert_eq!((config.otlp_endpoint, config.otlp_sample), (None, 0.01));
        assert_eq!(config.http, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.grpc, "127.0.0.1:8081".parse().unwrap());
        assert_eq!((config.models, config.data), ("models".into(), "data".into()));
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(config.workers.get(), cores.saturating_sub(1).max(1));
    }

    #[test]
    fn a_flag_comes_before_the_environment_the_environment_before_the_file_the_file_before_the_default() {
        let file = file("queue = 3\nwindow = 3\nmax_sessions = 3\n");
        let config = ("config".to_string(), file.path().to_str().unwrap().to_string());
        let env = environment(&[("LATENTD_QUEUE", "2"), ("LATENTD_WINDOW", "2")]);
        let read = Config::read(&[config, ("queue".into(), "1".into())], &env).unwrap();
        assert_eq!((read.queue.get(), read.window.get(), read.max_sessions), (1, 2, 3));
        assert_eq!(read.invalid_limit.get(), 5);
        let source = |key| read.table().iter().find(|row| row.key == key).unwrap().source.clone();
        assert_eq!(source("queue"), Source::Flag("queue".into()));
        assert_eq!(source("window"), Source::Env("LATENTD_WINDOW".into()));
        assert_eq!(source("max_sessions"), Source::File { path: file.path().into(), line: 3 });
        assert_eq!(source("invalid_limit"), Source::Default);
    }

    #[test]
    fn the_table_shows_every_key_once_with_its_value() {
        let config = Config::with([("models", "here")]).unwrap();
        let keys: Vec<_> = config.table().iter().map(|row| row.key).collect();
        assert_eq!(keys, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
        assert_eq!(config.table()[0].value, "here");
        assert_eq!(config.table().iter().find(|row| row.key == "endpoint").unwrap().value, "-");
    }

    #[test]
    fn all_bad_keys_are_reported_at_once_with_place_key_found_and_expected() {
        let file = file("window = 0\n\nwindw = 4\nqueue = \"many\"\n");
        let path = file.path().to_str().unwrap();
        let env = environment(&[("LATENTD_LOAD_LIMIT", "1.5")]);
        let flags = pairs(&[("config", path), ("http", "8080")]);
        let error = Config::read(&flags, &env).unwrap_err();
        let mut lines: Vec<String> = error.to_string().lines().map(String::from).collect();
        assert_eq!(lines.remove(0), "the configuration has 5 faults");
        lines.sort();
        let mut expected = [
            "  --http: http: found `8080`, expected an address with a port, like 127.0.0.1:8080 or [::1]:0"
                .into(),
            "  LATENTD_LOAD_LIMIT: load_limit: found `1.5`, expected a number over 0 and at most 1".into(),
            format!("  {path}:1: window: found `0`, expected a whole number from 1 to 65536"),
            format!(
                "  {path}:3: windw: found an unknown key, expected a known one; there are: {}",
                there("windw")
            ),
            format!("  {path}:4: queue: found `many`, expected a whole number from 1 to 1000000"),
        ];
        expected.sort();
        assert_eq!(lines, expected);
    }

    fn there(asked: &str) -> String {
        let sentence = crate::error::there_is(asked, KEYS.iter().map(|key| key.name));
        assert!(sentence.starts_with("there are: window"), "{sentence}");
        sentence.trim_start_matches("there are: ").into()
    }

    #[test]
    fn off_the_loopback_address_keys_are_asked_for_unless_that_is_allowed() {
        let asks = |address: &str, key: &str| {
            let config = Config::with([("http", address), (key, "true")]).unwrap();
            config.asks_for_keys(config.http)
        };
        for address in ["0.0.0.0:8080", "[::]:8080", "192.168.1.4:80"] {
            assert!(asks(address, "open_metrics"), "{address}");
            assert!(!asks(address, "allow_unauthenticated"), "{address}");
        }
        for address in ["127.0.0.9:0", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:0"] {
            assert!(!asks(address, "open_metrics"), "{address}");
            assert!(asks(address, "require_keys"), "{address}");
        }
        let both = Config::with([("require_keys", "true"), ("allow_unauthenticated", "true")]).unwrap_err();
        assert!(both.to_string().contains("contradict"), "{both}");
    }

    #[test]
    fn a_library_in_postgres_is_taken_and_its_password_is_not_repeated() {
        let url = "postgres://lab:geheim@db/latentd";
        let config = Config::with([("database_url", url)]).unwrap();
        let Database::Postgres { url: taken, password: None } = &config.database else {
            panic!("{config:?}")
        };
        assert_eq!(taken.expose(), url);
        assert!(!format!("{config:?}").contains("geheim"), "{config:?}");
        let sentence = fault("database_url", "mysql://lab:geheim@db");
        assert!(sentence.contains("expected `embedded`") && !sentence.contains("geheim"), "{sentence}");
        let limits = (config.database_connections.get(), config.database_connect, config.database_statement);
        assert_eq!(limits, (8, Duration::from_secs(3), Duration::from_secs(10)));
    }

    #[test]
    fn the_databases_password_is_the_first_line_of_its_file() {
        let there = file("geheim\nmore\n");
        let path = there.path().to_str().unwrap();
        let config =
            Config::with([("database_url", "postgres://db/x"), ("database_password_file", path)]).unwrap();
        let Database::Postgres { password: Some(password), .. } = &config.database else {
            panic!("{config:?}")
        };
        assert_eq!(password.expose(), "geheim");
        assert!(fault("database_password_file", path).contains("only a library in PostgreSQL"));
        assert!(fault("database_password_file", "/nowhere/x").contains("a file that can be read"));
    }

    #[test]
    fn numbers_out_of_range_and_of_the_wrong_type_are_refused() {
        for (key, text) in [
            ("workers", "0"),
            ("workers", "-1"),
            ("workers", "two"),
            ("load_limit", "NaN"),
            ("load_limit", "0"),
            ("drain_s", "inf"),
            ("drain_s", "-1"),
            ("settle_ms", "1e300"),
            ("body_limit", "64 MB"),
            ("body_limit", "99999999999999999999"),
            ("body_limit", "GiB"),
            ("allow_unauthenticated", "yes"),
            ("log_level", "infos"),
            ("log_format", "xml"),
            ("endpoint", "lab.example/path"),
            ("otlp_endpoint", "127.0.0.1:4317"),
            ("otlp_endpoint", "https://collector:4317"),
            ("otlp_endpoint", "http://collector:4318/v1/traces"),
            ("otlp_sample", "1.5"),
            ("otlp_sample", "-0.1"),
        ] {
            assert!(fault(key, text).contains(&format!("found `{text}`")), "{key}");
        }
        for text in ["workers = \"4\"", "models = 3", "allow_unauthenticated = \"true\"", "ping_s = [5]"] {
            assert_eq!(read_file(text).unwrap_err().bad.len(), 1, "{text}");
        }
        assert!(Config::with([("nonsense", "1")]).is_err());
    }

    #[test]
    fn origins_are_as_a_browser_sends_them() {
        assert!(Config::with([]).unwrap().cors_origins.is_empty());
        let config = Config::with([("cors_origins", "https://lab.example, http://localhost:3000")]).unwrap();
        assert_eq!(config.cors_origins, ["https://lab.example", "http://localhost:3000"]);
        assert_eq!(Config::with([("cors_origins", "*")]).unwrap().cors_origins, ["*"]);
        for wrong in [
            "lab.example",
            "https://lab.example/",
            "https://",
            "https://Lab.example",
            "ftp://x",
            "https://a@b",
        ] {
            assert!(fault("cors_origins", wrong).contains("as a browser sends them"), "{wrong}");
        }
    }

    #[test]
    fn relations_between_keys_hold() {
        assert!(fault("dead_after_s", "5").contains("more than ping_s"));
        assert!(fault("grpc", "127.0.0.1:8080").contains("another address"));
        Config::with([("http", "127.0.0.1:0"), ("grpc", "127.0.0.1:0")]).unwrap();
    }

    #[test]
    fn a_file_is_toml_with_its_own_types() {
        let config = read_file("workers = 0x4\nqueue = 1_000\nsettle_ms = 12.5\nallow_unauthenticated = true\nbody_limit = \"1 MiB\"\nmessage_limit = 4096\n").unwrap();
        assert_eq!((config.workers.get(), config.queue.get()), (4, 1_000));
        assert_eq!(config.settle, Duration::from_micros(12_500));
        assert!(config.allow_unauthenticated);
        assert_eq!((config.body_limit_bytes, config.message_limit_bytes), (1 << 20, 4096));
    }

    #[test]
    fn a_file_that_is_missing_or_broken_is_a_sentence_with_its_line() {
        let error = Config::with([("config", "/nowhere/latentd.toml")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/latentd.toml:1: found a file that cannot be read"), "{error}");
        let error = read_file("window = 3\nqueue = = 4\n").unwrap_err().to_string();
        assert!(error.contains(":2: found"), "{error}");
        let error = read_file("window = 3\nwindow = 4\n").unwrap_err().to_string();
        assert!(error.contains(":2: found a key that is there twice, expected TOML"), "{error}");
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let read = |env| Config::read(&[], &environment(env)).unwrap();
        assert_eq!(read(&[("LATENTD_QUEUE", "")]).queue.get(), 256);
        assert_eq!(read(&[("ORT_DYLIB_PATH", "/a")]).onnxruntime, Some("/a".into()));
        let both = read(&[("ORT_DYLIB_PATH", "/a"), ("LATENTD_ONNXRUNTIME", "/b")]);
        assert_eq!(both.onnxruntime, Some("/b".into()));
        let common = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317/")];
        assert_eq!(read(common).otlp_endpoint.as_deref(), Some("http://a:4317"));
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_utf_8_is_a_sentence() {
        use std::os::unix::ffi::OsStringExt;
        let env = |name: &str| (name == "LATENTD_DATA").then(|| OsString::from_vec(vec![0xff]));
        assert!(Config::read(&[], &env).unwrap_err().to_string().contains("LATENTD_DATA: data: found bytes"));
    }
}
