//! One session's way through its plan, bin after bin: the rows, and the state that they carry.
//! Enters: a closed bin's input rows, then each stage's answered row. Leaves: the next stage's row, at last the outputs.
//! Owns: one row per stage; the committed state and the windows' bins lie in the rows' own inputs. Must hold: state moves
//! only by `commit`, and only if every stage that ran gave finite numbers; a stage that did not run in a bin has no value
//! in it; nothing is allocated per bin once the first has passed.
//! Must not know: lanes' queues, sessions, the wire.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::{Feed, Init, Plan, Stage};
use super::successor::{Outgone, Successor};
use super::window::Window;
use crate::batch::{Onward, Ran, Row, RowFault};
use crate::domain::settings::SwitchState;
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
    statics: Arc<[Tensor]>,
    /// By stage; `None` while it is under way.
    rows: Vec<Option<Box<Row>>>,
    /// By stage: where it stands in its window, if it has one.
    windows: Vec<Option<Window>>,
    /// By stage: what it said in the bin at hand.
    said: Vec<Said>,
    at: usize,
    due: Instant,
    /// Time that this bin's rows have waited and computed so far.
    pub times: Times,
}

/// What a stage said in one bin.
#[derive(Clone, Debug)]
enum Said {
    /// Its outputs stand in its row.
    Outputs,
    /// It was not run: no window of it ends with this bin, or a stage that feeds it said nothing.
    Nothing,
    /// It failed, or a stage that feeds it did: why.
    Invalid(String),
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
    pub fn new(plan: Arc<Plan>, statics: Vec<Tensor>, now: Instant) -> Self {
        let rows = plan.stages.iter().map(|stage| Some(Box::new(row_of(stage, &statics, now)))).collect();
        let windows = plan.stages.iter().map(|stage| stage.window.map(Window::new)).collect();
        let said = vec![Said::Nothing; plan.stages.len()];
        let statics = statics.into();
        Self { plan, statics, rows, windows, said, at: 0, due: now, times: Times::default() }
    }

    /// The plan that it travels.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The stage whose row is under way.
    pub fn stage(&self) -> &Stage {
        &self.plan.stages[self.at]
    }

    /// The static inputs, by the plan's numbers.
    pub fn statics(&self) -> Arc<[Tensor]> {
        Arc::clone(&self.statics)
    }

    /// Another version takes over in its stage; it was made for the plan at hand. Only between bins.
    pub fn succeed(&mut self, by: Successor) -> Outgone {
        let Successor { plan, stage, mut row, window, kept, state } = by;
        if let Some(old) = &self.rows[stage] {
            for (from, to) in kept {
                row.inputs[to].clone_from(&old.inputs[from]);
            }
        }
        if state != SwitchState::Keep {
            self.windows[stage] = window;
        }
        let row = self.rows[stage].replace(row);
        Outgone { _plan: std::mem::replace(&mut self.plan, plan), _row: row }
    }

    /// Every stage's state back to initial, every window empty. Only between bins.
    pub fn reset(&mut self) {
        self.break_windows();
        for (stage, row) in self.plan.stages.iter().zip(&mut self.rows) {
            begin_anew(stage, row.as_mut().expect("rows are home between bins"), &self.statics);
        }
    }

    /// What comes next is not joined to what came before: bins were skipped, or an epoch begins. States stay.
    pub fn break_windows(&mut self) {
        self.windows.iter_mut().flatten().for_each(Window::empty);
    }

    /// Starts a bin; `inputs` in the order of the plan's inputs.
    pub fn begin(&mut self, inputs: &[InputRow], due: Instant) -> Next {
        self.at = 0;
        self.due = due;
        self.times = Times::default();
        self.said.iter_mut().for_each(|said| *said = Said::Nothing);
        for ((stage, row), window) in self.plan.stages.iter().zip(&mut self.rows).zip(&mut self.windows) {
            lay(row.as_mut().expect("rows are home between bins"), &stage.feeds, window.as_mut(), inputs);
        }
        self.set_out()
    }

