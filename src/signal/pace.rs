//! The exact step of a stream: a period in ns as a fraction, sample starts in 128 bits.

use std::num::NonZeroU64;

use crate::domain::time::{NS_PER_S, Rate};

/// Step from one sample (or row, or bin) to the next: `num / den` ns, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    num: u64,
    den: u64,
}

impl Pace {
    /// One step every `width_ns`.
    pub fn every(width_ns: NonZeroU64) -> Self {
        Self { num: width_ns.get(), den: 1 }
    }

    /// One step per sample of `rate`.
    pub fn of_rate(rate: Rate) -> Self {
        Self { num: NS_PER_S as u64 * u64::from(rate.den), den: u64::from(rate.num) }
    }

    /// The step in seconds, rounded to f64.
    pub fn step_s(self) -> f64 {
        self.num as f64 / self.den as f64 / 1e9
    }

    /// The step in milliseconds, rounded to f64.
    pub fn step_ms(self) -> f64 {
        self.num as f64 / self.den as f64 / 1e6
    }

    /// Steps per second, rounded to f64.
    pub fn hz(self) -> f64 {
        self.den as f64 * 1e9 / self.num as f64
    }

    /// `factor` steps as one; `None` where that is beyond what can be told.
    pub fn slower(self, factor: u32) -> Option<Self> {
        Some(Self { num: self.num.checked_mul(factor.into())?, den: self.den })
    }

    /// Start of step `i` after the start of step 0 (ns): floor(i · step), never summed. Steps before 0 lie before it.
    pub fn start_ns(self, i: i128) -> i128 {
        // An index is below 2⁶⁵, a width at most a day, a rate's period below 2⁶² ns: the product stays below 2¹²⁷.
        (i * i128::from(self.num)).div_euclid(i128::from(self.den))
    }

    /// The first step that starts at or after `ns`; saturates at 2⁶⁴ steps from step 0.
    pub fn first_at_or_after(self, ns: i128) -> i128 {
        // Smallest i with floor(i·num/den) >= ns, which is ceil(ns·den/num) for whole ns.
        let limit = 1i128 << 64;
        let Some(top) = ns.checked_mul(i128::from(self.den)) else { return ns.signum() * limit };
        -(-top).div_euclid(i128::from(self.num)).clamp(-limit, limit)
    }

    /// Whole steps in a duration, the last of them wholly inside.
    pub fn whole_steps(self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.den) / u128::from(self.num)).unwrap_or(u64::MAX)
    }

    /// Steps in `width_ns`, if that is a whole number of them and at least one.
    pub fn steps_in(self, width_ns: NonZeroU64) -> Option<u64> {
        let top = u128::from(width_ns.get()) * u128::from(self.den);
        let steps = top / u128::from(self.num);
        (top % u128::from(self.num) == 0 && steps > 0).then(|| u64::try_from(steps).ok()).flatten()
    }

    /// The widths nearest to `width_ns` that are whole steps and whole ns: below (if there is one) and above.
    pub fn nearest_widths(self, width_ns: NonZeroU64) -> (Option<NonZeroU64>, NonZeroU64) {
        // n steps last a whole number of ns exactly if den / gcd(num, den) divides n.
        let unit = u128::from(self.num / gcd(self.num, self.den));
        let below = u128::from(width_ns.get()) / unit * unit;
        let narrow = |ns: u128| u64::try_from(ns).ok().and_then(NonZeroU64::new);
        (narrow(below), narrow(below + unit).unwrap_or(NonZeroU64::MAX))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn widths_that_are_no_whole_samples_are_answered_with_the_nearest_that_are() {
        let pace = Pace::of_rate(Rate::new(2048, 1).unwrap());
        let asked = NonZeroU64::new(20_000_000).unwrap();
        assert_eq!(pace.steps_in(asked), None);
        let (below, above) = pace.nearest_widths(asked);
        assert_eq!((below.unwrap().get(), above.get()), (19_531_250, 21_484_375));
        assert_eq!(pace.steps_in(below.unwrap()), Some(40));
        assert_eq!(Pace::of_rate(Rate::new(30_000, 1).unwrap()).steps_in(asked), Some(600));
    }

    proptest! {
        #[test]
        fn the_first_step_at_its_own_start_is_itself_or_one_that_starts_with_it(num in 1u32.., den in 1u32.., i in any::<u64>()) {
            let i = i128::from(i);
            let pace = Pace::of_rate(Rate { num, den });
            let first = pace.first_at_or_after(pace.start_ns(i));
            prop_assert!(first <= i && pace.start_ns(first) == pace.start_ns(i));
        }
    }
}
