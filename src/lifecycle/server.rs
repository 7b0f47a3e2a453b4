//! The whole server: one constructor for production, the demo and tests.
//!
//! Up: listeners bound, store, recorder, lanes, registry, doors, first scan, ready-file. Down, in the opposite order: not
//! ready, no new sessions, what came is answered, streams are told why, connections end, lanes end, journal flushed and
//! moved, store closed.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::observe::{Lanes, Stores};
use super::{ReadyFile, Stop, Stopped};
use crate::access::Keys;
use crate::app::infer::Infer;
use crate::app::library::Library;
use crate::app::live::{Live, LiveLimits};
use crate::app::models::Models;
use crate::app::{App, Readiness};
use crate::batch::{Pool, PoolConfig};
use crate::config::{Config, Database};
use crate::domain::time::Stamp;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::recorder::{Recorder, RecorderConfig};
use crate::registry::{Options, Registry};
use crate::store::{PostgresAt, PostgresLimits, Store, StoreError};
use crate::telemetry::otlp;
use crate::trace::Tracer;
use crate::{grpc, http};

/// Not ready: models have not been looked at yet.
const SCANNING: &str = "the first scan of the model repository has not ended";
/// Not ready: on the way down.
const DRAINING: &str = "the server is draining";
/// How long watchers, and the closing of the store, may hold the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a collector may take for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// How long a library at a distance may take for the last of what is recorded; what it has not taken stays in the
/// journal.
const LAST_MOVE: Duration = Duration::from_secs(5);
/// How long the journal may take to be flushed and moved.
const FLUSH: Duration = Duration::from_secs(30);
/// The file in the data directory by which a server has it for itself.
const LOCK: &str = "latentd.lock";
/// Exit code of a process that gave up runs which never ended.
const STUCK: u8 = 70;

