//! One request to one version, without a session: named tensors to rows, and their answers to named tensors.
//! Must hold: what does not fit is told with tensor, expected and found before a row is made; rows without a session
//! are due later than any session's, so that they take nobody's turn, and none of them is run on a caller's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::batch::{Onward, Owner, Place, Port, Ran, Row, RowFault, outputs_of, repeated, rows_of};
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::{Fault, Kind, clip, there_is};
use crate::registry::ready::ReadyVersion;
use crate::registry::surface::Initial;

/// When a row without a session is due: behind all rows of sessions, in the order of arrival among its like.
const DUE_AFTER: Duration = Duration::from_secs(3600);

/// How much one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows, beside the model's `max_batch`.
    pub rows: usize,
    /// Bytes that tensors without a batch axis may take once each row holds them.
    pub shared_bytes: usize,
}

/// A request that fits its version.
pub struct OneShot {
    version: Arc<ReadyVersion>,
    /// In port order.
    inputs: Vec<Input>,
    n: usize,
    /// Names as asked, and their ports.
    outputs: Vec<(String, usize)>,
}

/// What fills a port.
enum Input {
    /// As it was given, with all rows.
    Whole(Tensor),
    /// One row, the same for all.
    Row(Tensor),
}

/// What a given name means.
enum Named {
    /// This input port.
    Port(usize),
    /// What these ports start from, where they are not given themselves.
    Start(Vec<usize>),
}

impl OneShot {
    /// Binds tensors and wanted outputs to a version's ports. A tensor has the graph's shape, with n rows along its
    /// batch axis, the same n for all. Names are the graph's, or the manifest's for inputs, statics and outputs; states
    /// that are not given start from their initial value, masks from all good. Without wanted outputs: all but states
    /// that the manifest does not declare as outputs.
    /// Errors: `not_found` (output), `invalid` (names of inputs, dtypes, shapes, rows), `too_large`.
    pub fn bind(
        version: Arc<ReadyVersion>,
        given: BTreeMap<String, Tensor>,
        wanted: &[String],
        limits: Limits,
    ) -> Result<Self, Fault> {
        let outputs = outputs_named(&version, wanted)?;
        let ports = version.input_ports();
        let mut filled: Vec<Option<Tensor>> = vec![None; ports.len()];
        let mut starts = Vec::new();
        let mut rows: Option<(String, usize)> = None;
        for (name, tensor) in given {
            match named(&version, &name)? {
                Named::Port(at) => {
                    agree(&ports[at], &name, &tensor, &mut rows)?;
                    if filled[at].replace(tensor).is_some() {
                        let found = format!("`{}` again under another name", ports[at].name);
                        return Err(Fault::mismatch(name, "each tensor once", found));
                    }
                }
                Named::Start(at) => starts.push((name, at, tensor)),
            }
        }
        for (name, at, tensor) in starts {
            for at in at {
                agree(&ports[at], &name, &tensor, &mut rows)?;
                filled[at].get_or_insert_with(|| tensor.clone());
            }
        }
        let (by, n) = rows.unwrap_or_else(|| ("inputs".into(), 1));
        let bound = version.lane.spec().max_batch.max(1);
        if n > bound.min(limits.rows) {
            let which = if bound <= limits.rows { "max_batch" } else { "queue" };
            let expected = format!("at most {} rows ({which})", bound.min(limits.rows));
            return Err(Fault::mismatch(by, expected, n.to_string()));
        }
        let shared = ports.iter().zip(&filled).filter(|(port, _)| port.batch_axis.is_none());
        let shared_bytes: usize = shared.flat_map(|(_, tensor)| tensor).map(|t| t.data.bytes().len()).sum();
        if shared_bytes.saturating_mul(n) > limits.shared_bytes {
            let detail = format!(
                "tensors without a batch axis take {shared_bytes} bytes for each of {n} rows, over {} in all; send fewer rows",
                limits.shared_bytes
            );
            return Err(Fault::new(Kind::TooLarge, detail));
        }
        let is_given: Vec<bool> = filled.iter().map(Option::is_some).collect();
        let inputs = filled.into_iter().enumerate().map(|(at, tensor)| match tensor {
            Some(tensor) => Ok(Input::Whole(tensor)),
            None => left_out(&version, at, &is_given).map(Input::Row),
        });
        let inputs = inputs.collect::<Result<_, Fault>>()?;
        Ok(Self { version, inputs, n, outputs })
    }

