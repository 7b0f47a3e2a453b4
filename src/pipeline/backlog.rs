//! What a version that is warmed was shown and has not done yet.
//! Enters: bins, breaks, resets, in their order. Leaves: the same. Must hold: it is bounded; past that, or once the
//! version has failed, it holds nothing and takes nothing. Must not know: rows, lanes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::tensor::Tensor;
use crate::signal::step::InputRow;

/// How far the version may fall behind: bins, and bytes that they hold.
const BINS: usize = 256;
const BYTES: usize = 64 << 20;
/// Its rows are due so much later than the bins that they belong to, at the most: behind every row that somebody waits
/// for, and yet in their turn where there are always some of those.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// What is to be done.
pub(super) enum Task {
    Bin(Shown),
    /// What comes next is not joined to what came before.
    Break,
    /// State and window from the beginning.
    Reset,
}

/// What a bin brought to the stage, and how it went there.
pub(super) struct Shown {
    pub(super) k: u64,
    pub(super) inputs: Arc<[InputRow]>,
    /// What earlier stages gave, in the order of the ports that they feed; `None`: one of them gave nothing.
    pub(super) fed: Option<Vec<Tensor>>,
    /// The first stage that failed in it.
    pub(super) failed: Option<usize>,
    /// When the bin was due.
    pub(super) due: Instant,
    /// How much later the bin is due that the version takes over, if bins come in real time.
    pub(super) spare: Duration,
}

impl Shown {
    /// When its row is due: it gives way by a second, but not past the bin that the version takes over, which waits for it;
    /// and not at all once that bin does wait.
    pub(super) fn row_due(&self, is_awaited: bool) -> Instant {
        if is_awaited { self.due } else { self.due + self.spare.min(GIVES_WAY) }
    }

    fn bytes(&self) -> usize {
        let inputs = self.inputs.iter().map(|row| row.values.len() * size_of::<f32>() + row.mask.len());
        let fed = self.fed.iter().flatten().map(|tensor| tensor.data.bytes().len());
        inputs.sum::<usize>() + fed.sum::<usize>()
    }
}

/// Tasks in their order.
#[derive(Default)]
pub(super) struct Backlog {
    tasks: VecDeque<Task>,
    /// How many of `tasks` are bins, and what those hold.
    bins: usize,
    bytes: usize,
    fault: Option<String>,
}

impl Backlog {
    /// Takes what `task` makes; after a fault nothing is made. A bin too many is a fault.
    pub(super) fn put(&mut self, task: impl FnOnce() -> Task) {
        if self.fault.is_some() {
            return;
        }
        match task() {
            Task::Bin(shown) => {
                let bytes = shown.bytes();
                if self.bins >= BINS || self.bytes + bytes > BYTES {
                    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
                    return self.fail(format!(
                        "by bin {} it was {} bins behind ({:.1} MiB with that one; at most {BINS} bins and {} MiB may \
                         wait): it does not keep up",
                        shown.k,
                        self.bins,
                        mib(self.bytes + bytes),
                        mib(BYTES)
                    ));
                }
                (self.bins, self.bytes) = (self.bins + 1, self.bytes + bytes);
                self.tasks.push_back(Task::Bin(shown));
            }
            // Between two bins one of these is enough, so that they are bounded by the bins: a reset is also a break.
            Task::Break if matches!(self.tasks.back(), Some(Task::Break | Task::Reset)) => {}
            Task::Break => self.tasks.push_back(Task::Break),
            Task::Reset => {
                self.tasks.pop_back_if(|last| !matches!(last, Task::Bin(_)));
                self.tasks.push_back(Task::Reset);
            }
        }
    }

