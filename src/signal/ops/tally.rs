//! The spread of channels' values as they come: root of the mean square, or median of the magnitudes.
//! Must hold: a value costs the same wherever it stands, and memory is bounded when the tally is made.

use super::reference::middle;
use crate::signal::op::Spread;
use crate::signal::refusal::OpError;

/// So many magnitudes of a channel are kept as they are; beyond, they are counted in buckets.
const EXACT: usize = 16_384;
/// So many of all channels together (8 MiB).
const EXACT_OF_ALL: usize = 1 << 20;
/// A bucket is one value of the first bits of a magnitude as f64: sign, exponent and 10 of the fraction; 0.1 % wide.
const FRACTION_BITS: u32 = 10;
const SHIFT: u32 = 52 - FRACTION_BITS;
/// Octaves with buckets of their own: from the largest of the magnitudes that were kept down, and as its own and up. What
/// is below them is 0, what is above is in the highest.
const BELOW: usize = 24;
const OCTAVES: usize = BELOW + 8;
/// Buckets of a channel (128 KiB).
const BUCKETS: usize = OCTAVES << FRACTION_BITS;
/// Channels that may have buckets (256 MiB).
const MOST_CHANNELS: usize = 2_048;
/// No bucket is needed below this.
const LEAST: f64 = 1e-30;
/// Magnitudes that go from the kept ones to the buckets with each that comes.
const MOVED: usize = 2;

fn bucket(magnitude: f64) -> u64 {
    magnitude.to_bits() >> SHIFT
}

/// What came of each channel.
#[derive(Clone, Debug)]
pub enum Tally {
    /// By channel: number of values, sum of their squares.
    Squares(Vec<(u64, f64)>),
    /// All magnitudes, or their number by bucket.
    Magnitudes(Magnitudes),
}

/// Magnitudes of all channels.
#[derive(Clone, Debug)]
pub struct Magnitudes {
    /// How many of a channel are kept.
    exact: usize,
    /// `[channels, exact]`.
    kept: Vec<f64>,
    /// `[channels, BUCKETS]`; empty where no more can come than are kept.
    counts: Vec<u32>,
    channels: Vec<Channel>,
}

/// How far one channel is.
#[derive(Clone, Debug, Default)]
struct Channel {
    /// Magnitudes that came.
    total: u64,
    /// Of those that were kept: how many are in buckets by now.
    moved: usize,
    /// Of those that were kept.
    largest: f64,
    /// The lowest bucket: whatever is below it is in it, and is 0.
    first: u64,
    /// Magnitudes in the buckets of each octave, from `first` on.
    octaves: [u64; OCTAVES],
}

impl Tally {
    /// Of `channels`, of each of which at most `samples` values will come. Errors: too many channels for so many samples.
    pub fn new(of: Spread, channels: usize, samples: u64) -> Result<Self, OpError> {
        if of == Spread::Rms {
            return Ok(Tally::Squares(vec![(0, 0.0); channels]));
        }
        let most = EXACT.min(EXACT_OF_ALL / channels.max(1));
        let has_buckets = samples > most as u64;
        if has_buckets && channels > MOST_CHANNELS {
            let expected = format!("rms, or at most {MOST_CHANNELS} channels, or at most {most} samples");
            return Err(OpError::new("of", expected, format!("median of {channels} channels")));
        }
        let exact = if has_buckets { most } else { samples as usize };
        // Why zeroed in one piece: the system lends only the pages that are written.
        Ok(Tally::Magnitudes(Magnitudes {
            exact,
            kept: vec![0.0; exact * channels],
            counts: vec![0; if has_buckets { BUCKETS * channels } else { 0 }],
            channels: vec![Channel::default(); channels],
        }))
    }

    /// Takes a value of each channel; NaN is none.
    pub fn add(&mut self, row: &[f64]) {
        let good = row.iter().enumerate().filter(|(_, y)| !y.is_nan());
        match self {
            Tally::Squares(sums) => good.for_each(|(c, y)| {
                sums[c].0 += 1;
                sums[c].1 += y * y;
            }),
            Tally::Magnitudes(magnitudes) => good.for_each(|(c, y)| magnitudes.add(c, y.abs())),
        }
    }

    /// Values of a channel that came.
    pub fn count(&self, channel: usize) -> u64 {
        match self {
            Tally::Squares(sums) => sums[channel].0,
            Tally::Magnitudes(magnitudes) => magnitudes.channels[channel].total,
        }
    }

    /// √(mean y²), or median |y|, of a channel. The median is exact up to 16,384 values (of many channels 2²⁰ of all
    /// together), beyond within the bucket that holds it (0.1 %), where magnitudes are taken to lie evenly. 0 if nothing
    /// came. Nothing may be added after it.
    pub fn spread(&mut self, channel: usize) -> f64 {
        match self {
            Tally::Squares(sums) => match sums[channel] {
                (0, _) => 0.0,
                (count, sum) => (sum / count as f64).sqrt(),
            },
            Tally::Magnitudes(magnitudes) => magnitudes.median(channel),
        }
    }
}

impl Magnitudes {
    fn add(&mut self, c: usize, magnitude: f64) {
        let channel = &mut self.channels[c];
        let at = channel.total as usize;
        channel.total += 1;
        if at < self.exact {
            channel.largest = channel.largest.max(magnitude);
            self.kept[c * self.exact + at] = magnitude;
            return;
        }
        if self.counts.is_empty() {
            return;
        }
        if at == self.exact {
            let below = (BELOW as u64) << FRACTION_BITS;
            channel.first = bucket(channel.largest).saturating_sub(below).max(bucket(LEAST));
        }
        self.move_kept(c, MOVED);
        self.lay_down(c, magnitude);
    }

