//! Broadband to threshold crossings, one or none per sample. Thresholds are measured on the stream's first stretch, then
//! frozen; or they are given before the first sample, and nothing is measured. A missing value (NaN) gives none; the
//! sample before it is then the one to cross from.

use super::design::Design;
use super::filter::Filter;
use super::tally::Tally;
use super::{FLAT, Report};
use crate::domain::time::ns_from_ms;
use crate::signal::op::{BandKind, Init, Spread};
use crate::signal::pace::Pace;
use crate::signal::refusal::OpError;

/// |y| of noise has its median at this many standard deviations.
const MEDIAN_OF_NOISE: f64 = 0.6745;

/// What is asked of crossings.
#[derive(Clone, Copy, Debug)]
pub struct CrossingParams {
    /// Corners of the band-pass (Hz).
    pub band_hz: (f64, f64),
    /// Order of its prototype.
    pub order: u32,
    /// Threshold in spreads; below 0: falling.
    pub times: f64,
    /// How spread is measured.
    pub of: Spread,
    /// Length of the stretch that it is measured on (s).
    pub calibrate_s: f64,
    /// Least distance of counted crossings (ms).
    pub refractory_ms: f64,
}

/// A detector with its filter's memory and its thresholds.
#[derive(Clone, Debug)]
pub struct Crossings {
    filter: Filter,
    channels: usize,
    /// −1 for a rising threshold: signal and threshold are turned over, and all crossings fall.
    sign: f64,
    times: f64,
    of: Spread,
    /// Samples of the calibration.
    calibration: u64,
    /// Samples from a counted crossing to the next that may count.
    refractory: u64,
    measured: Measured,
    /// Threshold of each channel, in the signal's unit; NaN: none.
    thresholds: Vec<f64>,
    /// As the comparison needs it: turned over by `sign`, NaN for a flat channel, which crosses nothing.
    armed: Vec<f64>,
    /// Last good value of each channel, turned over by `sign`; NaN: none.
    before: Vec<f64>,
    /// Where each channel's last counted crossing lay.
    counted: Vec<Option<u64>>,
    /// One past the last sample that came or passed.
    next: u64,
    has_begun: bool,
    /// A sample of the bin in hand lies in the calibration.
    warm: bool,
}

/// What was seen of the calibration.
#[derive(Clone, Debug)]
enum Measured {
    /// The filtered values, and by channel the sum of the squares of what came.
    Yet(Tally, Vec<f64>),
    /// It is over; true: a channel without a good value in it, which has no threshold.
    Frozen(Vec<bool>),
    /// There is none: the thresholds are given. True: that was told.
    Given(bool),
}

impl Measured {
    /// Errors: too many channels for so long a calibration.
    fn yet(of: Spread, channels: usize, calibration: u64) -> Result<Self, OpError> {
        Ok(Measured::Yet(Tally::new(of, channels, calibration)?, vec![0.0; channels]))
    }
}

impl Crossings {
    /// A detector for `channels` of a stream of `pace`, and its delay (ms).
    /// Errors: a corner at or above half of the rate, a calibration shorter than a sample, or too long for so many channels.
    pub fn new(params: CrossingParams, pace: Pace, channels: usize) -> Result<(Self, f64), OpError> {
        let (low, high) = params.band_hz;
        let design = Design::butterworth(BandKind::Band, params.order, Some(low), Some(high), pace.hz())?;
        let calibration = pace.whole_steps((params.calibrate_s * 1e9).round() as u64);
        if calibration == 0 {
            let expected = format!("at least one sample ({} ms)", pace.step_ms());
            return Err(OpError::new("calibrate_s", expected, params.calibrate_s.to_string()));
        }
        let refractory_ns = ns_from_ms(params.refractory_ms)
            .ok_or_else(|| OpError::new("refractory_ms", "a duration", params.refractory_ms.to_string()))?;
        let crossings = Self {
            filter: Filter::new(&design, Init::Steady, channels),
            channels,
            sign: if params.times < 0.0 { 1.0 } else { -1.0 },
            times: params.times,
            calibration,
            refractory: u64::try_from(pace.first_at_or_after(refractory_ns.into())).unwrap_or(u64::MAX),
            of: params.of,
            measured: Measured::yet(params.of, channels, calibration)?,
            thresholds: vec![f64::NAN; channels],
            armed: vec![f64::NAN; channels],
            before: vec![f64::NAN; channels],
            counted: vec![None; channels],
            next: 0,
            has_begun: false,
            warm: false,
        };
        Ok((crossings, design.delay_ms((low * high).sqrt())))
    }

    /// Sets the threshold of each channel before the first row, in the signal's unit, of the sign that `times` has; NaN:
    /// none. Nothing is measured then, and all samples count.
    pub fn give(&mut self, thresholds: &[f64]) {
        self.measured = Measured::Given(false);
        self.calibration = 0;
        self.thresholds.copy_from_slice(thresholds);
        self.armed.iter_mut().zip(thresholds).for_each(|(armed, threshold)| *armed = self.sign * threshold);
    }

    /// Whether the thresholds were given.
    pub fn are_given(&self) -> bool {
        matches!(self.measured, Measured::Given(_))
    }

