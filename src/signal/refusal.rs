//! What is refused: a plan at open (`SignalError`), a frame while streaming (`Refusal`).

use crate::domain::ids::SignalName;
use crate::error::{Fault, Kind};

/// Why signals and inputs do not fit together, or a chain cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SignalError {
    /// A value of a manifest or of open: field, expected, found.
    #[error("{field}: expected {expected}, found {found}")]
    Mismatch {
        /// The input, op or signal field.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Channels that the model names and the signal has not, or has in another unit.
    #[error("input `{input}` and signal `{signal}`: {detail}")]
    Channels {
        /// The model's input.
        input: String,
        /// The signal that was to feed it.
        signal: SignalName,
        /// Counts, and the nearest names.
        detail: String,
    },
    /// Something that is known and not served yet.
    #[error("input `{input}`: {what} is not served by this version yet")]
    NotServed {
        /// The model's input.
        input: String,
        /// The op or signal type.
        what: String,
    },
}

impl SignalError {
    pub(crate) fn mismatch(
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Mismatch { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

impl From<SignalError> for Fault {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Mismatch { field, expected, found } => Fault::mismatch(field, expected, found),
            SignalError::Channels { .. } => Fault::new(Kind::Invalid, error.to_string()),
            SignalError::NotServed { .. } => Fault::new(Kind::Unsupported, error.to_string()),
        }
    }
}

/// A parameter of an op that cannot be: where, expected, found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: expected {expected}, found {found}", self.field())]
pub struct OpError {
    /// Place of the op in its chain.
    pub place: usize,
    /// The parameter; empty for the op as a whole.
    pub key: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl OpError {
    pub(super) fn new(key: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { place: 0, key, expected: expected.into(), found: found.into() }
    }

    /// The same, of the op at `place`.
    pub(super) fn at(self, place: usize) -> Self {
        Self { place, ..self }
    }

    /// The manifest's key, below the input's: `preprocess[1].order`.
    pub fn field(&self) -> String {
        let dot = if self.key.is_empty() { "" } else { "." };
        format!("preprocess[{}]{dot}{}", self.place, self.key)
    }

    /// The refusal of the input that the chain belongs to.
    pub fn of_input(self, input: &str) -> SignalError {
        SignalError::mismatch(format!("input `{input}`: {}", self.field()), self.expected, self.found)
    }
}

/// Why a frame is refused. All but `NotFinite` leave everything as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Policy `gap = fail`: samples are missing before this frame.
    #[error(
        "signal `{signal}`: {axis} is {found}, but {expected} comes next (gap = \"fail\"): send what is missing, or reset with scope \"all\""
    )]
    Gap {
        /// The signal.
        signal: SignalName,
        /// `first_index` or `t_start_ns`.
        axis: &'static str,
        /// The next index or instant.
        expected: i128,
        /// The frame's.
        found: i128,
    },
    /// Policy `late = fail`: data for a bin that is closed.
    #[error(
        "signal `{signal}`: {count} {what} for bins before {next_bin}, which are closed (late = \"fail\"): leave them out, or reset with scope \"all\""
    )]
    Late {
        /// The signal.
        signal: SignalName,
        /// Samples or events that are late.
        count: u64,
        /// `samples` or `events`.
        what: &'static str,
        /// The first bin that is still open.
        next_bin: u64,
    },
    /// Policy `nan = reject`: a value is not finite. The frame is consumed, its samples are a gap.
    #[error(
        "signal `{signal}`: channel `{channel}` is not finite as f32 in row {row}: {value:e} (nan = \"reject\")"
    )]
    NotFinite {
        /// The signal.
        signal: SignalName,
        /// The first such channel.
        channel: String,
        /// The first such row of the tensor.
        row: usize,
        /// What it is.
        value: f64,
    },
    /// The signal's clock has no known relation to the session's.
    #[error(
        "signal `{signal}`: clock `{clock}` has no known relation to the session's clock `{session_clock}`: send a probe of clock `{unprobed}`, or open with clock_by \"declared\" (and clock_offset_ns) or \"arrival\""
    )]
    ClockUnknown {
        /// The signal.
        signal: SignalName,
        /// Its clock.
        clock: String,
        /// The session's clock.
        session_clock: String,
        /// The clock of which a probe is missing.
        unprobed: String,
    },
    /// Something of the frame is not as its signal says.
    #[error("signal `{signal}`: {tensor}: expected {expected}, found {found}")]
    Shape {
        /// The signal.
        signal: SignalName,
        /// The field.
        tensor: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A reset was asked for before a bin that is closed.
    #[error("bin {bin} is closed; the next to close is {next_bin}")]
    PastBin {
        /// The bin asked for.
        bin: u64,
        /// The first bin that is still open.
        next_bin: u64,
    },
    /// More resets are asked for in advance than are kept.
    #[error("{0} resets wait for their bins already")]
    ManyResets(usize),
    /// The signal is too far ahead of the others that a bin waits for.
    #[error("signal `{signal}` is {bins} bins ahead of the others: send it again later")]
    Ahead {
        /// The signal.
        signal: SignalName,
        /// Bins that it has covered and that wait for another signal.
        bins: u64,
    },
}

impl Refusal {
    /// Whether the frame's `seq` is consumed all the same.
    pub fn consumed(&self) -> bool {
        matches!(self, Refusal::NotFinite { .. })
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let consumed = refusal.consumed();
        let mut fault = match refusal {
            Refusal::Gap { axis, expected, found, .. } => Fault {
                tensor: axis.into(),
                expected: expected.to_string(),
                found: found.to_string(),
                ..Fault::new(Kind::Gap, detail)
            },
            Refusal::Late { .. } => Fault::new(Kind::Late, detail),
            Refusal::NotFinite { channel, value, .. } => Fault {
                tensor: "tensor".into(),
                expected: "values that are finite as f32".into(),
                found: format!("{value:e} in channel `{channel}`"),
                ..Fault::new(Kind::Invalid, detail)
            },
            Refusal::ClockUnknown { .. } => Fault::new(Kind::ClockUnknown, detail),
            Refusal::Shape { tensor, expected, found, .. } => {
                Fault { tensor: tensor.into(), expected, found, ..Fault::new(Kind::Invalid, detail) }
            }
            Refusal::PastBin { .. } => Fault::new(Kind::Conflict, detail),
            Refusal::ManyResets(_) => Fault::new(Kind::Overloaded, detail),
            Refusal::Ahead { .. } => Fault::new(Kind::Overloaded, detail).retry_after(100.0),
        };
        fault.consumed = consumed;
        fault
    }
}
