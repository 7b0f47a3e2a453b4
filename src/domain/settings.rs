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

word!(
    /// What a stage's version begins with that takes over from another.
    SwitchState {
        /// The other's carried tensors and window.
        Keep = "keep",
        /// Its own initial state, an empty window.
        Reset = "reset",
        /// What it makes itself of the last bins.
        Warm = "warm",
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

/// What of a session is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWish {
    /// Names of outputs; empty: all.
    pub outputs: Vec<String>,
    /// Binned and event inputs.
    pub inputs: bool,
    /// Continuous inputs.
    pub broadband: bool,
}

/// A session as asked for, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Open {
    /// The pipeline's name.
    pub pipeline: super::ids::PipelineName,
    /// The rig's name, as it gave it.
    pub rig: String,
    /// Its streams, in the order in which they were announced.
    pub signals: Vec<super::signal::SignalSpec>,
    /// How channels find a model's.
    pub channels_by: ChannelsBy,
    /// Start of bin 0 on the session's clock, if told (ns).
    pub t0_ns: Option<i64>,
    /// Seed of whatever is drawn.
    pub seed: u64,
    /// What to record; `None`: nothing.
    pub record: Option<RecordWish>,
    /// What becomes of its data.
    pub policies: Policies,
    /// The lag that the session asks for (ns).
    pub deadline_ns: Option<u64>,
    /// When a reply leaves.
    pub ack: Ack,
    /// Whether the rig acts on the answers.
    pub feedback: Loop,
    /// Names of wanted outputs; empty: all.
    pub outputs: Vec<String>,
    /// Marks of trials.
    pub trials: Option<TrialMarks>,
    /// Static inputs by name.
    pub statics: std::collections::BTreeMap<String, super::tensor::Tensor>,
    /// Versions asked for, by stage.
    pub versions: std::collections::BTreeMap<String, u32>,
    /// Without a sign of life for so long, the session is closed (s).
    pub idle_timeout_s: f64,
    /// Free words to find the run by.
    pub tags: Vec<String>,
    /// Free text.
    pub notes: String,
    /// Only check; open nothing.
    pub dry_run: bool,
}
