//! The runs of a version before it serves: alone, in a pair, along its recorded example.

use super::example::Recorded;
use super::finding::{Finding, Findings, quoted};
use super::manifest::{Example, ExampleCheck};
use super::surface::{Initial, Surface};
use super::version::VersionBytes;
use crate::batch::Port;
use crate::domain::tensor::{Dtype, Tensor};
use crate::engine::{Batch, Instance};
use crate::error::clip;

/// A row that differs so much in company mixes with its neighbours: that is no rounding.
pub const MIXING: f64 = 1e-3;

/// What the example says of a version's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Vouched {
    /// There is none: nothing vouches for them.
    Nothing,
    /// Replayed, and equal within the tolerances.
    Equal {
        /// Bins that were compared.
        bins: usize,
        /// Allowed relative difference.
        rel: f64,
        /// Allowed absolute difference.
        abs: f64,
    },
    /// Replayed, different, and served all the same (`check = "warn"`).
    Differs(String),
}

impl std::fmt::Display for Vouched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Vouched::Nothing => f.write_str("none: nothing vouches for its numbers"),
            Vouched::Equal { bins, rel, abs } => {
                write!(f, "equal in {bins} bins (rel {rel:e}, abs {abs:e})")
            }
            Vouched::Differs(sentence) => write!(f, "differs: {sentence}"),
        }
    }
}

/// A version on an instance, run row by row.
pub struct Rehearsal<'a> {
    version: &'a VersionBytes,
    surface: &'a mut Surface,
    instance: &'a mut dyn Instance,
    batch: Batch,
}

impl<'a> Rehearsal<'a> {
    /// Nothing runs yet.
    pub fn new(version: &'a VersionBytes, surface: &'a mut Surface, instance: &'a mut dyn Instance) -> Self {
        Self { version, surface, instance, batch: Batch::default() }
    }

    fn wrong(
        &self,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Findings {
        Findings::one(Finding::new(&self.version.graph_file, key, expected, found))
    }

    /// Runs one silent row and one drawn row: the outputs must have the declared shape and be finite. Lengths that
    /// only a run tells are known afterwards.
    pub fn warm_up(&mut self) -> Result<(), Findings> {
        for silent in [true, false] {
            let rows: Vec<Tensor> =
                (0..self.surface.inputs.len()).map(|port| self.drawn(port, silent)).collect();
            self.run(&rows, 1).map_err(|said| self.wrong("warm-up", "a run of one row", clip(&said)))?;
            if silent {
                self.learn_lengths()?;
            }
            self.check_shapes(1).map_err(|(key, expected, found)| self.wrong(key, expected, found))?;
            // A plain model need not bear silence: nobody said that it is fed with counts.
            if !silent || self.version.has_manifest {
                self.check_finite(if silent { "silent inputs" } else { "inputs in [0, 1)" })?;
            }
        }
        self.check_labels()
    }

    /// Runs two rows at once. A graph that says "any batch" and means one is served one by one, and its page says so.
    pub fn pair(&mut self) {
        if self.surface.max_batch < 2 {
            return;
        }
        let rows: Vec<Tensor> = (0..self.surface.inputs.len()).map(|port| self.drawn(port, false)).collect();
        let told = match self.run(&rows, 2) {
            Err(said) => Some(clip(&said)),
            Ok(()) => self
                .check_shapes(2)
                .err()
                .map(|(key, expected, found)| format!("{key}: expected {expected}, found {found}")),
        };
        if let Some(said) = told {
            self.surface.max_batch = 1;
            self.surface.notes.push(format!(
                "max_batch is 1: the graph names a batch of any size, but has one baked in (a run of 2 rows: {said})"
            ));
        }
    }

    /// Runs `rows` copies of one row.
    fn run(&mut self, row: &[Tensor], rows: usize) -> Result<(), String> {
        self.batch.inputs = row
            .iter()
            .zip(&self.surface.inputs)
            .map(|(tensor, port)| match port.batch_axis {
                Some(axis) => repeated(tensor, axis.min(tensor.shape.len()), rows),
                None => tensor.clone(),
            })
            .collect();
        let ran =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.instance.run(&mut self.batch)));
        match ran {
            Ok(Ok(())) if self.batch.outputs.len() == self.surface.outputs.len() => Ok(()),
            Ok(Ok(())) => Err(format!("{} outputs", self.batch.outputs.len())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the engine panicked".into()),
        }
    }

