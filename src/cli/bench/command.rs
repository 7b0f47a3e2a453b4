//! `latentd bench`: its own server on free ports, then the measures.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{BenchOptions, run as measure};
use crate::cli::args::BenchArgs;
use crate::cli::demo::ServerAddrs;
use crate::cli::{fail, in_runtime, serve};
use crate::config::Config;
use crate::engine::Engine;
use crate::telemetry;

/// Data directory of the bench's store.
const DATA: &str = "data/bench";

/// Starts a server, measures, stops the server.
pub fn run(args: &BenchArgs) -> ExitCode {
    let settings = [("http", "127.0.0.1:0"), ("grpc", "127.0.0.1:0"), ("data", DATA), ("log_level", "warn")];
    let config = match Config::with(settings) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if let Err(error) = telemetry::init(&config.log_level, config.log_format) {
        return fail(&error);
    }
    let engine = match serve::engine_by_environment() {
        Ok(engine) => engine,
        Err(error) => return fail(&*error),
    };
    let mut options = BenchOptions { rounds: args.rounds, ..Default::default() };
    options.during = Duration::from_secs_f64(args.seconds.clamp(0.1, 3600.0));
    if !args.sessions.is_empty() {
        options.sessions = args.sessions.clone();
    }
    in_runtime(async {
        let running = match serve::server(config, engine.clone()).await {
            Ok(running) => running,
            Err(error) => return fail(&error),
        };
        let addrs = ServerAddrs { http: running.http, grpc: running.grpc };
        let measured = apart(addrs, engine, options).await;
        running.stop.soft.cancel();
        let ended = running.ended().await;
        if measured { ended } else { ExitCode::FAILURE }
    })
}

/// Measures on a runtime of its own, so that the rigs stand to the server as they stand to the floors. Whether all went
/// well; what did not was said.
async fn apart(addrs: ServerAddrs, engine: Arc<dyn Engine>, options: BenchOptions) -> bool {
    let (done, measured) = oneshot::channel();
    std::thread::spawn(move || {
        let measured = in_runtime(async {
            match measure(addrs, engine, &options, &mut std::io::stdout()).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        });
        let _ = done.send(measured == ExitCode::SUCCESS);
    });
    measured.await.unwrap_or(false)
}
