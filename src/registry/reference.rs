//! What a version's training data were like, `reference.safetensors`, bound to the ports of its graph.

use std::sync::Arc;

use safetensors::SafeTensors;

use super::finding::{Finding, Findings, quoted};
use super::surface::Surface;
use crate::domain::output::OutputRole;
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::there_is;
use crate::health::reference::{ChannelReference, LatentReference, Wrong};
use crate::phrase::safetensors::broken;

/// A version's training data: of each streamed input, as the model was given it, and of each output of latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// By input port.
    inputs: Vec<Option<Arc<ChannelReference>>>,
    /// By output port.
    outputs: Vec<Option<Arc<LatentReference>>>,
}

/// What an input must have, and may have besides: `in.<tensor>.<part>`, each `[channels]`.
const INPUT_PARTS: [&str; 3] = ["mean", "spread", "silence"];
const INPUT_MORE: &str = "spread_10s";
/// The same of an output of role latent: `out.<tensor>.<part>`, `[d]` and `[d, d]`.
const OUTPUT_PARTS: [&str; 2] = ["mean", "covariance"];
const OUTPUT_MORE: &str = "covariance_10s";

impl Reference {
    /// Reads a reference. Everything that does not fit is named in one answer.
    pub fn read(file: &str, bytes: &Arc<[u8]>, surface: &Surface) -> Result<Self, Findings> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
            Findings::one(Finding::new(file, "", "a safetensors file", broken(&error, bytes.len())))
        })?;
        let mut reading = Reading { file, tensors: &tensors, findings: Findings::none() };
        let mut names = tensors.names();
        names.sort_unstable();
        reading.check_names(&names, surface);
        let mut reference =
            Self { inputs: vec![None; surface.inputs.len()], outputs: vec![None; surface.outputs.len()] };
        for input in surface.streamed.iter().filter(|input| input.image.is_none()) {
            let prefix = format!("in.{}", surface.inputs[input.port].name);
            reference.inputs[input.port] = reading.input(&prefix, input.channels).map(Arc::new);
        }
        for output in surface.results.iter().filter(|output| output.role == OutputRole::Latent) {
            let latents = surface.outputs[output.port].row_shape.iter().product();
            reference.outputs[output.port] =
                reading.output(&format!("out.{}", output.tensor), latents).map(Arc::new);
        }
        reading.findings.unless_any(reference)
    }

    /// What the input at a port was like.
    pub fn input(&self, port: usize) -> Option<Arc<ChannelReference>> {
        self.inputs.get(port).cloned().flatten()
    }

    /// What the latents at a port were like.
    pub fn output(&self, port: usize) -> Option<Arc<LatentReference>> {
        self.outputs.get(port).cloned().flatten()
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (inputs, outputs) = (self.inputs.iter().flatten().count(), self.outputs.iter().flatten().count());
        write!(f, "{inputs} inputs, {outputs} latents")
    }
}

/// The numbers of the parts that must be there, and of the one that may.
type Parts<const N: usize> = ([Vec<f64>; N], Option<Vec<f64>>);

struct Reading<'a> {
    file: &'a str,
    tensors: &'a SafeTensors<'a>,
    findings: Findings,
}

