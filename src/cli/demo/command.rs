//! `latentd demo`: its own server on free ports, then the rigs.

use std::process::ExitCode;

use super::{DemoOptions, ServerAddrs, run as play};
use crate::cli::args::DemoArgs;
use crate::cli::{fail, in_runtime, serve};
use crate::config::Config;
use crate::telemetry;

/// Data directory of the demo's store.
const DATA: &str = "data/demo";

/// Starts a server, plays, stops the server.
pub fn run(args: &DemoArgs) -> ExitCode {
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
    let options = DemoOptions { fast: args.fast, only: args.recording.clone(), ..Default::default() };
    in_runtime(async {
        let running = match serve::server(config, engine).await {
            Ok(running) => running,
            Err(error) => return fail(&error),
        };
        let addrs = ServerAddrs { http: running.http, grpc: running.grpc };
        let played = play(&addrs, &options, &mut std::io::stdout()).await;
        running.stop.soft.cancel();
        let ended = running.ended().await;
        match played {
            Ok(()) => ended,
            Err(error) => fail(&error),
        }
    })
}
