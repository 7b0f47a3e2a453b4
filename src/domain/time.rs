//! Exact time: rates as fractions, sample starts in 128 bits, the grid of bins.

use std::num::NonZeroU64;

/// Nanoseconds of one second.
pub const NS_PER_S: i64 = 1_000_000_000;

/// A sampling rate in Hz, exact: `num / den`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Samples in `den` seconds; at least 1.
    pub num: u32,
    /// Seconds; at least 1.
    pub den: u32,
}

impl Rate {
    /// `None` unless both parts are at least 1.
    pub fn new(num: u32, den: u32) -> Option<Self> {
        (num > 0 && den > 0).then_some(Self { num, den })
    }

    /// The rate in Hz, rounded to f64.
    pub fn hz(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Start of sample `i` after its epoch's start: floor(i·10⁹·den/num) ns, computed in 128 bits, never summed.
    /// Saturates at the end of representable time (292 years).
    pub fn start_ns(self, i: u64) -> i64 {
        let ns = u128::from(i) * NS_PER_S as u128 * u128::from(self.den) / u128::from(self.num);
        i64::try_from(ns).unwrap_or(i64::MAX)
    }

    /// The first sample that starts at or after `ns` from the epoch's start.
    pub fn first_at_or_after(self, ns: i64) -> u64 {
        if ns <= 0 {
            return 0;
        }
        // Smallest i with floor(i·10⁹·den/num) >= ns, which is ceil(ns·num / (10⁹·den)) for whole ns.
        let (num, unit) = (u128::from(self.num), NS_PER_S as u128 * u128::from(self.den));
        u64::try_from((ns as u128 * num).div_ceil(unit)).unwrap_or(u64::MAX)
    }

    /// Whole samples in `ns`, if `ns` is a whole number of them.
    pub fn whole_samples(self, ns: u64) -> Option<u64> {
        let (top, unit) = (u128::from(ns) * u128::from(self.num), NS_PER_S as u128 * u128::from(self.den));
        (top % unit == 0).then(|| (top / unit) as u64)
    }
}

/// The grid of a session's bins: bin k is [t0 + k·width, t0 + (k+1)·width) on the session's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinGrid {
    /// Start of bin 0 (ns).
    pub t0_ns: i64,
    /// Width of every bin (ns).
    pub width_ns: NonZeroU64,
}

impl BinGrid {
    /// The bin that holds `t_ns`; an instant on an edge belongs to the later bin. `None`: before t0.
    pub fn bin_of(&self, t_ns: i64) -> Option<u64> {
        let since = i128::from(t_ns) - i128::from(self.t0_ns);
        (since >= 0).then(|| (since / i128::from(self.width_ns.get())) as u64)
    }

    /// Start of bin `k` (ns); saturates at the end of representable time.
    pub fn start_ns(&self, k: u64) -> i64 {
        let start = i128::from(self.t0_ns) + i128::from(k) * i128::from(self.width_ns.get());
        i64::try_from(start).unwrap_or(i64::MAX)
    }

    /// End of bin `k` (ns), which is the start of the next.
    pub fn end_ns(&self, k: u64) -> i64 {
        self.start_ns(k.saturating_add(1))
    }
}

/// A duration given in milliseconds, as whole nanoseconds. `None` unless it is finite, not negative and below 292 years.
pub fn ns_from_ms(ms: f64) -> Option<u64> {
    let ns = (ms * 1e6).round();
    (ns.is_finite() && (0.0..9.2e18).contains(&ns)).then_some(ns as u64)
}

/// An instant as both clocks tell it: read once, at the door, and carried along.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The monotonic clock, for lags.
    pub instant: std::time::Instant,
    /// Unix time (ns), for everything that is written down.
    pub unix_ns: i64,
}

impl Stamp {
    /// Reads both clocks.
    pub fn now() -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            instant: std::time::Instant::now(),
            unix_ns: i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instant_on_an_edge_belongs_to_the_later_bin_and_one_before_t0_to_none() {
        let grid = BinGrid { t0_ns: 175_216_220, width_ns: NonZeroU64::new(20_000_000).unwrap() };
        assert_eq!(grid.bin_of(175_216_219), None);
        assert_eq!(grid.bin_of(175_216_220), Some(0));
        assert_eq!(grid.bin_of(195_216_219), Some(0));
        assert_eq!(grid.bin_of(195_216_220), Some(1));
    }

    #[test]
    fn sample_starts_are_exact_at_indices_beyond_64_bits_of_nanoseconds() {
        let rate = Rate::new(30_000, 1).unwrap();
        assert_eq!(rate.start_ns(u64::MAX / 1_000_000), 614_891_469_123_633_333);
        assert_eq!(Rate::new(30_000, 1001).unwrap().start_ns(2), 66_733_333);
    }

    proptest! {
        #[test]
        fn first_at_or_after_is_the_inverse_of_start(num in 1u32..100_000, den in 1u32..2000, i in 0u64..1_000_000_000) {
            let rate = Rate { num, den };
            let start = rate.start_ns(i);
            let first = rate.first_at_or_after(start);
            prop_assert!(rate.start_ns(first) >= start);
            prop_assert!(first <= i && (first == 0 || rate.start_ns(first - 1) < start));
        }

        #[test]
        fn each_instant_lies_in_the_bin_that_it_is_given(t in -1_000_000_000_000i64..1_000_000_000_000, t0 in -1_000_000_000i64..1_000_000_000, width in 1u64..1_000_000_000) {
            let grid = BinGrid { t0_ns: t0, width_ns: NonZeroU64::new(width).unwrap() };
            match grid.bin_of(t) {
                None => prop_assert!(t < t0),
                Some(k) => prop_assert!(grid.start_ns(k) <= t && t < grid.end_ns(k)),
            }
        }
    }
}
