//! Data that come for bins that have closed: counted, and under `late = next` carried into a later bin.

use std::ops::Range;

use super::log::Log;
use super::track::Track;
use crate::domain::ids::SignalName;
use crate::domain::output::EventKind;

/// Late data of one frame, for its event.
#[derive(Default)]
pub struct LateTally {
    count: u64,
    used: bool,
    bins: Option<Range<u64>>,
}

impl LateTally {
    /// So many for the closed bin `k`, whether they go into a later one or not.
    pub fn add(&mut self, k: u64, count: u64, used: bool) {
        self.count += count;
        self.used = used;
        widen(&mut self.bins, k..k + 1);
    }

    /// Counts and tells them.
    pub fn tell(self, signal: &SignalName, what: &str, next_bin: u64, log: &mut Log<'_>) {
        let Some(bins) = self.bins else { return };
        log.counts.late += self.count;
        log.counts.dropped += if self.used { 0 } else { self.count };
        let done = if self.used { format!("added to bin {next_bin} or later") } else { "left out".into() };
        let detail = format!("{} {what} came late; they are {done}", self.count);
        log.notice(EventKind::Late, Some(signal), Some(bins), self.count, detail);
    }
}

/// Counts that came for closed bins, under `late = next`: they go into a bin that closes whole.
#[derive(Clone, Debug, Default)]
pub struct LateCounts {
    /// Their sum, `[channels]`; empty: none.
    pub sum: Vec<f64>,
    /// Samples or events in it.
    pub n: u64,
    /// The closed bins that they were for: from the first to the last of them.
    pub bins: Option<Range<u64>>,
    /// Some value was not finite; it is not in `sum`.
    pub not_finite: bool,
}

impl LateCounts {
    /// Adds `n` samples or events for the closed bin `k`.
    pub fn note(&mut self, k: u64, n: u64, channels: usize) {
        self.sum.resize(channels, 0.0);
        self.n += n;
        widen(&mut self.bins, k..k + 1);
    }

    /// Adds to a channel.
    pub fn add(&mut self, channel: usize, value: f64) {
        if value.is_finite() {
            self.sum[channel] += value;
        } else {
            self.not_finite = true;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Takes over what `other` has, which has nothing then.
    pub fn absorb(&mut self, other: &mut LateCounts) {
        if other.is_empty() {
            return;
        }
        self.sum.resize(other.sum.len(), 0.0);
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, x)| *sum += x);
        self.n += other.n;
        if let Some(bins) = other.bins.take() {
            widen(&mut self.bins, bins);
        }
        self.not_finite |= other.not_finite;
        other.clear();
    }

    /// Back to none.
    pub fn clear(&mut self) {
        self.sum.clear();
        (self.n, self.bins, self.not_finite) = (0, None, false);
    }
}

fn widen(all: &mut Option<Range<u64>>, bins: Range<u64>) {
    let all = all.get_or_insert(bins.clone());
    *all = all.start.min(bins.start)..all.end.max(bins.end);
}

impl Track {
    /// Late counts that no bin can take any more, since `why`: dropped after all.
    pub fn drop_late(&self, late: LateCounts, why: &str, log: &mut Log<'_>) {
        if late.is_empty() {
            return;
        }
        log.counts.dropped += late.n;
        let what = if self.pace.is_some() { "samples" } else { "events" };
        let detail =
            format!("{} {what} that came late were in no bin before {why}; they are left out", late.n);
        // They were counted when they came: 0 of them are new.
        log.notice(EventKind::Late, Some(&self.name), late.bins, 0, detail);
    }
}
