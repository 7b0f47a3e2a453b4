//! One message of a rig, its numbers as they came.

use bytes::Bytes;

use super::ids::SignalName;
use super::tensor::Tensor;

/// A frame: what it says of itself, and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The signal it belongs to.
    pub signal: SignalName,
    /// Its place in the signal's order, from 0.
    pub seq: u64,
    /// Device time of sample `first_index`'s start, if the rig knows (ns).
    pub t_device_ns: Option<i64>,
    /// Its data.
    pub body: FrameBody,
    /// New channel mask, true = good; `None`: as before.
    pub mask: Option<Vec<bool>>,
    /// The rig has all answers up to this `seq`.
    pub acked_seq: Option<u64>,
    /// The device's counter restarted with this frame.
    pub epoch: bool,
    /// Whatever `seq`s before this one are missing will never come.
    pub lost: bool,
    /// Whether an Output is wanted.
    pub reply: bool,
    /// Comes back in the answer and is recorded (at most 256 bytes).
    pub echo: Bytes,
    /// Ends a trial by hand.
    pub last_of_trial: bool,
}

/// The data of a frame by the signal's type.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameBody {
    /// `binned`, `continuous`, `frames`.
    Samples(Samples),
    /// `spike_events`.
    Spikes(Spikes),
    /// `address_events`.
    Addresses(Addresses),
    /// `markers`.
    Markers(Markers),
}

/// Rows of samples: `tensor` is `[count, channels…]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// The device's index of the first row: a sample's identity within its epoch.
    pub first_index: u64,
    /// Rows.
    pub count: u32,
    /// Raw values, before scale and offset. `count = 0`: `[0, channels…]`.
    pub tensor: Tensor,
}

/// Spikes of a stretch [`t_start_ns`, `t_start_ns + span_ns`), in any order.
#[derive(Clone, Debug, PartialEq)]
pub struct Spikes {
    /// Start of the covered stretch (device ns).
    pub t_start_ns: i64,
    /// Its length (ns).
    pub span_ns: i64,
    /// The signal's channel of each spike.
    pub unit: Vec<u32>,
    /// Its time (device ns).
    pub t_ns: Vec<i64>,
}

/// Address events of a stretch.
#[derive(Clone, Debug, PartialEq)]
pub struct Addresses {
    /// Start of the covered stretch (device ns).
    pub t_start_ns: i64,
    /// Its length (ns).
    pub span_ns: i64,
    /// Column.
    pub x: Vec<u32>,
    /// Row.
    pub y: Vec<u32>,
    /// Brighter (true) or darker.
    pub polarity: Vec<bool>,
    /// Time of each (device ns).
    pub t_ns: Vec<i64>,
}

/// Marker texts with their times; they may come late.
#[derive(Clone, Debug, PartialEq)]
pub struct Markers {
    /// Time of each (device ns).
    pub t_ns: Vec<i64>,
    /// Text of each.
    pub value: Vec<String>,
}

impl FrameBody {
    /// The word for the data in a sentence.
    pub fn word(&self) -> &'static str {
        match self {
            FrameBody::Samples(_) => "samples",
            FrameBody::Spikes(_) => "spike events",
            FrameBody::Addresses(_) => "address events",
            FrameBody::Markers(_) => "markers",
        }
    }
}
