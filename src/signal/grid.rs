//! The grid of bins in 128 bits: an index beyond any i64 of ns still has its bin.

use std::num::NonZeroU64;

use crate::domain::time::BinGrid;

/// Bin numbers end here, far below the end of u64, so that sums of them cannot overflow.
pub const MAX_BIN: u64 = 1 << 62;

/// Bin k is [t0 + k·width, t0 + (k+1)·width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Start of bin 0 on the session's clock.
    pub t0_ns: i128,
    /// Width of every bin.
    pub width_ns: NonZeroU64,
}

impl Grid {
    fn width(&self) -> i128 {
        i128::from(self.width_ns.get())
    }

    /// The bin that holds `ns`; below 0 before t0.
    pub fn bin(&self, ns: i128) -> i128 {
        (ns - self.t0_ns).div_euclid(self.width())
    }

    /// As `bin`, what lies before t0 taken as bin 0.
    pub fn bin_from_0(&self, ns: i128) -> u64 {
        self.bin(ns).clamp(0, i128::from(MAX_BIN)) as u64
    }

    /// Start of bin `k`.
    pub fn start_ns(&self, k: u64) -> i128 {
        self.t0_ns + i128::from(k) * self.width()
    }

    /// The grid in 64 bits, as the wire has it.
    pub fn narrow(&self) -> BinGrid {
        let t0_ns = self.t0_ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        BinGrid { t0_ns, width_ns: self.width_ns }
    }
}
