//! One session's way through its plan, bin after bin: the rows, and the state that they carry.
//! Enters: a closed bin's input rows, then each stage's answered row. Leaves: the next stage's row, at last the outputs.
//! Owns: one row per stage and the committed state, which lies in the rows' own inputs. Must hold: state moves only by
//! `commit`, and only if every stage gave finite numbers; nothing is allocated per bin once the first has passed.
//! Must not know: lanes' queues, sessions, the wire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::{Feed, Init, Plan};
use crate::batch::{Onward, Ran, Row, RowFault};
use crate::domain::tensor::{Dtype, Tensor};
use crate::readout::Column;
use crate::signal::step::InputRow;

/// What happens after a row came back.
pub enum Next {
    /// Another stage is to be run.
    Stage(Onward),
    /// The bin has passed every stage.
    Done,
    /// The pool stopped before the bin had passed; its state is as before the bin.
    Stopped,
}

/// The way of a session's bins through its plan.
pub struct Journey {
    plan: Arc<Plan>,
    statics: Vec<Tensor>,
    /// By stage; `None` while it is under way.
    rows: Vec<Option<Box<Row>>>,
    /// By stage: why it gave nothing for this bin.
    invalid: Vec<Option<String>>,
    at: usize,
    due: Instant,
    /// Time that this bin's rows have waited and computed so far.
    pub times: Times,
}

/// Where a bin's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// In lanes' queues.
    pub queued: Duration,
    /// In engines.
    pub compute: Duration,
}

impl Journey {
    /// A journey at its beginning: states at their initial values. `statics` by plan's static number.
    pub fn new(plan: Arc<Plan>, statics: Vec<Tensor>) -> Self {
        let now = Instant::now();
        let rows = plan
            .stages
            .iter()
            .map(|stage| {
                let inputs = stage
                    .lane
                    .spec()
                    .inputs
                    .iter()
                    .zip(&stage.feeds)
                    .map(|(port, feed)| match feed {
                        Feed::Static(number) => statics[*number].clone(),
                        _ => Tensor::zeros(port.dtype, &port.row_shape),
                    })
                    .collect();
                Some(Box::new(Row::new(inputs, now)))
            })
            .collect();
        let stages = plan.stages.len();
        let mut journey = Self {
            plan,
            statics,
            rows,
            invalid: vec![None; stages],
            at: 0,
            due: now,
            times: Times::default(),
        };
        journey.reset();
        journey
    }

    /// Every stage's state back to initial. Only between bins.
    pub fn reset(&mut self) {
        for (stage, row) in self.plan.stages.iter().zip(&mut self.rows) {
            let row = row.as_mut().expect("rows are home between bins");
            for state in &stage.states {
                row.inputs[state.input_port].clone_from(match &state.init {
                    Init::Tensor(tensor) => tensor,
                    Init::Static(number) => &self.statics[*number],
                });
            }
        }
    }

    /// Starts a bin; `inputs` in the order of the plan's inputs.
    pub fn begin(&mut self, inputs: &[InputRow], due: Instant) -> Next {
        self.at = 0;
        self.due = due;
        self.times = Times::default();
        self.invalid.iter_mut().for_each(|reason| *reason = None);
        for (stage, row) in self.plan.stages.iter().zip(&mut self.rows) {
            let row = row.as_mut().expect("rows are home between bins");
            for (tensor, feed) in row.inputs.iter_mut().zip(&stage.feeds) {
                match feed {
                    Feed::Input(number) => write(tensor, &inputs[*number].values),
                    Feed::Mask(number) => write_mask(tensor, &inputs[*number].mask),
                    Feed::Stage { .. } | Feed::State | Feed::Static(_) | Feed::Nothing => {}
                }
            }
        }
        self.set_out()
    }

