//! A cascade of second-order sections, channel by channel: direct form II transposed, in f64. A missing value (NaN)
//! gives none and leaves its channel's memory as it is.

use super::design::{Design, Section};
use crate::signal::op::Init;

/// Memory below this is 0: what decays for ever would end in numbers that are slow to compute with.
const NOTHING: f64 = 1e-200;

/// A filter with its memory.
#[derive(Clone, Debug)]
pub struct Filter {
    sections: Vec<Section>,
    init: Init,
    channels: usize,
    /// `[section, 2, channel]`.
    memory: Vec<f64>,
    /// Channels of which no good sample came yet.
    waiting: Vec<usize>,
    /// Samples until a channel's output is settled.
    settling: u64,
    /// Good samples of each channel that have come, up to `settling`.
    seen: Vec<u64>,
    /// Channels that are not settled.
    unsettled: Vec<usize>,
    /// A sample of the bin in hand is not settled.
    warm: bool,
}

impl Filter {
    /// A filter for `channels`, at its beginning.
    pub fn new(design: &Design, init: Init, channels: usize) -> Self {
        let sections = design.sections.clone();
        let mut filter = Self {
            memory: vec![0.0; 2 * sections.len() * channels],
            sections,
            init,
            channels,
            waiting: Vec::with_capacity(channels),
            settling: design.settling(),
            seen: vec![0; channels],
            unsettled: Vec::with_capacity(channels),
            warm: false,
        };
        filter.restart();
        filter
    }

    /// Rows in place, `[n, channels]`. They are one call however the stream was cut: what is done once per call
    /// depends on the bins alone.
    pub fn run(&mut self, rows: &mut [f64]) {
        for row in rows.chunks_exact_mut(self.channels) {
            if !self.waiting.is_empty() {
                self.begin(row);
            }
            if !self.unsettled.is_empty() {
                self.count(row);
            }
            for (section, memory) in self.sections.iter().zip(self.memory.chunks_exact_mut(2 * self.channels))
            {
                let (first, second) = memory.split_at_mut(self.channels);
                section.run(row, first, second);
            }
        }
        self.tidy();
    }

    /// A channel's first good sample: as if it had been there for ever.
    fn begin(&mut self, row: &[f64]) {
        let Self { sections, memory, waiting, init, channels, .. } = self;
        waiting.retain(|&c| {
            if row[c].is_nan() {
                return true;
            }
            if *init == Init::Steady {
                let mut level = row[c];
                for (section, memory) in sections.iter().zip(memory.chunks_exact_mut(2 * *channels)) {
                    let (gain, [first, second]) = section.steady();
                    (memory[c], memory[*channels + c]) = (first * level, second * level);
                    level *= gain;
                }
            }
            false
        });
    }

    fn count(&mut self, row: &[f64]) {
        let Self { unsettled, seen, settling, warm, .. } = self;
        unsettled.retain(|&c| {
            if row[c].is_nan() {
                return true;
            }
            *warm = true;
            seen[c] += 1;
            seen[c] < *settling
        });
    }

    /// Memory that has decayed becomes 0, and a channel whose memory overflowed begins anew.
    fn tidy(&mut self) {
        let mut overflowed = false;
        for x in &mut self.memory {
            overflowed |= !x.is_finite();
            *x = if x.abs() < NOTHING { 0.0 } else { *x };
        }
        if overflowed {
            for c in 0..self.channels {
                let mut memory = self.memory.iter_mut().skip(c).step_by(self.channels);
                if memory.any(|x| !x.is_finite()) {
                    self.memory.iter_mut().skip(c).step_by(self.channels).for_each(|x| *x = 0.0);
                    self.forget(c);
                }
            }
        }
    }

    fn forget(&mut self, c: usize) {
        self.seen[c] = 0;
        for list in [&mut self.waiting, &mut self.unsettled] {
            if !list.contains(&c) {
                list.push(c);
            }
        }
    }

    /// Whether a sample since the last call came before its channel was settled, or none came and a channel is not.
    pub fn take_warm(&mut self) -> bool {
        let begun = |c: &usize| self.seen[*c] > 0;
        let warm = self.warm
            || self.unsettled.iter().any(begun)
            || (self.unsettled.len() == self.channels && self.settling > 0);
        self.warm = false;
        warm
    }

    /// Back to the state before the first row.
    pub fn restart(&mut self) {
        self.memory.fill(0.0);
        self.seen.fill(0);
        self.warm = false;
        for list in [&mut self.waiting, &mut self.unsettled] {
            list.clear();
            list.extend(0..self.channels);
        }
    }
}

impl Section {
    /// One row in place, `[channels]`, with its memory.
    fn run(&self, row: &mut [f64], first: &mut [f64], second: &mut [f64]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        // Without a branch, so that several channels are computed at once.
        for ((x, first), second) in row.iter_mut().zip(first).zip(second) {
            let y = b0 * *x + *first;
            let next = (b1 * *x - a1 * y + *second, b2 * *x - a2 * y);
            let is_missing = x.is_nan();
            *first = if is_missing { *first } else { next.0 };
            *second = if is_missing { *second } else { next.1 };
            *x = y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::op::BandKind;

    fn band(channels: usize) -> Filter {
        let design = Design::butterworth(BandKind::Band, 2, Some(300.0), Some(3000.0), 30_000.0).unwrap();
        Filter::new(&design, Init::Steady, channels)
    }

    #[test]
    fn a_channel_that_falls_silent_ends_at_0_and_not_in_numbers_that_are_slow() {
        let mut filter = band(1);
        filter.run(&mut [1.0, -1.0, 1.0]);
        (0..100).for_each(|_| filter.run(&mut [0.0; 600]));
        assert!(filter.memory.iter().all(|x| *x == 0.0), "{:?}", filter.memory);
    }

    #[test]
    fn a_channel_whose_memory_overflowed_begins_anew_and_its_neighbour_goes_on() {
        let (mut filter, mut alone) = (band(2), band(1));
        filter.run(&mut [1.0, 1.0, f64::MAX, 2.0, f64::MAX, 3.0, -f64::MAX, 4.0]);
        alone.run(&mut [1.0, 2.0, 3.0, 4.0]);
        let (mut rows, mut row) = ([5.0, 5.0, 6.0, 6.0], [5.0, 6.0]);
        filter.run(&mut rows);
        alone.run(&mut row);
        assert!(rows.iter().all(|x| x.is_finite()) && [rows[1], rows[3]] == row, "{rows:?}");
    }

    #[test]
    fn a_channel_is_warming_up_for_its_own_first_samples() {
        let mut filter = band(2);
        let settling = filter.settling as usize;
        filter.run(&mut [1.0, f64::NAN].repeat(settling));
        assert!(filter.take_warm() && !filter.take_warm());
        filter.run(&mut [1.0, 1.0].repeat(settling - 1));
        assert!(filter.take_warm() && filter.take_warm(), "the second channel lacks one sample");
        filter.run(&mut [1.0, 1.0]);
        assert!(filter.take_warm() && !filter.take_warm());
    }
}
