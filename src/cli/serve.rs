//! `latentd serve`, and the server that `latentd demo` starts for itself.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::args::ServeArgs;
use crate::config::{Config, process_env};
use crate::engine::OrtEngine;
use crate::engine::library::{self, LibraryError};
use crate::lifecycle::Signals;
use crate::lifecycle::server::{Parts, Running, StartError, start};
use crate::telemetry;

/// ONNX Runtime, from where the configuration says or where `make setup` puts it.
pub fn engine(path: Option<&Path>) -> Result<Arc<OrtEngine>, LibraryError> {
    Ok(Arc::new(OrtEngine::open(&library::find(path)?)?))
}

/// The same, where only the environment can say where it is.
pub fn engine_by_environment() -> Result<Arc<OrtEngine>, Box<dyn std::error::Error>> {
    let config = Config::read(&[], &process_env)?;
    Ok(engine(config.onnxruntime.as_deref())?)
}

/// A server on ONNX Runtime.
pub async fn server(config: Config, engine: Arc<OrtEngine>) -> Result<Running, StartError> {
    start(config, Parts { engine }).await
}

/// Serves until SIGTERM or Ctrl-C.
pub fn run(args: &ServeArgs) -> ExitCode {
    let config = match args.config(&process_env) {
        Ok(config) => config,
        Err(error) => return super::fail(&error),
    };
    if let Err(error) = telemetry::init(&config.log_level, config.log_format) {
        return super::fail(&error);
    }
    // Why before the runtime: a library that hangs or crashes must not take a half-started server with it.
    let engine = match engine(config.onnxruntime.as_deref()) {
        Ok(engine) => engine,
        Err(error) => return super::fail(&error),
    };
    telemetry::log_config(&config);
    super::in_runtime(async {
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return super::fail(&error),
        };
        match server(config, engine).await {
            Ok(running) => {
                tokio::spawn(signals.watch(running.stop.clone()));
                running.ended().await
            }
            Err(error) => super::fail(&error),
        }
    })
}
