//! The spread of a channel's values as they come: root of the mean square, or median of the magnitudes.

use super::reference::middle;
use crate::signal::op::Spread;

/// So many magnitudes are kept as they are; beyond, they are counted in buckets.
const EXACT: usize = 16_384;
/// Buckets by the first bits of a magnitude as f64: sign, exponent and 10 of the fraction, each 0.1 % wide.
const SHIFT: u32 = 52 - 10;

/// Octaves below the largest magnitude that have buckets of their own.
const REACH: u64 = 40;
/// No bucket is needed below this.
const LEAST: f64 = 1e-30;

fn bucket(magnitude: f64) -> u64 {
    magnitude.to_bits() >> SHIFT
}

/// What came of one channel.
#[derive(Clone, Debug)]
pub enum Tally {
    /// Number of values, sum of their squares.
    Squares(u64, f64),
    /// All magnitudes.
    Values(Vec<f64>),
    /// Number of magnitudes by bucket.
    Buckets {
        /// The lowest bucket: whatever is below it is in it, and is 0.
        first: u64,
        /// Magnitudes in it and in those above.
        counts: Vec<u32>,
        /// Magnitudes in all.
        total: u64,
    },
}

impl Tally {
    /// Nothing came yet.
    pub fn new(of: Spread) -> Self {
        match of {
            Spread::Rms => Tally::Squares(0, 0.0),
            Spread::Median => Tally::Values(Vec::new()),
        }
    }

    /// Takes a value.
    pub fn add(&mut self, y: f64) {
        match self {
            Tally::Squares(count, sum) => {
                *count += 1;
                *sum += y * y;
            }
            Tally::Values(values) => {
                values.push(y.abs());
                if values.len() > EXACT {
                    *self = Self::in_buckets(values);
                }
            }
            Tally::Buckets { first, counts, total } => {
                let at = bucket(y.abs()).saturating_sub(*first) as usize;
                if at >= counts.len() {
                    counts.resize(at + 1, 0);
                }
                counts[at] = counts[at].saturating_add(1);
                *total += 1;
            }
        }
    }

    /// From a list that has become long.
    fn in_buckets(values: &[f64]) -> Self {
        let largest = values.iter().copied().fold(0.0, f64::max);
        let first = bucket(largest).saturating_sub(REACH << (52 - SHIFT)).max(bucket(LEAST));
        let mut tally = Tally::Buckets { first, counts: Vec::new(), total: 0 };
        values.iter().for_each(|y| tally.add(*y));
        tally
    }

    /// Good values that came.
    pub fn count(&self) -> u64 {
        match self {
            Tally::Squares(count, _) => *count,
            Tally::Values(values) => values.len() as u64,
            Tally::Buckets { total, .. } => *total,
        }
    }

    /// √(mean y²), or median |y|: exact up to 16,384 values, beyond within the bucket that holds it (0.1 %), where
    /// magnitudes are taken to lie evenly. 0 if nothing came. Reorders the list.
    pub fn spread(&mut self) -> f64 {
        match self {
            Tally::Squares(0, _) => 0.0,
            Tally::Squares(count, sum) => (*sum / *count as f64).sqrt(),
            Tally::Values(values) if values.is_empty() => 0.0,
            Tally::Values(values) => middle(values),
            Tally::Buckets { first, counts, total } => {
                let half = *total as f64 / 2.0;
                let mut below = 0.0;
                for (bucket, count) in (*first..).zip(counts) {
                    let count = f64::from(*count);
                    if below + count >= half {
                        if bucket == *first {
                            return 0.0;
                        }
                        let edge = |bucket: u64| f64::from_bits(bucket << SHIFT);
                        let share = (half - below) / count;
                        return edge(bucket) + share * (edge(bucket + 1) - edge(bucket));
                    }
                    below += count;
                }
                0.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_many_values_is_found_within_a_thousandth_without_keeping_them() {
        let (mut tally, mut all) = (Tally::new(Spread::Median), Vec::new());
        let mut state = 1u64;
        for i in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let y = ((state >> 40) as f64 / 1e6).powi(3) * if i % 2 == 0 { 1.0 } else { -1.0 };
            tally.add(y);
            all.push(y.abs());
        }
        let (got, want) = (tally.spread(), middle(&mut all));
        assert!((got / want - 1.0).abs() < 1e-3, "{got} is not {want}");
        assert!(matches!(&tally, Tally::Buckets { total: 100_000, .. }));
    }

    #[test]
    fn zeros_and_an_even_number_of_values_have_a_median() {
        let mut tally = Tally::new(Spread::Median);
        [3.0, -1.0, 2.0, 0.0].iter().for_each(|y| tally.add(*y));
        assert_eq!((tally.spread(), tally.count()), (1.5, 4));
        let mut zeros = Tally::new(Spread::Median);
        (0..20_000).for_each(|_| zeros.add(0.0));
        assert_eq!(zeros.spread(), 0.0);
    }
}
