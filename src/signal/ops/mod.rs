//! The ops of a chain at work, each with its coefficients and its memory.
//! Enters: rows of samples or one row per bin, NaN where there is no value. Leaves: the same, in place or narrower.
//! Owns: filters' memory, statistics, thresholds. Must hold: a missing value enters no memory; f64 throughout.
//! Must not know: frames, bins, policies, what stands before or behind an op.

pub mod design; // Butterworth and notch as second-order sections
pub mod filter; // sections at work
pub mod reference; // against the average, the median, each other
pub mod decimate; // low-pass, then every n-th
pub mod tally; // the spread of what came
pub mod crossings; // broadband to threshold crossings
pub mod fourier; // the discrete Fourier transform
pub mod band_power; // power in bands, one row per bin
pub mod smooth; // causal kernels
pub mod zscore; // running, calibrated, given statistics

use crossings::{CrossingParams, Crossings};
use decimate::Decimate;
use design::Design;
use filter::Filter;
use reference::Reference;
use smooth::{Smooth, SmoothParams};
use zscore::Zscore;

use super::op::{BandKind, Init, Numbers, Op, ZscoreMode};
use super::pace::Pace;
use super::refusal::OpError;

/// A spread of at most this share of the RMS is none.
const FLAT: f64 = 1e-9;

/// What an op has to say of a column; each once until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// No variance: the channel is 0.
    Flat(usize),
    /// No good value for longer than τ: its statistics stand still.
    Frozen(usize),
    /// No good value while it was calibrated: the channel has no value.
    Uncalibrated(usize),
    /// Its threshold is measured or was given, and stays as it is.
    Threshold(usize),
}

impl Report {
    /// The column.
    pub fn column(&self) -> usize {
        match self {
            Report::Flat(c) | Report::Frozen(c) | Report::Uncalibrated(c) | Report::Threshold(c) => *c,
        }
    }

    /// The same, its column counted from `first`.
    pub(super) fn from(self, first: usize) -> Self {
        match self {
            Report::Flat(c) => Report::Flat(first + c),
            Report::Frozen(c) => Report::Frozen(first + c),
            Report::Uncalibrated(c) => Report::Uncalibrated(first + c),
            Report::Threshold(c) => Report::Threshold(first + c),
        }
    }
}

/// The columns of a row at one place of a chain.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Their names.
    pub names: Vec<String>,
    /// Array, shank or probe of each; empty where there is none.
    pub groups: Vec<String>,
    /// The channels that each is made of, by their place in the chain's input.
    pub origins: Vec<Vec<usize>>,
}

impl Columns {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

impl FromIterator<(String, String, Vec<usize>)> for Columns {
    fn from_iter<I: IntoIterator<Item = (String, String, Vec<usize>)>>(columns: I) -> Self {
        let (mut names, mut groups, mut origins) = (Vec::new(), Vec::new(), Vec::new());
        for (name, group, origin) in columns {
            names.push(name);
            groups.push(group);
            origins.push(origin);
        }
        Self { names, groups, origins }
    }
}

/// An op with its memory. `bin` and `band_power` are the chain's own.
#[derive(Clone, Debug)]
pub enum Operator {
    /// factor · x + offset.
    Scale {
        /// Factor.
        factor: f64,
        /// Offset.
        offset: f64,
    },
    /// √x.
    Sqrt,
    /// ln(1 + x).
    Log1p,
    /// Into [min, max].
    Clip {
        /// Least.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// Against what channels have in common.
    Reference(Reference),
    /// Sections in cascade.
    Filter(Filter),
    /// Every n-th sample.
    Decimate(Decimate),
    /// Threshold crossings.
    Crossings(Box<Crossings>),
    /// A causal kernel.
    Smooth(Smooth),
    /// Mean and deviation taken out.
    Zscore(Zscore),
}

impl Operator {
    /// The op at work at this pace and on these columns, both of which become those behind it; and its delay (ms).
    pub fn new(op: &Op, pace: &mut Pace, columns: &mut Columns) -> Result<(Self, f64), OpError> {
        op.check()?;
        let whole = |expected: String| {
            OpError::new("", expected, format!("{op:?}").chars().take(200).collect::<String>())
        };
        let channels = columns.count();
        Ok(match op {
            Op::Bin { .. } | Op::BandPower { .. } => return Err(whole("one op that bins".into())),
            Op::Scale { factor, offset } => (Operator::Scale { factor: *factor, offset: *offset }, 0.0),
            Op::Sqrt {} => (Operator::Sqrt, 0.0),
            Op::Log1p {} => (Operator::Log1p, 0.0),
            Op::Clip { min, max } => (Operator::Clip { min: *min, max: *max }, 0.0),
            Op::Reference { kind, by, pairs } => {
                (Operator::Reference(Reference::new(*kind, by.is_some(), pairs, columns)?), 0.0)
            }
            Op::Butterworth { kind, low_hz, high_hz, order, init } => {
                let fs_hz = pace.hz();
                let design = Design::butterworth(*kind, *order, *low_hz, *high_hz, fs_hz)?;
                let centre_hz = match (kind, low_hz, high_hz) {
                    (BandKind::Band, Some(low), Some(high)) => (low * high).sqrt(),
                    (BandKind::High, Some(low), _) => (low * fs_hz / 2.0).sqrt(),
                    _ => 0.0,
                };
                let filter = Filter::new(&design, *init, channels);
                (Operator::Filter(filter), design.delay_ms(centre_hz))
            }
            Op::Notch { hz, q, harmonics } => {
                let design = Design::notches(*hz, *q, *harmonics, pace.hz())?;
                let filter = Filter::new(&design, Init::Steady, channels);
                (Operator::Filter(filter), design.delay_ms(0.0))
            }
            Op::Decimate { factor, order } => {
                let (decimate, delay_ms) = Decimate::new(*factor, *order, channels, pace)?;
                (Operator::Decimate(decimate), delay_ms)
            }
            Op::ThresholdCrossings { low_hz, high_hz, order, times, of, calibrate_s, refractory_ms } => {
                let params = CrossingParams {
                    band_hz: (*low_hz, *high_hz),
                    order: *order,
                    times: *times,
                    of: *of,
                    calibrate_s: *calibrate_s,
                    refractory_ms: *refractory_ms,
                };
                let (crossings, delay_ms) = Crossings::new(params, *pace, channels)?;
                (Operator::Crossings(Box::new(crossings)), delay_ms)
            }
            Op::Smooth { kernel, tau_ms, sigma_ms, truncate, extent, init } => {
                let params = SmoothParams {
                    kernel: *kernel,
                    tau_ms: *tau_ms,
                    sigma_ms: *sigma_ms,
                    truncate: *truncate,
                    extent: *extent,
                    init: *init,
                };
                let smooth = Smooth::new(params, *pace, channels).map_err(whole)?;
                let delay_ms = smooth.delay_steps() * pace.step_ms();
                (Operator::Smooth(smooth), delay_ms)
            }
            Op::Zscore { mode, tau_s, mean, std, seconds } => {
                let zscore = match mode {
                    ZscoreMode::Running => Zscore::running(tau_s.unwrap_or(300.0), *pace, channels),
                    ZscoreMode::Calibration => match seconds {
                        Some(seconds) => Zscore::calibration(*seconds, *pace, channels),
                        None => Err("seconds must be given".into()),
                    },
                    ZscoreMode::Fixed => match (mean, std) {
                        (Some(Numbers::Here(mean)), Some(Numbers::Here(std))) => {
                            Zscore::fixed(mean, std, channels)
                        }
                        (None, _) | (_, None) => Err("mean and std must be given".into()),
                        _ => {
                            Err("mean and std as numbers (whoever reads the manifest reads its files)".into())
                        }
                    },
                };
                (Operator::Zscore(zscore.map_err(whole)?), 0.0)
            }
        })
    }