    /// How many rows it has.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Gives each row its place; there are as many as rows. Errors: `internal`.
    pub fn placed(self, places: Vec<Place>) -> Result<Placed, Fault> {
        let due = Instant::now() + DUE_AFTER;
        let ports = self.version.input_ports();
        // Here and not when it was bound: whoever finds no place costs nothing more.
        let tensors = self.inputs.into_iter().zip(ports).map(|(input, port)| match input {
            Input::Whole(tensor) => tensor,
            Input::Row(row) => repeated(port, row, self.n),
        });
        let tensors: Vec<Tensor> = tensors.collect();
        let mut rows =
            rows_of(ports, &tensors, self.n, due).map_err(|said| Fault::new(Kind::Internal, said))?;
        rows.iter_mut().zip(places).for_each(|(row, place)| row.hold(place));
        Ok(Placed { version: self.version, rows, outputs: self.outputs })
    }
}

/// A request whose rows may queue.
pub struct Placed {
    version: Arc<ReadyVersion>,
    #[expect(clippy::vec_box, reason = "a row goes to its lane and comes back by its box")]
    rows: Vec<Box<Row>>,
    outputs: Vec<(String, usize)>,
}

impl Placed {
    /// Runs the rows among whoever else is on the lane, and waits for all of them. Cancel-safe: dropped, its rows that
    /// have not been run are taken out of the queue unrun.
    /// Errors: `invalid` (the model does not run on them), `deadline`, `unavailable`, `internal`.
    pub async fn run(self) -> Result<Answered, Fault> {
        let Self { version, rows, outputs } = self;
        let answers = rows.into_iter().map(|row| {
            let (give, answer) = oneshot::channel();
            version.lane.submit(row, Arc::new(Caller(Mutex::new(Some(give)))), false);
            async move {
                let lost = |_| Err(RowFault::Lost("nobody answered for the row".into()));
                answer.await.unwrap_or_else(lost)
            }
        });
        // All are submitted before the first is waited for, so that they ride together.
        let answers: Vec<_> = answers.collect();
        // The first fault ends the waiting; the other rows' owners are gone then.
        match futures::future::try_join_all(answers).await {
            Ok(rows) => Ok(Answered { version, rows, outputs }),
            Err(fault) => Err(told(&version, fault)),
        }
    }
}

/// A request whose rows were run.
pub struct Answered {
    version: Arc<ReadyVersion>,
    #[expect(clippy::vec_box, reason = "a row goes to its lane and comes back by its box")]
    rows: Vec<Box<Row>>,
    outputs: Vec<(String, usize)>,
}

impl Answered {
    /// The version that ran it.
    pub fn version(&self) -> u32 {
        self.version.version.0
    }

    /// The wanted outputs in the graph's shape, with n rows along their batch axis.
    pub fn outputs(self) -> Vec<(String, Tensor)> {
        let tensors = outputs_of(self.version.output_ports(), self.rows);
        self.outputs.into_iter().map(|(name, port)| (name, tensors[port].clone())).collect()
    }
}

/// Whoever waits for one row.
struct Caller(Mutex<Option<oneshot::Sender<Back>>>);

/// How a row came back.
type Back = Result<Box<Row>, RowFault>;

impl Owner for Caller {
    fn finished(self: Arc<Self>, mut row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        // First, so that whoever was answered finds its place free.
        drop(row.release());
        if let Some(give) = self.0.lock().take() {
            // Why ignored: whoever has left wants no answer.
            let _ = give.send(outcome.map(|_| row));
        }
        None
    }

