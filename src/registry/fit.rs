//! A manifest laid over its graph: every tensor found, every axis accounted for; what does not fit is a finding.

use std::num::NonZeroU64;

use super::finding::{Finding, Findings, quoted};
use super::manifest::{BatchAxis, Channels, InputType, StateInit, StateKind};
use super::surface::{BoundInput, BoundOutput, BoundState, BoundStatic, Initial, Surface};
use super::version::VersionBytes;
use crate::batch::Port;
use crate::domain::output::OutputRole;
use crate::domain::signal::SignalType;
use crate::domain::tensor::{Dtype, Tensor};
use crate::domain::time::{Rate, ns_from_ms};
use crate::error::there_is;
use crate::graph::{Dim, Side, TensorInfo};
use crate::signal::chain::{Chain, ChainSite, Columns};
use crate::signal::image::Image;
use crate::signal::op::{Numbers, Op, Reduce, channels_for, values_per_bin};
use crate::signal::pace::Pace;
use crate::signal::refusal::OpError;

mod bin; // one bin of a streamed input

/// Lays a completed manifest over its graph. Everything that does not fit is named in one answer.
pub fn bind(version: &VersionBytes) -> Result<Surface, Findings> {
    let mut fit = Fit {
        version,
        shared: shared_symbol(version),
        findings: Findings::none(),
        notes: Vec::new(),
        at_one: Vec::new(),
        inputs: version.signature.inputs.iter().map(|_| None).collect(),
        outputs: version.signature.outputs.iter().map(|_| None).collect(),
    };
    let streamed = fit.streamed();
    let statics = fit.statics();
    let states = fit.states();
    let results = fit.results();
    fit.undeclared();
    let serve = &version.manifest.serve;
    let max_batch = match fit.at_one.first() {
        Some(tensor) => {
            if serve.max_batch > 1 {
                fit.notes.push(format!("max_batch is 1: the batch axis of {tensor} is fixed at 1"));
            }
            1
        }
        None => serve.max_batch as usize,
    };
    let ports = |bound: Vec<Option<Row>>, infos: &[TensorInfo]| -> Vec<(Port, Vec<Option<usize>>)> {
        bound.into_iter().zip(infos).map(|(row, info)| row.unwrap_or_default().port(info)).collect()
    };
    let (outputs, output_rows) = ports(fit.outputs, &version.signature.outputs).into_iter().unzip();
    let inputs = ports(fit.inputs, &version.signature.inputs).into_iter().map(|(port, _)| port).collect();
    let surface = Surface {
        inputs,
        outputs,
        output_rows,
        streamed,
        statics: statics.into_iter().flatten().collect(),
        states: states.into_iter().flatten().collect(),
        results,
        max_batch,
        notes: fit.notes,
    };
    fit.findings.unless_any(surface)
}

