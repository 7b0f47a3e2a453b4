//! The bins of one signal that are still open: what came for each, raw, in the signal's channels.

use std::collections::VecDeque;

/// What came for one bin.
#[derive(Clone, Debug, Default)]
pub struct OpenBin {
    /// The bin.
    pub k: u64,
    /// Samples `[n, channels]` in the order of their index, or one row of counts.
    pub rows: Vec<f64>,
    /// Index of each sample; empty for events.
    pub index: Vec<i128>,
    /// Late counts that are added to the bin's last sample; `[channels]` or empty.
    pub extra: Vec<f64>,
    /// Channels that a frame masked; `[channels]` or empty.
    pub masked: Vec<bool>,
    /// Late data were added.
    pub late: bool,
}

impl OpenBin {
    /// Marks the channels that `mask` (true = good) leaves out.
    pub fn mask(&mut self, mask: &[bool]) {
        self.masked.resize(mask.len(), false);
        self.masked.iter_mut().zip(mask).for_each(|(masked, good)| *masked |= !good);
    }
}

/// Open bins in order, and emptied ones to be used again.
#[derive(Clone, Debug, Default)]
pub struct OpenBins {
    bins: VecDeque<OpenBin>,
    spare: Vec<OpenBin>,
}

impl OpenBins {
    /// Bin `k`, made if nothing came for it yet.
    pub fn at(&mut self, k: u64) -> &mut OpenBin {
        let i = match self.bins.back() {
            Some(last) if last.k == k => self.bins.len() - 1,
            Some(last) if last.k > k => {
                let i = self.bins.partition_point(|bin| bin.k < k);
                if self.bins[i].k != k {
                    let bin = self.fresh(k);
                    self.bins.insert(i, bin);
                }
                i
            }
            _ => {
                let bin = self.fresh(k);
                self.bins.push_back(bin);
                self.bins.len() - 1
            }
        };
        &mut self.bins[i]
    }

    fn fresh(&mut self, k: u64) -> OpenBin {
        OpenBin { k, ..self.spare.pop().unwrap_or_default() }
    }

    /// What came for bin `k`, which is the first that is open.
    pub fn take(&mut self, k: u64) -> Option<OpenBin> {
        self.drop_before(k);
        self.bins.pop_front_if(|bin| bin.k == k)
    }

    /// Drops what came for bins before `k`.
    pub fn drop_before(&mut self, k: u64) {
        while let Some(bin) = self.bins.pop_front_if(|bin| bin.k < k) {
            self.recycle(bin);
        }
    }

    /// Gives a bin's buffers back.
    pub fn recycle(&mut self, mut bin: OpenBin) {
        if self.spare.len() < 4 {
            bin.rows.clear();
            bin.index.clear();
            bin.extra.clear();
            bin.masked.clear();
            bin.late = false;
            self.spare.push(bin);
        }
    }

    /// Bytes that wait here, about.
    pub fn bytes(&self) -> usize {
        // Bins of one signal are alike: the first and the last stand for all of them.
        let of = |bin: Option<&OpenBin>| bin.map_or(0, |bin| size_of::<OpenBin>() + 8 * bin.rows.len());
        self.bins.len() * of(self.bins.front()).max(of(self.bins.back()))
    }
}
