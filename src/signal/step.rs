//! What leaves this room: closed bins, skipped ones, notices.

use crate::domain::output::{Flags, Notice};
use crate::domain::settings::ResetScope;

/// One thing that happened, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A bin closed: it is to be answered.
    Bin(Bin),
    /// Bins [`from`, `to`) are not answered: a gap that is not filled.
    Skipped {
        /// The first.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// An event. One per cause; the recorder merges those of one kind.
    Notice(Notice),
}

/// A closed bin.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin {
    /// Its number.
    pub k: u64,
    /// What is to be known about it.
    pub flags: Flags,
    /// The model's state starts anew before this bin.
    pub reset: Option<ResetScope>,
    /// A signal's new epoch begins with this bin: windows must not reach back over it.
    pub epoch: bool,
    /// One row per input, in the order of the plan's inputs.
    pub inputs: Vec<InputRow>,
    /// It was closed by `wait`, before every signal had covered it.
    pub early: bool,
}

/// What one input has for one bin.
#[derive(Clone, Debug, PartialEq)]
pub struct InputRow {
    /// After preprocessing and filling, always finite, `[width]`. Empty if the input is absent.
    pub values: Vec<f32>,
    /// True: the value was measured. As long as `values`.
    pub mask: Vec<bool>,
    /// False: an input that is not required has nothing for this bin.
    pub present: bool,
    /// Milliseconds of the bin in which many of the signal's channels fired at once; `None`: that is not counted.
    pub cofiring: Option<u32>,
}

/// Totals since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Gaps, whatever their length.
    pub gaps: u64,
    /// Samples and events that came for a closed bin, or came again.
    pub late: u64,
    /// Those of them that were not used.
    pub dropped: u64,
    /// Closed bins that data came for, or came again; each once.
    pub late_bins: u64,
    /// Those of them of whose data some were not used.
    pub late_bins_dropped: u64,
    /// Samples and events before t0.
    pub before_start: u64,
    /// Bins that were skipped.
    pub skipped_bins: u64,
}
