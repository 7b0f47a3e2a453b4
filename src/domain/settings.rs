//! How a session wants to be treated: every default resolved.

use super::signal::word;

word!(
    /// What stands in for samples that were lost at the source.
    GapPolicy {
        /// The last preprocessed input.
        Hold = "hold",
        /// 0 after preprocessing.
        Zero = "zero",
        /// Not answered, counted, state kept.
        Skip = "skip",
        /// As skip, and the model's state starts anew.
        Reset = "reset",
        /// The frame is refused.
        Fail = "fail",
    }
);
word!(
    /// What becomes of data for a closed bin.
    LatePolicy {
        /// Counted and left out.
        Drop = "drop",
        /// Into the first open bin, where inputs are counts.
        Next = "next",
        /// The frame is refused.
        Fail = "fail",
    }
);
word!(
    /// What becomes of an input value that is not finite.
    NanPolicy {
        /// Those channels of those bins are masked.
        Mask = "mask",
        /// The channel's last good value.
        Hold = "hold",
        /// 0.
        Zero = "zero",
        /// The frame is refused, its `seq` consumed, its samples a gap.
        Reject = "reject",
    }
);
word!(
    /// When a reply leaves.
    Ack {
        /// At once.
        None = "none",
        /// When the journal holds what it answers.
        Durable = "durable",
    }
);
word!(
    /// Whether the rig acts on the answers.
    Loop {
        /// It only listens.
        Open = "open",
        /// Its next frame depends on the last answer.
        Closed = "closed",
    }
);
word!(
    /// How a signal's channels find a model's.
    ChannelsBy {
        /// By name; a permutation is undone.
        Name = "name",
        /// In the order given.
        Order = "order",
    }
);
word!(
    /// How bins lie on a sampled signal.
    BinsBy {
        /// Whole samples only; another width is refused.
        Whole = "whole",
        /// The nearest width in whole samples.
        Nearest = "nearest",
    }
);
word!(
    /// How far a reset reaches.
    ResetScope {
        /// Carried tensors and windows.
        Model = "model",
        /// Also filters, running statistics, calibration, and the record of what was lost.
        All = "all",
    }
);

/// The policies of a session that decide what becomes of its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Policies {
    /// Lost samples.
    pub gap: GapPolicy,
    /// A gap known to be longer is not filled (ns).
    pub max_gap_ns: u64,
    /// Data for closed bins.
    pub late: LatePolicy,
    /// How long after a bin's end its data may still come, on the data's own time (ns).
    pub lateness_ns: u64,
    /// How long a bin waits for a signal that is behind, by the server's clock (ns).
    pub wait_ns: u64,
    /// Values that are not finite.
    pub nan: NanPolicy,
    /// How far `t_device_ns` may disagree with the index before it is an event (ns).
    pub clock_tolerance_ns: u64,
    /// Width of bins on sampled signals.
    pub bins: BinsBy,
}

/// Marker texts that start and end a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialMarks {
    /// The markers signal.
    pub signal: super::ids::SignalName,
    /// Text that starts one.
    pub start: String,
    /// Text that ends one.
    pub end: String,
    /// Prefix of the markers whose rest is the condition.
    pub key: Option<String>,
}
