//! A version's recorded example, `example.safetensors`, bound to the ports of its graph.

use std::sync::Arc;

use safetensors::SafeTensors;

use super::finding::{Finding, Findings, quoted};
use super::manifest::Window;
use super::surface::{Initial, Surface};
use crate::batch::Port;
use crate::domain::tensor::{Dtype, Tensor};
use crate::phrase::safetensors::broken;

/// A recorded example: what went in and what came out, one entry per bin.
///
/// Of a model with a window, either its entries are whole windows, or they are the bins along which the window slides.
pub struct Recorded {
    /// Entries of every series.
    bins: usize,
    /// What goes in.
    pub inputs: Vec<Series>,
    /// What came out.
    pub outputs: Vec<Series>,
    /// Per state: what its first value was, where the example and not the manifest says it.
    pub inits: Vec<Option<Tensor>>,
    /// The window that slides along the entries.
    window: Option<Window>,
}

/// One tensor of an example, `[T, row…]`.
pub struct Series {
    /// Its port.
    pub port: usize,
    tensor: Tensor,
    /// Its entries are bins, several of which make a row.
    slides: bool,
}

impl Recorded {
    /// Reads an example; `window` is the model's. Everything that does not fit is named in one answer.
    pub fn read(
        file: &str,
        bytes: &Arc<[u8]>,
        surface: &Surface,
        window: Option<Window>,
    ) -> Result<Self, Findings> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
            Findings::one(Finding::new(file, "", "a safetensors file", broken(&error, bytes.len())))
        })?;
        let mut findings = Findings::none();
        let mut recorded = Self {
            bins: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            inits: vec![None; surface.states.len()],
            window: None,
        };
        let mut bins: Option<(String, usize)> = None;
        let mut names = tensors.names();
        names.sort_unstable();
        for name in names {
            let (side, tensor) = name.split_once('.').unwrap_or((name, ""));
            let ports = match side {
                "in" => &surface.inputs,
                "out" => &surface.outputs,
                _ => {
                    findings.push(Finding::new(
                        file,
                        quoted(name),
                        "in.<tensor> or out.<tensor>",
                        "another name",
                    ));
                    continue;
                }
            };
            let Some(port) = ports.iter().position(|port| port.name == tensor) else {
                let there = crate::error::there_is(tensor, ports.iter().map(|port| port.name.as_str()));
                findings.push(Finding::new(
                    file,
                    quoted(name),
                    format!("a tensor of the graph ({there})"),
                    "none",
                ));
                continue;
            };
            let row_shape = &ports[port].row_shape[..];
            let whole = series(&tensors, name, &ports[port], row_shape);
            let slides = side == "in" && window.is_some() && whole.is_err() && surface.streams(port);
            let read = if slides {
                let bins = series(&tensors, name, &ports[port], &row_shape[1..]);
                bins.map_err(|(expected, found)| {
                    (format!("{expected}, or whole windows {row_shape:?}"), found)
                })
            } else {
                whole
            };
            let tensor = match read {
                Ok(tensor) => tensor,
                Err((expected, found)) => {
                    findings.push(Finding::new(file, quoted(name), expected, found));
                    continue;
                }
            };
            let length = tensor.shape[0];
            match &bins {
                Some((first, n)) if *n != length => findings.push(Finding::new(
                    file,
                    quoted(name),
                    format!("{n} bins, as {} has", quoted(first)),
                    length.to_string(),
                )),
                Some(_) => {}
                None => bins = Some((name.to_owned(), length)),
            }
            let state = surface.states.iter().position(|state| state.input_port == port && side == "in");
            match state {
                // Carried: only its first value can be told.
                Some(state) if length > 0 => recorded.inits[state] = Some(entries(&tensor, 0..1, row_shape)),
                _ if side == "in" => recorded.inputs.push(Series { port, tensor, slides }),
                _ => recorded.outputs.push(Series { port, tensor, slides }),
            }
        }
        recorded.missing(file, surface, &mut findings);
        let streamed = || recorded.inputs.iter().filter(|series| surface.streams(series.port));
        if streamed().any(|series| series.slides) {
            recorded.window = window;
            if let Some(whole) = streamed().find(|series| !series.slides) {
                let key = format!("`in.{}`", surface.inputs[whole.port].name);
                findings.push(Finding::new(file, key, "bins, as the other inputs have", "whole windows"));
            }
        }
        recorded.bins = bins.map_or(0, |(_, n)| n);
        let least = recorded.window.map_or(1, |window| window.size_bins as usize);
        if recorded.bins < least && findings.0.is_empty() {
            let expected =
                if least == 1 { "at least one bin".into() } else { format!("at least {least} bins") };
            let found = if recorded.bins == 0 { "none".into() } else { recorded.bins.to_string() };
            findings.push(Finding::new(file, "", expected, found));
        }
        findings.unless_any(recorded)
    }

    /// What an example must have and this one has not.
    fn missing(&self, file: &str, surface: &Surface, findings: &mut Findings) {
        for input in &surface.streamed {
            if !self.inputs.iter().any(|series| series.port == input.port) {
                let key = format!("`in.{}`", surface.inputs[input.port].name);
                findings.push(Finding::new(file, key, "every streamed input", "none"));
            }
        }
        for fixed in &surface.statics {
            let port = fixed.port.or_else(|| {
                let starts = surface.states.iter().find(|s| s.init == Initial::Static(fixed.name.clone()));
                starts.map(|state| state.input_port)
            });
            let Some(port) = port.filter(|_| fixed.required) else { continue };
            let is_told = self.inputs.iter().any(|series| series.port == port)
                || surface
                    .states
                    .iter()
                    .zip(&self.inits)
                    .any(|(s, init)| s.input_port == port && init.is_some());
            if !is_told {
                let key = format!("`in.{}`", surface.inputs[port].name);
                findings.push(Finding::new(file, key, format!("the static `{}`", fixed.name), "none"));
            }
        }
        if self.outputs.is_empty() {
            findings.push(Finding::new(file, "`out.<tensor>`", "at least one output", "none"));
        }
    }

    /// The bins in which the model is run: all of them, or those with which a window ends.
    pub fn runs(&self) -> impl Iterator<Item = usize> + use<> {
        let (size, hop) =
            self.window.map_or((1, 1), |window| (window.size_bins as usize, window.hop_bins as usize));
        (size - 1..self.bins).step_by(hop)
    }

    /// What goes into a port of that row shape for the run of a bin.
    pub fn row(&self, series: &Series, bin: usize, row_shape: &[usize]) -> Tensor {
        let bins = self.window.filter(|_| series.slides).map_or(1, |window| window.size_bins as usize);
        entries(&series.tensor, bin + 1 - bins..bin + 1, row_shape)
    }
}

