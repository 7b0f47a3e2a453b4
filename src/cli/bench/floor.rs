//! The floors: what the same bytes cost with nothing of latentd but the schema and the engine. A bare tonic service and a
//! bare axum route that run the model at once, in place, with a state per stream; and the model in a loop.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, post};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::{BenchError, CHANNELS};
use crate::cli::demo::ServerAddrs;
use crate::domain::tensor::Tensor;
use crate::engine::{Batch, Device, Engine, Instance, LoadOptions, ModelBytes};
use crate::wire::v1::down::Message as DownMessage;
use crate::wire::v1::live_server::{Live, LiveServer};
use crate::wire::v1::up::Message as UpMessage;
use crate::wire::{json, tensor, v1};

/// Streamed input, carried state and its successor in the model's graph.
const INPUT: &str = "x";
const STATE: (&str, &str) = ("h0", "hn");

/// The model, to be loaded as often as there are streams.
#[derive(Clone)]
pub struct Model {
    engine: Arc<dyn Engine>,
    bytes: ModelBytes,
}

impl Model {
    /// Reads the graph at `path`.
    pub fn read(engine: Arc<dyn Engine>, path: &Path) -> Result<Self, BenchError> {
        let onnx = std::fs::read(path)
            .map_err(|source| BenchError::Model { path: path.display().to_string(), source })?;
        let name = "cortex-encoder/1".into();
        let bytes = ModelBytes { name, onnx: onnx.into(), external: Default::default() };
        Ok(Self { engine, bytes })
    }

    /// An instance for `rows` rows at a time, its state at zero.
    pub fn stepper(&self, rows: usize) -> Result<Stepper, BenchError> {
        let options = LoadOptions { device: Device::Cpu, intra_threads: 1 };
        let instance = self.engine.load(&self.bytes, &options)?;
        let signature = instance.info().signature.clone();
        let place = |names: &[crate::graph::TensorInfo], name: &'static str| {
            names.iter().position(|info| info.name == name).ok_or(BenchError::Tensor(name))
        };
        let (x, h0) = (place(&signature.inputs, INPUT)?, place(&signature.inputs, STATE.0)?);
        let hn = place(&signature.outputs, STATE.1)?;
        let inputs = signature.inputs.iter().map(|info| {
            let shape: Vec<usize> = info
                .dims
                .iter()
                .map(|dim| match dim {
                    crate::graph::Dim::Fixed(length) => *length,
                    _ => rows,
                })
                .collect();
            Tensor::zeros(info.dtype, &shape)
        });
        let batch = Batch { inputs: inputs.collect(), outputs: Vec::new() };
        Ok(Stepper { instance, batch, x, h0, hn })
    }
}

/// A model with its state.
pub struct Stepper {
    instance: Box<dyn Instance>,
    batch: Batch,
    x: usize,
    h0: usize,
    hn: usize,
}

impl Stepper {
    /// One step of all rows on `counts` (the same for each row), square root first as the manifest says; the state is
    /// carried on.
    pub fn step(&mut self, counts: &[u8]) -> Result<(), BenchError> {
        let x = self.batch.inputs[self.x].values_mut::<f32>();
        x.iter_mut().zip(counts.iter().cycle()).for_each(|(x, &count)| *x = f32::from(count).sqrt());
        self.instance.run(&mut self.batch)?;
        std::mem::swap(&mut self.batch.inputs[self.h0], &mut self.batch.outputs[self.hn]);
        Ok(())
    }

    /// The outputs of the last step but the state, as an answer has them.
    fn blocks(&self) -> Vec<v1::Block> {
        let outputs = self.batch.outputs.iter().enumerate().filter(|(place, _)| *place != self.hn);
        let block = |(number, (_, output)): (usize, (usize, &Tensor))| v1::Block {
            output: number as u32,
            tensor: Some(tensor::message(output)),
            ..Default::default()
        };
        outputs.enumerate().map(block).collect()
    }

    /// The answer to a frame.
    fn answer(&mut self, frame: v1::Frame) -> Result<v1::Output, Status> {
        let raw = frame.tensor.as_ref().map(|tensor| &tensor.raw[..]).unwrap_or_default();
        self.step(raw).map_err(|error| Status::internal(error.to_string()))?;
        Ok(v1::Output {
            signal: frame.signal,
            seq: Some(frame.seq),
            first_bin: frame.first_index,
            n: 1,
            flags: vec![0],
            blocks: self.blocks(),
            lag_us: Some(v1::Lag::default()),
            ..Default::default()
        })
    }
}

/// Rows per second of the model in a loop on one thread, `rows` at a time.
pub fn batched_loop(model: &Model, rows: usize, during: Duration) -> Result<f64, BenchError> {
    let mut stepper = model.stepper(rows)?;
    let counts = vec![1u8; rows * CHANNELS];
    for _ in 0..50 {
        stepper.step(&counts)?;
    }
    let (begun, mut steps) = (Instant::now(), 0u64);
    while begun.elapsed() < during {
        stepper.step(&counts)?;
        steps += 1;
    }
    Ok(steps as f64 * rows as f64 / begun.elapsed().as_secs_f64())
}

