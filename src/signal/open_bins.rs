//! The bins of one signal that are still open: what came for each, raw, in the signal's channels.

use std::collections::VecDeque;

use super::late::LateCounts;

/// What came for one bin.
#[derive(Clone, Debug, Default)]
pub struct OpenBin {
    /// The bin.
    pub k: u64,
    /// Samples `[n, channels]` in the order of their index, or one row of counts.
    pub rows: Vec<f64>,
    /// Index of each sample; empty for events.
    pub index: Vec<i128>,
    /// Late counts for this bin; no part of `rows` until it closes whole.
    pub late: LateCounts,
    /// Channels that a frame masked; `[channels]` or empty.
    pub masked: Vec<bool>,
    /// Which channels fired in each ms, as `Cofiring` has it; empty: none.
    pub fired: Vec<u64>,
}

impl OpenBin {
    /// Marks the channels that `mask` (true = good) leaves out.
    pub fn mask(&mut self, mask: &[bool]) {
        self.masked.resize(mask.len(), false);
        self.masked.iter_mut().zip(mask).for_each(|(masked, good)| *masked |= !good);
    }

    /// Puts late counts into the bin's last row; they stay noted in `late`.
    fn take_late(&mut self, late: &mut LateCounts) {
        self.late.absorb(late);
        let channels = self.late.sum.len();
        if self.rows.is_empty() {
            self.rows.resize(channels, 0.0);
        }
        let last = self.rows.len() - channels;
        self.rows[last..].iter_mut().zip(&self.late.sum).for_each(|(x, late)| *x += late);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&self.rows[..])
            + size_of_val(&self.index[..])
            + self.late.bytes()
            + self.masked.len()
            + size_of_val(&self.fired[..])
    }
}

/// Open bins in order, and emptied ones to be used again.
#[derive(Clone, Debug, Default)]
pub struct OpenBins {
    bins: VecDeque<OpenBin>,
    bytes: usize,
    /// Late counts whose bins did not close whole: the next that does takes them.
    handed_on: LateCounts,
    spare: Vec<OpenBin>,
}

impl OpenBins {
    /// Changes what came for bin `k`, which is made if nothing came for it yet.
    pub fn change(&mut self, k: u64, change: impl FnOnce(&mut OpenBin)) {
        let i = match self.bins.back() {
            Some(last) if last.k == k => self.bins.len() - 1,
            Some(last) if last.k > k => {
                let i = self.bins.partition_point(|bin| bin.k < k);
                if self.bins[i].k != k {
                    let bin = self.fresh(k);
                    self.bytes += bin.bytes();
                    self.bins.insert(i, bin);
                }
                i
            }
            _ => {
                let bin = self.fresh(k);
                self.bytes += bin.bytes();
                self.bins.push_back(bin);
                self.bins.len() - 1
            }
        };
        let bin = &mut self.bins[i];
        let before = bin.bytes();
        change(bin);
        self.bytes = self.bytes - before + bin.bytes();
    }

    fn fresh(&mut self, k: u64) -> OpenBin {
        OpenBin { k, ..self.spare.pop().unwrap_or_default() }
    }

    /// What came for bin `k`, the first that is open, which closes now. A `whole` one is given the late counts that
    /// wait; those of any other wait for the next.
    pub fn take(&mut self, k: u64, whole: bool) -> Option<OpenBin> {
        self.drop_before(k);
        let mut bin = self.bins.pop_front_if(|bin| bin.k == k);
        if let Some(bin) = &mut bin {
            self.bytes -= bin.bytes();
            self.handed_on.absorb(&mut bin.late);
        }
        if !whole || self.handed_on.is_empty() {
            return bin;
        }
        let mut bin = bin.unwrap_or_else(|| self.fresh(k));
        bin.take_late(&mut self.handed_on);
        Some(bin)
    }

    /// Drops what came for bins before `k`, but for late counts: they wait for the next bin that closes whole.
    pub fn drop_before(&mut self, k: u64) {
        while let Some(mut bin) = self.bins.pop_front_if(|bin| bin.k < k) {
            self.bytes -= bin.bytes();
            self.handed_on.absorb(&mut bin.late);
            self.recycle(bin);
        }
    }

    /// Takes away the late counts that were put into bin `k` or a later one.
    pub fn take_late_from(&mut self, k: u64) -> LateCounts {
        let mut late = LateCounts::default();
        for bin in self.bins.iter_mut().filter(|bin| bin.k >= k) {
            let before = bin.bytes();
            late.absorb(&mut bin.late);
            self.bytes = self.bytes - before + bin.bytes();
        }
        late
    }

    /// Takes away the late counts that wait for a bin that closes whole.
    pub fn take_handed_on(&mut self) -> LateCounts {
        std::mem::take(&mut self.handed_on)
    }

    /// Gives a bin's buffers back.
    pub fn recycle(&mut self, mut bin: OpenBin) {
        if self.spare.len() < 4 {
            bin.rows.clear();
            bin.index.clear();
            bin.late.clear();
            bin.masked.clear();
            bin.fired.clear();
            self.spare.push(bin);
        }
    }

    /// Bytes of what waits here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> impl FnOnce(&mut OpenBin) {
        move |bin| {
            bin.rows.resize(bin.rows.len() + n, 1.0);
            bin.index.resize(bin.index.len() + n, 0);
        }
    }

    #[test]
    fn bytes_are_those_of_all_bins_whatever_the_first_and_the_last_hold() {
        let mut open = OpenBins::default();
        open.change(1, rows(1));
        open.change(9, rows(1));
        open.change(5, rows(1_000));
        open.change(5, |bin| bin.mask(&[true, false]));
        let held = |open: &OpenBins| open.bins.iter().map(OpenBin::bytes).sum::<usize>();
        assert_eq!(open.bytes(), held(&open));
        assert!(open.bytes() > 1_000 * (8 + 16), "values and their indices");
        open.take(1, true);
        assert_eq!(open.bytes(), held(&open));
        open.drop_before(9);
        assert_eq!(open.bytes(), held(&open));
        open.take(9, false);
        assert_eq!(open.bytes(), 0);
    }

    #[test]
    fn late_counts_go_on_to_the_next_whole_bin_and_into_its_last_row() {
        let late = |value| {
            move |bin: &mut OpenBin| {
                bin.late.note(0, 1, 2);
                bin.late.add(1, value);
            }
        };
        let mut open = OpenBins::default();
        open.change(3, late(5.0));
        open.change(4, late(f64::NAN));
        assert!(open.take(3, false).is_some_and(|bin| bin.late.is_empty()));
        open.drop_before(5);
        open.change(5, |bin| bin.rows = vec![1.0, 2.0, 3.0, 4.0]);
        let bin = open.take(5, true).unwrap();
        assert_eq!(bin.rows, [1.0, 2.0, 3.0, 9.0]);
        assert_eq!((bin.late.n, bin.late.bins, bin.late.not_finite), (2, Some(0..1), true));
        assert!(open.take(6, true).is_none());
        assert!(open.take_handed_on().is_empty());
    }
}
