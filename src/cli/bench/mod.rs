//! `latentd bench`: latency and throughput beside the floors, in one run, as ratios.
//! Enters: the addresses of a server that serves the bundled models. Leaves: a table.
//! Owns: the floor servers while it runs. Must hold: server and floors get the same frames from the same rigs, in turn, in
//! the same process; what is printed was measured in this run.
//! Must not know: any room of the server but the engine, which the floors run the same model on.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub mod command; // the command itself
pub mod floor; // bare servers, the bare loop
pub mod load; // rigs that measure

use floor::{Floors, Model};
use load::{Measured, Pace, Road};

use super::demo::ServerAddrs;
use super::replay::player::PlayError;
use super::replay::report::Percentiles;
use crate::engine::{Engine, EngineError};

/// The pipeline: a causal GRU, 96 counts to a state of 128.
pub const PIPELINE: &str = "cortex-encoder";
/// Its signal.
pub const SIGNAL: &str = "spikes";
/// Its channels.
pub const CHANNELS: usize = 96;
/// Width of a bin, and the pace at which latency is measured.
const BIN: Duration = Duration::from_millis(20);

/// What `latentd bench` is told.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Where the model's graph is.
    pub model: PathBuf,
    /// Numbers of sessions at once.
    pub sessions: Vec<usize>,
    /// How long each figure is measured.
    pub during: Duration,
    /// Times each figure is measured, server and floor in turn; the samples are put together.
    pub rounds: usize,
    /// Threads of each floor.
    pub threads: usize,
}