    /// Threshold in spreads; below 0: falling.
    pub fn times(&self) -> f64 {
        self.times
    }

    /// Rows in place, `[n, channels]`, at their places in the stream: 1 where a crossing counts, else 0.
    pub fn run(&mut self, rows: &mut [f64], at: &[u64], reports: &mut Vec<Report>) {
        let calibrating = at.iter().take_while(|at| **at < self.calibration).count();
        if let Measured::Yet(_, squares) = &mut self.measured {
            for row in rows.chunks_exact(self.channels).take(calibrating) {
                for (sum, x) in squares.iter_mut().zip(row).filter(|(_, x)| !x.is_nan()) {
                    *sum += x * x;
                }
            }
        }
        if let Measured::Given(told @ false) = &mut self.measured {
            *told = true;
            let known = self.thresholds.iter().enumerate().filter(|(_, threshold)| !threshold.is_nan());
            reports.extend(known.map(|(c, _)| Report::Threshold(c)));
        }
        self.filter.run(rows);
        for (row, at) in rows.chunks_exact_mut(self.channels).zip(at) {
            if matches!(self.measured, Measured::Yet(..)) {
                self.measure(row, *at, reports);
            }
            self.detect(row, *at);
            self.next = at.saturating_add(1);
        }
        self.warm |= calibrating > 0;
        self.has_begun |= !at.is_empty();
    }

    /// One filtered row of the calibration, or the first after it.
    fn measure(&mut self, row: &[f64], at: u64, reports: &mut Vec<Report>) {
        if let Measured::Yet(tally, _) = &mut self.measured
            && at < self.calibration
        {
            tally.add(row);
        }
        if at.saturating_add(1) >= self.calibration {
            self.freeze(reports);
        }
    }

    fn freeze(&mut self, reports: &mut Vec<Report>) {
        let Measured::Yet(tally, squares) = &mut self.measured else { return };
        let mut lacking = vec![false; self.channels];
        for (c, squares) in squares.iter().enumerate() {
            let count = tally.count(c);
            if count == 0 {
                lacking[c] = true;
                reports.push(Report::Uncalibrated(c));
                continue;
            }
            let spread = match self.of {
                Spread::Rms => tally.spread(c),
                Spread::Median => tally.spread(c) / MEDIAN_OF_NOISE,
            };
            self.thresholds[c] = self.times * spread;
            if spread <= FLAT * (*squares / count as f64).sqrt() {
                reports.push(Report::Flat(c));
            } else {
                self.armed[c] = self.sign * self.thresholds[c];
            }
            reports.push(Report::Threshold(c));
        }
        self.measured = Measured::Frozen(lacking);
    }

    fn detect(&mut self, row: &mut [f64], at: u64) {
        let counts = at >= self.calibration;
        let lacking = match &self.measured {
            Measured::Frozen(lacking) if counts => &lacking[..],
            _ => &[],
        };
        for (c, x) in row.iter_mut().enumerate() {
            if x.is_nan() {
                continue;
            }
            let y = self.sign * *x;
            *x = 0.0;
            if y < self.armed[c] && self.before[c] >= self.armed[c] && counts {
                let is_free = |last: u64| at.saturating_sub(last) >= self.refractory;
                if self.counted[c].is_none_or(is_free) {
                    self.counted[c] = Some(at);
                    *x = 1.0;
                }
            }
            self.before[c] = y;
        }
        for (x, _) in row.iter_mut().zip(lacking).filter(|(_, lacks)| **lacks) {
            *x = f64::NAN;
        }
    }

    /// `n` samples never came: the calibration goes on without them.
    pub fn pass(&mut self, n: u64) {
        if n > 0 {
            self.warm |= self.next < self.calibration;
        }
        if self.has_begun {
            self.next = self.next.saturating_add(n);
        }
    }

    /// Whether a sample since the last call lay in the calibration; without one, whether the filter was not settled.
    pub fn take_warm(&mut self) -> bool {
        let unsettled = self.filter.take_warm();
        std::mem::take(&mut self.warm) || (self.are_given() && unsettled)
    }

    /// Threshold of each channel, in the signal's unit; NaN: none (yet).
    pub fn thresholds(&self) -> &[f64] {
        &self.thresholds
    }

    /// Whether anything can cross the threshold of a channel: it has one, and is not flat.
    pub fn is_armed(&self, channel: usize) -> bool {
        !self.armed[channel].is_nan()
    }

    /// A new epoch: filter and crossings begin anew, thresholds stay.
    pub fn restart(&mut self) {
        self.filter.restart();
        self.before.fill(f64::NAN);
    }

    /// Back to the state before the first row; what was given stays.
    pub fn reset(&mut self) {
        self.restart();
        if let Measured::Given(told) = &mut self.measured {
            *told = false;
        } else {
            if let Ok(measured) = Measured::yet(self.of, self.channels, self.calibration) {
                self.measured = measured; // as when it was made
            }
            self.thresholds.fill(f64::NAN);
            self.armed.fill(f64::NAN);
        }
        self.counted.fill(None);
        (self.next, self.has_begun, self.warm) = (0, false, false);
    }
}
