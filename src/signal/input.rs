//! What a model's input asks for, as its manifest declares it.

use std::num::NonZeroU64;

use super::image::Image;
use super::op::Op;
use crate::domain::signal::{SignalSpec, SignalType, word};
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
    /// The image that each channel is; `None`: one value.
    pub image: Option<Image>,
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

impl InputSpec {
    /// Channels that a row of the signal has for this input. A signal of images that names none, or only the camera,
    /// has those of a model that names none.
    pub fn channels_in(&self, signal: &SignalSpec) -> usize {
        match (&self.channels, self.image, signal.channels.len()) {
            (InputChannels::Count(n), Some(_), 0 | 1) => *n,
            (_, _, n) => n,
        }
    }

    /// Values of one channel.
    pub fn pixels(&self) -> usize {
        self.image.map_or(1, Image::pixels)
    }
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
