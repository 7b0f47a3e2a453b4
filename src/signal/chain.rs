//! The chain of one input: raw values in the model's channels to one row per bin, in f64.
//! Ops before `bin` run once per sample, those after it once per bin. A missing value is NaN on the way: it enters no
//! memory and no statistics, and a bin that holds one is NaN in that channel.

use std::num::NonZeroU64;

use super::op::{Numbers, Op, Reduce, ZscoreMode};
use super::pace::Pace;
use super::refusal::SignalError;
use super::smooth::{Smooth, SmoothParams};
pub use super::zscore::Report;
use super::zscore::Zscore;
use crate::domain::signal::SignalType;

/// What a chain works on.
#[derive(Clone, Copy, Debug)]
pub struct ChainSite<'a> {
    /// The input, for sentences.
    pub input: &'a str,
    /// The kind of the signal that feeds it.
    pub kind: SignalType,
    /// Step of the signal's samples; `None` for events.
    pub sample: Option<Pace>,
    /// Width of a bin.
    pub bin_width_ns: NonZeroU64,
    /// Channels, as the model orders them.
    pub channels: usize,
}

/// A chain with the memory of its ops.
#[derive(Clone, Debug)]
pub struct Chain {
    before: Vec<Stage>,
    reduce: Reduce,
    after: Vec<Stage>,
    channels: usize,
    samples_per_bin: u64,
    delay_ms: f64,
    reports: Vec<Report>,
}

#[derive(Clone, Debug)]
enum Stage {
    Scale { factor: f64, offset: f64 },
    Sqrt,
    Log1p,
    Clip { min: f64, max: f64 },
    Smooth(Smooth),
    Zscore(Zscore),
}

