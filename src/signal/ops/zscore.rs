//! (x − mean) / standard deviation, channel by channel, in f64. A missing value (NaN) gives none and updates nothing.

use super::{FLAT, Report};
use crate::signal::pace::Pace;

/// Mean and variance of one channel, weighted by age.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    good: u64,
    mean: f64,
    var: f64,
    /// Steps since the last good value.
    still: u64,
    told_flat: bool,
}

impl Stats {
    fn is_flat(&self) -> bool {
        self.var.sqrt() <= FLAT * (self.mean * self.mean + self.var).sqrt()
    }

    /// a_k = max(1/k, floor), d = x − μ, μ += a·d, v = (1 − a)(v + a·d²).
    fn update(&mut self, x: f64, floor: f64) {
        self.good += 1;
        self.still = 0;
        let a = (1.0 / self.good as f64).max(floor);
        let d = x - self.mean;
        self.mean += a * d;
        self.var = (1.0 - a) * (self.var + a * d * d);
    }
}

/// A z-score with its statistics.
#[derive(Clone, Debug)]
pub struct Zscore {
    mode: Mode,
    stats: Vec<Stats>,
}

#[derive(Clone, Debug)]
enum Mode {
    /// `floor` = 1 − exp(−Δ/τ), 0 for τ = 0; `frozen_after` = whole steps in τ.
    Running { floor: f64, frozen_after: u64 },
    /// Statistics of the first `steps` steps, then frozen. `step` counts time, missing steps too.
    Calibration { steps: u64, step: u64 },
    /// Given.
    Fixed,
}

impl Zscore {
    /// By the statistics so far, weighted with time constant `tau_s` (0: all alike).
    pub fn running(tau_s: f64, pace: Pace, channels: usize) -> Result<Self, String> {
        if !(tau_s.is_finite() && tau_s >= 0.0) {
            return Err(format!("tau_s must be 0 or above, found {tau_s}"));
        }
        let forgets = tau_s > 0.0;
        let floor = if forgets { -f64::exp_m1(-pace.step_s() / tau_s) } else { 0.0 };
        let frozen_after =
            if forgets { pace.whole_steps((tau_s * 1e9).round() as u64).max(1) } else { u64::MAX };
        Ok(Self { mode: Mode::Running { floor, frozen_after }, stats: vec![Stats::default(); channels] })
    }

    /// By the statistics of the first `seconds`; until then by those so far.
    pub fn calibration(seconds: f64, pace: Pace, channels: usize) -> Result<Self, String> {
        let steps =
            if seconds.is_finite() { pace.whole_steps((seconds * 1e9).round().max(0.0) as u64) } else { 0 };
        if steps == 0 {
            return Err(format!("seconds = {seconds} is shorter than one step ({} ms)", pace.step_ms()));
        }
        Ok(Self { mode: Mode::Calibration { steps, step: 0 }, stats: vec![Stats::default(); channels] })
    }

    /// By given means and deviations: one of each per channel, or one for all.
    pub fn fixed(mean: &[f64], std: &[f64], channels: usize) -> Result<Self, String> {
        let one = |name: &str, all: &[f64], c: usize| match all.len() {
            1 => Ok(all[0]),
            n if n == channels => Ok(all[c]),
            n => Err(format!("{name} must have {channels} numbers or one, found {n}")),
        };
        let stats = (0..channels).map(|c| {
            let (mean, std) = (one("mean", mean, c)?, one("std", std, c)?);
            if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
                return Err(format!("mean and std must be finite, std not negative; found {mean}, {std}"));
            }
            Ok(Stats { good: u64::MAX, mean, var: std * std, ..Stats::default() })
        });
        Ok(Self { mode: Mode::Fixed, stats: stats.collect::<Result<_, _>>()? })
    }

    /// One row in place, `[channels]`; what there is to say is added to `reports`.
    pub fn step(&mut self, row: &mut [f64], reports: &mut Vec<Report>) {
        let given = matches!(self.mode, Mode::Fixed);
        let (floor, frozen_after, learns, ends) = match &mut self.mode {
            Mode::Running { floor, frozen_after } => (*floor, *frozen_after, true, false),
            Mode::Calibration { steps, step } => {
                *step = step.saturating_add(1);
                (0.0, u64::MAX, *step <= *steps, *step == *steps)
            }
            Mode::Fixed => (0.0, u64::MAX, false, false),
        };
        for (c, (x, stats)) in row.iter_mut().zip(&mut self.stats).enumerate() {
            if x.is_nan() {
                stats.still = stats.still.saturating_add(1);
                if stats.good > 0 && stats.still == frozen_after {
                    reports.push(Report::Frozen(c));
                }
            } else {
                if learns {
                    stats.update(*x, floor);
                }
                let flat = if given { stats.var == 0.0 } else { stats.is_flat() };
                *x = match (stats.good, flat) {
                    // Without one good value in calibration there is no scale, and no number is made up.
                    (0, _) => f64::NAN,
                    (_, true) => 0.0,
                    (_, false) => (*x - stats.mean) / stats.var.sqrt(),
                };
                if flat && stats.good >= 2 && !stats.told_flat {
                    stats.told_flat = true;
                    reports.push(Report::Flat(c));
                }
            }
            if ends && stats.good == 0 {
                reports.push(Report::Uncalibrated(c));
            }
        }
    }

    /// `n` steps without any value.
    pub fn pass(&mut self, n: u64, reports: &mut Vec<Report>) {
        let mut frozen_after = u64::MAX;
        let mut ends = false;
        match &mut self.mode {
            Mode::Running { frozen_after: after, .. } => frozen_after = *after,
            Mode::Calibration { steps, step } => {
                let before = *step;
                *step = step.saturating_add(n);
                ends = before < *steps && *step >= *steps;
            }
            Mode::Fixed => {}
        }
        for (c, stats) in self.stats.iter_mut().enumerate() {
            let before = stats.still;
            stats.still = stats.still.saturating_add(n);
            if stats.good > 0 && before < frozen_after && stats.still >= frozen_after {
                reports.push(Report::Frozen(c));
            }
            if ends && stats.good == 0 {
                reports.push(Report::Uncalibrated(c));
            }
        }
    }

    /// Whether the last step lay in the calibration.
    pub fn warming_up(&self) -> bool {
        matches!(self.mode, Mode::Calibration { steps, step } if step <= steps)
    }

    /// Back to the state before the first row.
    pub fn reset(&mut self) {
        match &mut self.mode {
            Mode::Fixed => return,
            Mode::Calibration { step, .. } => *step = 0,
            Mode::Running { .. } => {}
        }
        self.stats.fill(Stats::default());
    }
}
