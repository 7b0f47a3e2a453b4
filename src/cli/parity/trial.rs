//! A version's raw trial, `parity/`: a recording, and what must come out of it.

use std::collections::BTreeMap;

use ndarray::Array2;
use safetensors::SafeTensors;

use crate::cli::{replay, with_causes};
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::there_is;
use crate::phrase::safetensors::broken;
use crate::pipeline::plan::Plan;
use crate::registry::finding::{Finding, Findings, quoted};
use crate::registry::{file, version::VersionDir};
use crate::wire::recording::Recording;

/// The folder of a trial in a version's directory.
pub const FOLDER: &str = "parity";
/// What must come out.
const EXPECTED: &str = "expected.safetensors";
/// Longest `expected.safetensors` (bytes).
const LIMIT_BYTES: u64 = 1 << 32;

/// A raw trial, read whole. Its arrays are `[n, values]`, bins from `first_bin` on, every dtype widened to f64.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The raw data.
    pub recording: Recording,
    /// The bin that the first rows speak of.
    pub first_bin: u64,
    /// Rows of every array.
    pub n: usize,
    /// What must come out, by the outputs' names.
    pub outputs: BTreeMap<String, Array2<f64>>,
    /// Counts per bin, in the model's channels, where they are given.
    pub counts: Option<Array2<f64>>,
    /// What must stand at an input after its preprocessing, by the inputs' places in the plan, where it is given.
    pub preprocessed: BTreeMap<usize, Array2<f64>>,
}

/// Whether a version has a trial.
pub fn is_there(version: &VersionDir) -> bool {
    version.path().join(FOLDER).is_dir()
}

/// Reads the trial of a version; `plan` is that of the model alone.
/// Errors: each thing that is wrong with it, by file and tensor.
pub fn read(version: &VersionDir, plan: &Plan) -> Result<Trial, Findings> {
    let folder = version.path().join(FOLDER);
    let shown = format!("{}/{}/{FOLDER}", version.model, version.version);
    let recording = replay::open(&folder.join("recording")).map_err(|error| {
        let found = with_causes(&error);
        Findings::one(Finding::new(format!("{shown}/recording"), "", "a recording in the open format", found))
    })?;
    let shown = format!("{shown}/{EXPECTED}");
    let bytes = file::read(&folder.join(EXPECTED), &shown, &version.model_dir, LIMIT_BYTES);
    let bytes = bytes.and_then(|bytes| {
        bytes.ok_or_else(|| Finding::new(&shown, "", "what must come out of the recording", "nothing"))
    });
    expected(&shown, &bytes.map_err(Findings::one)?, recording, plan)
}

fn expected(shown: &str, bytes: &[u8], recording: Recording, plan: &Plan) -> Result<Trial, Findings> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| {
        Findings::one(Finding::new(shown, "", "a safetensors file", broken(&error, bytes.len())))
    })?;
    let mut findings = Findings::none();
    let mut trial = Trial {
        recording,
        first_bin: 0,
        n: 0,
        outputs: BTreeMap::new(),
        counts: None,
        preprocessed: BTreeMap::new(),
    };
    let mut first_bin = None;
    let mut rows: Option<(&str, usize)> = None;
    let mut names = tensors.names();
    names.sort_unstable();
    for name in names {
        let key = quoted(name);
        let Some(tensor) = tensors.tensor(name).ok().and_then(|view| tensor(&view)) else {
            findings.push(Finding::new(shown, key, "numbers", "a dtype that is not known"));
            continue;
        };
        if name == "first_bin" {
            let whole = matches!(tensor.dtype, Dtype::I64 | Dtype::I32 | Dtype::U64 | Dtype::U32);
            match tensor.to_f64()[..] {
                [bin] if whole && bin >= 0.0 => first_bin = Some(bin as u64),
                _ => findings.push(Finding::new(
                    shown,
                    key,
                    "one whole number from 0, i64 [1]",
                    format!("{} {:?}", tensor.dtype, tensor.shape),
                )),
            }
            continue;
        }
        let input = name.strip_prefix("preprocessed.");
        let place = input.and_then(|input| plan.inputs.iter().position(|known| known.name == input));
        let output = plan.outputs.iter().find(|known| known.name == name || known.output == name);
        let width: Option<usize> = match (place, output) {
            (Some(place), _) => Some(plan.input_rows()[place]),
            (None, Some(output)) => Some(output.dims.iter().map(|&axis| axis as usize).product()),
            (None, None) if name == "counts" => None,
            (None, None) => {
                let there = match input {
                    Some(input) => there_is(input, plan.inputs.iter().map(|known| known.name.as_str())),
                    None => there_is(name, plan.outputs.iter().map(|known| known.name.as_str())),
                };
                let expected = format!("first_bin, counts, preprocessed.<input> or an output ({there})");
                findings.push(Finding::new(shown, key, expected, "another name"));
                continue;
            }
        };
        let n = tensor.shape.first().copied().unwrap_or(0);
        let values = tensor.elements().checked_div(n).unwrap_or(0);
        if values == 0 || width.is_some_and(|width| width != values) {
            let width = width.map_or("channels".into(), |width| width.to_string());
            let found = format!("{} {:?}", tensor.dtype, tensor.shape);
            findings.push(Finding::new(shown, key, format!("rows of {width} values, [n, {width}]"), found));
            continue;
        }
        match rows {
            Some((first, rows)) if rows != n => {
                let expected = format!("{rows} rows, as {} has", quoted(first));
                findings.push(Finding::new(shown, key, expected, n.to_string()));
                continue;
            }
            _ => rows = Some((name, n)),
        }
        let array = Array2::from_shape_vec((n, values), tensor.to_f64()).expect("n rows of so many values");
        match (place, output) {
            (Some(place), _) => drop(trial.preprocessed.insert(place, array)),
            (None, Some(output)) => drop(trial.outputs.insert(output.name.clone(), array)),
            (None, None) => trial.counts = Some(array),
        }
    }
    if findings.0.is_empty() && trial.outputs.is_empty() {
        let there = there_is("", plan.outputs.iter().map(|known| known.name.as_str()));
        findings.push(Finding::new(shown, "", format!("at least one output ({there})"), "none"));
    }
    if findings.0.is_empty() && first_bin.is_none() {
        findings.push(Finding::new(shown, "`first_bin`", "the bin of the first rows, i64 [1]", "none"));
    }
    trial.first_bin = first_bin.unwrap_or(0);
    trial.n = rows.map_or(0, |(_, n)| n);
    findings.unless_any(trial)
}

fn tensor(view: &safetensors::tensor::TensorView<'_>) -> Option<Tensor> {
    let word = format!("{:?}", view.dtype());
    let dtype = Dtype::ALL.into_iter().find(|dtype| dtype.word().eq_ignore_ascii_case(&word))?;
    Tensor::from_bytes(dtype, view.shape(), view.data())
}
