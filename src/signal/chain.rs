//! The chain of one input: raw values in the model's channels to one row per bin, in f64.
//! Ops before `bin` run once per sample, those after it once per bin. A missing value is NaN on the way: it enters no
//! memory and no statistics, and a bin that holds one is NaN in that channel.

use std::num::NonZeroU64;

use super::op::{Op, Reduce};
use super::ops::Operator;
use super::ops::band_power::BandPower;
use super::ops::crossings::Crossings;
pub use super::ops::{Columns, Report};
use super::pace::Pace;
use super::refusal::OpError;
use crate::domain::signal::SignalType;

/// What a chain works on.
#[derive(Clone, Debug)]
pub struct ChainSite {
    /// The kind of the signal that feeds it.
    pub kind: SignalType,
    /// Step of the signal's samples; `None` for events.
    pub sample: Option<Pace>,
    /// Width of a bin.
    pub bin_width_ns: NonZeroU64,
    /// Channels, as the model orders them.
    pub channels: Columns,
}

/// A chain with the memory of its ops.
#[derive(Clone, Debug)]
pub struct Chain {
    before: Vec<Step>,
    binning: Binning,
    after: Vec<Step>,
    /// Values of a row that reaches `bin`.
    columns: usize,
    /// Samples of a bin that enter, and that reach `bin`; 1 where they are not whole.
    samples_per_bin: u64,
    reaching: u64,
    delay_ms: f64,
    /// Names of the columns that enter each op, one op after the other.
    names: Vec<String>,
    /// Names of the values that leave.
    left: Vec<String>,
    /// Of each value that leaves: the channels that it is made of.
    origins: Vec<Vec<usize>>,
    places: Places,
    /// Places of the rows in hand.
    at: Vec<u64>,
    warming_up: bool,
    reports: Vec<Report>,
}

/// An op at its place.
#[derive(Clone, Debug)]
struct Step {
    op: Operator,
    /// Columns that enter it.
    columns: usize,
    /// Where their names begin.
    names: usize,
}

/// How rows of samples become the row of a bin.
#[derive(Clone, Debug)]
enum Binning {
    Reduce(Reduce),
    /// The power, and where the names of its columns begin.
    Power(Box<BandPower>, usize),
}

/// Where the samples of a stream lie, counted from its first, missing ones too; over restarts of the counter it goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    /// Index of the epoch's first sample, and its place.
    begin: Option<(i128, u64)>,
    /// Index of the last sample.
    last: i128,
    /// The place after it, and after what passed.
    next: u64,
}

impl Chain {
    /// Builds the chain, `bin` put where it is implied. Errors name the op and its parameter.
    pub fn new(ops: &[Op], site: ChainSite) -> Result<Self, OpError> {
        let (first, binning, rest) = split(ops, site.kind)?;
        let mut pace = site.sample.unwrap_or(Pace::every(site.bin_width_ns));
        let mut build = Build { columns: site.channels, names: Vec::new(), delay_ms: 0.0 };
        let before = build.steps(first, 0, &mut pace)?;
        let at = first.len();
        let columns = build.columns.count();
        let reaching = match (pace.steps_in(site.bin_width_ns), binning) {
            (Some(samples), _) => samples,
            (None, Written::Reduce(Reduce::All)) => {
                let expected =
                    format!("bins of whole samples ({} ms each) with reduce = \"all\"", pace.step_ms());
                let found = format!("bins of {} ms", site.bin_width_ns.get() as f64 / 1e6);
                return Err(OpError::new("reduce", expected, found).at(at));
            }
            _ => 1,
        };
        if pace.whole_steps(site.bin_width_ns.get()) == 0
            && let Some(place) = first.iter().rposition(|op| matches!(op, Op::Decimate { .. }))
        {
            let expected =
                format!("at least one sample in a bin of {} ms", site.bin_width_ns.get() as f64 / 1e6);
            let found = format!("one in {} ms", pace.step_ms());
            return Err(OpError::new("factor", expected, found).at(place));
        }
        let binning = match binning {
            Written::Reduce(reduce) => {
                if reduce == Reduce::All {
                    build.columns = build.columns.repeated(reaching as usize);
                }
                Binning::Reduce(reduce)
            }
            Written::Power(op @ Op::BandPower { bands, window_ms, scale }) => {
                op.check().map_err(|error| error.at(at))?;
                let names = build.name();
                let power = BandPower::new(bands, *window_ms, *scale, pace, &mut build.columns);
                let (power, delay_ms) = power.map_err(|error| error.at(at))?;
                build.delay_ms += delay_ms;
                Binning::Power(Box::new(power), names)
            }
            Written::Power(op) => unreachable!("{op:?} stands for no `bin`"),
        };
        let mut per_bin = Pace::every(site.bin_width_ns);
        let after = build.steps(rest, ops.len() - rest.len(), &mut per_bin)?;
        let Build { columns: left, names, delay_ms } = build;
        Ok(Self {
            before,
            binning,
            after,
            columns,
            samples_per_bin: site.sample.and_then(|pace| pace.steps_in(site.bin_width_ns)).unwrap_or(1),
            reaching,
            delay_ms,
            names,
            left: left.names,
            origins: left.origins,
            places: Places::default(),
            at: Vec::new(),
            warming_up: false,
            reports: Vec::new(),
        })
    }

