//! An engine without a runtime: real arithmetic that misbehaves on order, for tests and benches of the lanes.
//! It never stands in for ONNX Runtime in tests through the network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Batch, Engine, EngineError, Instance, InstanceInfo, Interrupt, LoadOptions, ModelBytes};
use crate::domain::tensor::{Dtype, Tensor};
use crate::graph::{Signature, TensorInfo};

/// y = 2·x + h, h' = h + x, row by row; x is `[batch, C]` in f32, and so is all the rest.
///
/// Every instance of an engine follows the script of its `FakeHandle`, whatever bytes it was loaded from.
#[derive(Debug)]
pub struct FakeEngine {
    signature: Signature,
    shared: Arc<Shared>,
}

impl FakeEngine {
    /// Inputs `x`, `h`; outputs `y`, `h_next`.
    pub fn stepping(channels: usize) -> (Self, FakeHandle) {
        Self::with(channels, &["x", "h"], &["y", "h_next"])
    }

    /// Input `x`; output `y` = 2·x.
    pub fn stateless(channels: usize) -> (Self, FakeHandle) {
        Self::with(channels, &["x"], &["y"])
    }

    fn with(channels: usize, inputs: &[&str], outputs: &[&str]) -> (Self, FakeHandle) {
        let side = |names: &[&str]| {
            let dims = vec!["batch".into(), channels.into()];
            names
                .iter()
                .map(|name| TensorInfo { name: (*name).into(), dtype: Dtype::F32, dims: dims.clone() })
                .collect()
        };
        let signature = Signature { inputs: side(inputs), outputs: side(outputs) };
        let shared = Arc::<Shared>::default();
        (Self { signature, shared: Arc::clone(&shared) }, FakeHandle { shared })
    }
}

impl Engine for FakeEngine {
    fn load(&self, model: &ModelBytes, _options: &LoadOptions) -> Result<Box<dyn Instance>, EngineError> {
        let mut script = self.shared.script.lock();
        if let Some(reason) = script.refuse_load.clone() {
            return Err(EngineError::Load { model: model.name.clone(), reason });
        }
        script.loads += 1;
        let info = InstanceInfo {
            signature: self.signature.clone(),
            device: "cpu".into(),
            providers: BTreeMap::from([("FakeExecutionProvider".into(), 1)]),
        };
        let shot = Arc::new(Shot { shared: Arc::clone(&self.shared), state: Mutex::default() });
        Ok(Box::new(FakeInstance { info, shared: Arc::clone(&self.shared), shot }))
    }

    fn fingerprint(&self) -> &str {
        "fake"
    }
}

/// What the engine's instances shall do, and what they did.
#[derive(Clone, Debug)]
pub struct FakeHandle {
    shared: Arc<Shared>,
}

impl FakeHandle {
    /// Every run takes so long.
    pub fn delay(&self, delay: Duration) {
        self.script(|script| script.delay = delay);
    }

    /// A run fails if any element of its first input is `value`; so does the row alone.
    pub fn fail_on(&self, value: f32) {
        self.script(|script| script.fail_on = Some(value));
    }

    /// A run panics if any element of its first input is `value`.
    pub fn panic_on(&self, value: f32) {
        self.script(|script| script.panic_on = Some(value));
    }

    /// A run loses its instance if any element of its first input is `value`.
    pub fn lose_on(&self, value: f32) {
        self.script(|script| script.lose_on = Some(value));
    }

    /// Where the first input is `value`, the outputs of that element are NaN.
    pub fn invalid_on(&self, value: f32) {
        self.script(|script| script.invalid_on = Some(value));
    }

    /// Loads are refused with that reason.
    pub fn refuse_load(&self, reason: &str) {
        self.script(|script| script.refuse_load = Some(reason.into()));
    }

    /// Runs that begin from now on wait until `release`.
    pub fn hold(&self) {
        self.script(|script| script.is_held = true);
    }

    /// Lets the runs that wait go on.
    pub fn release(&self) {
        self.script(|script| script.is_held = false);
    }

    /// Back to good behaviour; what was counted stays.
    pub fn behave(&self) {
        self.script(|script| {
            let kept = std::mem::take(script);
            *script = Script {
                loads: kept.loads,
                running: kept.running,
                batches: kept.batches,
                ..Script::default()
            };
        });
    }

    /// Rows of each batch, in the order in which their runs began, failed ones too.
    pub fn batches(&self) -> Vec<usize> {
        self.shared.script.lock().batches.clone()
    }

    /// Instances that were made.
    pub fn loads(&self) -> usize {
        self.shared.script.lock().loads
    }

    /// Runs in progress, those that are held too.
    pub fn running(&self) -> usize {
        self.shared.script.lock().running
    }

