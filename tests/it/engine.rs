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
use latentd::graph::build::linear_recurrence;
use latentd::lifecycle::server::{Parts, Running, start};
use latentd::wire::{json, tensor, v1};
use tonic::Code;

use crate::support::{
    Answer, LIMIT, Linear, Rig, bins, blocks, carried, counts, flag_names, linear, models, recorded, says,
    until, within,
};

/// A run on an input of this value fails.
const FAILS: f32 = 777.0;
/// A run on an input of this value panics.
const PANICS: f32 = 778.0;
/// A run on an input of this value takes until it is interrupted.
const STALLS: f32 = 779.0;

/// The version whose runs can be held.
const SECOND: &str = "linear/2";

const ONE: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

/// ONNX Runtime, with a temper.
struct Moody {
    inner: OrtEngine,
    /// Asked who it is, it panics.
    ruined: AtomicBool,
    /// How long a run takes at least.
    takes: Duration,
    /// Runs of version 2 wait until that is over, or they are interrupted.
    held: Arc<AtomicBool>,
}

struct MoodyInstance {
    inner: Box<dyn Instance>,
    shot: Arc<Shot>,
    takes: Duration,
    held: Option<Arc<AtomicBool>>,
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
        let (inner, shot, takes) = (self.inner.load(model, options)?, Arc::default(), self.takes);
        let held = (model.name == SECOND).then(|| Arc::clone(&self.held));
        Ok(Box::new(MoodyInstance { inner, shot, takes, held }))
    }

    fn fingerprint(&self) -> &str {
        assert!(!self.ruined.load(Ordering::Acquire), "a panic on order");
        self.inner.fingerprint()
    }
}

impl Instance for MoodyInstance {
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        std::thread::sleep(self.takes);
        while self.held.as_ref().is_some_and(|held| held.load(Ordering::Acquire)) {
            if self.shot.0.swap(false, Ordering::AcqRel) {
                return Err(EngineError::Interrupted);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
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
        Temper::default().start().await
    }
}

/// How a server is started.
struct Temper {
    run_limit: Duration,
    takes: Duration,
    /// One worker that is held leaves another.
    workers: u32,
    load_limit: f64,
    /// Whether there is a version 2.
    is_second: bool,
}

impl Default for Temper {
    fn default() -> Self {
        let (run_limit, takes) = (Duration::from_secs(5), Duration::ZERO);
        Self { run_limit, takes, workers: 2, load_limit: 1.0, is_second: false }
    }
}

impl Temper {
    async fn start(self) -> InProcess {
        let folder = tempfile::tempdir().unwrap();
        models::linear().write(&folder.path().join("models"));
        if self.is_second {
            let second = folder.path().join("models").join(SECOND);
            std::fs::create_dir(&second).unwrap();
            std::fs::write(second.join("model.onnx"), linear_recurrence(&ONE, &ONE, &[0.0; 2])).unwrap();
        }
        let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (models, data) = (text("models"), text("data"));
        let (limit, workers) = (self.run_limit.as_millis().to_string(), self.workers.to_string());
        let load_limit = self.load_limit.to_string();
        let keys = [
            ("http", "127.0.0.1:0"),
            ("grpc", "127.0.0.1:0"),
            ("models", &models),
            ("data", &data),
            ("run_limit_ms", &limit),
            ("workers", &workers),
            ("load_limit", &load_limit),
        ];
        let explicit = process_env("ORT_DYLIB_PATH").map(std::path::PathBuf::from);
        let path = library::find(explicit.as_deref()).expect("ONNX Runtime is there");
        let inner = OrtEngine::open(&path).expect("ONNX Runtime opens");
        let (takes, held) = (self.takes, Arc::default());
        let engine = Arc::new(Moody { inner, ruined: false.into(), takes, held });
        let parts = Parts { engine: Arc::clone(&engine) as Arc<dyn Engine> };
        let running = start(Config::with(keys).unwrap(), parts).await.expect("the server starts");
        InProcess { running, engine, client: reqwest::Client::new(), _folder: folder }
    }
}

impl InProcess {
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

    /// Whether runs of version 2 wait.
    fn hold(&self, is_held: bool) {
        self.engine.held.store(is_held, Ordering::Release);
    }

    async fn switch(&self, rig: &Rig, at_bin: Option<u64>, state: &str) -> Answer {
        let (stage, state) = ("linear".into(), state.into());
        let ask = v1::SwitchRequest { stage, version: 2, at_bin, state, ..Default::default() };
        let request = self.client.post(rig.url("/switch"));
        Answer::of(request.header("content-type", "application/json").body(json::write(&ask))).await
    }

