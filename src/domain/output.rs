//! What leaves for a bin: specs of outputs, flags, notices.

use std::ops::{BitOr, BitOrAssign};

use super::ids::{SignalName, StageName};
use super::signal::word;
use super::tensor::Dtype;

word!(
    /// What an output means.
    #[expect(missing_docs, reason = "each variant is its own name")]
    OutputRole {
        Latent = "latent",
        Decoded = "decoded",
        Rates = "rates",
        Features = "features",
        ClassProbs = "class_probs",
        StateProbs = "state_probs",
        Reconstruction = "reconstruction",
        Synchrony = "synchrony",
        Halt = "halt",
        Objective = "objective",
        Image = "image",
        Tap = "tap",
    }
);

/// One output of a pipeline as open announces it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Its place in the pipeline's list, from 0; blocks name it by this.
    pub number: u32,
    /// `output` where that is unique in the pipeline, else `stage.output`.
    pub name: String,
    /// The stage that gives it.
    pub stage: StageName,
    /// The output's name in the stage's manifest.
    pub output: String,
    /// What it means.
    pub role: OutputRole,
    /// Shape of one bin's value; empty for a scalar.
    pub dims: Vec<u32>,
    /// One label per value, or none.
    pub labels: Vec<String>,
    /// Physical unit, or empty.
    pub unit: String,
    /// Element type.
    pub dtype: Dtype,
    /// Whether it comes as features (index, value).
    pub sparse: bool,
    /// Group delay and lookahead (ms); an output speaks of its bin's end minus this.
    pub delay_ms: f64,
}

/// The place of the output that `name` means: its name, or `stage.output`.
pub fn find_output(outputs: &[OutputSpec], name: &str) -> Option<usize> {
    outputs
        .iter()
        .position(|output| output.name == name)
        .or_else(|| outputs.iter().position(|output| format!("{}.{}", output.stage, output.output) == name))
}

/// What is to be known about one bin; bit order as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

#[expect(missing_docs, reason = "each flag is its own name; meanings stand in docs/API.md")]
impl Flags {
    pub const GAP_FILLED: Flags = Flags(1 << 0);
    pub const LATE: Flags = Flags(1 << 1);
    pub const MASKED: Flags = Flags(1 << 2);
    pub const NAN_REPLACED: Flags = Flags(1 << 3);
    pub const SIGNAL_MISSING: Flags = Flags(1 << 4);
    pub const WARMING_UP: Flags = Flags(1 << 5);
    pub const OUTPUT_INVALID: Flags = Flags(1 << 6);
    pub const RESET: Flags = Flags(1 << 7);
    pub const SWITCHED: Flags = Flags(1 << 8);
    pub const STALE: Flags = Flags(1 << 9);
    pub const DEADLINE_MISSED: Flags = Flags(1 << 10);
    pub const INPUT_SHIFT: Flags = Flags(1 << 11);
    pub const INTERVENED: Flags = Flags(1 << 12);
    pub const FREE_RUN: Flags = Flags(1 << 13);
    pub const NOT_RECORDED: Flags = Flags(1 << 14);

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

word!(
    /// The kinds of events of a session.
    #[expect(missing_docs, reason = "each variant is its own name; meanings stand in docs/API.md")]
    EventKind {
        Gap = "gap",
        Skipped = "skipped",
        Late = "late",
        Overlap = "overlap",
        BeforeStart = "before_start",
        SignalMissing = "signal_missing",
        NanReplaced = "nan_replaced",
        OutputInvalid = "output_invalid",
        FlatChannel = "flat_channel",
        StatsFrozen = "stats_frozen",
        Reset = "reset",
        ClockStep = "clock_step",
        ClockEpoch = "clock_epoch",
        ClockDisagrees = "clock_disagrees",
        TrialBroken = "trial_broken",
        InputShift = "input_shift",
        Switched = "switched",
        WriterReplaced = "writer_replaced",
        Detached = "detached",
        Closed = "closed",
        NotRecorded = "not_recorded",
        RecordingStopped = "recording_stopped",
        StateLost = "state_lost",
        Settings = "settings",
        Intervention = "intervention",
        Rule = "rule",
    }
);

/// An event of a session as it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What happened.
    pub kind: EventKind,
    /// The signal it concerns, if one.
    pub signal: Option<SignalName>,
    /// First bin concerned.
    pub from_bin: Option<u64>,
    /// One past the last bin concerned.
    pub to_bin: Option<u64>,
    /// Bins where bins are concerned, else frames or samples as `detail` says.
    pub count: u64,
    /// A sentence for people.
    pub detail: String,
    /// When it happened, by the server's clock (Unix ns).
    pub t_ns: i64,
}

impl Notice {
    /// The same, with bins in any case: what concerns none lies before the next one to close.
    pub fn placed(mut self, next_bin: u64) -> Self {
        let from_bin = *self.from_bin.get_or_insert(next_bin);
        self.to_bin.get_or_insert(from_bin);
        self
    }
}