/// A tensor `[T, row…]` of an example, in the port's dtype; axes of length 1 may be missing or more.
fn series(
    tensors: &SafeTensors<'_>,
    name: &str,
    port: &Port,
    row_shape: &[usize],
) -> Result<Tensor, (String, String)> {
    let view = tensors.tensor(name).map_err(|error| ("a tensor".to_owned(), broken(&error, 0)))?;
    let elements: usize = row_shape.iter().product();
    let found = format!("{:?} {:?}", view.dtype(), view.shape());
    let expected = format!("{} [T, …] with rows of {row_shape:?}", port.dtype);
    let dtype = Dtype::ALL
        .into_iter()
        .find(|dtype| dtype.word().eq_ignore_ascii_case(&format!("{:?}", view.dtype())))
        .ok_or_else(|| (expected.clone(), found.clone()))?;
    let Some((&bins, row)) = view.shape().split_first() else { return Err((expected, found)) };
    let plain = |shape: &[usize]| shape.iter().copied().filter(|&length| length != 1).collect::<Vec<_>>();
    if dtype != port.dtype || row.iter().product::<usize>() != elements || plain(row) != plain(row_shape) {
        return Err((expected, found));
    }
    let shape: Vec<usize> = std::iter::once(bins).chain(row_shape.iter().copied()).collect();
    Tensor::from_bytes(dtype, &shape, view.data()).ok_or((expected, found))
}

/// Entries of a tensor `[T, row…]` as one tensor of that shape, which has as many elements.
fn entries(series: &Tensor, range: std::ops::Range<usize>, shape: &[usize]) -> Tensor {
    let len_bytes = series.shape[1..].iter().product::<usize>() * series.dtype.size_bytes();
    let bytes = &series.data.bytes()[range.start * len_bytes..range.end * len_bytes];
    Tensor::from_bytes(series.dtype, shape, bytes).expect("as many elements as the shape has")
}
