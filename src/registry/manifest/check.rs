//! What must hold of a manifest before its graph is seen, and what is right but not served by this version yet.

use std::collections::BTreeMap;

use super::{Channels, InputType, Manifest, Mode, StateInit, StateKind};
use crate::domain::time::ns_from_ms;
use crate::registry::file::is_plain_name;
use crate::registry::finding::{Finding, Findings, quoted};
use crate::signal::op::{Numbers, Op, Reduce, ZscoreMode, values_per_bin};
use crate::signal::refusal::OpError;

/// Longest window and longest hop (bins).
const MOST_BINS: u32 = 65_536;

/// What is wrong in the manifest itself.
pub(super) fn check(file: &str, manifest: &Manifest) -> Findings {
    let mut sheet = Sheet { file, findings: Findings::none() };
    sheet.names(manifest);
    sheet.tensors(manifest);
    sheet.inputs(manifest);
    sheet.states(manifest);
    sheet.mode(manifest);
    sheet.serve(manifest);
    for (key, name) in manifest.named_files() {
        if !is_plain_name(name) {
            sheet.wrong(key, "a plain file name (no folder)", quoted(name));
        }
    }
    sheet.findings
}

/// What the manifest asks for that this version of latentd knows but does not serve yet.
pub fn unserved(file: &str, manifest: &Manifest) -> Findings {
    let mut sheet = Sheet { file, findings: Findings::none() };
    if !matches!(manifest.mode, Mode::Step | Mode::Window) {
        sheet.not_yet("mode", "step or window", quoted(manifest.mode.word()));
    }
    if manifest.mode == Mode::Window && !manifest.states.is_empty() {
        let found = format!("{} of them", manifest.states.len());
        sheet.not_yet("state", "no [[state]] with mode = \"window\"", found);
    }
    if !manifest.noise.is_empty() {
        sheet.not_yet("noise", "no noise inputs", format!("{} of them", manifest.noise.len()));
    }
    for (i, state) in manifest.states.iter().enumerate() {
        if state.kind == StateKind::Ring {
            sheet.not_yet(format!("state[{i}].kind"), "fixed", "`ring`");
        }
    }
    for (i, tap) in manifest.taps.iter().enumerate() {
        if tap.edit {
            sheet.not_yet(format!("tap[{i}].edit"), "false", "`true`");
        }
    }
    for (i, output) in manifest.outputs.iter().enumerate() {
        if output.sparse {
            sheet.not_yet(format!("output[{i}].sparse"), "false", "`true`");
        }
    }
    for (i, input) in manifest.inputs.iter().enumerate() {
        if input.form.is_some() {
            sheet.not_yet(format!("input[{i}].as"), "counts per bin", "`tokens`");
        }
        if input.kind == InputType::Markers {
            sheet.not_yet(
                format!("input[{i}].type"),
                "spike_events, binned, continuous, frames, address_events or latent",
                quoted(input.kind.word()),
            );
        }
    }
    sheet.findings
}

/// What was found so far in one file.
struct Sheet<'a> {
    file: &'a str,
    findings: Findings,
}

