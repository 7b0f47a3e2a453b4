//! Whether the stamps of one epoch agree with its index. The index says where samples lie; a stamp only checks it.

use super::pace::Pace;

/// So many stamps in a row that agree among themselves are believed against the one that came before them.
const BELIEVED: u64 = 3;

/// What the stamps of an epoch are checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    anchor: Option<Anchor>,
    /// Stamps in a row that disagree with the anchor and agree among themselves.
    others: Option<Others>,
}

/// Device time of index 0, and who says so.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    device0_ns: i128,
    /// The index whose stamp it was; `None`: `t0_ns` of open.
    stamped: Option<i128>,
}

#[derive(Clone, Copy, Debug)]
struct Others {
    device0_ns: i128,
    /// The first of them.
    from: i128,
    count: u64,
}

/// What is to be told of stamps that disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Frames that it concerns and that were not told yet.
    pub frames: u64,
    /// A sentence.
    pub detail: String,
}

impl Stamps {
    /// Index 0 lies at `t0_ns` (device time), as the session was told: no stamp is believed against that.
    pub fn from_t0(t0_ns: i128) -> Self {
        Self { anchor: Some(Anchor { device0_ns: t0_ns, stamped: None }), others: None }
    }

    /// Checks the stamp of sample `index`. The first stamp stands for the following ones, until several in a row agree
    /// among themselves and not with it: then it was the wrong one, and they stand in its place. Each disagreement is
    /// told once, not with every frame that repeats it.
    pub fn check(
        &mut self,
        pace: Pace,
        index: i128,
        stamp_ns: i64,
        tolerance_ns: u64,
    ) -> Option<Disagreement> {
        let start_ns = pace.start_ns(index);
        let device0_ns = i128::from(stamp_ns) - start_ns;
        let Some(anchor) = self.anchor else {
            self.anchor = Some(Anchor { device0_ns, stamped: Some(index) });
            return None;
        };
        let agree = |a: i128, b: i128| (a - b).unsigned_abs() <= u128::from(tolerance_ns);
        if agree(device0_ns, anchor.device0_ns) {
            self.others = None;
            return None;
        }
        let by = anchor.stamped.map_or("t0_ns".into(), |first| format!("the stamp of index {first}"));
        let expected_ns = anchor.device0_ns + start_ns;
        let one = || Disagreement {
            frames: 1,
            detail: format!(
                "index {index}: its stamp is {stamp_ns} ns, by the index and {by} it is {expected_ns} ns"
            ),
        };
        if anchor.stamped.is_none() {
            return Some(one());
        }
        let others = match self.others {
            Some(others) if agree(device0_ns, others.device0_ns) => {
                Others { count: others.count + 1, ..others }
            }
            _ => Others { device0_ns, from: index, count: 1 },
        };
        self.others = Some(others);
        match others.count {
            1 => Some(one()),
            count if count < BELIEVED => None,
            count => {
                *self = Self { anchor: Some(Anchor { device0_ns, stamped: Some(index) }), others: None };
                Some(Disagreement {
                    // The first of them was told when it came.
                    frames: count - 1,
                    detail: format!(
                        "{count} stamps in a row, from index {} to {index}, agree among themselves and disagree with \
                         {by}, by {} ns: it is left out of account from here on, and the index stays what it was",
                        others.from,
                        device0_ns - anchor.device0_ns,
                    ),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const STEP_NS: i64 = 10_000_000;

    /// Frames that each told disagreement concerns; stamps as ns off the index.
    fn told(stamps: &mut Stamps, off_ns: &[i64]) -> Vec<(usize, u64)> {
        let pace = Pace::every(NonZeroU64::new(STEP_NS as u64).unwrap());
        let mut told = Vec::new();
        for (i, off) in off_ns.iter().enumerate() {
            let found = stamps.check(pace, i as i128, i as i64 * STEP_NS + off, 2_000_000);
            told.extend(found.map(|disagreement| (i, disagreement.frames)));
        }
        told
    }

    #[test]
    fn a_wrong_first_stamp_is_found_out_by_those_after_it() {
        let mut stamps = Stamps::default();
        assert_eq!(told(&mut stamps, &[90_000_000, 0, 1_000, -1_000, 0, 0, 0]), [(1, 1), (3, 2)]);
        let mut stamps = Stamps::default();
        let pace = Pace::every(NonZeroU64::new(STEP_NS as u64).unwrap());
        let details: Vec<String> = [90_000_000, 10_000_000, 20_000_000, 30_000_000]
            .iter()
            .enumerate()
            .filter_map(|(i, t)| stamps.check(pace, i as i128, *t, 2_000_000))
            .map(|disagreement| disagreement.detail)
            .collect();
        assert_eq!(
            details,
            [
                "index 1: its stamp is 10000000 ns, by the index and the stamp of index 0 it is 100000000 ns",
                "3 stamps in a row, from index 1 to 3, agree among themselves and disagree with the stamp of index 0, \
                 by -90000000 ns: it is left out of account from here on, and the index stays what it was",
            ]
        );
    }

    #[test]
    fn a_stamp_that_is_wrong_once_changes_nothing_and_a_jittering_device_is_told_each_time() {
        let mut stamps = Stamps::default();
        assert_eq!(told(&mut stamps, &[0, 0, 50_000_000, 0, 0]), [(2, 1)]);
        let mut stamps = Stamps::default();
        assert_eq!(told(&mut stamps, &[0, 70_000_000, -60_000_000, 50_000_000]), [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn against_a_t0_that_was_told_no_stamp_is_believed() {
        let mut stamps = Stamps::from_t0(0);
        let off = [90_000_000; 5];
        assert_eq!(told(&mut stamps, &off), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
    }
}
