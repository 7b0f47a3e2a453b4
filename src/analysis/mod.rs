//! Metrics over what was recorded.
//! Enters: arrays of numbers, already aligned. Leaves: scores that equal their reference implementation, or a reason.
//! Owns: nothing; pure. Must hold: sums run in f64; an undefined value is a reason, never a made-up number.
//! Must not know: runs, stores, sessions, files.

use std::fmt;

pub mod score; // R², Pearson's r, mean squared error

/// Why a value is undefined, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undefined {
    /// What is compared with does not vary.
    ZeroVariance,
    /// Fewer samples than the definition needs.
    TooFewSamples,
    /// A sample is NaN or infinite.
    NotFinite,
}

impl Undefined {
    /// The word for it on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Undefined::ZeroVariance => "zero_variance",
            Undefined::TooFewSamples => "too_few_samples",
            Undefined::NotFinite => "not_finite",
        }
    }
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A metric's value. Without a value there is always a reason; where the reference implementation answers a number for
/// an undefined case, that number and the reason stand together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The number, if there is one.
    pub value: Option<f64>,
    /// Why the definition does not reach, if it does not.
    pub reason: Option<Undefined>,
}

impl Metric {
    /// A defined value.
    pub const fn of(value: f64) -> Self {
        Self { value: Some(value), reason: None }
    }

    /// No value, for this reason.
    pub const fn undefined(reason: Undefined) -> Self {
        Self { value: None, reason: Some(reason) }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.reason) {
            (Some(value), None) => write!(f, "{value:.3}"),
            (Some(value), Some(reason)) => write!(f, "{value:.3} ({reason})"),
            (None, Some(reason)) => write!(f, "undefined ({reason})"),
            (None, None) => f.write_str("undefined"),
        }
    }
}

/// What an analysis refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// Two inputs that belong together differ in shape.
    #[error("{what}: expected shape {expected:?} as of the first input, found {found:?}")]
    Shapes {
        /// The second input.
        what: &'static str,
        /// Shape of the first.
        expected: Vec<usize>,
        /// Its own.
        found: Vec<usize>,
    },
    /// A sample is NaN or infinite where the definition takes none.
    #[error("{what}: expected finite numbers, found one that is not in row {row}, column {column}")]
    NotFinite {
        /// The input.
        what: &'static str,
        /// Where, time first.
        row: usize,
        /// Where, output.
        column: usize,
    },
    /// Too few samples for any answer.
    #[error("{what}: expected at least {expected} samples, found {found}")]
    TooFew {
        /// The input.
        what: &'static str,
        /// Smallest number that is taken.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}
