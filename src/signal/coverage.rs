//! What of a signal has come: its watermark, and the holes below it. Positions are sample indices, or the device's
//! ns for events; they belong to one epoch.

use std::collections::VecDeque;
use std::ops::Range;

/// Closed holes that are remembered, so that what comes for them is late and not a repetition.
const REMEMBERED: usize = 64;

/// How long a hole is, against what may be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It is filled where the policy fills.
    Short,
    /// As short, but the end of a stall that was longer than `max_gap_ms`, whose other bins have closed without the
    /// signal: filled as these were, by the input's `fill`.
    Rest,
    /// Longer than `max_gap_ms`.
    Long,
    /// Not longer, but of more bins than are filled for one frame.
    Wide,
}

/// A stretch below the watermark that never came, or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its positions; empty for the gap before an epoch, which has no positions.
    pub at: Range<i128>,
    /// Session time from its start to its end (ns).
    pub ns: Range<i128>,
    /// Bins that it touches and that were open when it was found.
    pub bins: Range<u64>,
    /// How long it is, against what may be filled.
    pub length: Length,
    /// Its event was told.
    pub told: bool,
}

/// The covered part of one epoch.
#[derive(Clone, Debug)]
pub struct Coverage {
    floor: i128,
    mark: i128,
    open: VecDeque<Hole>,
    closed: VecDeque<Range<i128>>,
}

impl Coverage {
    /// Nothing came; `floor` is the first position that counts.
    pub fn new(floor: i128) -> Self {
        Self { floor, mark: floor, open: VecDeque::new(), closed: VecDeque::new() }
    }

    /// A new epoch from `floor` on. Holes of the old one whose bins are open stay, without positions.
    pub fn restart(&mut self, floor: i128) {
        (self.floor, self.mark) = (floor, floor);
        self.open.iter_mut().for_each(|hole| hole.at = floor..floor);
        self.closed.clear();
    }

    /// The first position that counts.
    pub fn floor(&self) -> i128 {
        self.floor
    }

    /// The end of what came: the next position.
    pub fn mark(&self) -> i128 {
        self.mark
    }

    /// The parts of `at` that did not come yet, in order; what lies below the floor is left out.
    pub fn fresh(&self, at: Range<i128>, parts: &mut Vec<Range<i128>>) {
        parts.clear();
        let at = at.start.max(self.floor)..at.end;
        let beyond = at.start.max(self.mark)..at.end;
        if at.start < self.mark {
            let holes = self.closed.iter().chain(self.open.iter().map(|hole| &hole.at));
            let cut = holes.map(|hole| hole.start.max(at.start)..hole.end.min(at.end));
            parts.extend(cut.filter(|part| !part.is_empty()));
        }
        if !beyond.is_empty() {
            parts.push(beyond);
        }
    }

    /// A hole that ends where what came next begins. The watermark goes to its end.
    pub fn miss(&mut self, hole: Hole) {
        self.mark = self.mark.max(hole.at.end);
        self.open.push_back(hole);
    }

    /// `part`, one of those that `fresh` gave, has come. `piece` makes the hole that is left of one: positions and,
    /// where it keeps them, the start and the end that it had.
    pub fn fill(
        &mut self,
        part: &Range<i128>,
        mut piece: impl FnMut(Range<i128>, Option<i128>, Option<i128>) -> Hole,
    ) {
        if part.end > self.mark {
            self.mark = part.end;
            return;
        }
        if let Some(i) = self.closed.iter().position(|hole| hole.start <= part.start && part.end <= hole.end)
        {
            let hole = self.closed[i].clone();
            self.closed[i] = part.end..hole.end;
            if hole.start < part.start {
                self.closed.insert(i, hole.start..part.start);
            }
            self.closed.retain(|hole| !hole.is_empty());
            return;
        }
        let inside =
            |hole: &Hole| hole.at.start <= part.start && part.end <= hole.at.end && !hole.at.is_empty();
        if let Some(i) = self.open.iter().position(inside) {
            let hole = self.open.remove(i).expect("`position` found it");
            if part.end < hole.at.end {
                self.open.insert(i, piece(part.end..hole.at.end, None, Some(hole.ns.end)));
            }
            if hole.at.start < part.start {
                let left = piece(hole.at.start..part.start, Some(hole.ns.start), None);
                self.open.insert(i, Hole { told: hole.told, ..left });
            }
        }
    }

    /// The first hole that touches bin `k`.
    pub fn hole_in(&mut self, k: u64) -> Option<&mut Hole> {
        self.open.iter_mut().take_while(|hole| hole.bins.start <= k).find(|hole| k < hole.bins.end)
    }

    /// The first open hole, if it touches a bin before `bin`.
    pub fn hole_before(&mut self, bin: u64) -> Option<&mut Hole> {
        self.open.front_mut().filter(|hole| hole.bins.start < bin)
    }

    /// Bins before `next_bin` are closed.
    pub fn close_before(&mut self, next_bin: u64) {
        while self.open.front().is_some_and(|hole| hole.bins.end <= next_bin) {
            let hole = self.open.pop_front().expect("there is a front");
            if self.closed.len() == REMEMBERED {
                self.closed.pop_front();
            }
            if !hole.at.is_empty() {
                self.closed.push_back(hole.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(at: Range<i128>) -> Hole {
        Hole { ns: at.clone(), bins: at.start as u64..at.end as u64, at, length: Length::Short, told: false }
    }

    fn fresh(coverage: &Coverage, at: Range<i128>) -> Vec<Range<i128>> {
        let mut parts = Vec::new();
        coverage.fresh(at, &mut parts);
        parts
    }

    #[test]
    fn what_came_is_not_fresh_and_a_hole_is_until_it_is_filled() {
        let mut coverage = Coverage::new(0);
        coverage.fill(&(0..3), |at, _, _| hole(at));
        coverage.miss(hole(3..8));
        coverage.fill(&(8..10), |at, _, _| hole(at));
        assert_eq!(fresh(&coverage, -5..12), [3..8, 10..12]);
        coverage.fill(&(5..6), |at, _, _| hole(at));
        assert_eq!(fresh(&coverage, 0..10), [3..5, 6..8]);
        coverage.close_before(5);
        assert_eq!(fresh(&coverage, 0..10), [3..5, 6..8], "a closed hole is remembered");
        coverage.fill(&(3..5), |at, _, _| hole(at));
        assert_eq!(fresh(&coverage, 0..10).first(), Some(&(6..8)));
        assert!(coverage.hole_in(6).is_some() && coverage.hole_in(5).is_none());
    }
}
