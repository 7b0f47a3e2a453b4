//! An engine that computes y = 2x + 1 and misbehaves on order, and owners that keep what they are told.
//!
//! A row is `x`: `[value, order]`. The order is one of the constants below.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::batch::{
    Lane, LaneSpec, Onward, Owner, Pool, PoolConfig, Port, Ran, Rebuild, Row, RowFault, Silent,
};
use crate::domain::tensor::{Dtype, Tensor};
use crate::engine::{Batch, EngineError, Instance, InstanceInfo, Interrupt};

pub const GOOD: f32 = 0.0;
pub const BAD: f32 = 1.0;
pub const PANIC: f32 = 2.0;
pub const LOST: f32 = 3.0;
/// Runs until it is interrupted, or `is_over`.
pub const HANG: f32 = 4.0;
/// Runs until the engine's `stuck` gate opens, whatever interrupts it.
pub const STUCK: f32 = 5.0;
pub const NAN: f32 = 6.0;

/// No test waits longer for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Threads wait here while it is shut.
#[derive(Default)]
pub struct Gate {
    shut: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        *self.shut.lock() = true;
    }

    pub fn open(&self) {
        *self.shut.lock() = false;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.moved.wait(&mut shut);
        }
    }
}

/// What all instances of one fake model share.
#[derive(Default)]
pub struct Fake {
    /// Every run waits here first.
    pub gate: Gate,
    pub stuck: Gate,
    pub delay_us: AtomicU64,
    /// Values of the rows of each run, as they stood in the batch.
    pub batches: Mutex<Vec<Vec<f32>>>,
    pub running: AtomicUsize,
    pub rebuilds: AtomicUsize,
    pub refuse_rebuild: AtomicBool,
    /// The test has seen enough: nothing hangs any more. An interrupt that comes before its run has started is lost.
    pub is_over: AtomicBool,
    /// What a row gets added for each neighbour: 0 for an invariant model.
    pub leak: Mutex<f32>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn instance(self: &Arc<Self>) -> Box<dyn Instance> {
        let signature = crate::graph::Signature::default();
        let info = InstanceInfo { signature, device: "cpu".into(), providers: BTreeMap::new() };
        Box::new(FakeInstance { fake: Arc::clone(self), info, shot: Arc::default() })
    }

    pub fn rebuild(self: &Arc<Self>) -> Rebuild {
        let fake = Arc::clone(self);
        Arc::new(move || {
            fake.rebuilds.fetch_add(1, Ordering::SeqCst);
            if fake.refuse_rebuild.load(Ordering::SeqCst) {
                return Err(EngineError::Lost("no device".into()));
            }
            Ok(fake.instance())
        })
    }

    pub fn lane(self: &Arc<Self>, pool: &Pool, spec: LaneSpec, instances: usize) -> Arc<Lane> {
        pool.add_lane(spec, (0..instances).map(|_| self.instance()).collect(), self.rebuild())
    }

    pub fn sizes(&self) -> Vec<usize> {
        self.batches.lock().iter().map(Vec::len).collect()
    }

    /// Waits until a run has started.
    pub fn wait_running(&self) {
        until("a run has started", || self.running.load(Ordering::SeqCst) > 0);
    }
}

struct FakeInstance {
    fake: Arc<Fake>,
    info: InstanceInfo,
    shot: Arc<Shot>,
}

#[derive(Default)]
struct Shot {
    fired: Mutex<bool>,
    wake: Condvar,
}

impl Interrupt for Shot {
    fn fire(&self) {
        *self.fired.lock() = true;
        self.wake.notify_all();
    }
}

impl Instance for FakeInstance {
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        *self.shot.fired.lock() = false;
        self.fake.running.fetch_add(1, Ordering::SeqCst);
        self.fake.gate.pass();
        let outcome = self.obey(batch);
        self.fake.running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn info(&self) -> &InstanceInfo {
        &self.info
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.shot) as _
    }
}

