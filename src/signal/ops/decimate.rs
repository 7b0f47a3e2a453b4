//! A low-pass, then every `factor`-th sample of the stream, by index, missing ones counted.

use super::design::Design;
use super::filter::Filter;
use crate::signal::op::{BandKind, Init};
use crate::signal::pace::Pace;
use crate::signal::refusal::OpError;

/// The low-pass ends at this share of the new rate's half.
const SHARE: f64 = 0.8;

/// A decimation with its filter's memory.
#[derive(Clone, Debug)]
pub struct Decimate {
    filter: Filter,
    factor: u64,
    channels: usize,
    /// Where the stream began; `None` before its first sample and after a restart.
    from: Option<u64>,
    /// One past the last sample that came or passed.
    next: u64,
    /// Place, among the samples that are kept, of the one at `from`.
    kept_from: u64,
}

impl Decimate {
    /// A decimation of a stream of `pace`, which becomes that of the samples that are kept, and its delay (ms).
    pub fn new(factor: u32, order: u32, channels: usize, pace: &mut Pace) -> Result<(Self, f64), OpError> {
        let slower = pace
            .slower(factor)
            .ok_or_else(|| OpError::new("factor", "a rate that is left over", factor.to_string()))?;
        let corner_hz = SHARE * slower.hz() / 2.0;
        let design = Design::butterworth(BandKind::Low, order, None, Some(corner_hz), pace.hz())?;
        let filter = Filter::new(&design, Init::Steady, channels);
        *pace = slower;
        let factor = factor.into();
        Ok((Self { filter, factor, channels, from: None, next: 0, kept_from: 0 }, design.delay_ms(0.0)))
    }

    /// Rows `[n, channels]` and their places in the stream: those that are kept stay, at their new places.
    pub fn run(&mut self, rows: &mut Vec<f64>, at: &mut Vec<u64>) {
        self.filter.run(rows);
        let mut kept = 0;
        for i in 0..at.len() {
            let place = at[i];
            let from = *self.from.get_or_insert(place);
            let since = place.saturating_sub(from);
            self.next = place.saturating_add(1);
            if since.is_multiple_of(self.factor) {
                at[kept] = self.kept_from.saturating_add(since / self.factor);
                rows.copy_within(i * self.channels..(i + 1) * self.channels, kept * self.channels);
                kept += 1;
            }
        }
        at.truncate(kept);
        rows.truncate(kept * self.channels);
    }

    /// `n` samples never came; answers how many of them would have been kept.
    pub fn pass(&mut self, n: u64) -> u64 {
        let Some(from) = self.from else { return n / self.factor };
        let kept = |next: u64| next.saturating_sub(from).div_ceil(self.factor);
        let before = kept(self.next);
        self.next = self.next.saturating_add(n);
        kept(self.next) - before
    }

    /// Whether the low-pass was not settled since the last call.
    pub fn take_warm(&mut self) -> bool {
        self.filter.take_warm()
    }

    /// A new epoch: its first sample is kept, and counts on.
    pub fn restart(&mut self) {
        if let Some(from) = self.from.take() {
            self.kept_from =
                self.kept_from.saturating_add(self.next.saturating_sub(from).div_ceil(self.factor));
        }
        self.filter.restart();
    }

    /// Back to the state before the first row.
    pub fn reset(&mut self) {
        self.filter.restart();
        (self.from, self.next, self.kept_from) = (None, 0, 0);
    }
}