    /// Values per bin.
    pub fn width(&self) -> usize {
        self.origins.len()
    }

    /// Names of the values of a bin.
    pub fn value_names(&self) -> &[String] {
        &self.left
    }

    /// The channels that value `j` is made of, by their place in a row that enters.
    pub fn origins(&self, j: usize) -> &[usize] {
        &self.origins[j]
    }

    /// Samples in a bin, where they are whole; else 1.
    pub fn samples_per_bin(&self) -> u64 {
        self.samples_per_bin
    }

    /// Whether a bin's values are sums, to which what comes late can be added.
    pub fn sums(&self) -> bool {
        matches!(self.binning, Binning::Reduce(Reduce::Sum))
    }

    /// Group delay of the chain (ms); the bin itself is not counted.
    pub fn delay_ms(&self) -> f64 {
        self.delay_ms
    }

    /// Thresholds of its crossings by column, in the unit of what enters them; NaN: none (yet). Empty: it has none.
    pub fn thresholds(&self) -> &[f64] {
        self.crossings().map_or(&[], |(crossings, _)| crossings.thresholds())
    }

    /// Its crossings, if it has any; and whether what they see are the channels that enter the chain, one by one.
    pub fn crossings(&self) -> Option<(&Crossings, bool)> {
        self.crossing_step().map(|(step, crossings)| (crossings, step.names == 0))
    }

    /// As `crossings`, to be changed before the first row.
    pub fn crossings_mut(&mut self) -> Option<&mut Crossings> {
        self.before.iter_mut().find_map(|step| match &mut step.op {
            Operator::Crossings(crossings) => Some(&mut **crossings),
            _ => None,
        })
    }

    fn crossing_step(&self) -> Option<(&Step, &Crossings)> {
        self.before.iter().find_map(|step| match &step.op {
            Operator::Crossings(crossings) => Some((step, &**crossings)),
            _ => None,
        })
    }

    /// The name of the column that a report speaks of; with its threshold, if it is that.
    pub fn describe(&self, report: &Report) -> String {
        let name = &self.names[report.column()];
        match (report, self.crossing_step()) {
            (Report::Threshold(c), Some((step, crossings))) => {
                format!("{name} at {:.6e}", crossings.thresholds()[c - step.names])
            }
            _ => name.clone(),
        }
    }

    /// Takes `rows` of samples `[n, channels]` through the ops before `bin`, in place; `index` is each sample's. They may
    /// belong to a bin that is filled afterwards: what came is seen, what did not come is not.
    pub fn sample(&mut self, rows: &mut Vec<f64>, index: &[i128]) {
        if self.before.is_empty() && matches!(self.binning, Binning::Reduce(_)) {
            return;
        }
        self.at.clear();
        self.at.extend(index.iter().map(|i| self.places.of(*i)));
        for step in &mut self.before {
            step.run(rows, &mut self.at, &mut self.reports);
        }
        if let Binning::Power(power, _) = &mut self.binning {
            power.take(rows);
        }
    }

    /// Closes a bin over the `rows` that `sample` gave: writes `out`, `[width]`. NaN: no value.
    pub fn bin(&mut self, rows: &[f64], out: &mut Vec<f64>) {
        out.clear();
        match &mut self.binning {
            Binning::Reduce(reduce) => reduced(*reduce, rows, self.columns, self.reaching, out),
            Binning::Power(power, names) => {
                let told = self.reports.len();
                power.bin(rows, out, &mut self.reports);
                named_from(*names, &mut self.reports[told..]);
            }
        }
        self.at.clear();
        self.at.push(0);
        for step in &mut self.after {
            step.run(out, &mut self.at, &mut self.reports);
        }
        self.note_warm();
    }

