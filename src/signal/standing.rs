//! What answers ask of an aligner, kept beside it: it may be at work on the next frame meanwhile.

use super::clock::SessionClock;
use super::step::Counts;
use crate::domain::time::BinGrid;

/// How an aligner stood at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub(super) grid: Option<BinGrid>,
    pub(super) next_bin: u64,
    pub(super) counts: Counts,
    pub(super) next_expiry_ns: Option<i64>,
    pub(super) own: SessionClock,
}

impl Standing {
    /// The grid of bins, once t0 is known.
    pub fn grid(&self) -> Option<BinGrid> {
        self.grid
    }

    /// The next bin to close.
    pub fn next_bin(&self) -> u64 {
        self.next_bin
    }

    /// Totals since open.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When bins are due to be closed without what they wait for, if nothing comes before (Unix ns).
    pub fn next_expiry_ns(&self) -> Option<i64> {
        self.next_expiry_ns
    }

    /// The session's clock against the server's.
    pub fn clock(&self) -> SessionClock {
        self.own
    }
}