/// What a server is made of beside its configuration.
pub struct Parts {
    /// What runs the models.
    pub engine: Arc<dyn Engine>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{what} address {address} cannot be bound")]
    Bind {
        /// HTTP or gRPC.
        what: &'static str,
        /// As configured.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error("the store in {0} cannot be opened")]
    Store(std::path::PathBuf, #[source] StoreError),
    /// Another server has the data directory.
    #[error("the data directory {0} is in use by another server")]
    InUse(std::path::PathBuf),
    /// The data directory cannot be made or locked.
    #[error("the data directory {0} cannot be used")]
    Data(std::path::PathBuf, #[source] io::Error),
    /// The collector's address is none.
    #[error("traces cannot be brought to {0}")]
    Collector(String, #[source] tonic::transport::Error),
    /// No thread can be started.
    #[error("worker threads cannot be started")]
    Threads(#[source] io::Error),
    /// The ready-file cannot be written.
    #[error("the ready-file {0} cannot be written")]
    ReadyFile(std::path::PathBuf, #[source] io::Error),
}

/// A server that runs.
pub struct Running {
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Asks it to stop.
    pub stop: Stop,
    done: JoinHandle<ExitCode>,
}

impl Running {
    /// Waits for its end: by `stop`, or because it gave up.
    pub async fn ended(self) -> ExitCode {
        self.done.await.unwrap_or(ExitCode::FAILURE)
    }
}

/// Starts a server; returns once it is ready.
pub async fn start(config: Config, parts: Parts) -> Result<Running, StartError> {
    let ready_file = match &config.ready_file {
        None => None,
        Some(path) => {
            Some(ReadyFile::prepare(path).map_err(|error| StartError::ReadyFile(path.clone(), error))?)
        }
    };
    let (http_listener, http) = bind("HTTP", config.http).await?;
    let (grpc_listener, grpc) = bind("gRPC", config.grpc).await?;
    let lock = lock(&config.data)?;
    let metrics = Arc::new(Metrics::new());
    let told = Arc::new(Stores(Arc::clone(&metrics)));
    let store = match postgres_at(&config) {
        None => Store::embedded(&config.data, config.wal_limit_bytes, told).await,
        Some(at) => Store::in_postgres(&config.data, config.wal_limit_bytes, &at, told).await,
    };
    let store = store.map_err(|error| StartError::Store(config.data.clone(), error))?;
    let paces = RecorderConfig { commit: config.commit, chunk: config.chunk, ..Default::default() };
    let recorder = Recorder::start(store.clone(), paces, Arc::new(|| Stamp::now().unix_ns)).await;

    let stop = Stop::new();
    let (stuck, gave_up) = mpsc::channel(1);
    let pool = PoolConfig {
        inline_us: u64::try_from(config.inline.as_micros()).unwrap_or(u64::MAX),
        max_abandoned: config.max_abandoned,
        load_limit: config.load_limit,
        // Full: it was told already.
        fatal: Arc::new(move |sentence| drop(stuck.try_send(sentence.to_owned()))),
        ..Default::default()
    };
    let pool = Pool::start(config.workers.get(), pool, Arc::new(Lanes(Arc::clone(&metrics))));
    let pool = Arc::new(pool.map_err(StartError::Threads)?);
    let options = Options {
        settle: config.settle,
        run_limit: config.run_limit,
        memory_limit_bytes: config.memory_limit_bytes,
        ..Options::new(&config.models)
    };
    let registry = Arc::new(Registry::new(options, Arc::clone(&parts.engine), Arc::clone(&pool)));
    let models =
        Arc::new(Models::new(Arc::clone(&registry), Arc::clone(&pool), parts.engine, Arc::clone(&metrics)));
    let endpoint = config.endpoint.clone().unwrap_or_else(|| format!("http://{http}"));
    let (tracer, export) = match &config.otlp_endpoint {
        None => (Tracer::default(), None),
        Some(collector) => {
            let started = otlp::start(collector, config.otlp_sample, endpoint.clone(), Arc::clone(&metrics));
            let (tracer, export) =
                started.map_err(|error| StartError::Collector(collector.clone(), error))?;
            (tracer, Some(export))
        }
    };
    let limits = LiveLimits {
        max_sessions: config.max_sessions,
        window: config.window.get() as usize,
        subscriber_buffer: config.subscriber_buffer.get(),
        invalid_limit: config.invalid_limit.get(),
        dead_after: config.dead_after,
        endpoint,
    };
    let (http_asks, grpc_asks) = (config.asks_for_keys(config.http), config.asks_for_keys(config.grpc));
    let keys = Keys::open(store.clone()).await;
    let keys = Arc::new(keys.map_err(|error| StartError::Store(config.data.clone(), error))?);
    if http_asks || grpc_asks {
        keys.first_look().await;
        let (keys, soft) = (Arc::clone(&keys), stop.soft.clone());
        stop.tasks.spawn(async move { soft.run_until_cancelled(keys.follow()).await });
    }
    let app = App {
        access: keys,
        live: Arc::new(Live::new(Arc::clone(&models), recorder.clone(), limits, tracer.clone())),
        models: Arc::clone(&models),
        infer: Arc::new(Infer::new(Arc::clone(&models), config.queue.get(), config.body_limit_bytes)),
        library: Arc::new(Library::new(store.clone())),
        metrics: Arc::clone(&metrics),
        tracer,
        body_limit: config.body_limit_bytes,
        readiness: Arc::new(Readiness::because(SCANNING)),
    };

    let closing = CancellationToken::new();
    let door = http::accept::Door {
        limits: http::accept::Limits {
            first_byte: config.first_byte,
            header: config.header,
            body_stall: config.body_stall,
            header_bytes: config.header_limit_bytes,
            connections: config.max_connections.get(),
        },
        metrics,
        soft: closing.clone(),
        hard: stop.hard.clone(),
        tasks: stop.tasks.clone(),
    };
    let streams = http::Streams {
        ping: config.ping,
        dead_after: config.dead_after,
        message_bytes: config.message_limit_bytes,
        first_byte: config.first_byte,
        origins: http::Origins::new(&config.cors_origins),
        closing: closing.clone(),
        hard: stop.hard.clone(),
        tasks: stop.tasks.clone(),
    };
    let asked = http::Asked { keys: http_asks, open_metrics: config.open_metrics };
    stop.tasks.spawn(http::accept::serve(http_listener, http::router(app.clone(), streams, asked), door));
    let limits = grpc::Limits {
        message_bytes: config.message_limit_bytes,
        first_byte: config.first_byte,
        ping: config.ping,
        dead_after: config.dead_after,
        asks_for_keys: grpc_asks,
    };
    let served = grpc::serve(app.clone(), grpc_listener, limits, stop.soft.clone(), closing.clone());
    let (hard, last) = (stop.hard.clone(), closing.clone());
    stop.tasks.spawn(async move {
        // Sessions have ended by then; what is left are watchers of health or reflection, which end with the process.
        let watchers_left = async {
            last.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            ended = served => if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "gRPC ended");
            },
            () = hard.cancelled() => {}
            () = watchers_left => {}
        }
    });

    let scanned = Arc::clone(&registry);
    if tokio::task::spawn_blocking(move || scanned.first_scan()).await.is_err() {
        tracing::error!("the first scan of the model repository panicked");
    }
    models.tell_states();
    app.readiness.clear(SCANNING);
    for sentence in models.degraded() {
        tracing::warn!("{sentence}");
    }
    keep_house(&stop, &app, registry, config.scan);

    if let (Some(file), Some(path)) = (ready_file, &config.ready_file) {
        file.write(http, grpc).map_err(|error| StartError::ReadyFile(path.clone(), error))?;
    }
    tracing::info!(%http, %grpc, "ready");
    let end = End {
        stop: stop.clone(),
        closing,
        app,
        pool,
        recorder,
        store,
        export,
        _lock: lock,
        drain: config.drain,
    };
    Ok(Running { http, grpc, stop, done: tokio::spawn(end.when_asked(gave_up)) })
}

/// Where the library is, if it is in PostgreSQL.
pub fn postgres_at(config: &Config) -> Option<PostgresAt> {
    let Database::Postgres { url, password } = &config.database else { return None };
    Some(PostgresAt {
        url: url.expose().into(),
        password: password.as_ref().map(|password| password.expose().into()),
        limits: PostgresLimits {
            connections: config.database_connections.get(),
            connect: config.database_connect,
            statement: config.database_statement,
        },
    })
}

/// Takes the data directory for this process alone; it is free again when the file is closed.
fn lock(data: &std::path::Path) -> Result<std::fs::File, StartError> {
    let failed = |error| StartError::Data(data.into(), error);
    std::fs::create_dir_all(data).map_err(failed)?;
    let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(data.join(LOCK));
    let file = open.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse(data.into())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// What goes on beside the requests, until the server is asked to stop.
fn keep_house(stop: &Stop, app: &App, registry: Arc<Registry>, scan: Duration) {
    let until = |soft: CancellationToken, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
        tokio::select! {
            () = soft.cancelled() => {}
            () = work => {}
        }
    };
    let live = Arc::clone(&app.live);
    stop.tasks.spawn(until(stop.soft.clone(), Box::pin(async move { live.sweep().await })));
    let models = Arc::clone(&app.models);
    stop.tasks.spawn(until(
        stop.soft.clone(),
        Box::pin(async move {
            loop {
                tokio::time::sleep(scan).await;
                let scanned = Arc::clone(&registry);
                if tokio::task::spawn_blocking(move || scanned.rescan()).await.is_err() {
                    tracing::error!("a scan of the model repository panicked");
                }
                models.tell_states();
            }
        }),
    ));
}

/// Everything that the way down needs.
struct End {
    stop: Stop,
    closing: CancellationToken,
    app: App,
    pool: Arc<Pool>,
    recorder: Recorder,
    store: Store,
    export: Option<otlp::Export>,
    /// Held until all is down.
    _lock: std::fs::File,
    drain: Duration,
}

impl End {
    /// Waits until it is asked, or until the pool gives up, then goes down.
    async fn when_asked(self, mut gave_up: mpsc::Receiver<String>) -> ExitCode {
        let stuck = tokio::select! {
            () = self.stop.soft.cancelled() => None,
            Some(sentence) = gave_up.recv() => Some(sentence),
        };
        if let Some(sentence) = &stuck {
            tracing::error!("{sentence}");
        }
        let code = self.go_down().await;
        if stuck.is_some() { ExitCode::from(STUCK) } else { code }
    }

    async fn go_down(self) -> ExitCode {
        let begun = Instant::now();
        let mut in_time = true;
        self.app.readiness.add(DRAINING);
        self.stop.soft.cancel();
        // Streams and callers are told why; a second signal ends the waiting.
        tokio::select! {
            drained = tokio::time::timeout(self.drain, self.app.live.drain()) => if drained.is_err() {
                tracing::error!("not all sessions could be drained in time");
                in_time = false;
            },
            () = self.stop.hard.cancelled() => in_time = false,
        }
        let sessions_ms = begun.elapsed().as_millis() as u64;
        self.closing.cancel();
        let left = self.drain.saturating_sub(begun.elapsed()).max(Duration::from_millis(500));
        let mut stopped = self.stop.drain(left).await;
        if !in_time && stopped == Stopped::Clean {
            stopped = Stopped::Forced;
        }
        let tasks_ms = begun.elapsed().as_millis() as u64;
        let pool = Arc::clone(&self.pool);
        let deadline = Instant::now() + Duration::from_secs(2);
        if !tokio::task::spawn_blocking(move || pool.stop(deadline)).await.unwrap_or(false) {
            tracing::error!("a worker thread did not end");
            stopped = Stopped::Forced;
        }
        let lanes_ms = begun.elapsed().as_millis() as u64;
        // Beside the journal, so that a collector that is away holds nothing up; it counts for nothing in the exit code.
        let last_spans = async {
            if let Some(export) = self.export {
                export.stop(left.min(LAST_SPANS)).await;
            }
        };
        let patience = self.drain.saturating_sub(begun.elapsed()).clamp(LAST_WORDS, LAST_MOVE);
        let (flushed, ()) =
            tokio::join!(tokio::time::timeout(FLUSH, self.recorder.stop(patience)), last_spans);
        if flushed.is_err() {
            tracing::error!(
                "the journal could not be flushed in time; what is durable is moved by the next start"
            );
            stopped = Stopped::Forced;
        }
        if let Ok(Err(left)) = flushed {
            for error in &left.uncommitted {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "not everything could be written to the journal");
            }
            for error in &left.unmoved {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "not everything could be moved to the library; the next start does it"
                );
            }
            // A library that is away or busy cost nobody an answer, and the journal has it all.
            if !left.uncommitted.is_empty() || !left.unmoved.iter().all(StoreError::leaves_all_in_the_journal)
            {
                stopped = Stopped::Forced;
            }
        }
        let journal_ms = begun.elapsed().as_millis() as u64;
        if tokio::time::timeout(LAST_WORDS, self.store.close()).await.is_err() {
            tracing::error!("the store could not be closed in time");
            stopped = Stopped::Forced;
        }
        // Each from the signal on, so that a long stop says what it waited for.
        let took_ms = begun.elapsed().as_millis() as u64;
        tracing::info!(took_ms, sessions_ms, tasks_ms, lanes_ms, journal_ms, ?stopped, "stopped");
        stopped.exit_code()
    }
}
