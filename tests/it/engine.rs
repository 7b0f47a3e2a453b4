//! A failing engine, in process: what the rig is told, and that the server goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use latentd::config::{Config, process_env};
use latentd::domain::tensor::Tensor;
use latentd::engine::{
    Batch, Engine, EngineError, Instance, InstanceInfo, Interrupt, LoadOptions, ModelBytes, OrtEngine,
    library,
};
use latentd::lifecycle::server::{Parts, Running, start};
use latentd::wire::{json, tensor, v1};
use tonic::Code;

use crate::support::{
    Answer, Linear, Rig, bins, blocks, carried, counts, flag_names, linear, models, recorded, says, within,
};

/// A run on an input of this value fails.
const FAILS: f32 = 777.0;
/// A run on an input of this value panics.
const PANICS: f32 = 778.0;
/// A run on an input of this value takes until it is interrupted.
const STALLS: f32 = 779.0;

/// ONNX Runtime, with a temper.
struct Moody {
    inner: OrtEngine,
    /// Asked who it is, it panics.
    ruined: AtomicBool,
}

struct MoodyInstance {
    inner: Box<dyn Instance>,
    shot: Arc<Shot>,
}

/// Ends a run that stalls.
#[derive(Default)]
struct Shot(AtomicBool);

impl Interrupt for Shot {
    fn fire(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Engine for Moody {
    fn load(&self, model: &ModelBytes, options: &LoadOptions) -> Result<Box<dyn Instance>, EngineError> {
        Ok(Box::new(MoodyInstance { inner: self.inner.load(model, options)?, shot: Arc::default() }))
    }

    fn fingerprint(&self) -> &str {
        assert!(!self.ruined.load(Ordering::Acquire), "a panic on order");
        self.inner.fingerprint()
    }
}

impl Instance for MoodyInstance {
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        let values = batch.inputs[0].values::<f32>();
        if values.contains(&FAILS) {
            return Err(EngineError::Run("a failure on order".into()));
        }
        assert!(!values.contains(&PANICS), "a panic on order");
        if values.contains(&STALLS) {
            while !self.shot.0.swap(false, Ordering::AcqRel) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            return Err(EngineError::Interrupted);
        }
        self.inner.run(batch)
    }

    fn info(&self) -> &InstanceInfo {
        self.inner.info()
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.shot) as Arc<dyn Interrupt>
    }
}