    /// The outputs' rows as the run gave them, where the graph leaves lengths open.
    fn learn_lengths(&mut self) -> Result<(), Findings> {
        let mut findings = Findings::none();
        for (port, (output, tensor)) in self.surface.outputs.iter_mut().zip(&self.batch.outputs).enumerate() {
            let lengths = &mut self.surface.output_rows[port];
            let mut shape = tensor.shape.clone();
            if let Some(axis) = output.batch_axis
                && axis < shape.len()
            {
                shape.remove(axis);
            }
            let fits = shape.len() == lengths.len()
                && lengths.iter().zip(&shape).all(|(told, &is)| told.is_none_or(|n| n == is));
            if fits {
                *lengths = shape.iter().map(|&length| Some(length)).collect();
                output.row_shape = shape;
            } else {
                findings.push(Finding::new(
                    &self.version.graph_file,
                    format!("output {}", quoted(&output.name)),
                    format!("{}, as the graph says", self.version.signature.outputs[port]),
                    format!("{} {:?} from a run of one row", tensor.dtype, tensor.shape),
                ));
            }
        }
        findings.unless_any(())
    }

    fn check_shapes(&self, rows: usize) -> Result<(), (String, String, String)> {
        for (port, tensor) in self.surface.outputs.iter().zip(&self.batch.outputs) {
            let mut expected = port.row_shape.clone();
            if let Some(axis) = port.batch_axis {
                expected.insert(axis.min(expected.len()), rows);
            }
            if tensor.shape != expected || tensor.dtype != port.dtype {
                return Err((
                    format!("output {}", quoted(&port.name)),
                    format!("{} {expected:?} for a batch of {rows}", port.dtype),
                    format!("{} {:?}", tensor.dtype, tensor.shape),
                ));
            }
        }
        Ok(())
    }

    fn check_finite(&self, fed: &str) -> Result<(), Findings> {
        let mut findings = Findings::none();
        let used = |port: usize| {
            self.surface.results.iter().any(|output| output.port == port)
                || self.surface.states.iter().any(|state| state.output_port == port)
        };
        for (port, tensor) in self.batch.outputs.iter().enumerate().filter(|(port, _)| used(*port)) {
            if !tensor.is_finite() {
                let values = tensor.to_f64();
                let at = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
                findings.push(Finding::new(
                    &self.version.graph_file,
                    format!("output {}", quoted(&self.surface.outputs[port].name)),
                    format!("finite values from {fed}"),
                    format!("{} at element {at}", values.get(at).copied().unwrap_or(f64::NAN)),
                ));
            }
        }
        findings.unless_any(())
    }

    fn check_labels(&self) -> Result<(), Findings> {
        let mut findings = Findings::none();
        for (i, output) in self.surface.results.iter().enumerate() {
            let values: usize = self.surface.outputs[output.port].row_shape.iter().product();
            if !output.labels.is_empty() && output.labels.len() != values {
                findings.push(Finding::new(
                    &self.version.manifest_file,
                    format!("output[{i}].labels"),
                    format!("{values}, one per value of {}", quoted(&output.tensor)),
                    output.labels.len().to_string(),
                ));
            }
        }
        findings.unless_any(())
    }

    /// A row's tensor for a port: a state's initial value, a mask of all good, else 0 (`silent`) or drawn from [0, 1).
    fn drawn(&self, port: usize, silent: bool) -> Tensor {
        let Port { dtype, row_shape, .. } = &self.surface.inputs[port];
        for state in self.surface.states.iter().filter(|state| state.input_port == port) {
            if let Initial::Tensor(tensor) = &state.init {
                return tensor.clone();
            }
        }
        let mask = self.surface.streamed.iter().any(|input| input.mask_port == Some(port));
        let mut tensor = Tensor::zeros(*dtype, row_shape);
        // Silence is of what streams; a static that is 0 is no likely one.
        let fixed = self.surface.statics.iter().any(|fixed| fixed.port == Some(port));
        if silent && !mask && !fixed {
            return tensor;
        }
        let mut draw = Draw(port as u64);
        let mut next = || if mask { 1.0 } else { draw.next() };
        match dtype {
            Dtype::F32 => tensor.values_mut::<f32>().iter_mut().for_each(|x| *x = next() as f32),
            Dtype::F64 => tensor.values_mut::<f64>().iter_mut().for_each(|x| *x = next()),
            Dtype::F16 => {
                tensor
                    .values_mut::<u16>()
                    .iter_mut()
                    .for_each(|x| *x = half::f16::from_f64(next()).to_bits());
            }
            Dtype::Bf16 => {
                tensor
                    .values_mut::<u16>()
                    .iter_mut()
                    .for_each(|x| *x = half::bf16::from_f64(next()).to_bits());
            }
            _ if mask => {
                tensor.data.bytes_mut().chunks_mut(dtype.size_bytes()).for_each(|element| element[0] = 1);
            }
            // Indices: what a table of one row can bear.
            _ => {}
        }
        tensor
    }

