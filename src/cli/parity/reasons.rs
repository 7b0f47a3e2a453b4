//! Why a trial's numbers are others than expected: the steps of the walk are compared in its order, and what is expected is
//! held against the same walk with one thing changed, until one explains it.

use ndarray::Array2;

use super::lab::{Arrays, Change, Lab};
use super::near;
use super::trial::Trial;
use crate::domain::signal::SignalRole;
use crate::error::Fault;
use crate::signal::op::{Init, Kernel, Op};
use crate::wire::recording::{Data, Timing};

/// Where in the walk something is the first to differ, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// In a few words: channel order, unit, filter start, bin edge, smoothing, tensor, node.
    pub place: &'static str,
    /// What was found and what is expected there.
    pub says: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.says)
    }
}

pub(super) fn reason(place: &'static str, says: impl Into<String>) -> Reason {
    Reason { place, says: says.into() }
}

/// A step of the walk, of which it is known what it must give.
#[derive(Clone, Copy)]
enum Step {
    /// Counts of that input.
    Counts(usize),
    /// That input after its preprocessing.
    Input(usize),
    /// The outputs.
    Outputs,
}

/// A trial that differs, and the lab to find out why.
pub struct Inquiry<'a> {
    /// The version.
    pub lab: &'a Lab,
    /// What must come out.
    pub trial: &'a Trial,
    /// What came out through the network.
    pub got: &'a Arrays,
}