    /// What the run says of versions that took over, or did not, once that is in the journal.
    async fn switched(&self, rig: &Rig) -> v1::Event {
        let path = format!("http://{}/v1/runs/{}/events?kind=switched", self.running.http, rig.run());
        until(LIMIT, "an event", || async {
            let events: v1::EventsReply = Answer::of(self.client.get(&path)).await.message();
            events.events.into_iter().next()
        })
        .await
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
    let server = Temper { run_limit: limit, ..Temper::default() }.start().await;
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

/// An open of version 1 where there are two.
fn first() -> v1::OpenRequest {
    v1::OpenRequest { versions: [("linear".into(), 1)].into(), ..recorded(linear()) }
}

async fn two_versions(run_limit: Duration) -> InProcess {
    Temper { run_limit, is_second: true, ..Temper::default() }.start().await
}

/// Bins of version 1, each exact and without a flag.
async fn answered(rig: &Rig, of: std::ops::Range<u64>, known: &mut Linear) {
    for k in of {
        let output = rig.send(counts(k, k, &[[1.0, 2.0]])).await;
        let got = (blocks::<2>(&output, 0), flag_names(&output));
        assert_eq!(got, (vec![known.step([1.0, 2.0])], vec![vec![]]), "bin {k}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_warmed_and_stands_still_holds_nobody_up_and_does_not_take_over() {
    let server = two_versions(Duration::from_secs(600)).await;
    let rig = server.open(&first()).await;
    let mut known = Linear::new();
    answered(&rig, 0..2, &mut known).await;
    assert_eq!(server.switch(&rig, Some(290), "warm").await.status, 200);
    server.hold(true);
    answered(&rig, 2..300, &mut known).await;
    let event = server.switched(&rig).await;
    assert_eq!((event.count, event.from_bin), (0, Some(290)));
    says(&event.detail, &["version 2 does not take over before bin 290", "256 bins behind", "keep up"]);
    server.hold(false);
    // The run that was under way comes to nothing, and the next attempt begins anew.
    assert_eq!(server.switch(&rig, Some(304), "warm").await.status, 200);
    answered(&rig, 300..304, &mut known).await;
    let output = rig.send(counts(304, 304, &[[1.0, 2.0]])).await;
    assert_eq!((blocks::<2>(&output, 0), flag_names(&output)), (vec![[5.0, 10.0]], vec![vec!["switched"]]));
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bin_of_a_take_over_waits_for_the_version_that_is_warmed_and_goes_on_without_one_that_fails() {
    let server = two_versions(Duration::from_secs(600)).await;
    let rig = Arc::new(server.open(&first()).await);
    let mut known = Linear::new();
    assert_eq!(server.switch(&rig, Some(4), "warm").await.status, 200);
    server.hold(true);
    answered(&rig, 0..4, &mut known).await;
    let sender = Arc::clone(&rig);
    let waits = tokio::spawn(async move { sender.send(counts(4, 4, &[[1.0, 2.0]])).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waits.is_finished(), "its four bins are not over");
    server.hold(false);
    let output = within("the bin", waits).await.expect("an answer");
    assert_eq!((blocks::<2>(&output, 0), flag_names(&output)), (vec![[5.0, 10.0]], vec![vec!["switched"]]));
    Arc::into_inner(rig).expect("nobody sends").close().await;
    server.stop().await;

    let server = two_versions(Duration::from_millis(300)).await;
    let rig = server.open(&first()).await;
    let mut known = Linear::new();
    assert_eq!(server.switch(&rig, Some(4), "warm").await.status, 200);
    server.hold(true);
    answered(&rig, 0..6, &mut known).await;
    let event = server.switched(&rig).await;
    assert_eq!(event.count, 0);
    says(&event.detail, &["version 2 does not take over before bin 4", "in bin 0", "time limit"]);
    server.hold(false);
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_runs_take_longer_than_a_bin_is_not_warmed_beside_another() {
    // Workers enough that it is not the load.
    let temper = Temper { takes: Duration::from_millis(15), workers: 16, ..Temper::default() };
    let server = Temper { is_second: true, ..temper }.start().await;
    let rig = server.open(&first()).await;
    let mut known = Linear::new();
    answered(&rig, 0..2, &mut known).await;
    let refused = server.switch(&rig, None, "warm").await.refused();
    let fault = refused.is(429, "overloaded", &["linear/2", "a run takes", "every 10 ms", "keep up"]);
    assert!(fault.retry_after_ms.is_some(), "{fault:?}");
    answered(&rig, 2..4, &mut known).await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_version_is_warmed_it_and_the_running_one_both_count_in_the_load() {
    // 0.2 of a thread each, and never less.
    let (takes, workers, load_limit) = (Duration::from_millis(2), 1, 0.4);
    let temper = Temper { takes, workers, load_limit, is_second: true, ..Temper::default() };
    let server = temper.start().await;
    let rig = server.open(&first()).await;
    let refused = server.switch(&rig, None, "warm").await.refused();
    refused.is(429, "overloaded", &["load would be", "load_limit"]);
    answered(&rig, 0..2, &mut Linear::new()).await;
    rig.close().await;
    // Alone it has room.
    server.open(&linear()).await.close().await;
    server.stop().await;
}