    /// Rows `[n, channels]` at their places in the stream, in place; a decimation leaves fewer rows, bipolar other
    /// columns. Behind `bin` a row has no place: `at` is then as long as it is, and says nothing.
    pub fn run(
        &mut self,
        rows: &mut Vec<f64>,
        at: &mut Vec<u64>,
        channels: usize,
        reports: &mut Vec<Report>,
    ) {
        match self {
            Operator::Scale { factor, offset } => {
                rows.iter_mut().for_each(|x| *x = finite(*x * *factor + *offset));
            }
            // The root of a negative value is NaN: it is missing from here on.
            Operator::Sqrt => rows.iter_mut().for_each(|x| *x = x.sqrt()),
            Operator::Log1p => rows.iter_mut().for_each(|x| *x = finite(x.ln_1p())),
            Operator::Clip { min, max } => {
                rows.iter_mut().filter(|x| !x.is_nan()).for_each(|x| *x = x.clamp(*min, *max));
            }
            Operator::Reference(reference) => reference.run(rows),
            Operator::Filter(filter) => filter.run(rows),
            Operator::Decimate(decimate) => decimate.run(rows, at),
            Operator::Crossings(crossings) => crossings.run(rows, at, reports),
            Operator::Smooth(smooth) => rows.chunks_exact_mut(channels).for_each(|row| smooth.step(row)),
            Operator::Zscore(zscore) => {
                rows.chunks_exact_mut(channels).for_each(|row| zscore.step(row, reports));
            }
        }
    }

    /// `n` rows never came; answers how many rows that is behind it.
    pub fn pass(&mut self, n: u64, reports: &mut Vec<Report>) -> u64 {
        match self {
            Operator::Zscore(zscore) if n > 0 => zscore.pass(n, reports),
            Operator::Crossings(crossings) => crossings.pass(n),
            Operator::Decimate(decimate) => return decimate.pass(n),
            _ => {}
        }
        n
    }

    /// Whether something in it was not full since the last call.
    pub fn take_warm(&mut self) -> bool {
        match self {
            Operator::Filter(filter) => filter.take_warm(),
            Operator::Decimate(decimate) => decimate.take_warm(),
            Operator::Crossings(crossings) => crossings.take_warm(),
            Operator::Zscore(zscore) => zscore.warming_up(),
            _ => false,
        }
    }

    /// Back to the state before the first row.
    pub fn reset(&mut self) {
        match self {
            Operator::Filter(filter) => filter.restart(),
            Operator::Decimate(decimate) => decimate.reset(),
            Operator::Crossings(crossings) => crossings.reset(),
            Operator::Smooth(smooth) => smooth.reset(),
            Operator::Zscore(zscore) => zscore.reset(),
            _ => {}
        }
    }

    /// A new epoch of the stream begins: filters start anew, statistics stay.
    pub fn restart(&mut self) {
        match self {
            Operator::Filter(filter) => filter.restart(),
            Operator::Decimate(decimate) => decimate.restart(),
            Operator::Crossings(crossings) => crossings.restart(),
            Operator::Smooth(smooth) => smooth.reset(),
            _ => {}
        }
    }
}

/// Infinity is no value: ln(1 + −1), or what is beyond f64.
fn finite(x: f64) -> f64 {
    if x.is_finite() { x } else { f64::NAN }
}