impl Default for BenchOptions {
    /// 1, 16 and 64 sessions, twice 2 s each, the bundled model, as many threads as there are cores.
    fn default() -> Self {
        Self {
            model: PathBuf::from("models/cortex-encoder/1/model.onnx"),
            sessions: vec![1, 16, 64],
            during: Duration::from_secs(2),
            rounds: 2,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model's graph cannot be read.
    #[error("{path} cannot be read")]
    Model {
        /// Where it should be.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The graph is not the one that is benched.
    #[error("the graph has no tensor `{0}`")]
    Tensor(&'static str),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A floor does not start.
    #[error("a floor does not start")]
    Floor(std::io::Error),
    /// A rig cannot connect.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// A gRPC call failed.
    #[error("a call failed")]
    Grpc(#[from] tonic::Status),
    /// An HTTP request failed.
    #[error("a request failed")]
    Http(#[from] reqwest::Error),
    /// An answer is not what it should be.
    #[error("an answer is wrong: {0}")]
    Answer(String),
    /// A rig's task ended without an answer.
    #[error("a rig failed")]
    Task(#[from] tokio::task::JoinError),
    /// The table cannot be written.
    #[error("nothing can be written")]
    Write(#[from] std::io::Error),
}

/// Server and floor under the same load.
struct Pairing {
    server: Measured,
    floor: Measured,
}

/// Measures and writes the table to `out`.
pub async fn run(
    addrs: ServerAddrs,
    engine: Arc<dyn Engine>,
    options: &BenchOptions,
    out: &mut (impl Write + Send),
) -> Result<(), BenchError> {
    let model = Model::read(engine, &options.model)?;
    let floors = Floors::start(model.clone(), options.threads).await?;
    writeln!(
        out,
        "latentd bench · {PIPELINE} (GRU, {CHANNELS} counts to a state of 128), one bin per frame"
    )?;
    writeln!(
        out,
        "floors: bare tonic stream and bare axum route, the model run in place with an instance per session, \
         {} threads; the model alone in a loop, one thread",
        options.threads
    )?;
    for (road, name) in [(Road::Grpc, "gRPC stream"), (Road::Http, "HTTP frames")] {
        latency(road, name, addrs, &floors, options, out).await?;
        throughput(road, name, addrs, &floors, &model, options, out).await?;
    }
    Ok(out.flush()?)
}

async fn latency(
    road: Road,
    name: &str,
    addrs: ServerAddrs,
    floors: &Floors,
    options: &BenchOptions,
    out: &mut (impl Write + Send),
) -> Result<(), BenchError> {
    writeln!(out, "\n{name}, step latency at {} ms bins (round trip, ms)", BIN.as_millis())?;
    writeln!(
        out,
        "{:>9} {:>17} {:>17} {:>13}",
        "sessions", "latentd p50 / p99", "floor p50 / p99", "ratio p50/p99"
    )?;
    for &sessions in &options.sessions {
        let Pairing { server, floor } =
            pairing(road, addrs, floors, sessions, Pace::Every(BIN), options).await?;
        let (server, floor) = (Percentiles::of(server.round_trips_us), Percentiles::of(floor.round_trips_us));
        writeln!(
            out,
            "{sessions:>9} {:>8.3} / {:>6.3} {:>8.3} / {:>6.3} {:>5.2} / {:>5.2}",
            server.p50 / 1e3,
            server.p99 / 1e3,
            floor.p50 / 1e3,
            floor.p99 / 1e3,
            server.p50 / floor.p50,
            server.p99 / floor.p99
        )?;
        out.flush()?;
    }
    Ok(())
}

async fn throughput(
    road: Road,
    name: &str,
    addrs: ServerAddrs,
    floors: &Floors,
    model: &Model,
    options: &BenchOptions,
    out: &mut (impl Write + Send),
) -> Result<(), BenchError> {
    writeln!(out, "\n{name}, throughput as fast as it is answered (rows/s)")?;
    writeln!(
        out,
        "{:>9} {:>10} {:>10} {:>6} {:>14} {:>6}",
        "sessions", "latentd", "floor", "ratio", "loop, batched", "share"
    )?;
    for &sessions in &options.sessions {
        let Pairing { server, floor } = pairing(road, addrs, floors, sessions, Pace::Max, options).await?;
        let (model, during) = (model.clone(), options.during);
        let alone = tokio::task::spawn_blocking(move || floor::batched_loop(&model, sessions, during));
        let alone = alone.await??;
        writeln!(
            out,
            "{sessions:>9} {:>10.0} {:>10.0} {:>6.2} {alone:>14.0} {:>6.2}",
            server.rows_per_s,
            floor.rows_per_s,
            server.rows_per_s / floor.rows_per_s,
            server.rows_per_s / alone
        )?;
        out.flush()?;
    }
    Ok(())
}

/// The same load on server and floor, in turn.
async fn pairing(
    road: Road,
    addrs: ServerAddrs,
    floors: &Floors,
    sessions: usize,
    pace: Pace,
    options: &BenchOptions,
) -> Result<Pairing, BenchError> {
    let mut pairing = Pairing { server: Measured::default(), floor: Measured::default() };
    let rounds = options.rounds.max(1);
    for _ in 0..rounds {
        for (addrs, measured) in [(addrs, &mut pairing.server), (floors.addrs, &mut pairing.floor)] {
            let round = load::run(road, addrs, sessions, pace, options.during).await?;
            measured.round_trips_us.extend(round.round_trips_us);
            measured.rows_per_s += round.rows_per_s / rounds as f64;
        }
    }
    Ok(pairing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{OrtEngine, library};

    #[tokio::test]
    async fn a_floor_measured_against_a_floor_gives_a_whole_table() {
        let options = BenchOptions {
            sessions: vec![1, 3],
            during: Duration::from_millis(100),
            rounds: 1,
            threads: 1,
            ..Default::default()
        };
        let found = library::find(None).ok().filter(|_| options.model.exists());
        let Some(path) = found else {
            println!("not run: the floors (no ONNX Runtime or no {})", options.model.display());
            return;
        };
        let engine: Arc<dyn Engine> = Arc::new(OrtEngine::open(&path).unwrap());
        let model = Model::read(engine.clone(), &options.model).unwrap();
        let other = Floors::start(model, 1).await.unwrap();
        let mut table = Vec::new();
        run(other.addrs, engine, &options, &mut table).await.unwrap();
        let table = String::from_utf8(table).unwrap();
        println!("{table}");
        let rows = table.lines().filter(|line| line.trim_start().starts_with(['1', '3'])).count();
        assert_eq!(rows, 2 * 2 * options.sessions.len(), "{table}");
        assert!(!table.contains("NaN") && !table.contains("inf"), "{table}");
    }
}