    /// Replays the recorded example bin by bin from the initial state; a window slides along its bins.
    pub fn example(&mut self) -> Result<Vouched, Findings> {
        let Some(bytes) = &self.version.example else { return Ok(Vouched::Nothing) };
        let told = self.version.manifest.example.clone();
        let Example { ref file, rel, abs, check, .. } = told;
        let file = format!("{}/{}/{file}", self.version.model, self.version.version);
        let recorded = Recorded::read(&file, bytes, self.surface, self.version.manifest.window)?;
        match self.replay(&file, &recorded, &told) {
            Ok(()) => Ok(Vouched::Equal { bins: recorded.runs().count(), rel, abs }),
            Err(difference) => match check {
                ExampleCheck::Warn => Ok(Vouched::Differs(difference.to_string())),
                ExampleCheck::Refuse => Err(Findings::one(difference)),
            },
        }
    }

    fn replay(&mut self, file: &str, recorded: &Recorded, told: &Example) -> Result<(), Finding> {
        let mut row: Vec<Tensor> =
            (0..self.surface.inputs.len()).map(|port| self.drawn(port, true)).collect();
        for port in self.surface.statics.iter().filter_map(|fixed| fixed.port) {
            row[port] = Tensor::zeros(row[port].dtype, &row[port].shape);
        }
        for (state, first) in self.surface.states.iter().zip(&recorded.inits) {
            if let Some(first) = first {
                row[state.input_port] = first.clone();
            }
        }
        for bin in recorded.runs() {
            for series in &recorded.inputs {
                row[series.port] = recorded.row(series, bin, &self.surface.inputs[series.port].row_shape);
            }
            self.run(&row, 1)
                .map_err(|said| Finding::new(file, format!("bin {bin}"), "a run of one row", clip(&said)))?;
            for series in &recorded.outputs {
                let Port { name, row_shape, .. } = &self.surface.outputs[series.port];
                let want = recorded.row(series, bin, row_shape).to_f64();
                let got = self.batch.outputs[series.port].to_f64();
                let pairs = want.iter().zip(&got);
                if let Some((at, (want, got))) =
                    pairs.enumerate().find(|(_, (want, got))| !told.allows(**got, **want))
                {
                    return Err(Finding::new(
                        file,
                        format!("bin {bin}, output {}, element {at}", quoted(name)),
                        format!("{want} within rel {:e}, abs {:e}", told.rel, told.abs),
                        format!("{got}"),
                    ));
                }
            }
            for state in &self.surface.states {
                let Port { dtype, row_shape, .. } = &self.surface.inputs[state.input_port];
                let next = self.batch.outputs[state.output_port].data.bytes();
                row[state.input_port] = Tensor::from_bytes(*dtype, row_shape, next).ok_or_else(|| {
                    Finding::new(file, format!("bin {bin}"), "a state of one row", "another shape")
                })?;
            }
        }
        Ok(())
    }
}

/// A row `rows` times along a new axis.
fn repeated(row: &Tensor, axis: usize, rows: usize) -> Tensor {
    let mut shape = row.shape.clone();
    shape.insert(axis, rows);
    let block = row.shape[axis..].iter().product::<usize>() * row.dtype.size_bytes();
    let mut bytes = Vec::with_capacity(row.data.bytes().len() * rows);
    if block > 0 {
        for piece in row.data.bytes().chunks(block) {
            (0..rows).for_each(|_| bytes.extend_from_slice(piece));
        }
    }
    Tensor::from_bytes(row.dtype, &shape, &bytes).expect("as many bytes as rows")
}

/// Numbers in [0, 1), a function of the port alone (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