    /// Waits until `runs` runs have begun since the engine was made; `false` if they did not within `limit`.
    pub fn wait_for_runs(&self, runs: usize, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut script = self.shared.script.lock();
        while script.batches.len() < runs {
            if self.shared.changed.wait_until(&mut script, until).timed_out() {
                return script.batches.len() >= runs;
            }
        }
        true
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock());
        self.shared.changed.notify_all();
    }
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<Script>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Script {
    delay: Duration,
    fail_on: Option<f32>,
    panic_on: Option<f32>,
    lose_on: Option<f32>,
    invalid_on: Option<f32>,
    refuse_load: Option<String>,
    is_held: bool,
    loads: usize,
    running: usize,
    batches: Vec<usize>,
}

struct FakeInstance {
    info: InstanceInfo,
    shared: Arc<Shared>,
    shot: Arc<Shot>,
}

/// An instance's interrupt.
struct Shot {
    shared: Arc<Shared>,
    state: Mutex<ShotState>,
}

#[derive(Default)]
struct ShotState {
    is_running: bool,
    was_fired: bool,
}

impl Interrupt for Shot {
    fn fire(&self) {
        // the script's lock first, as in a run, so that a run that is about to wait cannot miss it
        let _script = self.shared.script.lock();
        let mut state = self.state.lock();
        state.was_fired = state.is_running;
        self.shared.changed.notify_all();
    }
}

/// A run in progress; ends with it, also by panic.
struct Running<'a>(&'a FakeInstance);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut script = self.0.shared.script.lock();
        script.running -= 1;
        *self.0.shot.state.lock() = ShotState::default();
        self.0.shared.changed.notify_all();
    }
}

impl FakeInstance {
    /// Waits as the script says; `false` if it was interrupted.
    fn wait(&self) -> bool {
        let began = Instant::now();
        let mut script = self.shared.script.lock();
        loop {
            if self.shot.state.lock().was_fired {
                return false;
            }
            let until = began + script.delay;
            if script.is_held {
                self.shared.changed.wait(&mut script);
            } else if Instant::now() < until {
                let _ = self.shared.changed.wait_until(&mut script, until);
            } else {
                return true;
            }
        }
    }

    fn check(&self, inputs: &[Tensor]) -> Result<(), EngineError> {
        let wanted = &self.info.signature.inputs;
        let fits = |(info, tensor): (&TensorInfo, &Tensor)| {
            tensor.dtype == info.dtype
                && matches!(tensor.shape[..], [rows, channels] if rows == inputs[0].shape[0] && info.dims[1] == channels.into())
        };
        if inputs.len() == wanted.len() && wanted.iter().zip(inputs).all(fits) {
            return Ok(());
        }
        let list = |all: Vec<String>| all.join(", ");
        Err(EngineError::Run(format!(
            "expected {}, found {}",
            list(wanted.iter().map(TensorInfo::to_string).collect()),
            list(inputs.iter().map(|tensor| format!("{} {:?}", tensor.dtype, tensor.shape)).collect()),
        )))
    }
}

impl Instance for FakeInstance {
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        {
            let mut script = self.shared.script.lock();
            script.running += 1;
            script.batches.push(batch.inputs.first().and_then(|x| x.shape.first()).copied().unwrap_or(0));
            self.shot.state.lock().is_running = true;
            self.shared.changed.notify_all();
        }
        let _running = Running(self);
        self.check(&batch.inputs)?;
        if !self.wait() {
            return Err(EngineError::Interrupted);
        }
        let x = &batch.inputs[0];
        let (panics, loses, fails, invalid) = {
            let script = self.shared.script.lock();
            let has = |value: Option<f32>| value.is_some_and(|value| x.values::<f32>().contains(&value));
            (has(script.panic_on), has(script.lose_on), has(script.fail_on), script.invalid_on)
        };
        if panics {
            panic!("the script says so");
        } else if loses {
            return Err(EngineError::Lost("the script says so".into()));
        } else if fails {
            return Err(EngineError::Run("the script says so".into()));
        }