impl Sheet<'_> {
    fn wrong(&mut self, key: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding::new(self.file, key, expected, found));
    }

    fn not_yet(&mut self, key: impl Into<String>, served: &str, found: impl Into<String>) {
        let found = format!("{}, which this version does not serve yet", found.into());
        self.wrong(key, served, found);
    }

    fn names(&mut self, manifest: &Manifest) {
        let mut streamed = BTreeMap::new();
        for (i, input) in manifest.inputs.iter().enumerate() {
            self.name(format!("input[{i}].name"), &input.name, &mut streamed);
        }
        for (i, fixed) in manifest.statics.iter().enumerate() {
            self.name(format!("static[{i}].name"), &fixed.name, &mut streamed);
        }
        let mut given = BTreeMap::new();
        for (i, output) in manifest.outputs.iter().enumerate() {
            self.name(format!("output[{i}].name"), &output.name, &mut given);
        }
        for (i, tap) in manifest.taps.iter().enumerate() {
            self.name(format!("tap[{i}].name"), &tap.name, &mut given);
        }
    }

    fn name(&mut self, key: String, name: &str, seen: &mut BTreeMap<String, String>) {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '.' || c == ':' || c == ',';
        if name.is_empty() || name.chars().count() > 100 || name.contains(bad) {
            self.wrong(
                key,
                "a name of 1 to 100 characters without space, dot, colon and comma",
                quoted(name),
            );
        } else if let Some(first) = seen.get(name) {
            self.wrong(key, "a name of its own", format!("{}, which {first} has", quoted(name)));
        } else {
            seen.insert(name.to_owned(), key);
        }
    }

    /// Each tensor of the graph's input side has one source, each state one output.
    fn tensors(&mut self, manifest: &Manifest) {
        let mut fed: BTreeMap<&str, String> = BTreeMap::new();
        let mut sources: Vec<(String, &str)> = Vec::new();
        for (i, input) in manifest.inputs.iter().enumerate() {
            match &input.tensors {
                Some(tokens) if input.form.is_some() => {
                    for (word, tensor) in
                        [("unit", &tokens.unit), ("time", &tokens.time), ("mask", &tokens.mask)]
                    {
                        sources.push((format!("input[{i}].tensors.{word}"), tensor));
                    }
                }
                _ => sources.push((format!("input[{i}].tensor"), &input.tensor)),
            }
            if let Some(mask) = &input.mask_tensor {
                sources.push((format!("input[{i}].mask_tensor"), mask));
            }
        }
        for (i, state) in manifest.states.iter().enumerate() {
            sources.push((format!("state[{i}].input"), &state.input));
        }
        for (i, fixed) in manifest.statics.iter().enumerate() {
            // A static that is only a state's initial value needs no tensor of its own.
            let initial = manifest.states.iter().any(|state| {
                state.init == StateInit::Static(fixed.name.clone())
                    && (fixed.tensor.is_empty() || fixed.tensor == state.input)
            });
            if !initial {
                sources.push((format!("static[{i}].tensor"), &fixed.tensor));
            }
        }
        for (i, noise) in manifest.noise.iter().enumerate() {
            sources.push((format!("noise[{i}].tensor"), &noise.tensor));
        }
        for (key, tensor) in sources {
            if tensor.is_empty() {
                self.wrong(key, "the name of a tensor of the graph", "nothing");
            } else if let Some(first) = fed.get(tensor) {
                self.wrong(key, "a tensor of its own", format!("{}, which {first} feeds", quoted(tensor)));
            } else {
                fed.insert(tensor, key);
            }
        }
        let mut kept: BTreeMap<&str, String> = BTreeMap::new();
        for (i, state) in manifest.states.iter().enumerate() {
            let key = format!("state[{i}].output");
            if let Some(first) = kept.get(state.output.as_str()) {
                self.wrong(
                    key,
                    "a tensor of its own",
                    format!("{}, which {first} names", quoted(&state.output)),
                );
            } else {
                kept.insert(&state.output, key);
            }
        }
    }

    fn inputs(&mut self, manifest: &Manifest) {
        let mut width: Option<(usize, f64)> = None;
        for (i, input) in manifest.inputs.iter().enumerate() {
            if let Some(bin_ms) = input.bin_ms {
                let whole = ns_from_ms(bin_ms).is_some_and(|ns| ns > 0 && ns as f64 == bin_ms * 1e6);
                // Decimal fractions of a ms such as 0.1 are whole ns only after rounding.
                let nearly =
                    ns_from_ms(bin_ms).is_some_and(|ns| ns > 0 && (ns as f64 - bin_ms * 1e6).abs() < 1e-3);
                if !(whole || nearly) {
                    self.wrong(
                        format!("input[{i}].bin_ms"),
                        "a whole number of nanoseconds, at least 1",
                        format!("{bin_ms} ms"),
                    );
                }
                match width {
                    Some((first, other)) if other != bin_ms => self.wrong(
                        format!("input[{i}].bin_ms"),
                        format!("{other}, as input[{first}] has (one width per model)"),
                        bin_ms.to_string(),
                    ),
                    _ => width = Some((i, bin_ms)),
                }
            }
            if input.rate.is_some_and(|rate| rate.num == 0 || rate.den == 0) {
                self.wrong(format!("input[{i}].rate"), "num and den of at least 1", "0");
            }
            if input.rate.is_some() && !matches!(input.kind, InputType::Continuous | InputType::Frames) {
                self.wrong(
                    format!("input[{i}].rate"),
                    "a rate only with type continuous or frames",
                    quoted(input.kind.word()),
                );
            }
            if input.form.is_some() && input.tensors.is_none() {
                self.wrong(
                    format!("input[{i}].tensors"),
                    "{ unit, time, mask } with as = \"tokens\"",
                    "nothing",
                );
            }
            if input.form.is_none() && (input.tensors.is_some() || input.units_file.is_some()) {
                self.wrong(
                    format!("input[{i}].as"),
                    "\"tokens\" where tensors or units_file stand",
                    "nothing",
                );
            }
            if input.kind == InputType::Latent && !input.preprocess.is_empty() {
                self.wrong(
                    format!("input[{i}].preprocess"),
                    "no ops with type latent: what a stage gives is taken as it is",
                    format!("{} of them", input.preprocess.len()),
                );
            }
            if let Some(kind) = input.kind.signal()
                && let Err(error) = crate::signal::chain::check_places(&input.preprocess, kind)
            {
                self.op(i, error);
            }
            if input.kind.is_image() {
                self.image_chain(i, &input.preprocess);
            }
            self.chain(i, &input.preprocess, input.channels);
        }
    }

    /// What is done to images is done to each pixel by itself.
    fn image_chain(&mut self, i: usize, ops: &[Op]) {
        for (j, op) in ops.iter().enumerate() {
            let by_pixel = match op {
                Op::Bin { reduce } => *reduce != Some(Reduce::All),
                Op::Scale { .. } | Op::Sqrt {} | Op::Log1p {} | Op::Clip { .. } => true,
                Op::Smooth { .. } | Op::Zscore { .. } => true,
                _ => false,
            };
            if !by_pixel {
                self.wrong(
                    format!("input[{i}].preprocess[{j}]"),
                    "bin (sum, mean or last), scale, sqrt, log1p, clip, smooth or zscore on images",
                    quoted(op.word()),
                );
            }
        }
    }

    /// The parameters of each op; the formulas are the signal room's.
    fn chain(&mut self, i: usize, ops: &[Op], channels: Option<Channels>) {
        for (j, op) in ops.iter().enumerate() {
            if let Err(error) = op.check() {
                self.op(i, OpError { place: j, ..error });
            }
            if let Op::Zscore { mode: ZscoreMode::Fixed, mean, std, .. } = op {
                let key = |word: &str| format!("input[{i}].preprocess[{j}].{word}");
                let channels = match channels {
                    Some(Channels::Count(n)) => values_per_bin(&ops[..j], n as usize),
                    _ => None,
                };
                self.numbers(key("mean"), mean, channels, |x| x.is_finite());
                self.numbers(key("std"), std, channels, |x| x.is_finite() && x >= 0.0);
            }
        }
    }

    fn op(&mut self, i: usize, error: OpError) {
        self.wrong(format!("input[{i}].{}", error.field()), error.expected, error.found);
    }

    fn numbers(
        &mut self,
        key: String,
        numbers: &Option<Numbers>,
        channels: Option<usize>,
        good: impl Fn(f64) -> bool,
    ) {
        match numbers {
            None => self.wrong(key, "one number per channel, or \"file:NAME\"", "nothing"),
            Some(Numbers::File(text)) if !text.starts_with("file:") => {
                self.wrong(key, "numbers or \"file:NAME\"", quoted(text));
            }
            Some(Numbers::File(_)) => {}
            Some(Numbers::Here(all)) => {
                if let Some(bad) = all.iter().find(|x| !good(**x)) {
                    self.wrong(key, "finite numbers (a deviation: 0 or more)", bad.to_string());
                } else if let Some(n) = channels
                    && all.len() != n
                    && all.len() != 1
                {
                    self.wrong(key, format!("{n} numbers, one per channel"), all.len().to_string());
                }
            }
        }
    }

    fn states(&mut self, manifest: &Manifest) {
        for (i, state) in manifest.states.iter().enumerate() {
            if let StateInit::Static(name) = &state.init
                && !manifest.statics.iter().any(|fixed| fixed.name == *name)
            {
                let there = crate::error::there_is(name, manifest.statics.iter().map(|s| s.name.as_str()));
                self.wrong(
                    format!("state[{i}].init"),
                    format!("the name of a [[static]] ({there})"),
                    quoted(name),
                );
            }
            if state.kind == StateKind::Ring && (state.axis.is_none() || state.max.is_none_or(|max| max == 0))
            {
                self.wrong(
                    format!("state[{i}].axis"),
                    "axis and max (1 or more) with kind = \"ring\"",
                    "none",
                );
            }
            if state.batch_axis == Some(super::BatchAxis::None) {
                self.wrong(format!("state[{i}].batch_axis"), "an axis: a state is a session's own", "`none`");
            }
        }
    }

    fn mode(&mut self, manifest: &Manifest) {
        let tables = [
            (Mode::Window, manifest.window.is_some()),
            (Mode::Trial, manifest.trial.is_some()),
            (Mode::Iterate, manifest.iterate.is_some()),
        ];
        for (mode, told) in tables {
            let word = mode.word();
            if told && manifest.mode != mode {
                self.wrong(
                    word,
                    format!("mode = \"{word}\" where [{word}] stands"),
                    quoted(manifest.mode.word()),
                );
            } else if !told && manifest.mode == mode && mode != Mode::Trial {
                self.wrong(word, format!("a table [{word}] with mode = \"{word}\""), "nothing");
            }
        }
        let Some(window) = &manifest.window else { return };
        for (word, bins) in [("size_bins", window.size_bins), ("hop_bins", window.hop_bins)] {
            if bins == 0 || bins > MOST_BINS {
                self.wrong(format!("window.{word}"), format!("1 to {MOST_BINS}"), bins.to_string());
            }
        }
    }

    fn serve(&mut self, manifest: &Manifest) {
        let serve = &manifest.serve;
        let ranges = [
            ("instances", u64::from(serve.instances), 64),
            ("intra_threads", u64::from(serve.intra_threads), 256),
            ("max_batch", u64::from(serve.max_batch), 65_536),
        ];
        for (word, value, most) in ranges {
            if value == 0 || value > most {
                self.wrong(format!("serve.{word}"), format!("1 to {most}"), value.to_string());
            }
        }
        if let Some(ms) = serve.deadline_ms
            && !(ms.is_finite() && ms > 0.0)
        {
            self.wrong("serve.deadline_ms", "a finite number > 0", ms.to_string());
        }
        for (word, value) in [("rel", manifest.example.rel), ("abs", manifest.example.abs)] {
            if !(value.is_finite() && value >= 0.0) {
                self.wrong(format!("example.{word}"), "a finite number, 0 or more", value.to_string());
            }
        }
    }
}