impl Reading<'_> {
    fn wrong(&mut self, name: &str, expected: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding::new(self.file, quoted(name), expected, found));
    }

    /// Every name must be one that is read.
    fn check_names(&mut self, names: &[&str], surface: &Surface) {
        if names.is_empty() {
            self.findings.push(Finding::new(self.file, "", "at least one input or output", "none"));
        }
        let streamed = surface.streamed.iter().filter(|input| input.image.is_none());
        let inputs: Vec<&str> = streamed.map(|input| surface.inputs[input.port].name.as_str()).collect();
        let latents = surface.results.iter().filter(|output| output.role == OutputRole::Latent);
        let outputs: Vec<&str> = latents.map(|output| output.tensor.as_str()).collect();
        for name in names {
            let (side, rest) = name.split_once('.').unwrap_or((name, ""));
            let (tensor, part) = rest.rsplit_once('.').unwrap_or((rest, ""));
            let (known, what, parts) = match side {
                "in" => (&inputs, "a streamed input", [&INPUT_PARTS[..], &[INPUT_MORE]].concat()),
                "out" => (&outputs, "an output of role latent", [&OUTPUT_PARTS[..], &[OUTPUT_MORE]].concat()),
                _ => {
                    self.wrong(name, "in.<tensor>.<part> or out.<tensor>.<part>", "another name");
                    continue;
                }
            };
            if !known.contains(&tensor) {
                let there = there_is(tensor, known.iter().copied());
                self.wrong(name, format!("{what} ({there})"), "none");
            } else if !parts.contains(&part) {
                self.wrong(name, format!("one of the parts {}", parts.join(", ")), quoted(part));
            }
        }
    }

    /// The numbers of a tensor of this shape.
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f64>> {
        let view = self.tensors.tensor(name).ok()?;
        let dtype = [Dtype::F32, Dtype::F64]
            .into_iter()
            .find(|dtype| dtype.word().eq_ignore_ascii_case(&format!("{:?}", view.dtype())));
        let tensor = dtype
            .filter(|_| view.shape() == shape)
            .and_then(|dtype| Tensor::from_bytes(dtype, shape, view.data()));
        if tensor.is_none() {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            self.wrong(name, format!("f32 or f64 {shape:?}"), found);
        }
        Some(tensor?.to_f64())
    }

    /// The parts of an input or output; nothing where there is none of them, a finding where there are some.
    fn parts<const N: usize>(
        &mut self,
        prefix: &str,
        parts: [&'static str; N],
        more: &'static str,
        shape: impl Fn(&str) -> Vec<usize>,
    ) -> Option<Parts<N>> {
        let has = |part: &str| self.tensors.tensor(&format!("{prefix}.{part}")).is_ok();
        if !parts.iter().any(|part| has(part)) && !has(more) {
            return None;
        }
        let missing: Vec<&str> = parts.into_iter().filter(|part| !has(part)).collect();
        for part in &missing {
            self.wrong(
                &format!("{prefix}.{part}"),
                format!("a tensor, beside the others of `{prefix}`"),
                "none",
            );
        }
        let found_before = self.findings.0.len();
        let numbers = parts.map(|part| self.numbers(&format!("{prefix}.{part}"), &shape(part)));
        let besides = self.numbers(&format!("{prefix}.{more}"), &shape(more));
        let is_whole = self.findings.0.len() == found_before && missing.is_empty();
        is_whole.then(|| (numbers.map(Option::unwrap_or_default), besides))
    }

    fn input(&mut self, prefix: &str, channels: usize) -> Option<ChannelReference> {
        let ([mean, spread, silence], spread_10s) =
            self.parts(prefix, INPUT_PARTS, INPUT_MORE, |_| vec![channels])?;
        let made = ChannelReference::new(&mean, &spread, &silence, spread_10s.as_deref());
        self.made(prefix, made)
    }

    fn output(&mut self, prefix: &str, latents: usize) -> Option<LatentReference> {
        let shape = |part: &str| if part == "mean" { vec![latents] } else { vec![latents, latents] };
        let ([mean, covariance], covariance_10s) = self.parts(prefix, OUTPUT_PARTS, OUTPUT_MORE, shape)?;
        let made = LatentReference::new(&mean, &covariance, covariance_10s.as_deref());
        self.made(prefix, made)
    }

    fn made<T>(&mut self, prefix: &str, made: Result<T, Wrong>) -> Option<T> {
        made.map_err(|Wrong { tensor, expected, found }| {
            self.wrong(&format!("{prefix}.{tensor}"), expected, found);
        })
        .ok()
    }
}