impl Chain {
    /// Builds the chain, `bin` put where it is implied. Errors name the op and its parameter.
    pub fn new(ops: &[Op], site: ChainSite<'_>) -> Result<Self, SignalError> {
        let bins: Vec<usize> =
            ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Bin { .. })).map(|(i, _)| i).collect();
        let implied = match site.kind {
            SignalType::Continuous => Reduce::Mean,
            SignalType::Frames => Reduce::Last,
            _ => Reduce::Sum,
        };
        let (at, reduce) = match bins[..] {
            [] if implied == Reduce::Sum => (0, implied),
            [] => (ops.len(), implied),
            [at] => {
                let Op::Bin { reduce } = &ops[at] else { unreachable!("`at` is the place of a `bin`") };
                (at, reduce.unwrap_or(implied))
            }
            [_, second, ..] => {
                return Err(SignalError::mismatch(
                    format!("input `{}`: preprocess[{second}]", site.input),
                    "one `bin`",
                    format!("{} of them", bins.len()),
                ));
            }
        };
        let (first, rest) = ops.split_at(at);
        let rest = &rest[bins.len()..]; // without the `bin` itself, where it is written
        if site.sample.is_none() && !first.is_empty() {
            return Err(SignalError::mismatch(
                format!("input `{}`: preprocess[0]", site.input),
                "`bin` before every other op, since events have no values of their own",
                format!("{} ops before it", first.len()),
            ));
        }
        let (sample, bin) =
            (site.sample.unwrap_or(Pace::every(site.bin_width_ns)), Pace::every(site.bin_width_ns));
        let samples_per_bin = sample.steps_in(site.bin_width_ns).unwrap_or(1);
        let wide = site.channels * if reduce == Reduce::All { samples_per_bin as usize } else { 1 };
        let mut delay_ms = 0.0;
        let mut build = |ops: &[Op], offset: usize, pace: Pace, channels: usize| {
            ops.iter()
                .enumerate()
                .map(|(i, op)| {
                    let stage = Stage::new(op, pace, channels, site.input, offset + i)?;
                    delay_ms += stage.delay_ms(pace);
                    Ok(stage)
                })
                .collect::<Result<Vec<_>, SignalError>>()
        };
        let before = build(first, 0, sample, site.channels)?;
        let after = build(rest, at + bins.len(), bin, wide)?;
        let channels = site.channels;
        Ok(Self { before, reduce, after, channels, samples_per_bin, delay_ms, reports: Vec::new() })
    }

    /// Values per bin: channels, times the samples of a bin where `bin` keeps all of them.
    pub fn width(&self) -> usize {
        self.channels * if self.reduce == Reduce::All { self.samples_per_bin as usize } else { 1 }
    }

    /// Samples in a bin, where they are whole; else 1.
    pub fn samples_per_bin(&self) -> u64 {
        self.samples_per_bin
    }

    /// How the samples of a bin become one value.
    pub fn reduce(&self) -> Reduce {
        self.reduce
    }

    /// Group delay of the chain at 0 Hz (ms); the bin itself is not counted.
    pub fn delay_ms(&self) -> f64 {
        self.delay_ms
    }

    /// Takes `rows` of samples `[n, channels]` through the ops before `bin`, in place. They may belong to a bin that
    /// is filled afterwards: what came is seen, what did not come is not.
    pub fn sample(&mut self, rows: &mut [f64]) {
        if self.before.is_empty() {
            return;
        }
        for row in rows.chunks_exact_mut(self.channels) {
            self.before.iter_mut().for_each(|stage| stage.step(row, &mut self.reports));
        }
    }

    /// Closes a bin over the `rows` that `sample` gave, `[n, channels]`: writes `out`, `[width]`. NaN: no value.
    pub fn bin(&mut self, rows: &[f64], out: &mut Vec<f64>) {
        out.clear();
        let n = rows.len() / self.channels.max(1);
        match self.reduce {
            Reduce::All => {
                out.extend_from_slice(&rows[..rows.len().min(self.width())]);
                out.resize(self.width(), f64::NAN);
            }
            _ if n == 0 => out.resize(self.channels, f64::NAN),
            Reduce::Sum | Reduce::Mean => {
                out.extend_from_slice(&rows[..self.channels]);
                for row in rows[self.channels..].chunks_exact(self.channels) {
                    out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                if self.reduce == Reduce::Mean && n > 1 {
                    out.iter_mut().for_each(|sum| *sum /= n as f64);
                }
            }
            Reduce::Last => {
                out.extend_from_slice(&rows[rows.len() - self.channels..]);
                for row in rows.chunks_exact(self.channels) {
                    out.iter_mut()
                        .zip(row)
                        .filter(|(_, x)| x.is_nan())
                        .for_each(|(last, _)| *last = f64::NAN);
                }
            }
        }
        self.after.iter_mut().for_each(|stage| stage.step(out, &mut self.reports));
    }

    /// `bins` bins without any value: time goes on, memory stands still. `samples`: of these, samples that never came.
    pub fn pass(&mut self, bins: u64, samples: u64) {
        self.before.iter_mut().for_each(|stage| stage.pass(samples, &mut self.reports));
        self.after.iter_mut().for_each(|stage| stage.pass(bins, &mut self.reports));
    }

    /// Whether the last bin lay in a calibration.
    pub fn warming_up(&self) -> bool {
        self.before.iter().chain(&self.after).any(|stage| matches!(stage, Stage::Zscore(z) if z.warming_up()))
    }

    /// What the ops had to say since the last call.
    pub fn reports(&mut self) -> &mut Vec<Report> {
        &mut self.reports
    }

    /// Everything back to the state before the first row.
    pub fn reset(&mut self) {
        self.before.iter_mut().chain(&mut self.after).for_each(|stage| match stage {
            Stage::Zscore(z) => z.reset(),
            Stage::Smooth(smooth) => smooth.reset(),
            _ => {}
        });
    }

    /// Filters start anew, statistics stay: a new epoch of the signal begins.
    pub fn restart_filters(&mut self) {
        self.before.iter_mut().chain(&mut self.after).for_each(|stage| {
            if let Stage::Smooth(smooth) = stage {
                smooth.reset();
            }
        });
    }
}