    /// Takes at most so many of a channel's kept magnitudes to the buckets.
    fn move_kept(&mut self, c: usize, most: usize) {
        let from = self.channels[c].moved;
        let until = self.exact.min(from.saturating_add(most));
        for at in from..until {
            self.lay_down(c, self.kept[c * self.exact + at]);
        }
        self.channels[c].moved = until;
    }

    fn lay_down(&mut self, c: usize, magnitude: f64) {
        let channel = &mut self.channels[c];
        let at = (bucket(magnitude).saturating_sub(channel.first) as usize).min(BUCKETS - 1);
        channel.octaves[at >> FRACTION_BITS] += 1;
        let count = &mut self.counts[c * BUCKETS + at];
        *count = count.saturating_add(1);
    }

    fn median(&mut self, c: usize) -> f64 {
        let total = self.channels[c].total;
        if total == 0 {
            return 0.0;
        }
        if total <= self.exact as u64 {
            return middle(&mut self.kept[c * self.exact..][..total as usize]);
        }
        self.move_kept(c, usize::MAX);
        let Channel { first, octaves, .. } = &self.channels[c];
        let half = total as f64 / 2.0;
        let (mut below, mut octave) = (0, 0);
        while octave + 1 < OCTAVES && ((below + octaves[octave]) as f64) < half {
            below += octaves[octave];
            octave += 1;
        }
        let mut below = below as f64;
        let begin = octave << FRACTION_BITS;
        for (at, count) in self.counts[c * BUCKETS..][begin..BUCKETS].iter().enumerate() {
            let count = f64::from(*count);
            if below + count >= half {
                let at = (begin + at) as u64;
                if at == 0 {
                    return 0.0;
                }
                let edge = |at: u64| f64::from_bits((first + at) << SHIFT);
                return edge(at) + (half - below) / count * (edge(at + 1) - edge(at));
            }
            below += count;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(channels: usize, samples: u64) -> Tally {
        Tally::new(Spread::Median, channels, samples).unwrap()
    }

    /// Values of both signs whose magnitudes lie over many octaves.
    fn values(count: usize) -> Vec<f64> {
        let mut state = 1u64;
        let next = |i: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 / 1e6).powi(3) * if i.is_multiple_of(2) { 1.0 } else { -1.0 }
        };
        (0..count).map(next).collect()
    }

    fn magnitudes(values: &[f64]) -> Vec<f64> {
        values.iter().map(|y| y.abs()).collect()
    }

    #[test]
    fn a_median_is_exact_as_long_as_all_are_kept_and_within_a_thousandth_beyond_wherever_it_ends() {
        let values = values(100_000);
        for count in [1, 2, EXACT - 1, EXACT, EXACT + 1, EXACT + 100, 3 * EXACT / 2, 100_000] {
            let mut tally = median(2, 100_000);
            values[..count].iter().for_each(|y| tally.add(&[*y, f64::NAN]));
            let (got, want) = (tally.spread(0), middle(&mut magnitudes(&values[..count])));
            let off = if count <= EXACT { 0.0 } else { 1e-3 };
            assert!((got / want - 1.0).abs() <= off, "{count}: {got} is not {want}");
            assert_eq!((tally.count(0), tally.count(1), tally.spread(1)), (count as u64, 0, 0.0));
        }
    }

    #[test]
    fn zeros_and_an_even_number_of_values_have_a_median() {
        let mut tally = median(1, 4);
        [3.0, -1.0, 2.0, 0.0].iter().for_each(|y| tally.add(&[*y]));
        assert_eq!((tally.spread(0), tally.count(0)), (1.5, 4));
        let mut zeros = median(1, 20_000);
        (0..20_000).for_each(|_| zeros.add(&[0.0]));
        assert_eq!(zeros.spread(0), 0.0);
    }

    #[test]
    fn no_row_pays_for_those_before_it() {
        let mut tally = median(1, 100_000);
        let moved = |tally: &Tally| match tally {
            Tally::Magnitudes(magnitudes) => magnitudes.channels[0].moved,
            Tally::Squares(_) => panic!("of magnitudes"),
        };
        let mut before = 0;
        for y in values(EXACT + EXACT / MOVED + 10) {
            tally.add(&[y]);
            assert!(moved(&tally) - before <= MOVED);
            before = moved(&tally);
        }
        assert_eq!(before, EXACT, "all are in buckets");
    }

    #[test]
    fn memory_is_bounded_by_channels_and_no_value_makes_it_grow() {
        let refused = Tally::new(Spread::Median, 2_049, 1_800_000).unwrap_err().to_string();
        for word in ["of", "2048 channels", "511 samples", "2049"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(Tally::new(Spread::Rms, 2_049, 1_800_000).is_ok());
        assert!(Tally::new(Spread::Median, 2_049, 511).is_ok());
        let mut tally = median(1_024, 1_800_000);
        for y in (0..3_000).map(|i| if i == 2_999 { f64::MAX } else { 1.0 + f64::from(i) }) {
            tally.add(&[y; 1_024]);
        }
        let Tally::Magnitudes(of) = &tally else { panic!("of magnitudes") };
        assert_eq!((of.kept.len(), of.counts.len()), (EXACT_OF_ALL, 1_024 * BUCKETS));
        assert!((tally.spread(7) / 1_500.5 - 1.0).abs() < 1e-3);
    }
}