    /// A stage's row came back.
    pub fn arrived(&mut self, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Next {
        match outcome {
            Ok(ran) => {
                self.times.queued += ran.queued;
                self.times.compute += ran.compute;
                self.said[self.at] = match unsound(&self.plan.stages[self.at], &row) {
                    None => Said::Outputs,
                    Some(reason) => Said::Invalid(reason),
                };
            }
            Err(RowFault::Stopped | RowFault::Gone) => {
                self.rows[self.at] = Some(row);
                return Next::Stopped;
            }
            Err(fault) => self.said[self.at] = Said::Invalid(fault.to_string()),
        }
        self.rows[self.at] = Some(row);
        self.at += 1;
        self.set_out()
    }

    /// The next stage that can be run.
    fn set_out(&mut self) -> Next {
        while self.at < self.plan.stages.len() {
            let at = self.at;
            let stage = &self.plan.stages[at];
            let window = self.windows[at].as_mut();
            let Some(slot) = Slot::of(window.as_deref()) else {
                self.at += 1; // a bin that its window passes over
                continue;
            };
            if let Some(said) = silenced(&self.plan.stages, stage, &self.said) {
                // There is no value that could stand in the window for this bin.
                window.into_iter().for_each(Window::empty);
                self.said[at] = said;
                self.at += 1;
                continue;
            }
            let mut row = self.rows[at].take().expect("a stage's row is home until it sets out");
            let given = stage.feeds.iter().filter_map(|feed| match feed {
                Feed::Stage { stage, port } => {
                    Some(&self.rows[*stage].as_ref().expect("earlier stages are home").outputs[*port])
                }
                _ => None,
            });
            lay_given(&mut row, &stage.feeds, slot, given);
            if window.is_none_or(Window::enter) {
                row.due = self.due;
                return Next::Stage(Onward { lane: Arc::clone(&stage.lane), row });
            }
            self.rows[at] = Some(row);
            self.at += 1;
        }
        Next::Done
    }

    /// Appends this bin's values to `columns` (in the order of the plan's outputs, `None` where not wanted).
    pub fn read_out(&self, columns: &mut [Option<Column>]) {
        for (output, column) in columns.iter_mut().enumerate() {
            let Some(column) = column else { continue };
            match self.value(output) {
                Some(value) => column.push(value),
                None => column.push_nan(),
            }
        }
    }

    /// What an output, by the plan's number, gave in this bin. Before `commit`.
    pub fn value(&self, output: usize) -> Option<&Tensor> {
        let source = self.plan.sources.get(output)?;
        match (&self.said[source.stage], &self.rows[source.stage]) {
            (Said::Outputs, Some(row)) => Some(&row.outputs[source.port]),
            _ => None,
        }
    }

    /// What a stage gave in this bin as that output; `None`: nothing. Before `commit`.
    pub(super) fn gave(&self, stage: usize, output: &str) -> Option<&Tensor> {
        let row = self.rows[stage].as_ref().filter(|_| matches!(self.said[stage], Said::Outputs))?;
        let output = self.plan.stages[stage].version.output(output)?;
        row.outputs.get(output.port)
    }

    /// Why this bin is invalid: the first stage that failed and its reason.
    pub fn fault(&self) -> Option<(usize, &str)> {
        self.said.iter().enumerate().find_map(|(stage, said)| match said {
            Said::Invalid(reason) => Some((stage, reason.as_str())),
            Said::Outputs | Said::Nothing => None,
        })
    }

    /// Whether any stage gave outputs in this bin.
    pub fn gave_something(&self) -> bool {
        self.said.iter().any(|said| matches!(said, Said::Outputs))
    }

    /// Whether a window of some stage has not been full since it began.
    pub fn is_warming_up(&self) -> bool {
        self.windows.iter().flatten().any(Window::is_warming_up)
    }

    /// Takes over the state that the stages that ran have proposed. After `read_out`, and only if there is no `fault`.
    pub fn commit(&mut self) {
        for ((stage, row), said) in self.plan.stages.iter().zip(&mut self.rows).zip(&self.said) {
            if !matches!(said, Said::Outputs) {
                continue;
            }
            carry(stage, row.as_mut().expect("rows are home between bins"));
        }
    }
}

/// Which output of a stage's row is not a finite number, if one.
pub(super) fn unsound(stage: &Stage, row: &Row) -> Option<String> {
    let bad = row.outputs.iter().position(|tensor| !tensor.is_finite())?;
    Some(format!("output `{}` is not finite", stage.lane.spec().outputs[bad].name))
}

/// The state that a stage's row proposes becomes the one that it carries.
pub(super) fn carry(stage: &Stage, row: &mut Row) {
    for state in &stage.states {
        // Why swap: the run after next overwrites what lies in `outputs`; nothing is copied.
        std::mem::swap(&mut row.inputs[state.input_port], &mut row.outputs[state.output_port]);
    }
}

/// A stage's row at its beginning: states at their initial values, an empty window.
pub(super) fn row_of(stage: &Stage, statics: &[Tensor], now: Instant) -> Row {
    let ports = stage.lane.spec().inputs.iter().zip(&stage.feeds);
    let inputs = ports.map(|(port, feed)| match feed {
        Feed::Static(number) => statics[*number].clone(),
        _ => Tensor::zeros(port.dtype, &port.row_shape),
    });
    let mut row = Row::new(inputs.collect(), now);
    begin_anew(stage, &mut row, statics);
    row
}

/// States to their initial values.
pub(super) fn begin_anew(stage: &Stage, row: &mut Row, statics: &[Tensor]) {
    for state in &stage.states {
        row.inputs[state.input_port].clone_from(match &state.init {
            Init::Tensor(tensor) => tensor,
            Init::Static(number) => &statics[*number],
        });
    }
}

/// What a stage has to say where a stage that feeds it gave no outputs in this bin; `None`: it can be run.
fn silenced(stages: &[Stage], stage: &Stage, said: &[Said]) -> Option<Said> {
    let before = || {
        stage.feeds.iter().filter_map(|feed| match feed {
            Feed::Stage { stage, .. } => Some(*stage),
            _ => None,
        })
    };
    let failed = before().find(|&at| matches!(said[at], Said::Invalid(_)));
    if let Some(at) = failed {
        return Some(Said::Invalid(format!("stage `{}` gave nothing", stages[at].name)));
    }
    before().any(|at| matches!(said[at], Said::Nothing)).then_some(Said::Nothing)
}

/// Where the bin at hand stands in the inputs of a row that hold several.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    place: usize,
    bins: usize,
}