    /// `bins` bins without any value: time goes on, memory stands still. `samples`: of these, samples that never came.
    pub fn pass(&mut self, bins: u64, samples: u64) {
        self.places.pass(samples);
        self.before.iter_mut().fold(samples, |samples, step| step.pass(samples, &mut self.reports));
        self.after.iter_mut().fold(bins, |bins, step| step.pass(bins, &mut self.reports));
        self.note_warm();
    }

    fn note_warm(&mut self) {
        let mut warm = matches!(&self.binning, Binning::Power(power, _) if power.warming_up());
        for step in self.before.iter_mut().chain(&mut self.after) {
            warm |= step.op.take_warm();
        }
        self.warming_up = warm;
    }

    /// Whether a window, a filter or a calibration was not full in the last bin.
    pub fn warming_up(&self) -> bool {
        self.warming_up
    }

    /// What the ops had to say since the last call, of columns by their place among all names.
    pub fn reports(&mut self) -> &mut Vec<Report> {
        &mut self.reports
    }

    /// Everything back to the state before the first row.
    pub fn reset(&mut self) {
        self.before.iter_mut().chain(&mut self.after).for_each(|step| step.op.reset());
        if let Binning::Power(power, _) = &mut self.binning {
            power.restart();
        }
        self.places = Places::default();
    }

    /// Filters and windows start anew, statistics stay: a new epoch of the signal begins.
    pub fn restart_filters(&mut self) {
        self.before.iter_mut().chain(&mut self.after).for_each(|step| step.op.restart());
        if let Binning::Power(power, _) = &mut self.binning {
            power.restart();
        }
        self.places.begin = None;
    }
}

impl Step {
    fn run(&mut self, rows: &mut Vec<f64>, at: &mut Vec<u64>, reports: &mut Vec<Report>) {
        let told = reports.len();
        self.op.run(rows, at, self.columns, reports);
        named_from(self.names, &mut reports[told..]);
    }

    fn pass(&mut self, n: u64, reports: &mut Vec<Report>) -> u64 {
        let told = reports.len();
        let behind = self.op.pass(n, reports);
        named_from(self.names, &mut reports[told..]);
        behind
    }
}

fn named_from(first: usize, reports: &mut [Report]) {
    reports.iter_mut().for_each(|report| *report = report.from(first));
}

/// The `bin` of a chain, as it is written or implied.
#[derive(Clone, Copy)]
enum Written<'a> {
    Reduce(Reduce),
    Power(&'a Op),
}

/// Whether each op of a chain stands where it may. Errors: two that bin, an op on the wrong side of `bin`.
pub fn check_places(ops: &[Op], kind: SignalType) -> Result<(), OpError> {
    split(ops, kind).map(|_| ())
}

/// The ops up to `bin`, itself included where it is written: what makes a row per bin of the samples.
pub fn until_bin(ops: &[Op], kind: SignalType) -> Result<&[Op], OpError> {
    split(ops, kind).map(|(_, _, rest)| &ops[..ops.len() - rest.len()])
}

