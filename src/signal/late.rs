//! Data that come for bins that have closed: counted, and under `late = next` carried into a later bin.
//! Must hold: what a frame brings for a closed bin, for the first time or again, is in its event and in all totals.

use std::ops::Range;

use super::log::Log;
use super::track::Track;
use crate::domain::ids::SignalName;
use crate::domain::output::EventKind;

/// Stretches of closed bins that are remembered as counted; beyond, the lowest are forgotten.
const REMEMBERED: usize = 64;

/// Which closed bins are counted as such that data came for, so that each is once: a slow signal brings many frames for
/// one bin.
#[derive(Clone, Debug, Default)]
pub struct LateBins {
    came: Stretches,
    dropped: Stretches,
}

/// Bins in order, as stretches that do not touch.
#[derive(Clone, Debug, Default)]
struct Stretches(Vec<Range<u64>>);

impl Stretches {
    /// Adds bins; answers how many of them are new.
    fn add(&mut self, bins: Range<u64>) -> u64 {
        let known: u64 = self.within(&bins).map(|part| part.end - part.start).sum();
        let touched = self.0.partition_point(|stretch| stretch.end < bins.start)
            ..self.0.partition_point(|stretch| stretch.start <= bins.end);
        let joined = self.0[touched.clone()]
            .iter()
            .fold(bins.clone(), |all, stretch| all.start.min(stretch.start)..all.end.max(stretch.end));
        self.0.splice(touched, [joined]);
        if self.0.len() > REMEMBERED {
            self.0.remove(0);
        }
        bins.end - bins.start - known
    }

    /// Adds those of `other`.
    fn add_all(&mut self, other: &Stretches) {
        for bins in &other.0 {
            self.add(bins.clone());
        }
    }

    /// What of them lies in `bins`.
    fn within(&self, bins: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let parts = self.0.iter().map(|stretch| stretch.start.max(bins.start)..stretch.end.min(bins.end));
        parts.filter(|part| !part.is_empty())
    }
}

impl Log<'_> {
    /// Data came for closed bins; `used`: they go into a later one.
    fn closed_bins(&mut self, bins: Range<u64>, used: bool) {
        self.counts.late_bins += self.late_bins.came.add(bins.clone());
        if !used {
            self.counts.late_bins_dropped += self.late_bins.dropped.add(bins);
        }
    }

    /// Data that came for these bins were to be used, and are not. Those that were open when they came are none of them.
    fn dropped_bins(&mut self, bins: &Stretches) {
        let LateBins { came, dropped } = &mut *self.late_bins;
        let late = bins.0.iter().flat_map(|bins| came.within(bins));
        let new: u64 = late.map(|part| dropped.add(part)).sum();
        self.counts.late_bins_dropped += new;
    }
}

/// Data of one frame that are late, or came again, for their event.
#[derive(Default)]
pub struct LateTally {
    count: u64,
    used: bool,
    /// Closed bins, as they come.
    bins: Vec<Range<u64>>,
}

impl LateTally {
    /// So many for bin `k`, whether they go into a later one or not. It is closed, or came already.
    pub fn add(&mut self, k: u64, count: u64, used: bool, next_bin: u64) {
        self.count += count;
        self.used = used;
        if k < next_bin {
            self.note_bins(k..k + 1);
        }
    }

    /// So many that came already, in bins of which those before `next_bin` are closed.
    pub fn add_again(&mut self, bins: Range<u64>, count: u64, next_bin: u64) {
        self.count += count;
        let closed = bins.start..bins.end.min(next_bin);
        if !closed.is_empty() {
            self.note_bins(closed);
        }
    }

    fn note_bins(&mut self, bins: Range<u64>) {
        match self.bins.last_mut().filter(|last| (last.start..=last.end).contains(&bins.start)) {
            Some(last) => last.end = last.end.max(bins.end),
            None => self.bins.push(bins),
        }
    }

