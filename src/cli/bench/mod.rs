//! `latentd bench`: latency and throughput beside the floors, in one run, as ratios.
//! Enters: the addresses of a server that serves the bundled models. Leaves: a table.
//! Owns: the floor servers while it runs. Must hold: server and floors get the same frames from the same rigs, in turn, in
//! the same process; what is printed was measured in this run.
//! Must not know: any room of the server but the engine, which the floors run the same model on, and `signal`, whose ops
//! are measured alone.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub mod command; // the command itself
pub mod floor; // bare servers, the bare loop
pub mod load; // rigs that measure
pub mod ops; // preprocessing alone

use floor::{Floors, Model};
use load::{Load, Measured, Pace, Road};

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

/// Measures and writes the tables to `out`.
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
    let mut bench = Bench { addrs, floors: floors.addrs, model, options, out };
    for (road, name) in [(Road::Grpc, "gRPC stream"), (Road::Http, "HTTP frames")] {
        bench.latency(road, name).await?;
        bench.throughput(road, name).await?;
    }
    bench.recording().await?;
    bench.preprocessing().await?;
    Ok(bench.out.flush()?)
}

/// A bench in progress.
struct Bench<'a, W> {
    addrs: ServerAddrs,
    floors: ServerAddrs,
    model: Model,
    options: &'a BenchOptions,
    out: &'a mut W,
}

impl<W: Write + Send> Bench<'_, W> {
    fn load(&self, road: Road, sessions: usize, pace: Pace) -> Load {
        Load { road, sessions, pace, record: false, during: self.options.during }
    }

    async fn latency(&mut self, road: Road, name: &str) -> Result<(), BenchError> {
        self.latency_head(name, ["latentd", "floor"])?;
        for &sessions in &self.options.sessions {
            let load = self.load(road, sessions, Pace::Every(BIN));
            let measured = self.in_turn([(self.addrs, load), (self.floors, load)]).await?;
            self.latency_row(sessions, measured)?;
        }
        Ok(())
    }

    async fn throughput(&mut self, road: Road, name: &str) -> Result<(), BenchError> {
        writeln!(self.out, "\n{name}, throughput as fast as it is answered (rows/s)")?;
        let head = ["sessions", "latentd", "floor", "ratio", "loop, batched", "share"];
        let [sessions, server, floor, ratio, alone, share] = head;
        writeln!(self.out, "{sessions:>9} {server:>10} {floor:>10} {ratio:>6} {alone:>14} {share:>6}")?;
        for &sessions in &self.options.sessions {
            let load = self.load(road, sessions, Pace::Max);
            let [server, floor] = self.in_turn([(self.addrs, load), (self.floors, load)]).await?;
            let (model, during) = (self.model.clone(), self.options.during);
            let alone = tokio::task::spawn_blocking(move || floor::batched_loop(&model, sessions, during));
            let (server, floor, alone) = (server.rows_per_s, floor.rows_per_s, alone.await??);
            let (ratio, share) = (server / floor, server / alone);
            writeln!(
                self.out,
                "{sessions:>9} {server:>10.0} {floor:>10.0} {ratio:>6.2} {alone:>14.0} {share:>6.2}"
            )?;
            self.out.flush()?;
        }
        Ok(())
    }

    async fn recording(&mut self) -> Result<(), BenchError> {
        self.latency_head("gRPC stream, recording on against off", ["on", "off"])?;
        for &sessions in &self.options.sessions {
            let off = self.load(Road::Grpc, sessions, Pace::Every(BIN));
            let on = Load { record: true, ..off };
            let measured = self.in_turn([(self.addrs, on), (self.addrs, off)]).await?;
            self.latency_row(sessions, measured)?;
        }
        Ok(())
    }

    async fn preprocessing(&mut self) -> Result<(), BenchError> {
        writeln!(self.out, "\npreprocessing on one core (a sample is one channel's)")?;
        let head = ["op", "channels", "rate (Hz)", "samples/s per core", "of real time"];
        let [op, channels, rate, samples, share] = head;
        writeln!(self.out, "{op:<28} {channels:>8} {rate:>9} {samples:>18} {share:>12}")?;
        for case in ops::cases() {
            let during = self.options.during;
            let samples_per_s = tokio::task::spawn_blocking(move || ops::measure(&case, during)).await?;
            let (stream, share) = (case.stream, samples_per_s / case.stream.samples_per_s());
            writeln!(
                self.out,
                "{:<28} {:>8} {:>9} {samples_per_s:>18.3e} {share:>11.1}x",
                case.name, stream.channels, stream.rate_hz
            )?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn latency_head(&mut self, name: &str, [one, other]: [&str; 2]) -> Result<(), BenchError> {
        writeln!(self.out, "\n{name}, step latency at {} ms bins (round trip, ms)", BIN.as_millis())?;
        let (one, other) = (format!("{one} p50 / p99"), format!("{other} p50 / p99"));
        Ok(writeln!(self.out, "{:>9} {one:>17} {other:>17} {:>13}", "sessions", "ratio p50/p99")?)
    }

    fn latency_row(&mut self, sessions: usize, measured: [Measured; 2]) -> Result<(), BenchError> {
        let [one, other] = measured.map(|measured| Percentiles::of(measured.round_trips_us));
        writeln!(
            self.out,
            "{sessions:>9} {:>8.3} / {:>6.3} {:>8.3} / {:>6.3} {:>5.2} / {:>5.2}",
            one.p50 / 1e3,
            one.p99 / 1e3,
            other.p50 / 1e3,
            other.p99 / 1e3,
            one.p50 / other.p50,
            one.p99 / other.p99
        )?;
        Ok(self.out.flush()?)
    }

    /// Both loads, in turn for as many rounds as are asked; the samples put together.
    async fn in_turn(&self, loads: [(ServerAddrs, Load); 2]) -> Result<[Measured; 2], BenchError> {
        let mut all = [Measured::default(), Measured::default()];
        let rounds = self.options.rounds.max(1);
        for _ in 0..rounds {
            for ((addrs, load), measured) in loads.into_iter().zip(&mut all) {
                let round = load::run(addrs, load).await?;
                measured.round_trips_us.extend(round.round_trips_us);
                measured.rows_per_s += round.rows_per_s / rounds as f64;
            }
        }
        Ok(all)
    }
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
        assert_eq!(rows, 5 * options.sessions.len(), "{table}");
        assert!(!table.contains("NaN") && !table.contains("inf"), "{table}");
    }
}