impl Slot {
    /// Without a window a row holds one bin. `None`: the window passes the bin over.
    fn of(window: Option<&Window>) -> Option<Self> {
        match window {
            None => Some(Self { place: 0, bins: 1 }),
            Some(window) => Some(Self { place: window.place()?, bins: window.size() }),
        }
    }

    /// The bin's elements in one of those tensors.
    fn range(self, tensor: &Tensor) -> Range<usize> {
        let one = tensor.elements() / self.bins;
        self.place * one..(self.place + 1) * one
    }
}

/// Makes room for a bin in a stage's row and lays the streamed inputs there, by the plan's numbers; answers where.
/// `None`: the window passes the bin over.
pub(super) fn lay(
    row: &mut Row,
    feeds: &[Feed],
    mut window: Option<&mut Window>,
    inputs: &[InputRow],
) -> Option<Slot> {
    if let Some(window) = &mut window {
        window.open(row, |port| feeds[port].slides());
    }
    let slot = Slot::of(window.as_deref())?;
    for (tensor, feed) in row.inputs.iter_mut().zip(feeds) {
        let at = slot.range(tensor);
        match feed {
            Feed::Input(number) => write(tensor, at, &inputs[*number].values),
            Feed::Mask(number) => write_mask(tensor, at, &inputs[*number].mask),
            Feed::Stage { .. } | Feed::State | Feed::Static(_) | Feed::Nothing => {}
        }
    }
    Some(slot)
}