/// How many values per bin the chain of input `i` makes of `channels`. Where the manifest alone tells its pace it is
/// built as a session would build it, and what is wrong with it is told. `None`: only a session's rate tells.
fn chain_width(version: &VersionBytes, i: usize, channels: usize) -> Result<Option<usize>, OpError> {
    let input = &version.manifest.inputs[i];
    let static_width = values_per_bin(&input.preprocess, channels);
    let width_ns = input.bin_ms.and_then(ns_from_ms).and_then(NonZeroU64::new);
    let (Some(kind), Some(bin_width_ns)) = (input.kind.signal(), width_ns) else { return Ok(static_width) };
    let rate = input.rate.as_ref().and_then(|rate| Rate::new(rate.num, rate.den));
    let paces: Vec<Option<Pace>> = match (kind, rate) {
        (SignalType::SpikeEvents, _) => vec![None],
        (SignalType::Binned, _) => vec![Some(Pace::every(bin_width_ns))],
        // The signal has that rate, or one that the chain decimates to it.
        (SignalType::Continuous, Some(rate)) => {
            let factor = input.preprocess.iter().try_fold(1u32, |all, op| match op {
                Op::Decimate { factor, .. } => all.checked_mul(*factor),
                _ => Some(all),
            });
            let faster = factor.and_then(|factor| Rate::new(rate.num.checked_mul(factor)?, rate.den));
            [Some(rate), faster].into_iter().flatten().map(|rate| Some(Pace::of_rate(rate))).collect()
        }
        _ => return Ok(static_width),
    };
    let rows = version.channels.get(i).and_then(Option::as_ref);
    if rows.is_none() && input.preprocess.iter().any(|op| matches!(op, Op::Reference { .. })) {
        return Ok(static_width); // names and groups are the signal's
    }
    let columns: Columns = (0..channels)
        .map(|c| {
            let row = rows.and_then(|rows| rows.get(c));
            let name = row.map_or_else(|| c.to_string(), |row| row.name.clone());
            let group = row.map(|row| row.group.clone()).filter(|group| !group.is_empty());
            (name, group.unwrap_or_else(|| "the signal's".into()), vec![c])
        })
        .collect();
    let built = paces.into_iter().map(|sample| {
        Chain::new(&input.preprocess, ChainSite { kind, sample, bin_width_ns, channels: columns.clone() })
    });
    let mut first = None;
    for chain in built {
        match chain {
            Ok(chain) => return Ok(Some(chain.width())),
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(static_width), Err)
}

/// The symbol that most tensors share, which is the batch; one at a declared batch axis comes first.
fn shared_symbol(version: &VersionBytes) -> Option<String> {
    let manifest = &version.manifest;
    let signature = &version.signature;
    let declared = manifest
        .inputs
        .iter()
        .map(|input| (&input.tensor, input.batch_axis))
        .chain(manifest.states.iter().map(|state| (&state.input, state.batch_axis)))
        .chain(manifest.outputs.iter().map(|output| (&output.tensor, output.batch_axis)));
    for (tensor, axis) in declared {
        if let Some(BatchAxis::Axis(axis)) = axis
            && let Some(info) = signature.inputs.iter().chain(&signature.outputs).find(|i| i.name == *tensor)
            && let Some(Dim::Symbol(symbol)) = info.dims.get(axis as usize)
        {
            return Some(symbol.clone());
        }
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for info in signature.inputs.iter().chain(&signature.outputs) {
        let mut here: Vec<&str> = Vec::new();
        for dim in &info.dims {
            if let Dim::Symbol(symbol) = dim
                && !here.contains(&symbol.as_str())
            {
                here.push(symbol);
            }
        }
        for symbol in here {
            match counts.iter_mut().find(|(name, _)| *name == symbol) {
                Some((_, count)) => *count += 1,
                None => counts.push((symbol, 1)),
            }
        }
    }
    // The first of those that stand in most tensors.
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.iter().find(|(_, count)| *count == most).map(|(symbol, _)| (*symbol).to_owned())
}

/// A tensor of the graph with its batch axis taken out.
#[derive(Clone, Debug, Default)]
struct Row {
    batch_axis: Option<usize>,
    dims: Vec<Dim>,
}

impl Row {
    /// Lengths; `None` where they are not fixed.
    fn lengths(&self) -> Vec<Option<usize>> {
        self.dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(length) => Some(*length),
                Dim::Symbol(_) | Dim::Unknown => None,
            })
            .collect()
    }

    /// The lengths, if all are fixed.
    fn shape(&self) -> Option<Vec<usize>> {
        self.lengths().into_iter().collect()
    }

    /// Gives the one axis that is not fixed the length by which the row has `elements` values.
    fn fill(&mut self, elements: usize) {
        let fixed: usize = self.lengths().iter().flatten().product();
        let open: Vec<usize> =
            (0..self.dims.len()).filter(|&axis| !matches!(self.dims[axis], Dim::Fixed(_))).collect();
        if let [axis] = open[..]
            && fixed > 0
            && elements.is_multiple_of(fixed)
        {
            self.dims[axis] = Dim::Fixed(elements / fixed);
        }
    }

    fn port(self, info: &TensorInfo) -> (Port, Vec<Option<usize>>) {
        let lengths = self.lengths();
        let row_shape = lengths.iter().map(|length| length.unwrap_or(0)).collect();
        let port =
            Port { name: info.name.clone(), dtype: info.dtype, row_shape, batch_axis: self.batch_axis };
        (port, lengths)
    }
}