impl Inquiry<'_> {
    /// The first step between, of those that are given, that differs. Errors: a step that cannot be taken again here.
    pub fn between(&self) -> Result<Option<Reason>, Fault> {
        let (lab, trial) = (self.lab, self.trial);
        if let Some(counts) = &trial.counts {
            let Some(input) = lab.counting() else {
                let says = "they are expected, and no input of the model takes counts";
                return Ok(Some(reason("counts", says)));
            };
            if let Some(found) = self.at_input(Step::Counts(input), "counts", counts)? {
                return Ok(Some(found));
            }
        }
        for (input, want) in &trial.preprocessed {
            let name = format!("preprocessed.{}", lab.plan.inputs[*input].name);
            if let Some(found) = self.at_input(Step::Input(*input), &name, want)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first place that differs, of a trial whose outputs do. Errors: a step that cannot be taken again here.
    pub fn reason(&self) -> Result<Reason, Fault> {
        let (lab, trial) = (self.lab, self.trial);
        if let Some(found) = self.between()? {
            return Ok(found);
        }
        let bins = lab.bins(&trial.recording, &Change::None, None)?;
        let alone = lab.outputs(&bins, false, trial.first_bin, trial.n)?;
        let told = &lab.version.manifest.example;
        let differs = |name: &String| near::first(told, &self.got[name], &alone[name]).is_some();
        if let Some(name) = trial.outputs.keys().find(|name| differs(name)) {
            let says = format!(
                "the model run alone on the same bins gives another `{name}` than the server's answers: that is a fault \
                 of the server, not of the model"
            );
            return Ok(reason("server", says));
        }
        if let Some(found) = self.not_finite(&bins)? {
            return Ok(found);
        }
        let told_inputs = (0..lab.plan.inputs.len()).all(|input| trial.preprocessed.contains_key(&input));
        if !told_inputs && let Some(found) = self.changed(Step::Outputs)? {
            return Ok(found);
        }
        self.in_the_graph(&bins, told_inputs)
    }

    /// What a step gives with a change, in the order of `wanted`.
    fn given(&self, step: Step, change: &Change) -> Result<Vec<Array2<f64>>, Fault> {
        let (lab, Trial { recording, first_bin, n, .. }) = (self.lab, self.trial);
        match step {
            Step::Counts(input) => {
                let bins = lab.bins(recording, change, Some(input))?;
                Ok(vec![lab.preprocessed(&bins, input, *first_bin, *n)])
            }
            Step::Input(input) => {
                let bins = lab.bins(recording, change, None)?;
                Ok(vec![lab.preprocessed(&bins, input, *first_bin, *n)])
            }
            Step::Outputs => {
                let bins = lab.bins(recording, change, None)?;
                let mut outputs = lab.outputs(&bins, false, *first_bin, *n)?;
                Ok(self.trial.outputs.keys().filter_map(|name| outputs.remove(name)).collect())
            }
        }
    }

    fn wanted(&self, step: Step) -> Vec<&Array2<f64>> {
        match step {
            Step::Counts(_) => self.trial.counts.iter().collect(),
            Step::Input(input) => self.trial.preprocessed.get(&input).into_iter().collect(),
            Step::Outputs => self.trial.outputs.values().collect(),
        }
    }

    /// Whether a change makes a step give what is expected. One that the walk refuses does not.
    fn explains(&self, step: Step, change: &Change) -> bool {
        let moves = matches!(change, Change::Earlier { .. });
        let told = &self.lab.version.manifest.example;
        let agrees = if moves { near::meets } else { near::fits };
        self.given(step, change).is_ok_and(|given| {
            let wanted = self.wanted(step);
            given.len() == wanted.len()
                && given.iter().zip(wanted).all(|(given, want)| agrees(told, given, want))
        })
    }

    /// An input's step, compared; the reason, if it differs.
    fn at_input(&self, step: Step, name: &str, want: &Array2<f64>) -> Result<Option<Reason>, Fault> {
        let told = &self.lab.version.manifest.example;
        let got = self.given(step, &Change::None)?.remove(0);
        if got.ncols() != want.ncols() {
            let says = format!("{name} has {} values per bin, expected {}", got.ncols(), want.ncols());
            return Ok(Some(reason("channels", says)));
        }
        let Some(first) = near::first(told, &got, want) else { return Ok(None) };
        let (Step::Counts(input) | Step::Input(input)) = step else { return Ok(None) };
        let at = format!(
            "{name}, bin {}, element {}: expected {}, found {}",
            self.trial.first_bin + first.row as u64,
            first.element,
            first.want,
            first.got
        );
        let found = match self.by_order(step) {
            Some(found) => found,
            None => match self.as_columns(input, &got, want) {
                Some(found) => found,
                None => match self.changed(step)? {
                    Some(found) => found,
                    None => self.unexplained(input, &got, want),
                },
            },
        };
        Ok(Some(Reason { says: format!("{} ({at})", found.says), ..found }))
    }

    fn by_order(&self, step: Step) -> Option<Reason> {
        self.explains(step, &Change::ByOrder).then(|| {
            reason(
                "channel order",
                "channels are matched by their names, and expected is what they give in the recording's order: \
                 channels.csv lists them otherwise than the model was trained on",
            )
        })
    }

    /// Columns that are exchanged, or larger by a power of a thousand.
    fn as_columns(&self, input: usize, got: &Array2<f64>, want: &Array2<f64>) -> Option<Reason> {
        let told = &self.lab.version.manifest.example;
        let channel = |c: usize| self.channel(input, got.ncols(), c);
        if let Some(order) = near::order(told, got, want) {
            let (to, from) = order.iter().enumerate().find(|(to, from)| to != *from)?;
            let moved = order.iter().enumerate().filter(|(to, from)| to != *from).count();
            let says = format!(
                "{moved} of {} stand in another order than expected: expected {to} is {from} here, {}",
                order.len(),
                channel(*from)
            );
            return Some(reason("channel order", says));
        }
        let (power, columns) = near::thousands(told, got, want)?;
        let which = match columns.len() {
            all if all == got.ncols() => "all channels".into(),
            1 => channel(columns[0]),
            some => format!("{some} channels, {} the first of them", channel(columns[0])),
        };
        let says =
            format!("expected is {} times what is here, in {which}: {}", ten_to(power), self.units(input));
        Some(reason("unit", says))
    }

    fn channel(&self, input: usize, width: usize, column: usize) -> String {
        let name = &self.lab.plan.inputs[input].name;
        let bound = self.lab.version.input(name).map(|(_, bound)| bound.input);
        let rows =
            bound.and_then(|at| self.lab.version.channels[at].as_ref()).filter(|rows| rows.len() == width);
        rows.map_or_else(|| format!("value {column}"), |rows| format!("channel `{}`", rows[column].name))
    }

    /// What recording and model say of their units.
    fn units(&self, input: usize) -> String {
        let name = &self.lab.plan.inputs[input];
        let signal = self.trial.recording.signal(name.signal.as_str());
        let of_signal = signal.map(|signal| match signal.spec.channels.first() {
            Some(channel) if !channel.unit.is_empty() => channel.unit.as_str(),
            _ => signal.spec.unit.as_str(),
        });
        let bound = self.lab.version.input(&name.name).map(|(_, bound)| bound.input);
        let rows = bound.and_then(|at| self.lab.version.channels[at].as_ref());
        let of_model = rows.and_then(|rows| rows.first()).map(|row| row.unit.as_str());
        let said = |unit: Option<&str>| match unit {
            Some(unit) if !unit.is_empty() => format!("`{unit}`"),
            _ => "no unit".into(),
        };
        format!("the recording says {}, the model's channels.csv {}", said(of_signal), said(of_model))
    }

    /// The first change that gives what is expected, in the order of the walk.
    fn changed(&self, step: Step) -> Result<Option<Reason>, Fault> {
        let whole = match step {
            Step::Outputs => self.by_order(step),
            Step::Counts(_) | Step::Input(_) => None,
        };
        if whole.is_some() {
            return Ok(whole);
        }
        for (change, found) in self.candidates()? {
            if self.explains(step, &change) {
                return Ok(Some(found));
            }
        }
        for input in self.inputs_of(step) {
            for at in 0..self.lab.chain(input).len() {
                if let Some(found) = self.smoothed(step, input, at) {
                    return Ok(Some(found));
                }
            }
        }
        for input in self.inputs_of(step) {
            for (at, op) in self.lab.chain(input).iter().enumerate() {
                let mut ops = self.lab.chain(input).to_vec();
                ops.remove(at);
                if self.explains(step, &Change::Chain { input, ops }) {
                    let says =
                        format!("{} is done here, and expected is what comes without it", self.op(input, at));
                    return Ok(Some(reason(place_of(op), says)));
                }
            }
        }
        Ok(None)
    }

    fn inputs_of(&self, step: Step) -> Vec<usize> {
        match step {
            Step::Counts(input) | Step::Input(input) => vec![input],
            Step::Outputs => (0..self.lab.plan.inputs.len()).collect(),
        }
    }

    /// An op as sentences name it.
    fn op(&self, input: usize, at: usize) -> String {
        let name = &self.lab.plan.inputs[input].name;
        let number = self.lab.version.manifest.inputs.iter().position(|known| known.name == *name);
        format!("input[{}].preprocess[{at}] ({})", number.unwrap_or(input), self.lab.chain(input)[at].word())
    }

    /// Units, starts and edges that may have been others.
    fn candidates(&self) -> Result<Vec<(Change, Reason)>, Fault> {
        let (lab, recording) = (self.lab, &self.trial.recording);
        let mut found = Vec::new();
        for (signal, of) in recording.signals.iter().enumerate() {
            let fed = lab.plan.inputs.iter().position(|input| input.signal.as_str() == of.name());
            let (Data::Samples { .. }, SignalRole::Input, Some(input)) = (&of.data, of.role, fed) else {
                continue;
            };
            for power in [3, -3, 6, -6, 9, -9] {
                let says = format!(
                    "expected is what a signal `{}` {} times as large gives: {}",
                    of.name(),
                    ten_to(power),
                    self.units(input)
                );
                found.push((Change::Times { signal, factor: 10f64.powi(power) }, reason("unit", says)));
            }
        }
        for input in 0..lab.plan.inputs.len() {
            for at in 0..lab.chain(input).len() {
                let mut ops = lab.chain(input).to_vec();
                let Some((here, there)) = other_start(&mut ops[at]) else { continue };
                let says =
                    format!("{} starts `{here}` here, and in what is expected `{there}`", self.op(input, at));
                found.push((Change::Chain { input, ops }, reason("filter start", says)));
            }
        }
        self.edges(&mut found)?;
        Ok(found)
    }

    fn edges(&self, found: &mut Vec<(Change, Reason)>) -> Result<(), Fault> {
        let recording = &self.trial.recording;
        let width_ns = self.lab.width_ns(recording)?.get();
        let feeds = |name: &str| self.lab.plan.inputs.iter().any(|input| input.signal.as_str() == name);
        let has_events =
            recording.signals.iter().any(|s| feeds(s.name()) && matches!(s.data, Data::Spikes { .. }));
        let per_bin =
            recording.signals.iter().filter(|s| feeds(s.name())).find_map(|signal| match &signal.data {
                Data::Samples { timing: Timing::Rate(rate), .. } => rate.whole_samples(width_ns),
                Data::Samples { timing: Timing::Bins(row), .. } => Some(width_ns / row.get()),
                Data::Spikes { .. } | Data::Markers { .. } => None,
            });
        let (width, per_bin) = (i64::try_from(width_ns).unwrap_or(i64::MAX), per_bin.unwrap_or(1) as i64);
        if has_events || per_bin > 1 {
            let says = "bins are [start, end) here, and in what is expected (start, end]: what lies on an edge belongs to \
                        the bin that begins there";
            found.push((Change::Earlier { ns: 1, samples: 1 }, reason("bin edge", says)));
            let says = "expected are bins that begin one sample earlier";
            found.push((Change::Earlier { ns: -1, samples: -1 }, reason("bin edge", says)));
        }
        for (ns, samples, words) in [
            (width, per_bin, "one bin later, so that each is the bin behind: is first_bin too small by one?"),
            (
                -width,
                -per_bin,
                "one bin earlier, so that each is the bin before: is first_bin too large by one?",
            ),
            (width / 2, per_bin / 2, "half a bin later: are times the bins' centres?"),
            (-width / 2, -per_bin / 2, "half a bin earlier: are times the bins' centres?"),
        ] {
            if has_events || samples != 0 {
                let says = format!("expected are bins that begin {words}");
                found.push((Change::Earlier { ns, samples }, reason("bin edge", says)));
            }
        }
        Ok(())
    }

    /// Another kernel or constant of a smoothing that gives what is expected.
    fn smoothed(&self, step: Step, input: usize, at: usize) -> Option<Reason> {
        let chain = self.lab.chain(input);
        let Op::Smooth { kernel, tau_ms, sigma_ms, .. } = &chain[at] else { return None };
        let (here, constant) = (*kernel, tau_ms.or(*sigma_ms)?);
        let with = |kernel: Kernel, constant: f64| {
            let mut ops = chain.to_vec();
            ops[at] = smoothing(kernel, constant);
            Change::Chain { input, ops }
        };
        let told = |constant: f64| format!("{} ms", (constant * 1e4).round() / 1e4);
        let kernels = [Kernel::Exponential, Kernel::HalfGaussian, Kernel::ExponentialFir];
        for kernel in kernels.into_iter().filter(|kernel| *kernel != here) {
            if self.explains(step, &with(kernel, constant)) {
                let says = format!(
                    "{} has the kernel `{}` here, and in what is expected `{}`",
                    self.op(input, at),
                    kernel_word(here),
                    kernel_word(kernel)
                );
                return Some(reason("smoothing", says));
            }
        }
        let own = |constant: f64| {
            let Change::Chain { mut ops, .. } = with(here, constant) else { return with(here, constant) };
            if let (
                Op::Smooth { truncate, extent, init, .. },
                Op::Smooth { truncate: t, extent: e, init: i, .. },
            ) = (&chain[at], &mut ops[at])
            {
                (*t, *e, *i) = (*truncate, *extent, *init);
            }
            Change::Chain { input, ops }
        };
        let far = |log: f64| {
            let Ok(given) = self.given(step, &own(log.exp())) else { return f64::INFINITY };
            let pairs = given.iter().zip(self.wanted(step));
            pairs.map(|(given, want)| near::distance(given.view(), want.view())).sum()
        };
        let best = lowest(constant.ln(), far).exp();
        // As somebody would have written it, if that will do.
        let rounded = (0..4).map(|digits| {
            let unit = 10f64.powi(best.log10().floor() as i32 - digits);
            (best / unit).round() * unit
        });
        let constant_there = rounded.chain([best]).find(|constant| self.explains(step, &own(*constant)))?;
        let says = format!(
            "{} smooths by {} here, and what is expected by {}",
            self.op(input, at),
            told(constant),
            told(constant_there)
        );
        Some(reason("smoothing", says))
    }

    /// What can be said of an input that differs and that no change explains.
    fn unexplained(&self, input: usize, got: &Array2<f64>, want: &Array2<f64>) -> Reason {
        let told = &self.lab.version.manifest.example;
        let remembers = |op: &Op| {
            matches!(
                op,
                Op::Butterworth { .. }
                    | Op::Notch { .. }
                    | Op::Smooth { .. }
                    | Op::Zscore { .. }
                    | Op::Decimate { .. }
            )
        };
        let memory = self.lab.chain(input).iter().position(remembers);
        if let (Some(at), Some(from)) = (memory, near::settles(told, got, want)) {
            let says = format!(
                "bins before {} differ, less and less, and all later ones agree: {} starts otherwise",
                self.trial.first_bin + from as u64,
                self.op(input, at)
            );
            return reason("filter start", says);
        }
        let says = "neither order, unit, start, edge nor a constant of its ops explains what is expected";
        reason("preprocessing", says)
    }
}

pub(super) fn ten_to(power: i32) -> String {
    format!("10^{power}")
}

/// The place of the walk that an op belongs to.
fn place_of(op: &Op) -> &'static str {
    match op {
        Op::Smooth { .. } => "smoothing",
        Op::Bin { .. } => "bin edge",
        _ => "preprocessing",
    }
}

