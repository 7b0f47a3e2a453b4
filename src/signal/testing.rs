//! Signals, inputs and frames for the tests of this room.

use std::num::NonZeroU64;

use super::input::{ChannelSpec, Fill, InputChannels, InputSpec};
use crate::domain::frame::{Frame, FrameBody, Markers, Samples, Spikes};
use crate::domain::settings::{BinsBy, GapPolicy, LatePolicy, NanPolicy, Policies};
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::tensor::{Dtype, Tensor};

/// Width of the tests' bins.
pub const WIDTH_NS: u64 = 20_000_000;

pub fn width() -> NonZeroU64 {
    NonZeroU64::new(WIDTH_NS).unwrap()
}

pub fn binned_signal(names: &[&str]) -> SignalSpec {
    SignalSpec {
        name: "spikes".into(),
        kind: SignalType::Binned,
        channels: names.iter().map(|name| Channel { name: (*name).into(), ..Channel::default() }).collect(),
        unit: String::new(),
        rate: None,
        bin_ms: Some(20.0),
        clock: "device".into(),
        clock_by: ClockBy::Exchange,
        clock_offset_ns: None,
        role: SignalRole::Input,
        scale: 1.0,
        offset: 0.0,
        source_delay_ms: 0.0,
        own_writer: false,
    }
}

pub fn event_signal(names: &[&str]) -> SignalSpec {
    SignalSpec { kind: SignalType::SpikeEvents, bin_ms: None, ..binned_signal(names) }
}

pub fn named_input(names: &[&str]) -> InputSpec {
    let channel = |name: &&str| ChannelSpec { name: (*name).into(), ..ChannelSpec::default() };
    InputSpec {
        name: "spikes".into(),
        kind: SignalType::Binned,
        bin_width_ns: width(),
        channels: InputChannels::Named(names.iter().map(channel).collect()),
        missing_ok: 0,
        fill: Fill::Zero,
        required: true,
        wants_mask: false,
        chain: Vec::new(),
        rate: None,
    }
}

pub fn policies() -> Policies {
    Policies {
        gap: GapPolicy::Hold,
        max_gap_ns: 200_000_000,
        late: LatePolicy::Drop,
        lateness_ns: 0,
        wait_ns: 40_000_000,
        nan: NanPolicy::Mask,
        clock_tolerance_ns: 2_000_000,
        bins: BinsBy::Whole,
    }
}

pub fn frame(body: FrameBody) -> Frame {
    Frame {
        signal: "spikes".into(),
        seq: 0,
        t_device_ns: None,
        body,
        mask: None,
        acked_seq: None,
        epoch: false,
        lost: false,
        reply: true,
        echo: Default::default(),
        last_of_trial: false,
    }
}

/// Rows of f32 from `first_index` on, `[count, channels]`.
pub fn rows(first_index: u64, channels: usize, values: &[f32]) -> Frame {
    let count = values.len() / channels;
    let tensor = Tensor::from_f32(&[count, channels], values);
    frame(FrameBody::Samples(Samples { first_index, count: count as u32, tensor }))
}

/// One row of u8, whatever the dtype's width.
pub fn bytes(first_index: u64, values: &[u8]) -> Frame {
    let tensor = Tensor::from_bytes(Dtype::U8, &[1, values.len()], values).unwrap();
    frame(FrameBody::Samples(Samples { first_index, count: 1, tensor }))
}

/// Events `(unit, t_ns)` in the stretch [`from`, `to`).
pub fn spikes(from: i64, to: i64, events: &[(u32, i64)]) -> Frame {
    frame(FrameBody::Spikes(Spikes {
        t_start_ns: from,
        span_ns: to - from,
        unit: events.iter().map(|e| e.0).collect(),
        t_ns: events.iter().map(|e| e.1).collect(),
    }))
}

pub fn marks(values: &[(&str, i64)]) -> Frame {
    let markers = Markers {
        t_ns: values.iter().map(|m| m.1).collect(),
        value: values.iter().map(|m| m.0.into()).collect(),
    };
    frame(FrameBody::Markers(markers))
}
