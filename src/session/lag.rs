//! How long answers took: a histogram fine enough for p50 and p99.

/// Buckets per decade; neighbours differ by a factor of 10^(1/40), 6 %.
const PER_DECADE: usize = 40;
/// Decades from 0.1 µs to 1,000 s.
const DECADES: usize = 10;
const FIRST_US: f64 = 0.1;

/// Lags in µs, counted.
#[derive(Clone, Debug)]
pub struct LagStats {
    counts: Box<[u64; PER_DECADE * DECADES]>,
    total: u64,
    max_us: f64,
}

impl Default for LagStats {
    fn default() -> Self {
        Self { counts: Box::new([0; PER_DECADE * DECADES]), total: 0, max_us: 0.0 }
    }
}

impl LagStats {
    /// Counts one lag (µs).
    pub fn add(&mut self, us: f64) {
        let at = ((us / FIRST_US).log10() * PER_DECADE as f64).floor().max(0.0) as usize;
        self.counts[at.min(PER_DECADE * DECADES - 1)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The lag that a share `q` of all did not exceed (µs), exact to 3 %; 0 before the first.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let rank = (q * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && count > 0 {
                let middle = FIRST_US * 10f64.powf((at as f64 + 0.5) / PER_DECADE as f64);
                return middle.min(self.max_us);
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
