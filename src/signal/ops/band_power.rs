//! Power in bands, from the window of each channel's last good samples. A channel with a missing sample in the bin, or
//! whose window is not full, has none.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use super::fourier::Fourier;
use super::{Columns, FLAT, Report};
use crate::signal::op::PowerScale;
use crate::signal::pace::Pace;
use crate::signal::refusal::OpError;

/// Most samples of all channels' windows: 512 MiB. More is a slip in the manifest.
const MAX_SAMPLES: usize = 1 << 26;
/// How far beside a band's edge, relative to it, a frequency still lies on it.
const EDGE: f64 = 1e-9;

/// Band power with its windows.
#[derive(Clone, Debug)]
pub struct BandPower {
    /// Samples of a window.
    n: usize,
    channels: usize,
    /// Periodic Hann, `[n]`.
    taper: Vec<f64>,
    /// Frequencies of each band, by their number.
    bands: Vec<RangeInclusive<usize>>,
    /// From |X|² to power per Hz, times the step in Hz.
    per_step: f64,
    scale: PowerScale,
    fourier: Fourier,
    /// `[channels, n]`, each a ring.
    past: Vec<f64>,
    /// Where the next sample of a channel goes.
    next: Vec<usize>,
    /// Good samples of each channel that have come, up to n.
    seen: Vec<usize>,
    told_flat: Vec<bool>,
    /// One window, its mean removed.
    window: Vec<f64>,
    /// |X|² of the frequencies up to half of the rate, doubled where the other half has the same.
    power: Vec<f64>,
}

impl BandPower {
    /// Band power of `columns`, which become channel × band, channel-major; and its delay (ms).
    /// Errors: fewer than two frequencies in a band, a band above half of the rate, a window that is too long.
    pub fn new(
        bands: &[(f64, f64)],
        window_ms: f64,
        scale: PowerScale,
        pace: Pace,
        columns: &mut Columns,
    ) -> Result<(Self, f64), OpError> {
        let (fs_hz, channels) = (pace.hz(), columns.count());
        let samples = (window_ms * fs_hz / 1e3 + 0.5).floor();
        let most = MAX_SAMPLES / channels.max(1);
        if samples > most as f64 {
            let expected = format!("at most {most} samples of {channels} channels");
            return Err(OpError::new("window_ms", expected, format!("{window_ms} ms, which are {samples}")));
        }
        let n = (samples as usize).max(1);
        let step_hz = fs_hz / n as f64;
        let ranges = bands.iter().map(|&(low, high)| {
            if high > fs_hz / 2.0 {
                let expected = format!("bands up to {} Hz, half of the rate", fs_hz / 2.0);
                return Err(OpError::new("bands", expected, format!("[{low}, {high}]")));
            }
            let first = (low / step_hz * (1.0 - EDGE)).ceil() as usize;
            let last = ((high / step_hz * (1.0 + EDGE)).floor() as usize).min(n / 2);
            if last < first + 1 {
                let expected = format!(
                    "two frequencies or more in each band, which lie {step_hz} Hz apart (a longer window_ms has more)"
                );
                return Err(OpError::new("bands", expected, format!("[{low}, {high}]")));
            }
            Ok(first..=last)
        });
        let ranges = ranges.collect::<Result<Vec<_>, OpError>>()?;
        let taper: Vec<f64> = (0..n).map(|j| 0.5 - 0.5 * (2.0 * PI * j as f64 / n as f64).cos()).collect();
        let weight: f64 = taper.iter().map(|w| w * w).sum();
        columns.split(bands);
        let power = Self {
            n,
            channels,
            taper,
            bands: ranges,
            per_step: step_hz / (fs_hz * weight),
            scale,
            fourier: Fourier::new(n),
            past: vec![0.0; channels * n],
            next: vec![0; channels],
            seen: vec![0; channels],
            told_flat: vec![false; channels],
            window: vec![0.0; n],
            power: vec![0.0; n / 2 + 1],
        };
        Ok((power, n as f64 / (2.0 * fs_hz) * 1e3))
    }

    /// Takes rows `[n, channels]` into the windows.
    pub fn take(&mut self, rows: &[f64]) {
        for row in rows.chunks_exact(self.channels) {
            for (c, x) in row.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
                self.past[c * self.n + self.next[c]] = *x;
                self.next[c] = if self.next[c] + 1 == self.n { 0 } else { self.next[c] + 1 };
                self.seen[c] = (self.seen[c] + 1).min(self.n);
            }
        }
    }

    /// The powers of the bin whose `rows` were taken last: adds `[channels, bands]` to `out`.
    pub fn bin(&mut self, rows: &[f64], out: &mut Vec<f64>, reports: &mut Vec<Report>) {
        for c in 0..self.channels {
            let lacks = rows.is_empty() || rows.iter().skip(c).step_by(self.channels).any(|x| x.is_nan());
            if lacks || self.seen[c] < self.n {
                out.extend(self.bands.iter().map(|_| f64::NAN));
            } else if self.lay_out(c) {
                self.transform();
                let log = self.scale == PowerScale::Log;
                out.extend(self.bands.iter().map(|band| {
                    let power = self.per_step * trapezoid(&self.power[band.clone()]);
                    if log { super::finite(power.ln()) } else { power }
                }));
            } else {
                if !self.told_flat[c] {
                    self.told_flat[c] = true;
                    reports.push(Report::Flat(c));
                }
                let nothing = if self.scale == PowerScale::Log { f64::NAN } else { 0.0 };
                out.extend(self.bands.iter().map(|_| nothing));
            }
        }
    }

    /// Lays channel `c` out, oldest first, its mean removed. Whether it has variance.
    fn lay_out(&mut self, c: usize) -> bool {
        let (younger, older) = self.past[c * self.n..(c + 1) * self.n].split_at(self.next[c]);
        let (first, second) = self.window.split_at_mut(older.len());
        first.copy_from_slice(older);
        second.copy_from_slice(younger);
        let n = self.n as f64;
        let mean = self.window.iter().sum::<f64>() / n;
        let square = self.window.iter().map(|x| x * x).sum::<f64>() / n;
        self.window.iter_mut().for_each(|x| *x -= mean);
        let var = self.window.iter().map(|x| x * x).sum::<f64>() / n;
        var.sqrt() > FLAT * square.sqrt()
    }

    fn transform(&mut self) {
        let spectrum = self.fourier.run(self.window.iter().zip(&self.taper).map(|(x, w)| x * w));
        for (k, power) in self.power.iter_mut().enumerate() {
            let is_own_mirror = k == 0 || 2 * k == self.n;
            *power = spectrum[k].norm_sqr() * if is_own_mirror { 1.0 } else { 2.0 };
        }
    }

    /// Whether a window has begun and is not full, or none has begun.
    pub fn warming_up(&self) -> bool {
        let filling = |seen: &usize| (1..self.n).contains(seen);
        self.seen.iter().any(filling) || self.seen.iter().all(|seen| *seen == 0)
    }

    /// Back to the state before the first row.
    pub fn restart(&mut self) {
        self.next.fill(0);
        self.seen.fill(0);
        self.told_flat.fill(false);
    }
}

/// Integral over steps of 1.
fn trapezoid(values: &[f64]) -> f64 {
    values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum()
}

impl Columns {
    fn split(&mut self, bands: &[(f64, f64)]) {
        let each = (0..self.count()).flat_map(|c| bands.iter().map(move |band| (c, band)));
        let each = each.map(|(c, (low, high))| {
            let name = format!("{} {low}-{high} Hz", self.names[c]);
            (name, self.groups[c].clone(), self.origins[c].clone())
        });
        *self = each.collect();
    }
}