    /// What is to be done next.
    pub(super) fn take(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        if let Task::Bin(shown) = &task {
            (self.bins, self.bytes) = (self.bins - 1, self.bytes - shown.bytes());
        }
        Some(task)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Nothing of it will be done.
    pub(super) fn clear(&mut self) {
        self.tasks.clear();
        (self.bins, self.bytes) = (0, 0);
    }

    /// The version has failed; the first reason stays.
    pub(super) fn fail(&mut self, reason: String) {
        self.clear();
        self.fault.get_or_insert(reason);
    }

    /// Why the version has failed.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bin of so many values, four bytes each.
    fn bin(k: u64, values: usize) -> Shown {
        let row = InputRow { values: vec![0.0; values], mask: Vec::new(), present: true, cofiring: None };
        let (inputs, due) = (Arc::from([row]), Instant::now());
        Shown { k, inputs, fed: Some(Vec::new()), failed: None, due, spare: Duration::ZERO }
    }

    #[test]
    fn only_bins_count_as_bins_that_it_is_behind() {
        let mut backlog = Backlog::default();
        for k in 0..BINS as u64 {
            backlog.put(|| Task::Break);
            backlog.put(|| Task::Reset);
            backlog.put(|| Task::Bin(bin(k, 1)));
        }
        assert_eq!(backlog.fault(), None);
        backlog.put(|| Task::Reset);
        backlog.put(|| Task::Bin(bin(256, 1)));
        let said = "by bin 256 it was 256 bins behind (0.0 MiB with that one; at most 256 bins and 64 MiB may wait): it \
                    does not keep up";
        assert_eq!(backlog.fault(), Some(said));
    }

    #[test]
    fn between_two_bins_there_is_one_break_or_one_reset() {
        let mut backlog = Backlog::default();
        for _ in 0..3 {
            backlog.put(|| Task::Break);
        }
        backlog.put(|| Task::Bin(bin(0, 1)));
        for _ in 0..3 {
            backlog.put(|| Task::Break);
            backlog.put(|| Task::Reset);
        }
        backlog.put(|| Task::Bin(bin(1, 1)));
        let order: Vec<_> = std::iter::from_fn(|| backlog.take())
            .map(|task| match task {
                Task::Bin(shown) => format!("bin {}", shown.k),
                Task::Break => "break".into(),
                Task::Reset => "reset".into(),
            })
            .collect();
        assert_eq!(order, ["break", "bin 0", "reset", "bin 1"]);
    }

    #[test]
    fn what_was_done_or_will_not_be_done_holds_no_bytes() {
        let mut backlog = Backlog::default();
        let quarter = BYTES / size_of::<f32>() / 4;
        for k in 0..4 {
            backlog.put(|| Task::Bin(bin(k, quarter)));
        }
        assert_eq!((backlog.bins, backlog.bytes, backlog.fault()), (4, BYTES, None));
        assert!(backlog.take().is_some());
        assert_eq!((backlog.bins, backlog.bytes), (3, BYTES / 4 * 3));
        backlog.put(|| Task::Bin(bin(4, quarter)));
        assert_eq!(backlog.fault(), None, "there was room again");
        backlog.clear();
        assert_eq!((backlog.bins, backlog.bytes), (0, 0));
        backlog.put(|| Task::Bin(bin(5, 4 * quarter)));
        backlog.put(|| Task::Bin(bin(6, 1)));
        let fault = backlog.fault().expect("one value too many");
        assert!(fault.starts_with("by bin 6 it was 1 bins behind (64.0 MiB with that one"), "{fault}");
        assert_eq!((backlog.bins, backlog.bytes), (0, 0));
    }

    #[test]
    fn after_a_fault_nothing_is_made_for_it_and_the_first_reason_stays() {
        let mut backlog = Backlog::default();
        backlog.put(|| Task::Bin(bin(0, 1)));
        backlog.fail("in bin 0: a fault".into());
        assert!(backlog.is_empty());
        backlog.put(|| unreachable!("tensors would be copied for nothing"));
        backlog.fail("another".into());
        assert_eq!((backlog.is_empty(), backlog.fault()), (true, Some("in bin 0: a fault")));
    }

    #[test]
    fn a_row_gives_way_by_a_second_and_never_past_the_bin_that_waits_for_it() {
        let (first, width) = (Instant::now(), Duration::from_millis(20));
        let due_of = |k: u32| first + width * k;
        // The version takes over before bin 100.
        for (k, until) in [(0, 50), (49, 99), (50, 100), (51, 100), (98, 100), (99, 100)] {
            let shown = Shown { due: due_of(k), spare: width * (100 - k), ..bin(k.into(), 1) };
            assert_eq!(shown.row_due(false), due_of(until), "bin {k}");
            assert_eq!(shown.row_due(true), due_of(k), "bin {k}, once bin 100 waits");
        }
    }
}