        let h = batch.inputs.get(1);
        batch.outputs.resize_with(self.info.signature.outputs.len(), || Tensor::zeros(Dtype::F32, &[0]));
        for (number, output) in batch.outputs.iter_mut().enumerate() {
            output.dtype = Dtype::F32;
            output.shape.clone_from(&x.shape);
            output.data.resize(x.data.bytes().len());
            let factor = if number == 0 { 2.0 } else { 1.0 };
            for (at, (out, &x)) in output.values_mut::<f32>().iter_mut().zip(x.values::<f32>()).enumerate() {
                let h = h.map_or(0.0, |h| h.values::<f32>()[at]);
                *out = if Some(x) == invalid { f32::NAN } else { factor * x + h };
            }
        }
        Ok(())
    }

    fn info(&self) -> &InstanceInfo {
        &self.info
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.shot) as Arc<dyn Interrupt>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Device;

    const LIMIT: Duration = Duration::from_secs(5);

    fn made(engine: &FakeEngine) -> Result<Box<dyn Instance>, EngineError> {
        let model = ModelBytes { name: "m/1".into(), onnx: Arc::new([]), external: BTreeMap::new() };
        engine.load(&model, &LoadOptions { device: Device::Cpu, intra_threads: 1 })
    }

    fn batch(x: &[f32], h: &[f32]) -> Batch {
        let tensor = |values: &[f32]| Tensor::from_f32(&[values.len(), 1], values);
        Batch { inputs: vec![tensor(x), tensor(h)], outputs: Vec::new() }
    }

    #[test]
    fn it_steps_each_row_by_its_own_arithmetic_and_remembers_batches() {
        let (engine, handle) = FakeEngine::stepping(1);
        let mut instance = made(&engine).unwrap();
        let mut rows = batch(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]);
        instance.run(&mut rows).unwrap();
        assert_eq!(rows.outputs[0].values::<f32>(), [12.0, 24.0, 36.0]);
        assert_eq!(rows.outputs[1].values::<f32>(), [11.0, 22.0, 33.0]);
        instance.run(&mut batch(&[1.0], &[0.0])).unwrap();
        assert_eq!((handle.batches(), handle.loads(), handle.running()), (vec![3, 1], 1, 0));
    }

    #[test]
    fn it_misbehaves_on_the_row_it_was_told_and_goes_on() {
        let (engine, handle) = FakeEngine::stepping(1);
        let mut instance = made(&engine).unwrap();
        handle.fail_on(7.0);
        handle.panic_on(8.0);
        handle.lose_on(9.0);
        handle.invalid_on(6.0);
        assert!(matches!(instance.run(&mut batch(&[1.0, 7.0], &[0.0; 2])), Err(EngineError::Run(_))));
        assert!(matches!(instance.run(&mut batch(&[9.0], &[0.0])), Err(EngineError::Lost(_))));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            instance.run(&mut batch(&[8.0], &[0.0]))
        }));
        assert!(caught.is_err());
        let mut rows = batch(&[6.0, 1.0], &[0.0; 2]);
        instance.run(&mut rows).unwrap();
        assert!(rows.outputs[0].values::<f32>()[0].is_nan() && rows.outputs[0].values::<f32>()[1] == 2.0);
        handle.behave();
        instance.run(&mut batch(&[7.0, 8.0, 9.0], &[0.0; 3])).unwrap();
        assert_eq!((handle.batches().len(), handle.running()), (5, 0));
        handle.refuse_load("no");
        assert_eq!(made(&engine).err().unwrap().to_string(), "m/1: no");
    }

    #[test]
    fn a_wrong_shape_is_an_error_of_the_run() {
        let (engine, _) = FakeEngine::stepping(2);
        let refused = made(&engine).unwrap().run(&mut batch(&[1.0], &[1.0])).unwrap_err().to_string();
        assert_eq!(
            refused,
            "run failed: expected f32 [batch, 2], f32 [batch, 2], found f32 [1, 1], f32 [1, 1]"
        );
    }

    #[test]
    fn a_held_run_waits_until_it_is_released_or_interrupted() {
        let (engine, handle) = FakeEngine::stepping(1);
        let mut instance = made(&engine).unwrap();
        let interrupt = instance.interrupt();
        interrupt.fire();
        handle.hold();
        std::thread::scope(|threads| {
            let held = threads.spawn(|| {
                let first = instance.run(&mut batch(&[1.0], &[0.0]));
                (first, instance.run(&mut batch(&[1.0], &[0.0])))
            });
            assert!(handle.wait_for_runs(1, LIMIT) && handle.running() == 1);
            interrupt.fire();
            assert!(handle.wait_for_runs(2, LIMIT));
            handle.release();
            let (first, second) = held.join().unwrap();
            assert!(matches!(first, Err(EngineError::Interrupted)) && second.is_ok());
        });
    }

    #[test]
    fn a_delayed_run_takes_its_time() {
        let (engine, handle) = FakeEngine::stateless(1);
        handle.delay(Duration::from_millis(30));
        let began = Instant::now();
        let x = Tensor::from_f32(&[1, 1], &[4.0]);
        let mut rows = Batch { inputs: vec![x], outputs: Vec::new() };
        made(&engine).unwrap().run(&mut rows).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(rows.outputs[0].values::<f32>(), [8.0]);
    }
}
