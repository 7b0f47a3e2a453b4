//! What a session writes, one record at a time, in its own order.

use bytes::Bytes;

use super::run::{Close, RunHead};
use crate::domain::output::Notice;
use crate::domain::tensor::Dtype;
use crate::signal::act::Act;

/// One thing that must not be lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Answered bins `first_bin .. first_bin + n`, without a hole.
    Bins {
        /// The first of them.
        first_bin: u64,
        /// How many; at least 1.
        n: u32,
        /// One per bin.
        flags: Vec<u32>,
        /// The recorded outputs, each for all `n` bins.
        outputs: Vec<OutputColumn>,
    },
    /// A frame of a rig: inputs, targets, markers. Its `seq` is durable when it and every bin before `bins_until` are.
    Frame {
        /// Index in the head's `signals`.
        signal: usize,
        /// Its number in that signal.
        seq: u64,
        /// When it came (Unix ns): what places the frame of a restarted counter, or of a signal placed by arrival.
        arrived_ns: i64,
        /// The encoded frame as replay will read it; empty: only the `seq` counts, nothing is kept.
        bytes: Bytes,
        /// One past the last bin that it closed (or that was closed before it).
        bins_until: u64,
    },
    /// What else replay must do at this place of the order: a clock's relation, an early closing, a reset, a switch.
    Act(Act),
    /// Something happened.
    Event(Notice),
    /// Bins that are not answered: a gap too long to fill.
    Skipped {
        /// The first of them.
        from_bin: u64,
        /// One past the last.
        to_bin: u64,
    },
    /// A labelled interval.
    Annotation(Annotation),
    /// From this bin on other versions run; `body` is the caller's JSON: what is pinned from there on.
    Segment(Since),
    /// From this bin on other settings hold; `body` is the caller's JSON.
    Setting(Since),
    /// Start of bin 0, where open did not give it.
    T0 {
        /// On the session's clock.
        t0_ns: i64,
    },
    /// The run begins. Put by the recorder.
    Head(Box<RunHead>),
    /// The run ends. Put by the recorder.
    Close(Close),
    /// Recording ended before the session did. Put by the recorder.
    Stopped,
}

/// One output of some bins: `bytes` is `[n, dims…]`, row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    /// Its number in the run's outputs.
    pub number: u32,
    /// Element type.
    pub dtype: Dtype,
    /// `n` rows of equal length.
    pub bytes: Bytes,
}

/// A labelled interval of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The label.
    pub label: String,
    /// First bin.
    pub from_bin: u64,
    /// One past the last bin.
    pub to_bin: u64,
    /// Values as the caller's JSON, or empty.
    pub body: String,
}

/// Something that holds from a bin on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Since {
    /// The first bin it holds for.
    pub from_bin: u64,
    /// The caller's JSON.
    pub body: String,
}

impl Record {
    /// Room that the record takes in the queue: its data and a flat price for the rest.
    pub fn size_bytes(&self) -> usize {
        const FLAT: usize = 64;
        FLAT + match self {
            Record::Bins { flags, outputs, .. } => {
                4 * flags.len() + outputs.iter().map(|column| 32 + column.bytes.len()).sum::<usize>()
            }
            Record::Frame { bytes, .. } => bytes.len(),
            Record::Act(Act::Relate { clock, .. }) => 64 + clock.len(),
            Record::Act(Act::Switch(switch)) => 64 + switch.stage.as_str().len(),
            Record::Event(notice) => notice.detail.len(),
            Record::Annotation(annotation) => annotation.label.len() + annotation.body.len(),
            Record::Segment(since) | Record::Setting(since) => since.body.len(),
            Record::Head(head) => head.resolved.len(),
            Record::Close(close) => close.summary.len(),
            Record::Act(_) | Record::Skipped { .. } | Record::T0 { .. } | Record::Stopped => 0,
        }
    }
}
