//! How long runs take, by the number of rows in them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Batch sizes are kept by powers of two up to 4,096; what is larger counts as that.
const BUCKETS: usize = 13;
/// Weight of a new run in the moving average.
const WEIGHT: f64 = 0.125;
/// A run is believed up to this many times the average: a thread that lost its core is no measurement of the model.
const OUTLIER: f64 = 4.0;

/// Moving averages of nanoseconds per row; read and written without a lock. A lost update costs one sample.
#[derive(Debug, Default)]
pub(super) struct RunTimes {
    /// f64 bits; 0 is "not measured". Bucket b has runs of 2^(b-1) + 1 to 2^b rows.
    row_ns: [AtomicU64; BUCKETS],
    /// The same, of the quickest run that was seen.
    least_ns: [AtomicU64; BUCKETS],
}

impl RunTimes {
    /// Takes a run of `rows` rows into the average.
    pub(super) fn learn(&self, rows: usize, run: Duration) {
        let cell = &self.row_ns[bucket(rows)];
        let sample_ns = (run.as_nanos() as f64 / rows.max(1) as f64).max(1e-3);
        let old_ns = f64::from_bits(cell.load(Ordering::Relaxed));
        let new_ns = if old_ns == 0.0 {
            sample_ns
        } else {
            old_ns + WEIGHT * (sample_ns.min(old_ns * OUTLIER) - old_ns)
        };
        cell.store(new_ns.to_bits(), Ordering::Relaxed);
        let least = &self.least_ns[bucket(rows)];
        let least_ns = f64::from_bits(least.load(Ordering::Relaxed));
        if least_ns == 0.0 || sample_ns < least_ns {
            least.store(sample_ns.to_bits(), Ordering::Relaxed);
        }
    }

    /// Forgets the averages for the quickest runs that were seen; the next runs correct them.
    pub(super) fn back_to_least(&self) {
        for (row, least) in self.row_ns.iter().zip(&self.least_ns) {
            row.store(least.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Nanoseconds of one row in a batch of `rows`; `None` before anything was measured.
    ///
    /// A size that was not seen is taken from its neighbours, never better than they allow: a larger batch costs each
    /// row no more than a smaller one, and a smaller batch takes no longer than a larger one.
    pub(super) fn row_ns(&self, rows: usize) -> Option<f64> {
        let at = bucket(rows);
        let seen =
            |b: usize| Some(f64::from_bits(self.row_ns[b].load(Ordering::Relaxed))).filter(|&ns| ns > 0.0);
        if let Some(ns) = seen(at) {
            return Some(ns);
        }
        let below = (0..at).rev().find_map(seen);
        let above =
            (at + 1..BUCKETS).find_map(|b| seen(b).map(|ns| ns * (1u64 << b) as f64 / rows.max(1) as f64));
        match (below, above) {
            (Some(below), Some(above)) => Some(below.min(above)),
            (one, other) => one.or(other),
        }
    }

    /// Of a whole run of `rows` rows.
    pub(super) fn run(&self, rows: usize) -> Option<Duration> {
        Some(Duration::from_nanos((self.row_ns(rows)? * rows.max(1) as f64) as u64))
    }
}

fn bucket(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_was_not_seen_is_taken_from_its_neighbours_and_never_better() {
        let times = RunTimes::default();
        assert_eq!(times.run(1), None);
        times.learn(1, Duration::from_micros(10));
        times.learn(64, Duration::from_micros(128));
        assert_eq!(times.run(1), Some(Duration::from_micros(10)));
        assert_eq!(times.run(64), Some(Duration::from_micros(128)));
        assert_eq!(times.run(4), Some(Duration::from_micros(40)), "as slow as four alone");
        assert_eq!(times.run(32), Some(Duration::from_micros(128)), "as slow as sixty-four together");
        assert_eq!(times.run(256), Some(Duration::from_micros(512)));
    }

    #[test]
    fn one_run_that_lost_its_core_does_not_change_the_picture() {
        let times = RunTimes::default();
        (0..20).for_each(|_| times.learn(1, Duration::from_micros(10)));
        times.learn(1, Duration::from_millis(50));
        assert!(times.run(1) < Some(Duration::from_micros(14)));
    }
}
