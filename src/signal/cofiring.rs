//! Channels that fire in the same millisecond: a neuron is heard by a few electrodes, an artefact by many at once.
//! Only events have times for that; what comes binned has lost them.

use std::num::NonZeroU64;

/// What counts as at once.
const TICK_NS: u64 = 1_000_000;
/// So large a share of the good channels at once is no neuron.
const SHARE: f64 = 0.3;
/// With fewer channels two neurons by chance would be such a share.
const LEAST_CHANNELS: usize = 8;
/// Wider bins would keep a bit for each channel and ms of too long.
const WIDEST_NS: u64 = 1_000_000_000;

/// The milliseconds of a bin, and who fired in each: a bit for each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cofiring {
    ticks: usize,
    channels: usize,
    /// Words of one millisecond.
    words: usize,
}

impl Cofiring {
    /// For a signal of events of so many channels; `None`: it is not counted.
    pub fn of(channels: usize, width_ns: NonZeroU64) -> Option<Self> {
        let is_counted = channels >= LEAST_CHANNELS && width_ns.get() <= WIDEST_NS;
        let ticks = width_ns.get().div_ceil(TICK_NS) as usize;
        is_counted.then_some(Self { ticks, channels, words: channels.div_ceil(64) })
    }

    /// Notes an event of a channel, so long after the start of the bin.
    pub fn note(self, fired: &mut Vec<u64>, channel: usize, after_ns: i128) {
        fired.resize(self.ticks * self.words, 0);
        let tick = (after_ns / i128::from(TICK_NS)).clamp(0, self.ticks as i128 - 1) as usize;
        fired[tick * self.words + channel / 64] |= 1 << (channel % 64);
    }

    /// Milliseconds in which more than `SHARE` of the good channels fired; `masked` as an open bin has it.
    pub fn count(self, fired: &[u64], masked: &[bool]) -> u32 {
        let is_masked = |channel: usize| masked.get(channel) == Some(&true);
        let good = self.channels - (0..self.channels).filter(|&channel| is_masked(channel)).count();
        let good_only = |(word, bits): (usize, &u64)| match masked {
            [] => *bits,
            _ => (0..64)
                .filter(|bit| !is_masked(word * 64 + bit))
                .fold(0, |kept, bit| kept | (bits & (1 << bit))),
        };
        let fired_in =
            |tick: &[u64]| tick.iter().enumerate().map(good_only).map(u64::count_ones).sum::<u32>();
        let most = SHARE * good as f64;
        fired.chunks_exact(self.words).filter(|tick| f64::from(fired_in(tick)) > most).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: NonZeroU64 = NonZeroU64::new(20_000_000).unwrap();

    fn count(channels: usize, events: &[(usize, i128)], masked: &[bool]) -> u32 {
        let cofiring = Cofiring::of(channels, WIDTH).unwrap();
        let mut fired = Vec::new();
        events.iter().for_each(|&(channel, after_ns)| cofiring.note(&mut fired, channel, after_ns));
        cofiring.count(&fired, masked)
    }

    #[test]
    fn more_than_three_tenths_of_the_channels_in_one_ms_are_counted_once() {
        let at_once = |n: usize| (0..n).map(|channel| (channel, 7_300_000)).collect::<Vec<_>>();
        assert_eq!(count(100, &at_once(30), &[]), 0, "three tenths are not more than that");
        assert_eq!(count(100, &at_once(31), &[]), 1);
        let twice = [at_once(31), at_once(31)].concat();
        assert_eq!(count(100, &twice, &[]), 1, "one channel may fire twice");
        let spread: Vec<_> = (0..31).map(|channel| (channel, channel as i128 * 600_000)).collect();
        assert_eq!(count(100, &spread, &[]), 0, "not in the same ms");
        let later: Vec<_> = (0..40).map(|channel| (channel, 19_999_999)).collect();
        assert_eq!(count(100, &[at_once(31), later].concat(), &[]), 2);
    }

    #[test]
    fn masked_channels_neither_fire_nor_count_as_channels() {
        let events: Vec<_> = (0..31).map(|channel| (channel, 0)).collect();
        let masked: Vec<bool> = (0..100).map(|channel| channel < 20).collect();
        assert_eq!(count(100, &events, &masked), 0, "11 of 80");
        let masked: Vec<bool> = (0..100).map(|channel| channel >= 60).collect();
        assert_eq!(count(100, &events, &masked), 1, "31 of 60");
    }

    #[test]
    fn few_channels_and_wide_bins_are_not_counted() {
        assert_eq!(Cofiring::of(7, WIDTH), None);
        assert_eq!(Cofiring::of(96, NonZeroU64::new(1_000_000_001).unwrap()), None);
        assert!(Cofiring::of(96, WIDTH).is_some());
    }
}