impl FakeInstance {
    fn obey(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        let x = batch.inputs[0].values::<f32>();
        self.fake.batches.lock().push(x.chunks(2).map(|row| row[0]).collect());
        let delay = Duration::from_micros(self.fake.delay_us.load(Ordering::SeqCst));
        let t_start = Instant::now();
        while t_start.elapsed() < delay {
            std::hint::spin_loop();
        }
        let has = |order: f32| x.chunks(2).any(|row| row[1] == order);
        if has(PANIC) {
            self.fake.running.fetch_sub(1, Ordering::SeqCst);
            // No message: `resume_unwind` leaves the panic hook alone.
            std::panic::resume_unwind(Box::new("as ordered"));
        }
        if has(LOST) {
            return Err(EngineError::Lost("as ordered".into()));
        }
        if has(STUCK) {
            self.fake.stuck.pass();
        }
        if has(HANG) {
            let mut fired = self.shot.fired.lock();
            while !*fired && !self.fake.is_over.load(Ordering::SeqCst) {
                self.shot.wake.wait_for(&mut fired, Duration::from_millis(1));
            }
            return Err(EngineError::Interrupted);
        }
        if has(BAD) {
            return Err(EngineError::Run("as ordered".into()));
        }
        let rows = x.len() / 2;
        let leak = *self.fake.leak.lock() * (rows - 1) as f32;
        let y: Vec<f32> =
            x.chunks(2).map(|row| if row[1] == NAN { f32::NAN } else { 2.0 * row[0] + 1.0 + leak }).collect();
        if batch.outputs.is_empty() {
            batch.outputs.push(Tensor::zeros(Dtype::F32, &[0, 1]));
        }
        let output = &mut batch.outputs[0];
        output.shape[0] = rows;
        output.data.resize(rows * 4);
        output.values_mut::<f32>().copy_from_slice(&y);
        Ok(())
    }
}

pub fn spec(max_batch: usize) -> LaneSpec {
    LaneSpec {
        name: "fake/1".into(),
        inputs: vec![Port { name: "x".into(), dtype: Dtype::F32, row_shape: vec![2], batch_axis: Some(0) }],
        outputs: vec![Port { name: "y".into(), dtype: Dtype::F32, row_shape: vec![1], batch_axis: Some(0) }],
        max_batch,
        deterministic: false,
        run_limit: LIMIT,
    }
}

pub fn pool(workers: usize) -> Pool {
    let config = PoolConfig { rebuild_backoff: Duration::from_millis(1), ..PoolConfig::default() };
    Pool::start(workers, config, Arc::new(Silent)).expect("threads start")
}

/// A row that is due `due_ms` from `base`.
pub fn row_due(value: f32, order: f32, base: Instant, due_ms: u64) -> Box<Row> {
    let x = Tensor::from_f32(&[2], &[value, order]);
    Box::new(Row::new(vec![x], base + Duration::from_millis(due_ms)))
}

pub fn row(value: f32, order: f32) -> Box<Row> {
    row_due(value, order, Instant::now(), 0)
}

/// What an owner was told.
pub struct Told {
    pub row: Box<Row>,
    pub outcome: Result<Ran, RowFault>,
    pub thread: ThreadId,
}

impl Told {
    pub fn value(&self) -> f32 {
        self.row.inputs[0].values::<f32>()[0]
    }

    pub fn y(&self) -> f32 {
        self.row.outputs[0].values::<f32>()[0]
    }
}

/// An owner that sends what it is told, after handing the row on `onward.len()` times.
pub struct Teller {
    told: Mutex<Sender<Told>>,
    onward: Mutex<Vec<Arc<Lane>>>,
    pub gone: AtomicBool,
}

impl Teller {
    pub fn new() -> (Arc<Self>, Receiver<Told>) {
        Self::through(&[])
    }

    /// Each row that succeeds goes through these lanes next, one row after the other: for one row in flight.
    pub fn through(lanes: &[Arc<Lane>]) -> (Arc<Self>, Receiver<Told>) {
        let (sender, receiver) = channel();
        let onward = Mutex::new(lanes.iter().rev().cloned().collect());
        (Arc::new(Self { told: Mutex::new(sender), onward, gone: AtomicBool::new(false) }), receiver)
    }
}

impl Owner for Teller {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        if outcome.is_ok()
            && let Some(lane) = self.onward.lock().pop()
        {
            return Some(Onward { lane, row });
        }
        let told = Told { row, outcome, thread: std::thread::current().id() };
        let _ = self.told.lock().send(told);
        None
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

pub fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(LIMIT).expect("a row is answered within the limit")
}

pub fn all(told: &Receiver<Told>, count: usize) -> Vec<Told> {
    (0..count).map(|_| next(told)).collect()
}

/// Waits for a state that another thread brings about.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}