struct InProcess {
    running: Running,
    engine: Arc<Moody>,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl InProcess {
    async fn start() -> Self {
        Self::with_run_limit(Duration::from_secs(5)).await
    }

    async fn with_run_limit(limit: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        models::linear().write(&folder.path().join("models"));
        let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (models, data) = (text("models"), text("data"));
        let limit = limit.as_millis().to_string();
        let keys = [
            ("http", "127.0.0.1:0"),
            ("grpc", "127.0.0.1:0"),
            ("models", &models),
            ("data", &data),
            ("run_limit_ms", &limit),
        ];
        let explicit = process_env("ORT_DYLIB_PATH").map(std::path::PathBuf::from);
        let path = library::find(explicit.as_deref()).expect("ONNX Runtime is there");
        let inner = OrtEngine::open(&path).expect("ONNX Runtime opens");
        let engine = Arc::new(Moody { inner, ruined: false.into() });
        let parts = Parts { engine: Arc::clone(&engine) as Arc<dyn Engine> };
        let running = start(Config::with(keys).unwrap(), parts).await.expect("the server starts");
        Self { running, engine, client: reqwest::Client::new(), _folder: folder }
    }

    async fn post_open(&self, ask: &v1::OpenRequest) -> Answer {
        let request = self.client.post(format!("http://{}/v1/sessions", self.running.http));
        Answer::of(request.header("content-type", "application/json").body(json::write(ask))).await
    }

    async fn infer(&self, u: [f32; 2]) -> Answer {
        let tensor = tensor::message(&Tensor::from_f32(&[1, 2], &u));
        let ask = v1::InferRequest { inputs: [("u".into(), tensor)].into(), ..Default::default() };
        let request = self.client.post(format!("http://{}/v1/models/linear/infer", self.running.http));
        Answer::of(request.header("content-type", "application/json").body(json::write(&ask))).await
    }

    async fn open(&self, ask: &v1::OpenRequest) -> Rig {
        let opened = self.post_open(ask).await.message();
        Rig::at(self.client.clone(), &self.running.http.to_string(), opened)
    }

    async fn stop(self) {
        self.running.stop.soft.cancel();
        let code = within("the end of the server", self.running.ended()).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_or_panics_is_an_invalid_bin_and_nothing_else() {
    let server = InProcess::start().await;
    let rig = server.open(&recorded(linear())).await;
    let beside = server.open(&linear()).await;
    let (mut known, mut other) = (Linear::new(), Linear::new());
    for (seq, bad) in (0..).zip([FAILS, PANICS, FAILS]) {
        let output = rig.send(counts(2 * seq, 2 * seq, &[[1.0, 2.0]])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step([1.0, 2.0])]);
        let output = rig.send(counts(2 * seq + 1, 2 * seq + 1, &[[bad, 0.0]])).await;
        assert_eq!(flag_names(&output), [["output_invalid"]]);
        assert!(blocks::<2>(&output, 0)[0].iter().all(|value| value.is_nan()));
        let output = beside.send(counts(seq, seq, &[[3.0, 0.0]])).await;
        assert_eq!(
            (blocks::<2>(&output, 0), flag_names(&output)),
            (vec![other.step([3.0, 0.0])], vec![vec![]])
        );
    }
    let path = format!("http://{}/v1/runs/{}/events?kind=output_invalid", server.running.http, rig.run());
    assert_eq!(rig.close().await.bins, 6);
    let events: v1::EventsReply = Answer::of(server.client.get(path)).await.message();
    assert_eq!(events.events.iter().map(|event| event.count).sum::<u64>(), 3);
    says(&events.events[0].detail, &["a failure on order"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_run_goes_over_its_limit_is_out_of_time_and_a_session_beside_it_is_served() {
    let limit = Duration::from_millis(500);
    let server = InProcess::with_run_limit(limit).await;
    let rig = server.open(&linear()).await;
    let mut known = Linear::new();
    let begun = Instant::now();
    let refused = server.infer([STALLS, 0.0]).await.refused();
    refused.is(504, "deadline", &["linear/1", "run_limit_ms"]);
    assert!(begun.elapsed() >= limit);
    server.infer([FAILS, 0.0]).await.refused().is(422, "invalid", &["linear/1", "a failure on order"]);
    server.infer([PANICS, 0.0]).await.refused().is(500, "internal", &["linear/1"]);
    let output = rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([1.0, 2.0])]);
    assert_eq!(server.infer([1.0, 2.0]).await.status, 200);
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_ours_is_internal_by_http_and_by_grpc_and_the_next_call_works() {
    let server = InProcess::start().await;
    let rig = server.open(&linear()).await;
    server.engine.ruined.store(true, Ordering::Release);
    let ask = recorded(linear());
    let refused = server.post_open(&ask).await.refused();
    let fault = refused.is(500, "internal", &["fault of ours"]);
    assert!(!fault.detail.contains("on order"), "its insides stay inside: {}", fault.detail);
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.running.grpc)).unwrap();
    let mut live = v1::live_client::LiveClient::new(endpoint.connect().await.unwrap());
    let status = live.open(ask.clone()).await.unwrap_err();
    assert_eq!(carried(&status, Code::Internal, "internal").status, 500);
    // An open session is not touched, and what was asked for is had once the engine is well.
    assert_eq!(bins(&rig.send(counts(0, 0, &[[1.0, 2.0]])).await), 0..1);
    server.engine.ruined.store(false, Ordering::Release);
    let opened = live.open(ask.clone()).await.unwrap().into_inner();
    assert!(opened.run.is_some());
    server.open(&ask).await.close().await;
    rig.close().await;
    server.stop().await;
}
