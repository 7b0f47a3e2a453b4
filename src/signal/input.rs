//! What a model's input asks for, as its manifest declares it.

use std::num::NonZeroU64;

use super::op::Op;
use crate::domain::signal::{SignalType, word};
use crate::domain::time::Rate;

word!(
    /// What stands for a value that is masked, missing or stalled; after preprocessing.
    Fill {
        /// 0.
        Zero = "zero",
        /// The channel's mean over its good bins so far; 0 before the first.
        Mean = "mean",
        /// The channel's last good value; 0 before the first.
        Hold = "hold",
    }
);

/// One streamed input of a model, fed by one signal.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// The kind of signal it takes.
    pub kind: SignalType,
    /// Width of its bins (ns).
    pub bin_width_ns: NonZeroU64,
    /// Its channels.
    pub channels: InputChannels,
    /// So many named channels may be absent.
    pub missing_ok: usize,
    /// What stands for missing values.
    pub fill: Fill,
    /// Whether a bin needs it.
    pub required: bool,
    /// Whether the model is given the mask.
    pub wants_mask: bool,
    /// Preprocessing, as declared.
    pub chain: Vec<Op>,
    /// Rate that a `continuous` input was trained on.
    pub rate: Option<Rate>,
}

/// Which channels an input takes.
#[derive(Clone, Debug, PartialEq)]
pub enum InputChannels {
    /// All that the signal has, in its order.
    Any,
    /// So many, without names.
    Count(usize),
    /// These, by name.
    Named(Vec<ChannelSpec>),
}

/// One row of `channels.csv`. Empty texts are "not told".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Its name.
    pub name: String,
    /// Physical unit that the model was trained in.
    pub unit: String,
    /// Electrode.
    pub electrode: String,
    /// `threshold`, `sorted` or `any`.
    pub source: String,
    /// Array, shank or probe.
    pub group: String,
}