/// Lays what earlier stages gave in that bin beside it, in the order of the ports that they feed.
pub(super) fn lay_given<'a>(
    row: &mut Row,
    feeds: &[Feed],
    slot: Slot,
    given: impl IntoIterator<Item = &'a Tensor>,
) {
    let ports = row.inputs.iter_mut().zip(feeds).filter(|(_, feed)| matches!(feed, Feed::Stage { .. }));
    for ((tensor, _), given) in ports.zip(given) {
        let at = slot.range(tensor);
        copy(tensor, at, given);
    }
}

/// Writes an input's values in the port's dtype; an absent input is 0.
fn write(tensor: &mut Tensor, at: Range<usize>, values: &[f32]) {
    if values.is_empty() {
        return clear(tensor, at);
    }
    match tensor.dtype {
        Dtype::F32 => tensor.values_mut::<f32>()[at].copy_from_slice(values),
        _ => convert(tensor, at, values.iter().copied()),
    }
}

/// Writes values one by one in the port's dtype.
fn convert(tensor: &mut Tensor, at: Range<usize>, values: impl Iterator<Item = f32>) {
    match tensor.dtype {
        Dtype::F32 => put::<f32>(tensor, at, values, |x| x),
        Dtype::F64 => put::<f64>(tensor, at, values, f64::from),
        Dtype::F16 => put::<u16>(tensor, at, values, |x| half::f16::from_f32(x).to_bits()),
        Dtype::Bf16 => put::<u16>(tensor, at, values, |x| half::bf16::from_f32(x).to_bits()),
        Dtype::I8 => put::<i8>(tensor, at, values, |x| x as i8),
        Dtype::I16 => put::<i16>(tensor, at, values, |x| x as i16),
        Dtype::I32 => put::<i32>(tensor, at, values, |x| x as i32),
        Dtype::I64 => put::<i64>(tensor, at, values, |x| x as i64),
        Dtype::U8 => put::<u8>(tensor, at, values, |x| x as u8),
        Dtype::U16 => put::<u16>(tensor, at, values, |x| x as u16),
        Dtype::U32 => put::<u32>(tensor, at, values, |x| x as u32),
        Dtype::U64 => put::<u64>(tensor, at, values, |x| x as u64),
        Dtype::Bool => put::<u8>(tensor, at, values, |x| u8::from(x != 0.0)),
    }
}

fn put<T: bytemuck::Pod>(
    tensor: &mut Tensor,
    at: Range<usize>,
    values: impl Iterator<Item = f32>,
    convert: impl Fn(f32) -> T,
) {
    tensor.values_mut::<T>()[at].iter_mut().zip(values).for_each(|(slot, value)| *slot = convert(value));
}

fn clear(tensor: &mut Tensor, at: Range<usize>) {
    let size = tensor.dtype.size_bytes();
    tensor.data.bytes_mut()[at.start * size..at.end * size].fill(0);
}

/// Writes a mask in the port's dtype: 1 is good, 0 where an absent input has none.
fn write_mask(tensor: &mut Tensor, at: Range<usize>, mask: &[bool]) {
    if mask.is_empty() {
        return clear(tensor, at);
    }
    match tensor.dtype {
        Dtype::Bool | Dtype::U8 | Dtype::I8 => {
            let slots = &mut tensor.values_mut::<u8>()[at];
            slots.iter_mut().zip(mask).for_each(|(slot, &good)| *slot = u8::from(good));
        }
        _ => convert(tensor, at, mask.iter().map(|&good| f32::from(u8::from(good)))),
    }
}

/// Copies a stage's output into another's input; the plan has checked that they are of one kind and size.
fn copy(to: &mut Tensor, at: Range<usize>, from: &Tensor) {
    let size = to.dtype.size_bytes();
    to.data.bytes_mut()[at.start * size..at.end * size].copy_from_slice(from.data.bytes());
}