/// The ops before `bin`, itself, and those after it.
fn split(ops: &[Op], kind: SignalType) -> Result<(&[Op], Written<'_>, &[Op]), OpError> {
    let sampled = matches!(kind, SignalType::Continuous | SignalType::Frames);
    let of_samples = if kind == SignalType::Frames { Reduce::Last } else { Reduce::Mean };
    let crossings = ops.iter().position(|op| matches!(op, Op::ThresholdCrossings { .. }));
    let mut bins =
        ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Bin { .. } | Op::BandPower { .. }));
    let written = bins.next();
    if let Some((second, _)) = bins.next() {
        return Err(OpError::new("", "one op that bins", "a second").at(second));
    }
    let (at, binning, behind) = match written {
        Some((at, Op::Bin { reduce })) => {
            let sums = !sampled || crossings.is_some_and(|place| place < at);
            let implied = if sums { Reduce::Sum } else { of_samples };
            (at, Written::Reduce(reduce.unwrap_or(implied)), at + 1)
        }
        Some((at, op)) => (at, Written::Power(op), at + 1),
        None => match crossings {
            Some(place) if sampled => (place + 1, Written::Reduce(Reduce::Sum), place + 1),
            _ if sampled => (ops.len(), Written::Reduce(of_samples), ops.len()),
            _ => (0, Written::Reduce(Reduce::Sum), 0),
        },
    };
    if matches!(kind, SignalType::SpikeEvents | SignalType::AddressEvents) {
        let expected = "`bin` before every other op, since events have no values of their own";
        if let Written::Power(op) = binning {
            return Err(OpError::new("", expected, format!("`{}`", op.word())).at(at));
        }
        if at > 0 {
            return Err(OpError::new("", expected, format!("{at} ops before it")).at(at));
        }
    }
    let per_sample = |op: &Op| matches!(op, Op::Decimate { .. } | Op::ThresholdCrossings { .. });
    if let Some(place) = ops[behind..].iter().position(per_sample).map(|place| behind + place) {
        let expected = "ops that run once per sample before `bin`";
        return Err(OpError::new("", expected, format!("`{}` after it", ops[place].word())).at(place));
    }
    Ok((&ops[..at], binning, &ops[behind..]))
}

/// A chain that is being built.
struct Build {
    columns: Columns,
    names: Vec<String>,
    delay_ms: f64,
}

impl Build {
    /// Ops in their order, the first of them at `place`.
    fn steps(&mut self, ops: &[Op], place: usize, pace: &mut Pace) -> Result<Vec<Step>, OpError> {
        let mut steps = Vec::with_capacity(ops.len());
        for (i, op) in ops.iter().enumerate() {
            let (columns, names) = (self.columns.count(), self.name());
            let (op, delay_ms) =
                Operator::new(op, pace, &mut self.columns).map_err(|error| error.at(place + i))?;
            self.delay_ms += delay_ms;
            steps.push(Step { op, columns, names });
        }
        Ok(steps)
    }

    /// Notes the names of the columns that there are now; answers where they begin.
    fn name(&mut self) -> usize {
        let n = self.columns.count();
        let last = self.names.len().saturating_sub(n);
        if self.names[last..] == self.columns.names && !self.names.is_empty() {
            return last;
        }
        self.names.extend(self.columns.names.iter().cloned());
        self.names.len() - n
    }
}

/// The row of a bin over `rows`, `[n, columns]`; with `all`, `[reaching, columns]` of them.
fn reduced(reduce: Reduce, rows: &[f64], columns: usize, reaching: u64, out: &mut Vec<f64>) {
    let n = rows.len() / columns.max(1);
    match reduce {
        Reduce::All => {
            let width = columns * reaching as usize;
            out.extend_from_slice(&rows[..rows.len().min(width)]);
            out.resize(width, f64::NAN);
        }
        _ if n == 0 => out.resize(columns, f64::NAN),
        Reduce::Sum | Reduce::Mean => {
            out.extend_from_slice(&rows[..columns]);
            for row in rows[columns..].chunks_exact(columns) {
                out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            if reduce == Reduce::Mean && n > 1 {
                out.iter_mut().for_each(|sum| *sum /= n as f64);
            }
        }
        Reduce::Last => {
            out.extend_from_slice(&rows[rows.len() - columns..]);
            for row in rows.chunks_exact(columns) {
                out.iter_mut().zip(row).filter(|(_, x)| x.is_nan()).for_each(|(last, _)| *last = f64::NAN);
            }
        }
    }
}

impl Places {
    /// The place of the sample with this index; indices of an epoch ascend.
    fn of(&mut self, index: i128) -> u64 {
        let place = match self.begin {
            Some((first, place)) if index >= self.last => {
                place.saturating_add(u64::try_from(index - first).unwrap_or(u64::MAX))
            }
            _ => {
                self.begin = Some((index, self.next));
                self.next
            }
        };
        (self.last, self.next) = (index, place.saturating_add(1));
        place
    }

    fn pass(&mut self, samples: u64) {
        if self.begin.is_some() || self.next > 0 {
            self.next = self.next.saturating_add(samples);
        }
    }
}

impl Columns {
    /// As they are, so many times.
    fn repeated(&self, times: usize) -> Self {
        (0..times * self.count())
            .map(|i| i % self.count())
            .map(|c| (self.names[c].clone(), self.groups[c].clone(), self.origins[c].clone()))
            .collect()
    }
}