/// Both floors on free ports, on a runtime and threads of their own; they end when it is dropped.
pub struct Floors {
    /// Where they listen.
    pub addrs: ServerAddrs,
    stop: CancellationToken,
}

impl Drop for Floors {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Floors {
    /// Starts them with `threads` threads.
    pub async fn start(model: Model, threads: usize) -> Result<Self, BenchError> {
        let stop = CancellationToken::new();
        let (ready, addrs) = oneshot::channel();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let started = serve(model, stopped.clone()).await;
                let _ = ready.send(started);
                stopped.cancelled().await;
            });
        });
        let addrs = addrs.await.map_err(|_| BenchError::Floor(std::io::Error::other("its thread ended")))?;
        Ok(Self { addrs: addrs.map_err(BenchError::Floor)?, stop })
    }
}

async fn serve(model: Model, stop: CancellationToken) -> std::io::Result<ServerAddrs> {
    let sessions = Sessions { model, open: Arc::default() };
    let grpc_listener = TcpListener::bind("127.0.0.1:0").await?;
    let http_listener = TcpListener::bind("127.0.0.1:0").await?;
    let addrs = ServerAddrs { grpc: grpc_listener.local_addr()?, http: http_listener.local_addr()? };
    let incoming = TcpIncoming::from(grpc_listener).with_nodelay(Some(true));
    let live = tonic::transport::Server::builder().add_service(LiveServer::new(sessions.clone()));
    tokio::spawn(live.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
    let routes = axum::Router::new()
        .route("/v1/sessions", post(http_open))
        .route("/v1/sessions/{session}", delete(async || "{}"))
        .route("/v1/sessions/{session}/frames", post(http_frame))
        .with_state(sessions);
    let listener = http_listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).into_future());
    Ok(addrs)
}

/// Sessions by number; each has its own instance.
#[derive(Clone)]
struct Sessions {
    model: Model,
    open: Arc<Mutex<HashMap<String, Arc<Mutex<Stepper>>>>>,
}

impl Sessions {
    fn open(&self) -> Result<v1::OpenReply, Status> {
        let stepper = self.model.stepper(1).map_err(|error| Status::internal(error.to_string()))?;
        let mut open = self.open.lock();
        let session = open.len().to_string();
        open.insert(session.clone(), Arc::new(Mutex::new(stepper)));
        Ok(v1::OpenReply { session, window: 32, ..Default::default() })
    }

    fn stepper(&self, session: &str) -> Result<Arc<Mutex<Stepper>>, Status> {
        self.open.lock().get(session).cloned().ok_or_else(|| Status::not_found("no such session"))
    }
}

#[tonic::async_trait]
impl Live for Sessions {
    async fn open(&self, _: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        Sessions::open(self).map(Response::new)
    }

    type StreamStream = ReceiverStream<Result<v1::Down, Status>>;

    async fn stream(&self, up: Request<Streaming<v1::Up>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut up = up.into_inner();
        let Some(v1::Up { message: Some(UpMessage::Attach(attach)) }) = up.message().await? else {
            return Err(Status::invalid_argument("expected attach"));
        };
        let stepper = self.stepper(&attach.session)?;
        let (send, answers) = mpsc::channel(64);
        tokio::spawn(async move {
            let down = |message| Ok(v1::Down { message: Some(message) });
            let attached = DownMessage::Attached(v1::Attached::default());
            let _ = send.send(down(attached)).await;
            while let Ok(Some(v1::Up { message: Some(UpMessage::Frame(frame)) })) = up.message().await {
                let answer = stepper.lock().answer(frame).map(DownMessage::Output);
                if send.send(answer.and_then(down)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type SubscribeStream = ReceiverStream<Result<v1::Down, Status>>;

    async fn subscribe(
        &self,
        _: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("a floor"))
    }

    async fn reset(&self, _: Request<v1::ResetRequest>) -> Result<Response<v1::ResetReply>, Status> {
        Err(Status::unimplemented("a floor"))
    }

    async fn snapshot(&self, _: Request<v1::SnapshotRequest>) -> Result<Response<v1::SnapshotReply>, Status> {
        Err(Status::unimplemented("a floor"))
    }

    async fn fork(&self, _: Request<v1::ForkRequest>) -> Result<Response<v1::OpenReply>, Status> {
        Err(Status::unimplemented("a floor"))
    }

    async fn close(&self, _: Request<v1::CloseRequest>) -> Result<Response<v1::CloseReply>, Status> {
        Ok(Response::new(v1::CloseReply::default()))
    }
}

async fn http_open(State(sessions): State<Sessions>) -> Result<Vec<u8>, String> {
    sessions.open().map(|reply| json::write(&reply)).map_err(|status| status.to_string())
}

async fn http_frame(
    State(sessions): State<Sessions>,
    UrlPath(session): UrlPath<String>,
    body: Bytes,
) -> Result<Vec<u8>, String> {
    let stepper = sessions.stepper(&session).map_err(|status| status.to_string())?;
    let frame = v1::Frame::decode(body).map_err(|error| error.to_string())?;
    let answer = stepper.lock().answer(frame).map_err(|status| status.to_string())?;
    Ok(answer.encode_to_vec())
}