struct Fit<'a> {
    version: &'a VersionBytes,
    shared: Option<String>,
    findings: Findings,
    notes: Vec<String>,
    /// Tensors whose batch axis is fixed at 1.
    at_one: Vec<String>,
    inputs: Vec<Option<Row>>,
    outputs: Vec<Option<Row>>,
}

impl<'a> Fit<'a> {
    fn wrong(&mut self, key: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding::new(&self.version.manifest_file, key, expected, found));
    }

    fn not_yet(&mut self, key: impl Into<String>, expected: impl Into<String>, found: &str) {
        self.wrong(key, expected, format!("{found}, which this version does not serve yet"));
    }

    fn infos(&self, side: Side) -> &'a [TensorInfo] {
        let signature = &self.version.signature;
        match side {
            Side::Input => &signature.inputs,
            Side::Output => &signature.outputs,
        }
    }

    /// Finds a declared tensor on its side of the graph.
    fn find(&mut self, key: &str, tensor: &str, side: Side) -> Option<usize> {
        let infos = self.infos(side);
        let found = infos.iter().position(|info| info.name == tensor);
        if found.is_none() {
            let other = match side {
                Side::Input => Side::Output,
                Side::Output => Side::Input,
            };
            let there = there_is(tensor, infos.iter().map(|info| info.name.as_str()));
            let article = |side: Side| if side == Side::Input { "an input" } else { "an output" };
            let found = if self.infos(other).iter().any(|info| info.name == tensor) {
                format!("{}, which is {} of it", quoted(tensor), article(other))
            } else {
                quoted(tensor)
            };
            self.wrong(key, format!("{} of the graph ({there})", article(side)), found);
        }
        found
    }

    /// Takes the batch axis out of a tensor; says what is wrong with it.
    fn row(&mut self, key: &str, index: usize, side: Side, declared: Option<BatchAxis>) -> Row {
        let info = &self.infos(side)[index];
        let named = || format!("{side} {}", quoted(&info.name));
        let axis = match declared {
            Some(BatchAxis::None) => None,
            Some(BatchAxis::Axis(axis)) if (axis as usize) < info.dims.len() => Some(axis as usize),
            Some(BatchAxis::Axis(axis)) => {
                let expected = format!("an axis of {} ({info})", named());
                self.wrong(format!("{key}.batch_axis"), expected, axis.to_string());
                None
            }
            None => self.batch_axis(info),
        };
        let mut dims = info.dims.clone();
        if let Some(axis) = axis {
            match dims.remove(axis) {
                Dim::Fixed(1) => self.at_one.push(named()),
                Dim::Fixed(length) => self.findings.push(Finding::new(
                    &self.version.graph_file,
                    named(),
                    format!("a batch of any size along axis {axis} (or batch_axis in the manifest)"),
                    format!("{info}, fixed at {length}"),
                )),
                Dim::Symbol(_) | Dim::Unknown => {}
            }
        }
        Row { batch_axis: axis, dims }
    }

    fn batch_axis(&self, info: &TensorInfo) -> Option<usize> {
        if info.dims.is_empty() {
            return None;
        }
        let shared = |dim: &Dim| matches!((dim, &self.shared), (Dim::Symbol(symbol), Some(shared)) if symbol == shared);
        if let Some(axis) = info.dims.iter().position(shared) {
            return Some(axis);
        }
        let open: Vec<usize> =
            (0..info.dims.len()).filter(|&axis| !matches!(info.dims[axis], Dim::Fixed(_))).collect();
        match open[..] {
            // Some exporters give each input a symbol of its own.
            [axis] if matches!(info.dims[0], Dim::Fixed(_)) => Some(axis),
            _ => Some(0),
        }
    }

    fn streamed(&mut self) -> Vec<BoundInput> {
        let mut bound = Vec::new();
        for (i, input) in self.version.manifest.inputs.iter().enumerate() {
            if input.form.is_some() {
                continue; // tokens: told among what is not served yet
            }
            let key = format!("input[{i}]");
            let Some(port) = self.find(&format!("{key}.tensor"), &input.tensor, Side::Input) else {
                continue;
            };
            let mut row = self.streamed_row(&key, port, input.batch_axis);
            let Some(bins) = self.bins(&key, port, &mut row) else { continue };
            let bin = self.channels(&key, i, port, &mut row);
            let values = bin.map(|(channels, image)| channels * image.map_or(1, Image::pixels));
            let mask_port = input.mask_tensor.as_ref().and_then(|mask| {
                let mask_key = format!("{key}.mask_tensor");
                let mask_port = self.find(&mask_key, mask, Side::Input)?;
                let mut mask_row = self.streamed_row(&mask_key, mask_port, None);
                let mask_bins = self.bins(&mask_key, mask_port, &mut mask_row)?;
                mask_row.fill(values.unwrap_or(0));
                let info = &self.version.signature.inputs[mask_port];
                if mask_row.shape().map(|shape| shape.iter().product()) != values && values.is_some() {
                    self.wrong(
                        mask_key,
                        format!("one value per value of {}", quoted(&input.tensor)),
                        info.to_string(),
                    );
                } else if !matches!(info.dtype, Dtype::F32 | Dtype::Bool | Dtype::U8) {
                    self.wrong(mask_key, "f32, bool or u8", info.to_string());
                }
                mask_row.dims.splice(0..0, mask_bins);
                self.inputs[mask_port] = Some(mask_row);
                Some(mask_port)
            });
            row.dims.splice(0..0, bins);
            self.inputs[port] = Some(row);
            if let Some((channels, image)) = bin {
                bound.push(BoundInput { input: i, port, mask_port, channels, image });
            }
        }
        bound
    }

    /// The channels of one bin, and what image each of them is; manifest, channels' file, z-score and graph must agree.
    fn channels(
        &mut self,
        key: &str,
        i: usize,
        port: usize,
        row: &mut Row,
    ) -> Option<(usize, Option<Image>)> {
        let input = &self.version.manifest.inputs[i];
        let info = &self.version.signature.inputs[port];
        let named = self.version.channels.get(i).and_then(Option::as_ref).map(Vec::len);
        let told = match input.channels {
            Some(Channels::Count(n)) => Some(n as usize),
            _ => None,
        };
        let values = |n: usize| chain_width(self.version, i, n);
        let width = match told.or(named).map(values) {
            Some(Err(error)) => {
                self.wrong(format!("{key}.{}", error.field()), error.expected, error.found);
                None
            }
            Some(Ok(width)) => width,
            None => None,
        };
        match (&mut row.dims[..], width) {
            ([planes @ (Dim::Symbol(_) | Dim::Unknown), _, _], Some(n)) if input.kind.is_image() => {
                *planes = Dim::Fixed(n);
            }
            (_, Some(width)) if !input.kind.is_image() => row.fill(width),
            _ => {}
        }
        let Some(shape) = row.shape() else {
            let found = match input.channels {
                Some(Channels::Any) => format!("{info} with channels = \"any\""),
                _ => info.to_string(),
            };
            self.not_yet(format!("{key}.tensor"), "a row whose lengths are fixed", &found);
            return None;
        };
        let values: usize = shape.iter().product();
        let image = self.image(key, i, info, &shape).ok()?;
        let elements = values / image.map_or(1, |image| image.pixels());
        let long_axes = shape.iter().filter(|&&length| length != 1).count();
        let keeps_samples =
            input.preprocess.iter().any(|op| matches!(op, Op::Bin { reduce: Some(Reduce::All) }));
        if long_axes > if keeps_samples { 2 } else { 1 }
            && input.kind != InputType::Latent
            && image.is_none()
            && self.version.has_manifest
            && told.is_none_or(|n| n == elements)
        {
            let mode = self.version.manifest.mode.word();
            let bins = if self.version.manifest.window.is_some() { "bins, " } else { "" };
            let expected = format!("[batch, {bins}channels] with mode = \"{mode}\"");
            self.wrong(format!("{key}.tensor"), expected, info.to_string());
        }
        let as_it_has = format!("as {} has ({info})", quoted(&info.name));
        for (word, n) in [("channels", told), ("channels_file", named)] {
            let Some(n) = n else { continue };
            // Where only a session's rate tells how many values there are, open does.
            let Some(made) = chain_width(self.version, i, n).ok().flatten() else { continue };
            if made == elements {
                continue;
            }
            let (expected, found) = match (word, made == n) {
                ("channels", true) => (format!("{elements}, {as_it_has}"), n.to_string()),
                (_, true) => (format!("{elements} channels, {as_it_has}"), format!("{n} rows")),
                (_, false) => (
                    format!("so many that the chain makes {elements} values of them, {as_it_has}"),
                    format!("{n}, of which it makes {made}"),
                ),
            };
            self.wrong(format!("{key}.{word}"), expected, found);
        }
        if input.kind != InputType::Latent && info.dtype != Dtype::F32 && self.version.has_manifest {
            self.not_yet(format!("{key}.tensor"), "f32", &info.to_string());
        }
        for (j, op) in input.preprocess.iter().enumerate() {
            let Op::Zscore { mean, std, .. } = op else { continue };
            for (word, numbers) in [("mean", mean), ("std", std)] {
                if let (Some(Numbers::Here(all)), Some(n)) =
                    (numbers, channels_for(&input.preprocess[j..], elements))
                    && all.len() != n
                    && all.len() != 1
                {
                    let expected = format!("{n} numbers, one per channel");
                    self.wrong(format!("{key}.preprocess[{j}].{word}"), expected, all.len().to_string());
                }
            }
        }
        Some((elements, image))
    }

    fn statics(&mut self) -> Vec<Option<BoundStatic>> {
        let manifest = &self.version.manifest;
        let mut bound = Vec::new();
        for (i, fixed) in manifest.statics.iter().enumerate() {
            let key = format!("static[{i}]");
            let initial = manifest.states.iter().find(|state| {
                state.init == StateInit::Static(fixed.name.clone())
                    && (fixed.tensor.is_empty() || fixed.tensor == state.input)
            });
            let tensor = initial.map_or(&fixed.tensor, |state| &state.input);
            let Some(port) = self.find(&format!("{key}.tensor"), tensor, Side::Input) else { continue };
            let axis = initial.map_or(fixed.batch_axis, |state| state.batch_axis);
            let at_one = self.at_one.len();
            let findings = self.findings.0.len();
            let row = self.row(&key, port, Side::Input, axis);
            if initial.is_some() {
                // The state says the same of this tensor.
                self.at_one.truncate(at_one);
                self.findings.0.truncate(findings);
            }
            let info = &self.version.signature.inputs[port];
            let Some(shape) = row.shape() else {
                self.not_yet(format!("{key}.tensor"), "a tensor whose lengths are fixed", &info.to_string());
                continue;
            };
            if initial.is_none() {
                self.inputs[port] = Some(row);
            }
            bound.push(Some(BoundStatic {
                name: fixed.name.clone(),
                port: initial.is_none().then_some(port),
                dtype: info.dtype,
                shape,
                required: fixed.required || initial.is_some(),
            }));
        }
        bound
    }

    fn states(&mut self) -> Vec<Option<BoundState>> {
        let manifest = &self.version.manifest;
        let mut bound = Vec::new();
        for (i, state) in manifest.states.iter().enumerate() {
            let key = format!("state[{i}]");
            let input = self.find(&format!("{key}.input"), &state.input, Side::Input);
            let output = self.find(&format!("{key}.output"), &state.output, Side::Output);
            let (Some(input_port), Some(output_port)) = (input, output) else { continue };
            let (from, to) =
                (&self.version.signature.inputs[input_port], &self.version.signature.outputs[output_port]);
            if from.dtype != to.dtype {
                let expected = format!("{}, as its input {} is", from.dtype, quoted(&from.name));
                self.wrong(format!("{key}.output"), expected, to.to_string());
                continue;
            }
            if state.kind == StateKind::Ring {
                continue; // told among what is not served yet
            }
            let mut row = self.row(&key, input_port, Side::Input, state.batch_axis);
            // The pair has one batch axis: whoever knows it says it for both.
            let axis = row.batch_axis.map_or(BatchAxis::None, |axis| BatchAxis::Axis(axis as u32));
            let fits = to.dims.len() == from.dims.len();
            let back = fits.then(|| self.row(&key, output_port, Side::Output, Some(axis)));
            let agrees = |back: &Row| {
                let pairs = row.dims.iter().zip(&back.dims);
                pairs.clone().count() == row.dims.len()
                    && pairs.into_iter().all(|pair| !matches!(pair, (Dim::Fixed(a), Dim::Fixed(b)) if a != b))
            };
            let Some(back) = back.filter(agrees) else {
                let expected = format!("the shape of its input {} ({from})", quoted(&from.name));
                self.wrong(format!("{key}.output"), expected, to.to_string());
                continue;
            };
            for (dim, other) in row.dims.iter_mut().zip(&back.dims) {
                if let (Dim::Symbol(_) | Dim::Unknown, Dim::Fixed(length)) = (&*dim, other) {
                    *dim = Dim::Fixed(*length);
                }
            }
            let init = self.initial(&key, i, from, &mut row);
            self.inputs[input_port] = Some(row.clone());
            self.outputs[output_port] = Some(row);
            if let Some(init) = init {
                bound.push(Some(BoundState { input_port, output_port, init }));
            }
        }
        bound
    }

    /// What the state is before the first bin, in the shape of one row.
    fn initial(&mut self, key: &str, i: usize, info: &TensorInfo, row: &mut Row) -> Option<Initial> {
        let init_key = format!("{key}.init");
        match &self.version.manifest.states[i].init {
            StateInit::Zeros => match row.shape() {
                Some(shape) => Some(Initial::Tensor(Tensor::zeros(info.dtype, &shape))),
                None => {
                    self.wrong(
                        init_key,
                        "\"file:NAME\" where the graph leaves a length open",
                        info.to_string(),
                    );
                    None
                }
            },
            StateInit::Static(name) => {
                if row.shape().is_none() {
                    self.not_yet(init_key, "a state whose lengths are fixed", &info.to_string());
                    return None;
                }
                Some(Initial::Static(name.clone()))
            }
            StateInit::File(name) => {
                let mut tensor = self.version.inits.get(i)?.clone()?;
                // With its batch axis (of length 1) or without it.
                if let Some(axis) = row.batch_axis
                    && tensor.shape.len() == row.dims.len() + 1
                    && tensor.shape[axis] == 1
                {
                    tensor.shape.remove(axis);
                }
                let fits = tensor.dtype == info.dtype
                    && tensor.shape.len() == row.dims.len()
                    && row
                        .lengths()
                        .iter()
                        .zip(&tensor.shape)
                        .all(|(told, &is)| told.is_none_or(|n| n == is));
                if !fits {
                    let found = format!("{} {:?} in {}", tensor.dtype, tensor.shape, quoted(name));
                    self.wrong(init_key, format!("a row of {} ({info})", quoted(&info.name)), found);
                    return None;
                }
                row.dims = tensor.shape.iter().map(|&length| Dim::Fixed(length)).collect();
                Some(Initial::Tensor(tensor))
            }
        }
    }

    fn results(&mut self) -> Vec<BoundOutput> {
        let manifest = &self.version.manifest;
        let mut bound = Vec::new();
        for (i, output) in manifest.outputs.iter().enumerate() {
            let key = format!("output[{i}]");
            let Some(port) = self.find(&format!("{key}.tensor"), &output.tensor, Side::Output) else {
                continue;
            };
            self.result_row(&key, port, output.batch_axis);
            bound.push(BoundOutput {
                name: output.name.clone(),
                tensor: output.tensor.clone(),
                port,
                role: output.role,
                labels: output.labels.clone(),
                unit: output.unit.clone(),
                sparse: output.sparse,
            });
        }
        for (i, tap) in manifest.taps.iter().enumerate() {
            let key = format!("tap[{i}]");
            let outputs = &self.version.signature.outputs;
            let Some(port) = outputs.iter().position(|info| info.name == tap.tensor) else {
                if self.infos(Side::Input).iter().any(|info| info.name == tap.tensor) {
                    self.find(&format!("{key}.tensor"), &tap.tensor, Side::Output);
                } else {
                    let found = format!("{}, an inner tensor or none", quoted(&tap.tensor));
                    self.not_yet(format!("{key}.tensor"), "an output of the graph", &found);
                }
                continue;
            };
            self.result_row(&key, port, tap.batch_axis);
            bound.push(BoundOutput {
                name: tap.name.clone(),
                tensor: tap.tensor.clone(),
                port,
                role: OutputRole::Tap,
                labels: Vec::new(),
                unit: String::new(),
                sparse: false,
            });
        }
        bound
    }

    fn result_row(&mut self, key: &str, port: usize, declared: Option<BatchAxis>) {
        let info = &self.version.signature.outputs[port];
        if let Some(window) = self.version.manifest.window
            && window.hop_bins > 1
            && !info.dtype.has_nan()
        {
            let expected = "a float, since it is NaN in the bins between two windows (hop_bins > 1)";
            self.wrong(format!("{key}.tensor"), expected, info.to_string());
        }
        if self.outputs[port].is_none() {
            let row = self.row(key, port, Side::Output, declared);
            self.outputs[port] = Some(row);
        }
    }

    /// Every input of the graph must be fed by something; outputs that nobody asked for are left alone.
    fn undeclared(&mut self) {
        let manifest = &self.version.manifest;
        for (port, info) in self.version.signature.inputs.iter().enumerate() {
            let named = manifest.inputs.iter().any(|input| {
                input.tensor == info.name
                    || input.mask_tensor.as_ref() == Some(&info.name)
                    || input
                        .tensors
                        .as_ref()
                        .is_some_and(|t| [&t.unit, &t.time, &t.mask].contains(&&info.name))
            }) || manifest.statics.iter().any(|fixed| fixed.tensor == info.name)
                || manifest.states.iter().any(|state| state.input == info.name)
                || manifest.noise.iter().any(|noise| noise.tensor == info.name);
            if !named && self.inputs[port].is_none() {
                self.findings.push(Finding::new(
                    &self.version.graph_file,
                    format!("input {} ({info})", quoted(&info.name)),
                    format!(
                        "[[input]], [[static]], [[state]], [[noise]] or mask_tensor for it in {}",
                        self.version.manifest_file
                    ),
                    "none",
                ));
            }
        }
        for (port, info) in self.version.signature.outputs.iter().enumerate() {
            if self.outputs[port].is_none() {
                let axis = self.batch_axis(info);
                let axis = axis.filter(|&axis| !matches!(info.dims[axis], Dim::Fixed(n) if n != 1));
                let mut dims = info.dims.clone();
                if let Some(axis) = axis {
                    dims.remove(axis);
                }
                self.outputs[port] = Some(Row { batch_axis: axis, dims });
            }
        }
    }
}