    fn is_gone(&self) -> bool {
        self.0.lock().as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

fn told(version: &ReadyVersion, fault: RowFault) -> Fault {
    let model = format!("model {}/{}", version.model, version.version);
    match fault {
        RowFault::Run(said) => {
            Fault::new(Kind::Invalid, format!("{model} does not run on these inputs: {}", clip(&said)))
        }
        RowFault::Limit => Fault::new(Kind::Deadline, format!("{model}: the run went over run_limit_ms")),
        RowFault::Lost(_) | RowFault::Stopped => Fault::new(Kind::Unavailable, format!("{model}: {fault}")),
        RowFault::Panicked | RowFault::Gone => Fault::new(Kind::Internal, format!("{model}: {fault}")),
    }
}

fn named(version: &ReadyVersion, name: &str) -> Result<Named, Fault> {
    let ports = version.input_ports();
    if let Some(at) = ports.iter().position(|port| port.name == name) {
        return Ok(Named::Port(at));
    }
    if let Some((_, bound)) = version.input(name) {
        return Ok(Named::Port(bound.port));
    }
    if let Some(fixed) = version.statics.iter().find(|fixed| fixed.name == name) {
        let starting = version.states.iter().filter(|state| state.init == Initial::Static(name.into()));
        return Ok(match fixed.port {
            Some(at) => Named::Port(at),
            None => Named::Start(starting.map(|state| state.input_port).collect()),
        });
    }
    let names = ports.iter().map(|port| port.name.as_str());
    let names = names.chain(version.inputs.iter().map(|b| version.manifest.inputs[b.input].name.as_str()));
    let mut names: Vec<&str> = names.chain(version.statics.iter().map(|fixed| fixed.name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    let expected = format!("an input of model {} ({})", version.model, there_is(name, names));
    Err(Fault::mismatch(clip(name), expected, format!("`{}`", clip(name))))
}

/// The ports of wanted outputs, under the names as asked; `MODEL.OUTPUT` is taken, too, as on a session.
fn outputs_named(version: &ReadyVersion, wanted: &[String]) -> Result<Vec<(String, usize)>, Fault> {
    let ports = version.output_ports();
    if wanted.is_empty() {
        let is_carried = |at: usize| version.states.iter().any(|state| state.output_port == at);
        let is_declared = |at: usize| version.outputs.iter().any(|output| output.port == at);
        let shown = (0..ports.len()).filter(|&at| is_declared(at) || !is_carried(at));
        return Ok(shown.map(|at| (ports[at].name.clone(), at)).collect());
    }
    let stage = format!("{}.", version.model);
    let port = |name: &str| {
        let of_manifest = |name: &str| version.output(name).map(|output| output.port);
        let of_graph = ports.iter().position(|port| port.name == name);
        of_graph.or_else(|| of_manifest(name)).or_else(|| of_manifest(name.strip_prefix(&stage)?))
    };
    // Each once, however often it was asked for.
    let wanted: BTreeSet<&String> = wanted.iter().collect();
    let found = wanted.into_iter().map(|name| {
        let at = port(name).ok_or_else(|| {
            let names = ports.iter().map(|port| port.name.as_str());
            let mut names: Vec<&str> =
                names.chain(version.outputs.iter().map(|output| output.name.as_str())).collect();
            names.sort_unstable();
            names.dedup();
            Fault::not_found("output", name, names)
        })?;
        Ok((name.clone(), at))
    });
    found.collect()
}

/// Whether a tensor is of its port, and has as many rows as those before it.
fn agree(port: &Port, name: &str, tensor: &Tensor, rows: &mut Option<(String, usize)>) -> Result<(), Fault> {
    let found = || format!("{} {:?}", tensor.dtype, tensor.shape);
    let axis = port.batch_axis.map(|axis| axis.min(port.row_shape.len()));
    let n = axis.map_or(Some(1), |axis| tensor.shape.get(axis).copied());
    let fits = |n: &usize| tensor.dtype == port.dtype && tensor.shape == port.batch_shape(*n);
    let Some(n) = n.filter(fits) else { return Err(Fault::mismatch(name, form(port), found())) };
    if axis.is_none() {
        return Ok(());
    }
    if n == 0 {
        return Err(Fault::mismatch(name, "at least one row", found()));
    }
    match rows {
        Some((other, known)) if *known != n => {
            let expected = format!("{known} rows, as {other} has");
            Err(Fault::mismatch(name, expected, found()))
        }
        Some(_) => Ok(()),
        None => {
            *rows = Some((name.into(), n));
            Ok(())
        }
    }
}

/// `f32 [n, 2]`: what a port takes.
fn form(port: &Port) -> String {
    let mut axes: Vec<String> = port.row_shape.iter().map(usize::to_string).collect();
    if let Some(axis) = port.batch_axis {
        axes.insert(axis.min(axes.len()), "n".into());
    }
    format!("{} [{}]", port.dtype, axes.join(", "))
}

/// One row of a port that was not given.
fn left_out(version: &ReadyVersion, at: usize, is_given: &[bool]) -> Result<Tensor, Fault> {
    let port = &version.input_ports()[at];
    let zeros = || Tensor::zeros(port.dtype, &port.row_shape);
    let fixed = |name: &str| version.statics.iter().find(|fixed| fixed.name == name);
    if let Some(state) = version.states.iter().find(|state| state.input_port == at) {
        return match &state.init {
            Initial::Tensor(tensor) => Ok(tensor.clone()),
            Initial::Static(name) if fixed(name).is_some_and(|fixed| !fixed.required) => Ok(zeros()),
            Initial::Static(name) => Err(Fault::mismatch(name, form(port), "nothing")),
        };
    }
    if let Some(input) = version.inputs.iter().find(|input| input.mask_port == Some(at)) {
        // 1 is good; an input that is not there has no good channel.
        return Ok(if is_given[input.port] { ones(port) } else { zeros() });
    }
    let optional = version.inputs.iter().any(|b| b.port == at && !version.manifest.inputs[b.input].required)
        || version.statics.iter().any(|fixed| fixed.port == Some(at) && !fixed.required);
    if optional { Ok(zeros()) } else { Err(Fault::mismatch(&port.name, form(port), "nothing")) }
}

/// A mask of all good; the registry takes masks of f32, bool and u8 alone.
fn ones(port: &Port) -> Tensor {
    let mut tensor = Tensor::zeros(port.dtype, &port.row_shape);
    match port.dtype {
        Dtype::F32 => tensor.values_mut::<f32>().fill(1.0),
        _ => tensor.data.bytes_mut().fill(1),
    }
    tensor
}
