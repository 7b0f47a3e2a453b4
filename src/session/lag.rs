//! How long answers took: a histogram fine enough for p50 and p99.

/// Buckets per decade; neighbours differ by a factor of 10^(1/80), 3 %.
const PER_DECADE: usize = 80;
/// Decades from 0.1 µs to 1,000 s.
const DECADES: usize = 10;
const FIRST_US: f64 = 0.1;

/// Lags in µs, counted.
#[derive(Clone, Debug)]
pub struct LagStats {
    /// Why 32 bits: every session has this, and at 1,000 frames a second a bucket is full after 50 days.
    counts: Box<[u32; PER_DECADE * DECADES]>,
    max_us: f64,
}

impl Default for LagStats {
    fn default() -> Self {
        Self { counts: Box::new([0; PER_DECADE * DECADES]), max_us: 0.0 }
    }
}

impl LagStats {
    /// Counts one lag (µs).
    pub fn add(&mut self, us: f64) {
        let at = ((us / FIRST_US).log10() * PER_DECADE as f64).floor().max(0.0) as usize;
        let count = &mut self.counts[at.min(PER_DECADE * DECADES - 1)];
        *count = count.saturating_add(1);
        self.max_us = self.max_us.max(us);
    }

    /// The lag that a share `q` of all did not exceed (µs); 0 before the first. At most 3 % too large and never too
    /// small, so that it lies in the bucket of `latentd_step_seconds` that holds it, or in the next.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let total: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let rank = (q * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                let end = FIRST_US * 10f64.powf((at + 1) as f64 / PER_DECADE as f64);
                return end.min(self.max_us);
            }
        }
        0.0
    }

    /// The largest (µs).
    pub fn max_us(&self) -> f64 {
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SECONDS_BOUNDS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_metrics_bucket_that_holds_it_or_in_the_next(
            decades in proptest::collection::vec(0.0..6.5f64, 1..400),
            q in 0.01..=1.0f64,
        ) {
            let mut us: Vec<f64> = decades.iter().map(|decade| 10f64.powf(*decade)).collect();
            let mut lags = LagStats::default();
            us.iter().for_each(|us| lags.add(*us));
            us.sort_by(f64::total_cmp);
            let rank = ((q * us.len() as f64).ceil() as usize).max(1);
            let bucket = |us: f64| SECONDS_BOUNDS.iter().filter(|bound| us / 1e6 > **bound).count();
            let (truth, got) = (bucket(us[rank - 1]), bucket(lags.quantile_us(q)));
            prop_assert!(got == truth || got == truth + 1, "{got} against {truth}");
        }
    }

    #[test]
    fn quantiles_are_exact_to_three_per_cent() {
        let mut lags = LagStats::default();
        (1..=1000).for_each(|us| lags.add(f64::from(us)));
        for (q, want) in [(0.5, 500.0), (0.99, 990.0)] {
            let got = lags.quantile_us(q);
            assert!((got / want - 1.0).abs() < 0.031, "q {q}: {got} against {want}");
        }
        assert_eq!(lags.max_us(), 1000.0);
        assert_eq!(LagStats::default().quantile_us(0.5), 0.0);
    }
}