/// Makes an op start otherwise; how it did, and how it does now. `None`: it has no choice.
fn other_start(op: &mut Op) -> Option<(&'static str, &'static str)> {
    let init = match op {
        Op::Butterworth { init, .. } => init,
        Op::Smooth { kernel: Kernel::Exponential, init, .. } => init.get_or_insert(Init::Zero),
        _ => return None,
    };
    let (words, other) = match init {
        Init::Steady => (("steady", "zero"), Init::Zero),
        Init::Zero => (("zero", "steady"), Init::Steady),
    };
    *init = other;
    Some(words)
}

fn smoothing(kernel: Kernel, constant: f64) -> Op {
    let gaussian = kernel == Kernel::HalfGaussian;
    Op::Smooth {
        kernel,
        tau_ms: (!gaussian).then_some(constant),
        sigma_ms: gaussian.then_some(constant),
        truncate: None,
        extent: None,
        init: None,
    }
}

const fn kernel_word(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::Exponential => "exponential",
        Kernel::HalfGaussian => "half_gaussian",
        Kernel::ExponentialFir => "exponential_fir",
    }
}

/// Where a function is lowest, within a factor of e⁴ around: the best of a grid, then narrowed down.
fn lowest(around: f64, far: impl Fn(f64) -> f64) -> f64 {
    const STEPS: i32 = 40;
    const STEP: f64 = 0.1;
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let grid = (-STEPS..=STEPS).map(|i| around + f64::from(i) * STEP);
    let best = grid.map(|at| (at, far(at))).min_by(|a, b| a.1.total_cmp(&b.1)).map_or(around, |(at, _)| at);
    let (mut low, mut high) = (best - STEP, best + STEP);
    let (mut a, mut b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut far_a, mut far_b) = (far(a), far(b));
    for _ in 0..40 {
        if far_a < far_b {
            (high, b, far_b) = (b, a, far_a);
            a = high - GOLDEN * (high - low);
            far_a = far(a);
        } else {
            (low, a, far_a) = (a, b, far_b);
            b = low + GOLDEN * (high - low);
            far_b = far(b);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_point_is_found_far_from_where_it_is_looked_for() {
        let found = lowest(60f64.ln(), |log| (log - 7f64.ln()).powi(2));
        assert!((found.exp() - 7.0).abs() < 1e-6, "{}", found.exp());
    }

    #[test]
    fn only_ops_that_have_a_choice_start_otherwise() {
        let mut smooth = smoothing(Kernel::Exponential, 60.0);
        assert_eq!(other_start(&mut smooth), Some(("zero", "steady")));
        assert_eq!(other_start(&mut smooth), Some(("steady", "zero")));
        assert_eq!(other_start(&mut smoothing(Kernel::HalfGaussian, 60.0)), None);
        assert_eq!(other_start(&mut Op::Sqrt {}), None);
    }
}