    /// Counts and tells those that are late.
    pub fn tell(self, signal: &SignalName, what: &str, next_bin: u64, log: &mut Log<'_>) {
        let done = if self.used { format!("added to bin {next_bin} or later") } else { "left out".into() };
        let detail = format!("{} {what} came late; they are {done}", self.count);
        self.tell_as(EventKind::Late, detail, signal, log);
    }

    /// Counts and tells samples that came already, the frame's from an index on.
    pub fn tell_again(self, signal: &SignalName, from: i128, log: &mut Log<'_>) {
        let detail = format!("{} samples from index {from} on came already; they are left out", self.count);
        self.tell_as(EventKind::Overlap, detail, signal, log);
    }

    fn tell_as(self, kind: EventKind, detail: String, signal: &SignalName, log: &mut Log<'_>) {
        if self.count == 0 {
            return;
        }
        log.counts.late += self.count;
        log.counts.dropped += if self.used { 0 } else { self.count };
        let mut all = None;
        for bins in self.bins {
            widen(&mut all, bins.clone());
            log.closed_bins(bins, self.used);
        }
        log.notice(kind, Some(signal), all, self.count, detail);
    }
}

/// Counts that came for closed bins, under `late = next`: they go into a bin that closes whole.
#[derive(Clone, Debug, Default)]
pub struct LateCounts {
    /// Their sum, `[channels]`; empty: none.
    pub sum: Vec<f64>,
    /// Samples or events in it.
    pub n: u64,
    /// From the first to the last of the bins that they were for.
    pub bins: Option<Range<u64>>,
    /// Those bins themselves: what lies between them is none of this signal's.
    each: Stretches,
    /// Some value was not finite; it is not in `sum`.
    pub not_finite: bool,
}

impl LateCounts {
    /// Adds `n` samples or events for the bin `k`, which is closed, or for which they came already.
    pub fn note(&mut self, k: u64, n: u64, channels: usize) {
        self.sum.resize(channels, 0.0);
        self.n += n;
        widen(&mut self.bins, k..k + 1);
        self.each.add(k..k + 1);
    }

    /// Adds to a channel.
    pub fn add(&mut self, channel: usize, value: f64) {
        if value.is_finite() {
            self.sum[channel] += value;
        } else {
            self.not_finite = true;
        }
    }

    /// Bytes that it holds beside itself.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.sum[..]) + size_of_val(&self.each.0[..])
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
        self.each.add_all(&other.each);
        self.not_finite |= other.not_finite;
        other.clear();
    }

    /// Back to none.
    pub fn clear(&mut self) {
        self.sum.clear();
        self.each.0.clear();
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
        log.dropped_bins(&late.each);
        let what = if self.pace.is_some() { "samples" } else { "events" };
        let detail =
            format!("{} {what} that came late were in no bin before {why}; they are left out", late.n);
        // They were counted when they came: 0 of them are new.
        log.notice(EventKind::Late, Some(&self.name), late.bins, 0, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_bin_is_new_once(adds in prop::collection::vec((0u64..100, 1u64..9), 1..60)) {
            let (mut stretches, mut plain) = (Stretches::default(), BTreeSet::new());
            for (start, length) in adds {
                let new = (start..start + length).filter(|k| plain.insert(*k)).count() as u64;
                prop_assert_eq!(stretches.add(start..start + length), new);
                let apart = |pair: &[Range<u64>]| pair[0].end < pair[1].start;
                prop_assert!(stretches.0.windows(2).all(apart), "{:?}", stretches);
            }
        }
    }

    #[test]
    fn stretches_without_end_take_no_memory_without_end() {
        let mut stretches = Stretches::default();
        (0..10_000).for_each(|k| assert_eq!(stretches.add(2 * k..2 * k + 1), 1));
        assert_eq!(stretches.0.len(), REMEMBERED);
        assert_eq!(stretches.add(19_998..19_999), 0);
    }
}