impl Stage {
    fn new(op: &Op, pace: Pace, channels: usize, input: &str, place: usize) -> Result<Self, SignalError> {
        let wrong = |expected: String| {
            SignalError::mismatch(
                format!("input `{input}`: preprocess[{place}]"),
                expected,
                format!("{op:?}").chars().take(200).collect::<String>(),
            )
        };
        let not_served = |what: &str| {
            Err(SignalError::NotServed {
                input: input.into(),
                what: format!("op `{what}` (preprocess[{place}])"),
            })
        };
        match op {
            Op::Bin { .. } => Err(wrong("one `bin`".into())),
            Op::Scale { factor, offset } if factor.is_finite() && offset.is_finite() => {
                Ok(Stage::Scale { factor: *factor, offset: *offset })
            }
            Op::Scale { .. } => Err(wrong("finite factor and offset".into())),
            Op::Sqrt {} => Ok(Stage::Sqrt),
            Op::Log1p {} => Ok(Stage::Log1p),
            Op::Clip { min, max } if min <= max => Ok(Stage::Clip { min: *min, max: *max }),
            Op::Clip { .. } => Err(wrong("min at or below max".into())),
            Op::Smooth { kernel, tau_ms, sigma_ms, truncate, extent, init } => {
                let params = SmoothParams {
                    kernel: *kernel,
                    tau_ms: *tau_ms,
                    sigma_ms: *sigma_ms,
                    truncate: *truncate,
                    extent: *extent,
                    init: *init,
                };
                Smooth::new(params, pace, channels).map(Stage::Smooth).map_err(wrong)
            }
            Op::Zscore { mode, tau_s, mean, std, seconds } => match mode {
                ZscoreMode::Running => Zscore::running(tau_s.unwrap_or(300.0), pace, channels),
                ZscoreMode::Calibration => match seconds {
                    Some(seconds) => Zscore::calibration(*seconds, pace, channels),
                    None => Err("seconds must be given".into()),
                },
                ZscoreMode::Fixed => match (mean, std) {
                    (Some(Numbers::Here(mean)), Some(Numbers::Here(std))) => {
                        Zscore::fixed(mean, std, channels)
                    }
                    (None, _) | (_, None) => Err("mean and std must be given".into()),
                    _ => Err("mean and std as numbers (whoever reads the manifest reads its files)".into()),
                },
            }
            .map(Stage::Zscore)
            .map_err(wrong),
            Op::Reference { .. } => not_served("reference"),
            Op::Butterworth { .. } => not_served("butterworth"),
            Op::Notch { .. } => not_served("notch"),
            Op::Decimate { .. } => not_served("decimate"),
            Op::ThresholdCrossings { .. } => not_served("threshold_crossings"),
            Op::BandPower { .. } => not_served("band_power"),
        }
    }

    fn step(&mut self, row: &mut [f64], reports: &mut Vec<Report>) {
        match self {
            Stage::Scale { factor, offset } => row.iter_mut().for_each(|x| *x = *x * *factor + *offset),
            // The root of a negative value is NaN: it is missing from here on.
            Stage::Sqrt => row.iter_mut().for_each(|x| *x = x.sqrt()),
            Stage::Log1p => row.iter_mut().for_each(|x| *x = finite(x.ln_1p())),
            Stage::Clip { min, max } => {
                row.iter_mut().filter(|x| !x.is_nan()).for_each(|x| *x = x.clamp(*min, *max))
            }
            Stage::Smooth(smooth) => smooth.step(row),
            Stage::Zscore(zscore) => zscore.step(row, reports),
        }
    }

    fn pass(&mut self, n: u64, reports: &mut Vec<Report>) {
        if let (Stage::Zscore(zscore), 1..) = (self, n) {
            zscore.pass(n, reports);
        }
    }

    fn delay_ms(&self, pace: Pace) -> f64 {
        if let Stage::Smooth(smooth) = self { smooth.delay_steps() * pace.step_ms() } else { 0.0 }
    }
}

/// Infinity is no value: ln(1 + −1).
fn finite(x: f64) -> f64 {
    if x.is_finite() { x } else { f64::NAN }
}