    /// A stage's row came back.
    pub fn arrived(&mut self, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Next {
        match outcome {
            Ok(ran) => {
                self.times.queued += ran.queued;
                self.times.compute += ran.compute;
                if let Some(bad) = row.outputs.iter().position(|tensor| !tensor.is_finite()) {
                    let port = &self.plan.stages[self.at].lane.spec().outputs[bad];
                    self.invalid[self.at] = Some(format!("output `{}` is not finite", port.name));
                }
            }
            Err(RowFault::Stopped | RowFault::Gone) => {
                self.rows[self.at] = Some(row);
                return Next::Stopped;
            }
            Err(fault) => self.invalid[self.at] = Some(fault.to_string()),
        }
        self.rows[self.at] = Some(row);
        self.at += 1;
        self.set_out()
    }

    /// The next stage that can be run.
    fn set_out(&mut self) -> Next {
        while self.at < self.plan.stages.len() {
            let stage = &self.plan.stages[self.at];
            let lamed = stage.feeds.iter().find_map(|feed| match feed {
                Feed::Stage { stage, .. } if self.invalid[*stage].is_some() => Some(*stage),
                _ => None,
            });
            if let Some(cause) = lamed {
                self.invalid[self.at] =
                    Some(format!("stage `{}` gave nothing", self.plan.stages[cause].name));
                self.at += 1;
                continue;
            }
            let mut row = self.rows[self.at].take().expect("a stage's row is home until it sets out");
            for (tensor, feed) in row.inputs.iter_mut().zip(&stage.feeds) {
                if let Feed::Stage { stage, port } = feed {
                    let source = self.rows[*stage].as_ref().expect("earlier stages are home");
                    copy(tensor, &source.outputs[*port]);
                }
            }
            row.due = self.due;
            return Next::Stage(Onward { lane: Arc::clone(&stage.lane), row });
        }
        Next::Done
    }

    /// Appends this bin's values to `columns` (in the order of the plan's outputs, `None` where not wanted).
    pub fn read_out(&self, columns: &mut [Option<Column>]) {
        for (source, column) in self.plan.sources.iter().zip(columns) {
            let Some(column) = column else { continue };
            match (&self.invalid[source.stage], &self.rows[source.stage]) {
                (None, Some(row)) => column.push(&row.outputs[source.port]),
                _ => column.push_invalid(),
            }
        }
    }

    /// Why this bin is invalid: the first stage that failed and its reason.
    pub fn fault(&self) -> Option<(usize, &str)> {
        self.invalid.iter().enumerate().find_map(|(stage, reason)| Some((stage, reason.as_deref()?)))
    }

    /// Takes over the state that the stages proposed. After `read_out`, and only if there is no `fault`.
    pub fn commit(&mut self) {
        for (stage, row) in self.plan.stages.iter().zip(&mut self.rows) {
            let row = row.as_mut().expect("rows are home between bins");
            for state in &stage.states {
                // Why swap: the run after next overwrites what lies in `outputs`; nothing is copied.
                std::mem::swap(&mut row.inputs[state.input_port], &mut row.outputs[state.output_port]);
            }
        }
    }
}

/// Writes an input's values in the port's dtype; an absent input is 0.
fn write(tensor: &mut Tensor, values: &[f32]) {
    if values.is_empty() {
        tensor.data.bytes_mut().fill(0);
        return;
    }
    match tensor.dtype {
        Dtype::F32 => tensor.values_mut::<f32>().copy_from_slice(values),
        Dtype::F64 => put::<f64>(tensor, values, f64::from),
        Dtype::F16 => put::<u16>(tensor, values, |x| half::f16::from_f32(x).to_bits()),
        Dtype::Bf16 => put::<u16>(tensor, values, |x| half::bf16::from_f32(x).to_bits()),
        Dtype::I8 => put::<i8>(tensor, values, |x| x as i8),
        Dtype::I16 => put::<i16>(tensor, values, |x| x as i16),
        Dtype::I32 => put::<i32>(tensor, values, |x| x as i32),
        Dtype::I64 => put::<i64>(tensor, values, |x| x as i64),
        Dtype::U8 => put::<u8>(tensor, values, |x| x as u8),
        Dtype::U16 => put::<u16>(tensor, values, |x| x as u16),
        Dtype::U32 => put::<u32>(tensor, values, |x| x as u32),
        Dtype::U64 => put::<u64>(tensor, values, |x| x as u64),
        Dtype::Bool => put::<u8>(tensor, values, |x| u8::from(x != 0.0)),
    }
}

fn put<T: bytemuck::Pod>(tensor: &mut Tensor, values: &[f32], convert: impl Fn(f32) -> T) {
    tensor.values_mut::<T>().iter_mut().zip(values).for_each(|(slot, &value)| *slot = convert(value));
}

/// Writes a mask in the port's dtype: 1 is good, 0 where an absent input has none.
fn write_mask(tensor: &mut Tensor, mask: &[bool]) {
    if mask.is_empty() {
        tensor.data.bytes_mut().fill(0);
        return;
    }
    match tensor.dtype {
        Dtype::Bool | Dtype::U8 | Dtype::I8 => {
            tensor.values_mut::<u8>().iter_mut().zip(mask).for_each(|(slot, &good)| *slot = u8::from(good));
        }
        _ => {
            let as_numbers: Vec<f32> = mask.iter().map(|&good| f32::from(u8::from(good))).collect();
            write(tensor, &as_numbers);
        }
    }
}

/// Copies a stage's output into another's input; the plan has checked that they are of one kind and size.
fn copy(to: &mut Tensor, from: &Tensor) {
    to.data.bytes_mut().copy_from_slice(from.data.bytes());
}
